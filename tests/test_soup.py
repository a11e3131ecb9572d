"""Instant Soup: what clones drop, what their union keeps, when the rounds stop."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from toys import HERE, same, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import InstantSoup
from lth_zoo.finders.amounts import iterations_in
from lth_zoo.formats import load_masks, load_snapshot
from lth_zoo.jobs import graph, iterations_of
from lth_zoo.masks import Masks
from lth_zoo.searches.soup import kept_of, largest, near, union
from lth_zoo.session import MASKS, RESULT, STATE
from lth_zoo.store import Store


def mask(*bits):
    return Masks({"w": torch.tensor(bits, dtype=torch.bool)})


def test_what_any_clone_keeps_is_kept():
    clones = [mask(1, 1, 0, 0), mask(1, 0, 1, 0), mask(1, 1, 0, 0)]
    assert union(clones) == mask(1, 1, 1, 0)
    assert union(clones[:1]) == clones[0]


def test_a_clone_drops_a_share_of_the_survivors_but_never_passes_the_target():
    within = Masks({"w": torch.arange(100) < 80})
    assert kept_of(within, Fraction(1, 2), Fraction(1, 10)) == 72
    assert kept_of(within, Fraction(3, 4), Fraction(1, 10)) == 75
    state = {"w": torch.arange(100.0) - 60}  # the largest survivors are the first ones
    kept = largest(state, within, 10)
    assert kept["w"].nonzero().reshape(-1).tolist() == list(range(10))
    assert (kept & within) == kept


def test_near_is_within_the_slack_above_the_target():
    masks, target = Masks({"w": torch.arange(100) < 55}), Fraction(1, 2)
    assert near(masks, target, Fraction(1, 20))
    assert not near(masks, target, Fraction(1, 25))
    assert near(masks, Fraction(3, 5), Fraction(0))


def test_the_most_rounds_are_half_as_many_again_as_agreeing_clones_need():
    # 0.9^10 = 0.349 is the first at or below 0.35.
    assert InstantSoup().most_rounds(Fraction(3, 10)) == 15
    assert InstantSoup().most_rounds(Fraction(99, 100)) == 1
    assert InstantSoup(rounds=4).most_rounds(Fraction(1, 10)) == 4
    assert InstantSoup(slack=0.0, rate=0.5).most_rounds(Fraction(1, 4)) == 3


def test_lengths_are_iterations_or_shares():
    assert [iterations_in(t, 600, "main") for t in ("7", "5%", "1/6", "0.01%", "100%")] == [
        *(7, 30, 100, 1, 600)
    ]
    for wrong in ("0", "601", "2.5", "150%", "-1", "half", "1/0", "", "%"):
        with pytest.raises(BadInput, match=r"finder.main is '.*'; it must be iterations"):
            iterations_in(wrong, 600, "main")


FINDER = InstantSoup(main="3", clone="1", clones=3, rate=0.2)
TRAINING = {"iterations": 8, "schedule": "linear"}


def ran(folder, finder=FINDER, **fields):
    fields = {"sparsity": 0.5, "training": TRAINING} | fields
    laid, store = experiment(tiny_recipe(finder=finder, **fields)), Store(folder)
    assert run(laid.goals, store, HERE).failed == {}
    (ticket,) = [arm.level for arm in laid.arms if arm.level.masks]
    return store, ticket, [j for j in graph([ticket.masks]) if j.kind == "soup"]


@pytest.fixture(scope="module")
def soup(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("soup"))


def masks_of(store, job):
    return load_masks(store.entry(job).read(MASKS))


def test_rounds_nest_and_stop_near_the_target(soup):
    store, ticket, rounds = soup
    assert len(rounds) == FINDER.most_rounds(Fraction(1, 2)) == 5
    results = [store.entry(job).json(RESULT) for job in rounds]
    masks = [masks_of(store, job) for job in rounds]
    size, before = 2320, None
    for index, (found, now) in enumerate(zip(results, masks, strict=True)):
        assert found["kept"] == now.kept
        if before is not None:
            assert (now & before) == now
            assert found["stopped"] == (before.kept <= 0.55 * size)
        if not found["stopped"]:
            survivors = before.kept if before else size
            least = max(round(survivors * 0.8), size // 2)
            assert least <= now.kept < survivors, "a union is no smaller than one of its parts"
            assert found["iterations"] == iterations_of(rounds[index]) == 3 + 3 * 1
            assert 0 < found["clone_distance"] < 0.2
        else:
            assert now == before
            assert found["iterations"] == 0
        before = now
    assert [r["stopped"] for r in results][-1]
    assert not results[0]["stopped"]
    last = masks_of(store, ticket.masks)
    assert last.kept == size // 2
    assert (last & before) == last


def test_the_main_network_goes_on_where_it_was(soup):
    store, _, rounds = soup
    states = [load_snapshot(store.entry(job).read(STATE)) for job in rounds]
    results = [store.entry(job).json(RESULT) for job in rounds]
    working = [s for s, r in zip(states, results, strict=True) if not r["stopped"]]
    assert [s.iteration for s in working] == [3 * (i + 1) for i in range(len(working))]
    assert working[0].optimizer
    masks = masks_of(store, rounds[0])
    for name, kept in masks.items():  # it was trained under the masks of the round before
        assert not working[1].state[name][~kept].any()
        assert working[0].state[name][~kept].any()
    assert same(states[-1].state, working[-1].state), "a stopped round passes its input on"


def test_the_ticket_restarts_from_the_start_and_trains_whole(soup):
    _, ticket, _ = soup
    assert ticket.start.kind == "init"
    assert (ticket.train.config["begin"], ticket.train.config["end"]) == (0, 8)
    assert ticket.train.config["training"]["schedule"] == "linear"


def test_a_search_is_a_function_of_its_seed(soup, tmp_path):
    store, ticket, rounds = soup
    again, twin, jobs = ran(tmp_path / "a")
    assert [j.key for j in jobs] == [j.key for j in rounds]
    assert masks_of(again, twin.masks) == masks_of(store, ticket.masks)
    other, foreign, _ = ran(tmp_path / "b", seeds=(1,))
    assert masks_of(other, foreign.masks) != masks_of(store, ticket.masks)


def test_one_clone_is_one_mask(tmp_path):
    store, _, rounds = ran(tmp_path, InstantSoup(main="1", clone="1", clones=1, rate=0.3))
    assert store.entry(rounds[0]).json(RESULT)["kept"] == 1624  # 0.7 of 2,320


def test_bad_input():
    for values, message in (
        ({"rate": 1.0}, "finder.rate is 1.0; it must be between 0 and 1"),
        ({"slack": -0.1}, "finder.slack is -0.1"),
        ({"clones": 0}, "finder.clones is 0"),
        ({"rounds": 0}, "finder.rounds is 0"),
    ):
        with pytest.raises(BadInput, match=message):
            InstantSoup(**values)
    for finder in (InstantSoup(main="9"), InstantSoup(clone="x")):
        with pytest.raises(BadInput, match="above 0 and at most 8 iterations"):
            experiment(tiny_recipe(finder=finder, training=TRAINING))
    with pytest.raises(BadInput, match="'inverted' changes scores, and this finder has none"):
        experiment(tiny_recipe(finder=FINDER, controls=("inverted",), training=TRAINING))
