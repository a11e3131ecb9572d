"""What a graph will cost, from earlier jobs of the same shape or a short probe."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .engines.local import needed
from .experiment import experiment
from .gc import SEARCHES
from .jobs import Job, iterations_of
from .protocols import Task, adapter_of
from .recipe import Recipe
from .seeds import seeded
from .session import Execution, cached_task, machine_of, task_of_job
from .store import Store

if TYPE_CHECKING:
    from torch import nn

PROBE = 20


@dataclass(frozen=True)
class Estimate:
    """Jobs still to run, and what they cost; ``seconds`` is wall time over the workers."""

    jobs: list[Job]
    cached: int
    iterations: int
    seconds: float
    disk: int
    source: str


def estimate(
    recipes: Sequence[Recipe], store: Store, execution: Execution, workers: int
) -> Estimate:
    """Return what running the recipes would cost; writes nothing.

    Raises:
        BadInput, DataError: something in a recipe is wrong.
    """
    cached_task.cache_clear()  # the data may have changed since an earlier call of this process
    goals = [goal for recipe in recipes for goal in experiment(recipe, execution.data).goals]
    jobs, cached = needed(goals, store)
    trainings = [job for job in jobs if iterations_of(job)]
    past = _past(store, machine_of(execution)["device"])
    seconds = 0.0
    probed: dict[tuple[str, str, str], float] = {}
    sizes: dict[str, int] = {}
    for job in trainings:
        shape = _shape(job)
        if shape not in past and shape not in probed:
            probed[shape] = probe(job, execution)
        seconds += iterations_of(job) * past.get(shape, probed.get(shape, 0.0))
    disk = 0
    for job in jobs:
        name = job.config["model"]
        if name not in sizes:
            sizes[name] = _size(job, execution)
        disk += _disk(job, sizes[name])
    source = "from a probe of 20 iterations" if probed else "from earlier jobs of this store"
    return Estimate(
        jobs=jobs,
        cached=cached,
        iterations=sum(map(iterations_of, trainings)),
        seconds=seconds / max(1, min(workers, len(trainings))),
        disk=disk,
        source=source if trainings else "nothing to train",
    )


def _shape(job: Job) -> tuple[str, str, str]:
    training = job.config["training"]
    how = {
        k: training[k] for k in ("batch_size", "optimizer", "accumulation", "precision", "threads")
    }
    return job.config["model"], job.config["task"], str(sorted(how.items()))


def _past(store: Store, device: str) -> dict[tuple[str, str, str], float]:
    """Return seconds an iteration of what that device has trained, by shape; the median."""
    times: dict[tuple[str, str, str], list[float]] = {}
    for entry in store.entries():
        record = entry.manifest["record"]
        job = Job(entry.manifest["kind"], entry.manifest["config"])
        if job.kind == "train" and record["device"] == device and iterations_of(job):
            seconds = record["seconds"] / iterations_of(job)
            times.setdefault(_shape(job), []).append(seconds)
    return {shape: statistics.median(values) for shape, values in times.items()}


def probe(job: Job, execution: Execution) -> float:
    """Train a few iterations, unmasked; return seconds an iteration, evaluations spread in.

    Where judges evaluate, which nobody has trained yet, evaluations are not counted.
    """
    from .recipe import Training, build
    from .train import Loop

    config = job.config
    training: Training = build(Training, dict(config["training"]))
    # A step takes as long at any rate, and some searches have rates that no weight survives.
    rate = min(training.learning_rate, 1e-3)
    short = replace(training, iterations=2 * PROBE, evaluate_every=10**9, learning_rate=rate)
    task, model = _made(job, execution)
    if task.judges():
        task = copy.copy(task)
        task.evaluate = lambda *_: {task.headline: 0.0}  # type: ignore[method-assign]
    loop = Loop(model, task, short, seed=0, end=PROBE, device=execution.device)
    loop.run()  # warm-up
    began = time.perf_counter()
    task.evaluate(model, "validation")
    look = time.perf_counter() - began
    loop.end = 2 * PROBE
    began = time.perf_counter()
    loop.run()
    # The evaluation at its end is taken off; it may have been quicker than the one before.
    spent = max(0.0, time.perf_counter() - began - look)
    return spent / PROBE + look / training.evaluate_every


def _made(job: Job, execution: Execution) -> tuple[Task, nn.Module]:
    """Return a job's task and its model, newly built."""
    config = job.config
    task = task_of_job(config, execution.data)
    with seeded(0, "init"):
        return task, adapter_of(config["model"]).build(config["model"], task.signature)


def _size(job: Job, execution: Execution) -> int:
    _, model = _made(job, execution)
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def _disk(job: Job, size: int) -> int:
    if job.kind in ("init", "control", "graft", "signs"):
        return size + size // 32
    if job.kind != "train":
        states = dict.fromkeys(SEARCHES, 1) | {"soup": 3}
        return size * states.get(job.kind, 0) + size // 32
    kept: dict[str, int] = {"weights": size, "snapshot": 3 * size}
    return kept.get(job.config["keep"], 0) + 20_000
