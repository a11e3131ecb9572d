"""Dual graph tickets: what is to go fades to 0, the rest trains on."""

from __future__ import annotations

import json

import pytest
import tiny_gates
import torch
from test_ugs import done, gates_of, masks_of
from tiny_gates import TinyGCN, TinyGraph, recipe, small_graph
from toys import HERE, same

from lth_zoo import kinds
from lth_zoo.chain import Chain
from lth_zoo.engines.local import run
from lth_zoo.experiment import experiment
from lth_zoo.finders import DualGraph
from lth_zoo.gates import Gated
from lth_zoo.graph import EDGES
from lth_zoo.hooks import Hook
from lth_zoo.masks import Masks
from lth_zoo.recipe import Training
from lth_zoo.searches.inform import Fading, share_left
from lth_zoo.session import LOG, read_state
from lth_zoo.store import Store
from lth_zoo.train import Loop


@pytest.fixture(autouse=True)
def known():
    with tiny_gates.registered():
        yield


def test_what_is_to_go_is_zero_before_the_cut(tmp_path):
    store, (level,) = done(recipe(DualGraph(), training={"evaluate_every": 1}), tmp_path)
    masks = masks_of(store, level.masks)
    assert masks == masks_of(store, level.masks.inputs["masks"])
    rows = [json.loads(row) for row in store.entry(level.masks).read(LOG).splitlines()]
    for column in ("leaving_edges", "leaving_weights"):
        left = [row[column] for row in rows]
        assert left == sorted(left, reverse=True)
        assert left[0] > 0
        assert left[-1] == 0
    state = read_state(store.entry(level.masks)).state
    for name, mask in masks.weights.items():
        assert (state[name][~mask] == 0).all()
        assert (state[name][mask] != 0).all()
    # So the cut changes nothing.
    model = TinyGCN()
    model.load_state_dict(state)
    cut = kinds.restricted(TinyGraph(), masks).evaluate(model, "validation")
    assert gates_of(store, level.masks)["metrics"]["validation"] == pytest.approx(cut, abs=1e-4)
    assert rows[-1]["validation_loss"] == pytest.approx(cut["loss"], abs=1e-4)


def test_survivors_train_on_with_what_they_have_learned(tmp_path):
    store, (level,) = done(recipe(DualGraph()), tmp_path)
    assert level.start == level.masks
    assert level.train.config["begin"] == 8
    assert level.train.config["end"] == 16
    start = read_state(store.entry(level.masks.inputs["start"])).state
    assert not same(start, read_state(store.entry(level.masks)).state)
    asked = recipe(DualGraph(rewind="init"))
    *_, again = asked.finder.search(Chain(asked, 0, "data"))
    assert again.start.kind == "init"
    assert again.masks.config == level.masks.config | {"data": "data"}


@pytest.mark.parametrize("growth", [0.5, 1.0, 3.0])
def test_alone_it_falls_by_the_asked_power(growth):
    left = 1.0
    for t in range(1, 11):
        left *= share_left(t, 10, growth)
        assert left == pytest.approx((1 - t / 10) ** growth)


def test_no_gate_falls_below_zero_or_decays_with_the_weights(tmp_path, monkeypatch):
    watch, seen = kinds.Watch.on_iteration, []

    def noted(self, loop):
        watch(self, loop)
        if isinstance(loop.model, Gated):
            seen.append(loop.model.edges.detach().clone())

    monkeypatch.setattr(kinds.Watch, "on_iteration", noted)
    finder = DualGraph(gate_learning_rate=1.0)  # a step of Adam is then as large as a gate
    store, (level,) = done(recipe(finder, training={"weight_decay": 0.1}), tmp_path)
    kept = masks_of(store, level.masks)[EDGES]
    assert len(seen) == 8
    for gates in seen:
        assert (gates[kept] == 1).all()
        assert (gates >= 0).all()
    assert any((gates[~kept] == 0).any() for gates in seen[:-1])


@pytest.mark.parametrize("average", [None, 0.5])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adafactor"])
def test_the_gates_of_the_ticket_stay_one(optimizer, average):
    graph = small_graph()
    rng = torch.Generator().manual_seed(1)
    model = TinyGCN()
    masks = {n: torch.rand(p.shape, generator=rng) < 0.5 for n, p in model.named_parameters()}
    masks = Masks(masks | {EDGES: torch.rand(133, generator=rng) < 0.6})
    gated = Gated(model, graph, EDGES, torch.ones(133))
    fading, seen = Fading(1.0, masks, EDGES), []

    class Noted(Hook):
        def on_iteration(self, loop):
            seen.append(loop.model.edges.detach().clone())

    training = Training(
        iterations=4, batch_size=15, learning_rate=0.05, optimizer=optimizer, average=average
    )
    groups = {"edges": {"rate": 1.0, "weight_decay": 0.0}}
    loop = Loop(gated, TinyGraph(), training, seed=0, hooks=[fading, Noted()], groups=groups)
    loop.run()
    final = loop.final_state()
    assert final["edges"].equal(masks[EDGES].float())
    assert all((final[f"inner.{n}"][~m] == 0).all() for n, m in masks.weights.items())
    for gates in seen:
        assert (gates[masks[EDGES]] == 1).all()
        assert (gates >= 0).all()
    faded = torch.stack([gates[~masks[EDGES]] for gates in seen])
    assert (faded[0] > 0.5).all()
    assert (faded[0] != 0.75).any()  # the task's loss moves them too
    assert (faded[-1] == 0).all()


def test_the_random_ticket_is_that_of_the_control_with_random_edges(tmp_path):
    laid = experiment(recipe(DualGraph(), controls=("random-edges",)))
    store = Store(tmp_path)
    assert run(laid.goals, store, HERE).failed == {}
    ticket, control = (masks_of(store, arm.level.masks) for arm in laid.arms if arm.level.masks)
    assert ticket.data == control.data
    assert ticket.weights != control.weights
    assert ticket.kept == control.kept
