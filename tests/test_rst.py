"""Dual tickets: a drawn mask, and a penalty that moves the rest into it."""

from __future__ import annotations

import json

import pytest
import torch
from interrupted import check_ends_alike
from torch.nn import functional as F
from toys import HERE, Blobs, mlp, same, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import RST
from lth_zoo.formats import load_masks
from lth_zoo.masks import Masks
from lth_zoo.recipe import Training
from lth_zoo.searches.inform import Growing, in_shares
from lth_zoo.seeds import generator
from lth_zoo.session import LOG, MASKS, RESULT, read_state
from lth_zoo.store import Store
from lth_zoo.train import Loop


def done(folder, finder, **values):
    """Run a recipe; return the store, the level and the job that informs."""
    store, laid = Store(folder), experiment(tiny_recipe(finder=finder, **values))
    assert run(laid.goals, store, HERE).failed == {}
    (search,) = (job for job in laid.jobs if job.kind == "inform")
    return store, laid.tickets()[0].level, search


def config_of(**values):
    base = {"seed": 0, "cycles": 1, "grow": 50_000, "growth": 1.0, "strength": 1.0, "end": 90_000}
    return base | values


def test_the_published_schedule_of_the_strength():
    growing = Growing(config_of(), Masks({}))
    strengths = [growing.strengths(t)[0] for t in (0, 4, 5, 9, 10, 49_999, 50_000, 89_999)]
    assert strengths == pytest.approx([0, 0, 1e-4, 1e-4, 2e-4, 0.9999, 1, 1])
    # Five cycles of 10,000 and 8,000: a step every iteration, the first victims stay held.
    iterative = Growing(config_of(cycles=5), Masks({}))
    assert iterative.strengths(1)[:2] == pytest.approx([1e-4, 0])
    assert iterative.strengths(20_000) == pytest.approx([1, 0.2, 0, 0, 0])
    for power, half in ((2.0, 0.25), (3.0, 0.125)):
        assert Growing(config_of(growth=power), Masks({})).strengths(25_000) == [half]


def test_the_gradient_is_that_of_the_loss_and_the_penalty():
    """SGD at 0.5: w - 0.5 (g + 3 w) where a weight is to go, w - 0.5 g elsewhere."""
    task, model = Blobs(), mlp()
    names = [n for n, _ in model.named_parameters() if n.endswith("weight")]
    masks = Masks({n: model.get_parameter(n) > 0 for n in names})
    hook = Growing(config_of(grow=1, end=2, strength=3.0), masks)
    training = Training(iterations=2, batch_size=40, optimizer="sgd", learning_rate=0.5)
    loop = Loop(model, task, training, seed=0, hooks=[hook], begin=1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    inputs, labels = task.batch("train", torch.arange(40))
    F.cross_entropy(model(inputs), labels).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    loop.run()
    for name, w in before.items():
        pull = 3 * w * ~masks[name] if name in names else 0
        expected = w - 0.5 * (gradients[name] + pull)
        assert torch.allclose(model.get_parameter(name), expected, atol=1e-6), name


def test_cycles_take_equal_disjoint_shares_of_what_goes():
    going = torch.rand(7, 9, generator=generator(1, "prune")) < 0.6
    shares = in_shares(going, 5, generator(0, "prune"))
    assert torch.stack(shares).sum(0).equal(going.long())
    sizes = [int(s.sum()) for s in shares]
    assert max(sizes) - min(sizes) <= 1
    assert not same(shares, in_shares(going, 5, generator(1, "prune")))


def test_a_short_search_pulls_as_far_as_the_published_one():
    def strength(**settings):
        recipe = tiny_recipe(finder=RST(**settings), training={"iterations": 1000})
        (search,) = (job for job in experiment(recipe).jobs if job.kind == "inform")
        assert search.config["end"] == 1150
        return search.config["strength"]

    assert strength() == pytest.approx(50_000 / 640)
    assert strength(learning_rate=0.1) == pytest.approx(50 / 64)
    assert strength(strength=2.0) == 2
    whole = RST(grow="50000", stabilise="40000")
    recipe = tiny_recipe(finder=whole, training={"iterations": 78_200})
    (search,) = (job for job in experiment(recipe).jobs if job.kind == "inform")
    assert search.config["strength"] == pytest.approx(1)
    assert (search.config["end"], search.config["training"]["batch_size"]) == (90_000, 64)


def test_what_is_to_go_fades_and_survivors_keep_what_they_were_taught(tmp_path):
    store, level, search = done(
        tmp_path, RST(learning_rate=0.1), training={"iterations": 60, "evaluate_every": 20}
    )
    masks = load_masks(store.entry(search).read(MASKS))
    assert masks == load_masks(store.entry(level.masks).read(MASKS))
    assert {n: k for n, (k, _) in masks.counts.items()} == {
        "fc1.weight": 192,
        "fc2.weight": 30,
        "fc3.weight": 10,
    }
    assert store.entry(search).json(RESULT)["drawn"] == "random"
    rows = [json.loads(row) for row in store.entry(search).read(LOG).splitlines()]
    left = [row["leaving_weights"] for row in rows]
    assert left[-1] < 1e-3 < left[0]  # what the loss's gradient still holds them up by
    state = read_state(store.entry(search)).state
    kept, gone = (
        torch.cat([state[n][m ^ flip].abs() for n, m in masks.items()]) for flip in (False, True)
    )
    assert kept.mean() > 50 * gone.mean()
    assert level.start == search
    assert (level.train.config["begin"], level.train.config["end"]) == (0, 60)


def test_smallest_is_the_mask_of_the_largest_initial_weights(tmp_path):
    store, level, search = done(tmp_path, RST(pick="smallest"))
    assert store.entry(search).json(RESULT)["drawn"] == "smallest"
    state = read_state(store.entry(search.inputs["start"])).state
    masks = load_masks(store.entry(level.masks).read(MASKS))
    for name, mask in masks.items():
        assert state[name][mask].abs().min() > state[name][~mask].abs().max()


def test_interrupted_anywhere_it_ends_the_same(tmp_path, monkeypatch):
    finder = RST(cycles=3, schedule="square")
    whole, _, search = done(tmp_path / "whole", finder)
    check_ends_alike(search, whole, Store(tmp_path / "store"), {1, 5, 11}, monkeypatch)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cycles": 0}, "finder.cycles is 0; it must be at least 1"),
        ({"cycles": 2, "pick": "smallest"}, "which is for finder.pick random"),
        ({"learning_rate": 0.0}, "it must be above 0"),
        ({"strength": -1.0}, "it must be above 0"),
        ({"batch_size": 0}, "it must be at least 1"),
        ({"grow": "200%"}, "finder.grow is '200%'"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(BadInput, match=message):
        experiment(tiny_recipe(finder=RST(**values)))
