"""Scores at initialisation on ResNet-20 and the CIFAR-10 subset, against one epoch of training.

An epoch is what the training loop takes for as many batches of 128 as the training part holds,
by the time of 8 of them, looks aside. SNIP and GraSP score one batch of 100 examples (of GraSP
ten a class), SynFlow one input of ones; the finders score once (SNIP, GraSP) or 100 times.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

from measure import Row, cpu_seconds, interleaved
from torch import nn

from lth_zoo.errors import DataError
from lth_zoo.masks import Masks
from lth_zoo.protocols import Task, adapter_of, default_prunable, task_of
from lth_zoo.pruning import fed
from lth_zoo.recipe import Training
from lth_zoo.scores import ScoreContext, score
from lth_zoo.seeds import generator, seeded
from lth_zoo.train import Loop

MODEL, TASK, BATCH, ROUNDS = "resnet-20", "cifar10-subset", 128, 5
WARM, STEPS, SYNFLOW_ROUNDS = 2, 8, 100
#: What the finders of these scores read by default.
READS: dict[str, dict[str, Any]] = {
    "snip": {},
    "grasp": {"per_class": 10, "parts": 1, "temperature": 200.0},
    "synflow": {},
}


def bench() -> list[Row]:
    """Measure the scores and the epoch in turn; nothing where the data is not there."""
    task = task_of(TASK)
    try:
        task.fingerprint()
    except DataError as error:
        return [Row("one epoch", note=str(error))]
    arms: dict[str, Callable[[], float]] = {"epoch": partial(epoch, task)}
    arms |= {name: partial(one_score, name, task) for name in READS}
    times = interleaved(arms, ROUNDS)
    return list(rows({name: median(seconds) for name, seconds in times.items()}))


def rows(seconds: dict[str, float]) -> Iterator[Row]:
    """Yield each score, then each finder's whole search, against the epoch."""
    whole = seconds["epoch"]
    for name in READS:
        yield Row(f"{name}, once", seconds[name], whole, "s", seconds[name] / whole)
    search = SYNFLOW_ROUNDS * seconds["synflow"]
    note = f"{SYNFLOW_ROUNDS} times the score; selecting adds a fraction of it"
    yield Row(f"synflow, {SYNFLOW_ROUNDS} rounds", search, whole, "s", search / whole, note=note)


def fresh(task: Task) -> nn.Module:
    """Return the network at its initialisation, always the same."""
    with seeded(0, "init"):
        return adapter_of(MODEL).build(MODEL, task.signature)


def epoch(task: Task) -> float:
    """Return the CPU seconds of one epoch of training."""
    blind = copy.copy(task)
    blind.evaluate = lambda model, split: {}  # type: ignore[method-assign]  # noqa: ARG005
    training = Training(WARM + STEPS, BATCH, "sgd", learning_rate=0.1, momentum=0.9)
    loop = Loop(fresh(task), blind, training, seed=0, end=WARM)
    loop.run()
    loop.end = WARM + STEPS
    return cpu_seconds(loop.run) * (task.size("train") // BATCH) / STEPS


def one_score(name: str, task: Task) -> float:
    """Return the CPU seconds of scoring every prunable weight once, data included."""
    model = fresh(task)
    context = ScoreContext(
        model,
        Masks.ones(model, default_prunable(model)),
        {},
        generator(0, "prune", "score"),
        **fed({"seed": 0, "reads": READS[name]}, task, model),
        example=adapter_of(MODEL).example(task.signature),
    )
    return cpu_seconds(score, name, context)
