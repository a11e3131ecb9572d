"""Rewinding: what rules mean, snapshots bit for bit, and what every level starts from."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from toys import HERE, Blobs, mlp, same, tiny_recipe

from lth_zoo import kinds
from lth_zoo.chain import Chain
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP
from lth_zoo.formats import dump_snapshot, load_masks, load_snapshot
from lth_zoo.jobs import graph
from lth_zoo.recipe import Training
from lth_zoo.rewind import Rewind, Snapshot, clone_state, load_optimizer, optimizer_tensors
from lth_zoo.session import MASKS, STATE
from lth_zoo.store import Store
from lth_zoo.train import Loop


@pytest.mark.parametrize(
    ("text", "kind", "at"),
    [
        ("init", "init", 0),
        ("fresh", "fresh", 0),
        ("step=100", "step", 100),
        ("step=1000", "step", 1000),
        ("step=0", "init", 0),
        ("0%", "init", 0),
        ("3%", "step", 30),
        ("2.5%", "step", 25),
        (" 3% ", "step", 30),
        ("learning-rate", "learning-rate", 1000),
        ("learning-rate=40", "learning-rate", 40),
        ("learning-rate=50%", "learning-rate", 500),
        ("none", "none", 1000),
        ("none=7", "none", 7),
        ("none=1%", "none", 10),
    ],
)
def test_rules(text, kind, at):
    assert Rewind.parse(text, 1000) == Rewind(kind, at)


NO_RULES = (
    *("", "step", "step=", "init=3", "fresh=1", "7", "step=1001", "101%", "-1%", "step=-1"),
    *("inti", "step=x", "step=1.5", "none=2.5", "learning-rate=", "init fresh", "step 5", "%"),
)


@pytest.mark.parametrize("text", NO_RULES)
def test_rules_that_are_none(text):
    with pytest.raises(BadInput) as caught:
        Rewind.parse(text, 1000)
    for word in (repr(text), "init", "step=K", "P%", "learning-rate", "none", "fresh", "1000"):
        assert word in str(caught.value)


def trained(optimizer, steps=5):
    """A loop with batch statistics, an average, and optimiser state; its snapshot."""
    training = Training(
        iterations=20,
        batch_size=8,
        optimizer=optimizer,
        momentum=0.9 if optimizer in ("sgd", "rmsprop") else 0.0,
        average=0.9,
        schedule="cosine",
        evaluate_every=2,
    )
    loop = Loop(mlp(torch.nn.BatchNorm1d(8)), Blobs(), training, seed=0, end=steps)
    loop.run()
    return loop, loop.snapshot()


OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "nadam", "adafactor")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_snapshot_survives_a_file_bit_for_bit(optimizer):
    loop, snapshot = trained(optimizer)
    read = load_snapshot(dump_snapshot(snapshot))
    assert snapshot.state
    assert snapshot.optimizer
    assert snapshot.average
    assert same(read.tensors(), snapshot.tensors())
    assert same(read.state, clone_state(loop.model))
    assert "1.running_var" in read.state
    assert read.iteration == 5
    assert read.extra["rows"] == snapshot.extra["rows"] != []


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_snapshot_shares_no_memory(optimizer):
    loop, snapshot = trained(optimizer)
    before = copy.deepcopy(snapshot)
    loop.end = 12
    loop.run()  # trains the very model and optimiser on
    assert not same(clone_state(loop.model), snapshot.state)
    assert same(snapshot.tensors(), before.tensors())
    model = mlp(torch.nn.BatchNorm1d(8))
    again = Loop(model, Blobs(), loop.training, seed=0, start=snapshot, end=12)
    again.run()
    assert same(snapshot.tensors(), before.tensors())
    assert same(clone_state(again.model), clone_state(loop.model))
    pieces = Snapshot.from_tensors(snapshot.tensors(), 5)
    assert same(pieces.tensors(), snapshot.tensors())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimiser_state_is_restored_to_the_bit(optimizer):
    loop, _ = trained(optimizer)
    (part,) = loop.parts
    kept = optimizer_tensors(part.optimizer, loop.names, "a:")
    if optimizer != "sgd":
        assert kept["a:0.weight/step"] == 5
    other = Loop(mlp(torch.nn.BatchNorm1d(8)), Blobs(), loop.training, seed=0)
    (fresh,) = other.parts
    foreign = {"b:0.weight/step": torch.tensor(9.0)}
    load_optimizer(fresh.optimizer, other.names, kept | foreign, "a:")
    assert same(optimizer_tensors(fresh.optimizer, other.names, "a:"), kept)


# -- through jobs -----------------------------------------------------------------------------

N = 12
#: rule -> begin and end of a retraining, kind of the job it starts from, distinct starts
RULES = {
    "init": (0, N, "init", 1),
    "step=4": (4, N, "train", 1),
    "25%": (3, N, "train", 1),
    "learning-rate": (0, N, "train", 3),
    "learning-rate=5": (N - 5, N, "train", 3),
    "none": (N, 2 * N, "train", 3),
    "none=5": (N, N + 5, "train", 3),
    "fresh": (0, N, "init", 3),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_says_from_where_and_how_long(rule):
    recipe = tiny_recipe(finder=IMP(rate=0.5, rewind=rule), sparsity=0.875)
    begin, end, kind, starts = RULES[rule]
    levels = list(recipe.finder.search(Chain(recipe, 0, "data")))
    assert [level.index for level in levels] == [0, 1, 2, 3]
    to_a_step = Rewind.parse(rule, N).kind == "step"
    for before, level in pairwise(levels):
        config = level.train.config
        assert (config["begin"], config["end"], level.start.kind) == (begin, end, kind)
        assert level.train.inputs == {"start": level.start, "masks": level.masks}
        assert (level.start == before.train) == rule.startswith(("learning-rate", "none"))
        # A whole past, optimiser included, comes back only from a step of the dense run.
        assert config["fresh_optimizer"] != to_a_step
    assert len({level.start.key for level in levels[1:]}) == starts
    # The dense run is one whole training, through the rewind point if there is one.
    dense = [job.config for job in graph([levels[0].train]) if job.kind == "train"]
    stretches = [(config["begin"], config["end"]) for config in dense]
    assert stretches == ([(0, begin), (begin, N)] if to_a_step else [(0, N)])


def everywhere(masks, name, like):
    return masks[name] if name in masks else torch.ones_like(like, dtype=torch.bool)


@pytest.mark.parametrize("rule", ["init", "step=4", "learning-rate=5", "none=5", "fresh"])
def test_every_level_starts_at_the_rewind_point(rule, tmp_path, monkeypatch):
    began = {}
    spy = lambda watch, loop: began.update({watch.session.job.key: loop.snapshot()})  # noqa: E731
    monkeypatch.setattr(kinds.Watch, "on_start", spy)
    training = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9}
    finder = IMP(rate=0.5, rewind=rule)
    store = Store(tmp_path)
    laid = experiment(tiny_recipe(finder=finder, sparsity=0.875, training=training))
    assert not run(laid.goals, store, HERE).failed
    levels = [arm.level for arm in laid.arms]
    assert len(levels) == 4
    dense = load_snapshot(store.entry(levels[0].start).read(STATE))
    for level in levels[1:]:
        masks = load_masks(store.entry(level.masks).read(MASKS))
        point = load_snapshot(store.entry(level.start).read(STATE))
        start, end = began[level.train.key], load_snapshot(store.entry(level.train).read(STATE))
        assert start.iteration == level.train.config["begin"]
        assert same(point.state, dense.state) == (rule in ("init", "step=4"))
        for name, value in point.state.items():
            mask = everywhere(masks, name, value)
            assert start.state[name][mask].equal(value[mask]), name
            assert not start.state[name][~mask].any()
            assert not end.state[name][~mask].any()
        momentum = [name for name in start.optimizer if name.endswith("momentum_buffer")]
        assert len(momentum) == (len(point.state) if rule == "step=4" else 0)
        for name in momentum:
            now, then = start.optimizer[name], point.optimizer[name]
            entry = name.removeprefix("cross-entropy:").removesuffix("/momentum_buffer")
            mask = everywhere(masks, entry, now)
            assert now[mask].equal(then[mask])
            assert not now[~mask].any()
