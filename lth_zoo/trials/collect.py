"""Finished jobs of an experiment as :class:`~lth_zoo.trials.results.Results`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..experiment import Arm, Experiment
from ..jobs import Job, graph, iterations_of, pretrained_start
from ..protocols import task_of
from ..session import LOG
from ..store import Entry, Store
from .results import DENSE, Results, Run


def collect(
    experiment: Experiment, store: Store, failed: Mapping[str, str] | None = None
) -> Results:
    """Read what the store holds of an experiment; ``failed`` maps job keys to reasons.

    Arms that neither ran nor failed are left out.
    """
    recipe = experiment.recipe
    task = task_of(recipe.task)
    failed = dict(failed or {})
    runs = [run for arm in experiment.arms if (run := _run(arm, store, failed)) is not None]
    return Results(
        recipe=recipe.to_dict(),
        headline=task.headline,
        higher_is_better=task.higher_is_better,
        margin=task.margin,
        runs=_sized(runs),
        cost=cost(experiment, store),
    )


def _run(arm: Arm, store: Store, failed: Mapping[str, str]) -> Run | None:
    goal = arm.goal
    entry = store.entry(goal)
    name, level, seed = arm.name, arm.level.index, arm.seed
    if entry is None:
        reasons = [failed[j.key] for j in graph([goal]) if j.key in failed]
        if not reasons:
            return None
        flags = ("diverged",) if reasons[0].startswith("diverged") else ()
        return Run(name, level, seed, 0, 0, 0, metrics={}, flags=flags, error=reasons[0])
    found = entry.json()
    layers = {name: (kept, total) for name, (kept, total) in found["masks"].items()}
    return Run(
        name,
        level,
        seed,
        kept=sum(kept for kept, _ in layers.values()),
        prunable=sum(total for _, total in layers.values()),
        parameters=found["parameters"],
        metrics=found["metrics"],
        curve=_curve(entry),
        early_stop=found["early_stop"],
        iterations=found["iterations"],
        seconds=entry.manifest["record"]["seconds"],
        layers=layers,
        flags=tuple(found["flags"]),
    )


def _curve(entry: Entry) -> list[dict[str, float]]:
    return [json.loads(line) for line in entry.read(LOG).decode().splitlines()]


def _sized(runs: list[Run]) -> list[Run]:
    """Give dense runs, which have no masks, the counts of the tickets' denominators."""
    size = max((run.prunable for run in runs), default=0)
    return [
        replace(r, kept=size, prunable=size) if r.arm == DENSE and not r.prunable else r
        for r in runs
    ]


def machines(experiment: Experiment, store: Store) -> set[tuple[str, str, str]]:
    """Return the (device, processor, torch version) that the arms' trainings ran on."""
    entries = (store.entry(arm.goal) for arm in experiment.arms)
    records = [entry.manifest["record"] for entry in entries if entry is not None]
    return {(r["device"], r["cpu"], r["torch"]) for r in records}


def cost(experiment: Experiment, store: Store) -> dict[str, float]:
    """Return what the search cost, in whole dense trainings, iterations and seconds.

    ``search_dense_runs`` counts a seed's search up to its last mask, averaged over seeds;
    ``iterations_total`` and ``seconds_total`` count every job, controls included. A search
    that stopped early counts what it trained.
    """
    recipe = experiment.recipe
    masks = [arm.level.masks for arm in experiment.tickets() if arm.level.masks is not None]
    # A model's own pre-training, shared by every task and seed, is no part of the search.
    given = {j.key for j in graph(filter(None, [pretrained_start(recipe.model)]))}
    own = [job for mask in masks for job in graph([mask]) if job.key not in given]
    every = experiment.jobs
    return {
        "search_dense_runs": sum(_iterations(job, store) for job in own)
        / recipe.training.iterations
        / max(1, len(masks)),
        "iterations_total": float(sum(_iterations(job, store) for job in every)),
        "seconds_total": sum(_seconds(store.entry(job)) for job in every),
    }


def _iterations(job: Job, store: Store) -> int:
    """Return how many iterations a job trained, or will where it has not run."""
    planned = iterations_of(job)
    entry = store.entry(job) if planned and job.kind != "train" else None
    return int(entry.json().get("iterations", planned)) if entry else planned


def _seconds(entry: Entry | None) -> float:
    record: dict[str, Any] = entry.manifest["record"] if entry else {}
    return float(record.get("seconds", 0.0))
