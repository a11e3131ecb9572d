"""What weights do along a training: the sums by hand, the same training, resume, as a criterion."""

from __future__ import annotations

import pytest
import torch
from interrupted import check_ends_alike
from torch import nn
from toys import HERE, Blobs, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, OneShot
from lth_zoo.formats import load_masks
from lth_zoo.jobs import graph
from lth_zoo.recipe import Training, build
from lth_zoo.searches.traces import Trace
from lth_zoo.session import LOG, MASKS, read_state
from lth_zoo.store import Store
from lth_zoo.train import Loop


def there_and_back(model, batch, rng):
    """A loss with slope 1 for the first weight, and 2 w for the second."""
    weight = model.weight.view(-1)
    return weight[0] + weight[1] ** 2


def test_the_sums_by_hand():
    model = nn.Linear(2, 1, bias=False)
    model.load_state_dict({"weight": torch.tensor([[0.25, 1.0]])})
    settings = {"iterations": 20, "optimizer": "sgd", "learning_rate": 0.75, "evaluate_every": 99}
    task, trace = Blobs(there_and_back), Trace(["weight"])
    task.evaluate = lambda model, split: {"loss": 0.0}
    Loop(model, task, build(Training, settings), seed=0, end=3, hooks=[trace]).run()
    # w0: 0.25, -0.5, -1.25, -2 with slope 1; w1: 1, -0.5, 0.25, -0.125 with slope 2, -1, 0.5.
    found = trace.found()
    assert found["path/weight"].tolist() == [[2.25, 1.5 + 0.75 + 0.375]]
    assert found["sanh/weight"].tolist() == [[-(0.25 - 0.5 - 1.25), -(2 + 0.5 + 0.125)]]
    assert found["early-1/weight"].tolist() == [[0.75, 1.5]]  # 0.2 of a step is one
    assert found["early-5/weight"].tolist() == [[0.75, 1.5]]
    assert found["early-10/weight"].tolist() == [[1.5, 0.75]]


def traced(recipe, folder):
    """Return the store, the trace and the prune job of the first ticket's first level."""
    store = Store(folder)
    (ticket,) = (a for a in experiment(recipe).arms if a.name == "ticket" and a.level.index == 1)
    prune = ticket.level.masks
    return store, prune.inputs["trace"], prune


@pytest.mark.parametrize("rewind", ["init", "step=3"])
@pytest.mark.parametrize("average", [None, 0.9])
def test_a_trace_is_of_the_training_itself(rewind, average, tmp_path):
    training = {"average": average}
    finder = OneShot(score="path_length", rewind=rewind)
    recipe = tiny_recipe(finder=finder, sparsity=0.5, training=training)
    store, trace, prune = traced(recipe, tmp_path)
    run([prune], store, HERE)
    dense = prune.inputs["trained"]
    assert store.entry(trace).read(LOG) == store.entry(dense).read(LOG)
    path = read_state(store.entry(trace)).state
    end = read_state(store.entry(dense)).state
    start = read_state(store.entry(dense.inputs["start"])).state
    masks = load_masks(store.entry(prune).read(MASKS))
    for name in masks:
        assert not (path[f"path/{name}"] < path[f"early-10/{name}"] - 1e-6).any()
        if average is None:
            assert (path[f"path/{name}"] >= (end[name] - start[name]).abs() - 1e-6).all()
    lowest = min(path[f"path/{n}"][m].min() for n, m in masks.items())
    assert all((path[f"path/{n}"][~m] <= lowest).all() for n, m in masks.items())


def test_interrupted_anywhere_a_trace_ends_the_same(tmp_path, monkeypatch):
    recipe = tiny_recipe(finder=IMP(rate=0.5, score="sanh"), sparsity=0.5)
    whole, trace, prune = traced(recipe, tmp_path / "whole")
    run([prune], whole, HERE)
    check_ends_alike(trace, whole, Store(tmp_path / "store"), {1, 3, 7, 11}, monkeypatch)


def test_levels_trace_their_own_masked_training(tmp_path):
    recipe = tiny_recipe(finder=IMP(rate=0.5, score="early_movement_10"), sparsity=0.75)
    store = Store(tmp_path)
    goals = experiment(recipe).goals
    traces = [job for job in graph(goals) if job.kind == "trace"]
    assert ["masks" in job.inputs for job in traces] == [False, True]
    assert not run(goals, store, HERE).failed
    state = read_state(store.entry(traces[1])).state
    masks = load_masks(store.entry(traces[1].inputs["masks"]).read(MASKS))
    for name, mask in masks.items():
        for what in ("path", "sanh", "early-10"):
            assert (state[f"{what}/{name}"][~mask] == 0).all()


def test_scores_that_read_no_trace_ask_for_none_and_a_start_has_none():
    plain = experiment(tiny_recipe(finder=IMP(score="movement"), sparsity=0.5)).jobs
    assert "trace" not in {job.kind for job in plain}
    with pytest.raises(BadInput, match=r"'sanh' reads what the weights do along a training"):
        experiment(tiny_recipe(finder=OneShot(score="sanh", after="start"), sparsity=0.5))
