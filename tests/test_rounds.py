"""Scoring in rounds: schedules by hand, what may return, and going on after a stop."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from toys import HERE, tiny_recipe

from lth_zoo.chain import Chain
from lth_zoo.engines.local import run
from lth_zoo.experiment import experiment
from lth_zoo.finders import FORCE, SynFlow
from lth_zoo.formats import load_masks
from lth_zoo.searches import rounds
from lth_zoo.searches.rounds import schedule
from lth_zoo.session import MASKS, RESULT, Execution
from lth_zoo.store import Store

FINDERS = {
    "force": FORCE(rounds=5),
    "iterative-snip": FORCE(rounds=5, variant="iterative-snip", examples=20),
    "synflow": SynFlow(rounds=5, scope="layer"),
}


def search_of(finder, **values):
    recipe = tiny_recipe(finder=finder, **values)
    return experiment(recipe).tickets()[0].level.masks


def test_schedules_by_hand():
    assert schedule(Fraction(1, 100), 2, "exponential") == ["0.1", "1/100"]
    assert [float(d) for d in schedule(Fraction(1, 16), 4, "exponential")[:3]] == [0.5, 0.25, 0.125]
    assert schedule(Fraction(1, 5), 4, "linear") == ["4/5", "3/5", "2/5", "1/5"]
    assert schedule(Fraction(1, 3), 1, "exponential") == ["1/3"]


def test_what_a_search_says(tmp_path):
    store, search = Store(tmp_path), search_of(SynFlow(rounds=2), sparsity=0.9375)
    assert run([search], store, HERE).failed == {}
    said = store.entry(search).json(RESULT)
    masks = load_masks(store.entry(search).read(MASKS))
    assert said["rounds"] == [580, 145], "a quarter, then a sixteenth of 2,320"
    assert said["kept"] == masks.kept == 145
    assert said["prunable"] == 2320
    assert said["collapsed"] == []


def test_pruned_weights_return_only_in_force(tmp_path, monkeypatch):
    seen, select = [], rounds.select

    def noted(*args):
        seen.append(select(*args))
        return seen[-1]

    monkeypatch.setattr(rounds, "select", noted)
    for name, nested in (("force", False), ("iterative-snip", True)):
        seen.clear()
        assert run([search_of(FINDERS[name])], Store(tmp_path), HERE).failed == {}
        assert len(seen) == 5
        inside = [(new & old) == new for old, new in pairwise(seen)]
        assert all(inside) is nested


class Stopped(Exception):
    """The power went."""


@pytest.mark.parametrize("name", FINDERS)
def test_interrupted_anywhere_it_ends_with_the_same_masks(name, tmp_path, monkeypatch):
    search, whole = search_of(FINDERS[name]), Store(tmp_path / "whole")
    assert run([search], whole, HERE).failed == {}
    store, scored, stops = Store(tmp_path / "store"), rounds.scored, {1, 3}
    asked = []

    def stop(*args, number):
        if number in stops:
            stops.discard(number)
            raise Stopped
        asked.append(number)
        return scored(*args, number=number)

    monkeypatch.setattr(rounds, "scored", stop)
    always = Execution(checkpoint_seconds=0)
    while stops:
        assert "Stopped" in run([search], store, always).failed[search.key]
    assert run([search], store, always).failed == {}
    assert asked == [0, 1, 2, 3, 4], "no round was done twice"
    for file in (MASKS, RESULT):
        assert store.entry(search).read(file) == whole.entry(search).read(file), file


def test_a_layer_without_a_weight_is_named(tmp_path):
    # One round of a random score leaves small layers bare at 2 of 2,320.
    recipe = tiny_recipe(finder=FORCE(rounds=2), controls=("inverted",), sparsity=0.999)
    laid, store = experiment(recipe), Store(tmp_path)
    assert run(laid.goals, store, HERE).failed == {}
    level = laid.tickets()[0].level
    said = store.entry(level.masks).json(RESULT)
    bare = [name for name, (kept, _) in said["masks"].items() if not kept]
    assert said["collapsed"] == bare
    flags = store.entry(level.train).json(RESULT)["flags"]
    assert bare
    assert f"collapsed-layer: {', '.join(bare)}" in flags


def test_rounds_read_no_training_settings():
    one, other = (
        search_of(SynFlow(), training={"learning_rate": rate, "iterations": n})
        for rate, n in ((0.1, 4), (0.2, 8))
    )
    assert one == other
    chain = Chain(tiny_recipe(finder=SynFlow()), 0, "data", invert=True, blind=True)
    (job,) = (level.masks for level in SynFlow().search(chain) if level.masks)
    assert job.config["score"] == "random"
    assert job.config["invert"] is True
