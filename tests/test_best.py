"""`training.result best`: the best look of a training is what it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny import recipe
from torch import nn
from toys import Blobs

from lth_zoo.best import Best
from lth_zoo.engines.local import run
from lth_zoo.experiment import experiment
from lth_zoo.masks import Masks
from lth_zoo.recipe import Training
from lth_zoo.rewind import Snapshot
from lth_zoo.seeds import seeded
from lth_zoo.session import Execution
from lth_zoo.store import Store
from lth_zoo.train import Loop

TRAINING = Training(iterations=40, batch_size=8, learning_rate=0.5, evaluate_every=4)


def loop_of(hooks: Any, start: Any = None, **more: Any) -> Loop:
    with seeded(0, "init"):
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    return Loop(model, Blobs(noise=2.0), TRAINING, seed=0, hooks=hooks, start=start, **more)


def test_the_state_of_the_best_look_comes_back() -> None:
    best = Best()
    loop = loop_of([best])
    loop.run()
    seen = {int(row["iteration"]): row["validation_accuracy"] for row in loop.rows}
    assert best.iteration == max(seen, key=seen.__getitem__) < 40  # ties: the first
    assert loop.evaluate("validation")["accuracy"] == seen[best.iteration] > seen[40]
    stopped = loop_of([], end=best.iteration)
    stopped.run()
    for name, tensor in stopped.final_state().items():
        assert tensor.equal(loop.final_state()[name])


def test_a_pause_changes_nothing() -> None:
    straight = loop_of([Best()])
    straight.run()
    for at in (2, 18, 39):
        # A checkpoint is taken on the way, before the end gives the best state back.
        held: list[Snapshot] = []

        class Stop(Best):
            def on_iteration(self, loop: Loop, at: int = at, held: Any = held) -> None:
                if loop.iteration == at:
                    held.append(loop.snapshot())

        loop_of([Stop()]).run()
        again = Best()
        again.restore(held[0])
        assert not any(key.startswith("best:") for key in held[0].optimizer)
        rest = loop_of([again], start=held[0])
        rest.run()
        for name, tensor in straight.final_state().items():
            assert tensor.equal(rest.final_state()[name]), at


def test_masks_and_averages_are_kept() -> None:
    masks = Masks({"0.weight": torch.rand(16, 6) < 0.5})
    training = Training(20, 8, learning_rate=0.5, average=0.9, evaluate_every=4)
    with seeded(0, "init"):
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    loop = Loop(model, Blobs(), training, seed=0, masks=masks, hooks=[best := Best()])
    loop.run()
    assert not model[0].weight[~masks["0.weight"]].any()
    assert all(t.equal(best.state[n]) for n, t in loop.final_state().items())


def test_a_recipe_may_ask_for_it(tmp_path: Path) -> None:
    training = Training(iterations=60, learning_rate=0.05, evaluate_every=10, result="best")
    one = experiment(recipe(seeds=(0,), training=training))
    store = Store(tmp_path)
    assert not run(one.goals, store, Execution()).failed
    plain = experiment(recipe(seeds=(0,), training=Training(60, evaluate_every=10)))
    assert {j.key for j in one.jobs}.isdisjoint(j.key for j in plain.jobs if j.kind == "train")
    assert "result" not in plain.goals[0].config["training"]
    for arm in one.arms:
        entry = store.entry(arm.goal)
        assert entry is not None
        found = entry.json()
        rows = map(json.loads, entry.read("log.jsonl").decode().splitlines())
        top = max(row["validation_accuracy"] for row in rows)
        assert found["metrics"]["validation"]["accuracy"] == top


def test_without_a_headline_it_is_the_lowest_loss() -> None:
    best, loop = Best(), loop_of([])
    for at, loss in ((1, 2.0), (2, 1.0), (3, 1.5)):
        loop.iteration = at
        best.on_row(loop, {"validation_loss": loss})
    assert best.iteration == 2
