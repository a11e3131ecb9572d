"""Finished jobs of an experiment as :class:`~lth_zoo.trials.results.Results`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, DataError, StoreError
from ..experiment import Arm, Experiment
from ..formats import load_tensors
from ..given import own_graph
from ..jobs import TICKET, Job, graph, iterations_of
from ..masks import DATA, Masks
from ..protocols import SPLITS, Task, task_of
from ..session import IMAGES, LOG, MASKS, task_for
from ..store import Entry, Store
from .kept_graph import Kept, portrait
from .results import DENSE, Images, Results, Run, margin_of

if TYPE_CHECKING:
    import numpy as np

#: Graphs of more elements than this are not looked at: a report is to take seconds.
MOST_EDGES = 2_000_000


def collect(
    experiment: Experiment,
    store: Store,
    failed: Mapping[str, str] | None = None,
    data: Path | None = None,
) -> Results:
    """Read what the store holds of an experiment; ``failed`` maps job keys to reasons.

    Arms that neither ran nor failed are left out. Where edges were pruned, the task's graph is
    read from the folder ``data``; where it is not at hand, ``graph`` is None, with a warning.
    """
    recipe = experiment.recipe
    by = task_of(recipe.task).yardstick(recipe.model)
    failed = dict(failed or {})
    runs = [run for arm in experiment.arms if (run := _run(arm, store, failed)) is not None]
    dense = [run.metrics.get("test", {}) for run in runs if run.arm == DENSE]
    margin, share = margin_of(by, [m[by.headline] for m in dense if by.headline in m])
    return Results(
        recipe=recipe.to_dict(),
        headline=by.headline,
        higher_is_better=by.higher_is_better,
        margin=margin,
        runs=_sized(runs),
        cost=cost(experiment, store),
        graph=_graph(experiment, store, data) if any(run.edges for run in runs) else None,
        margin_share=share,
        images=_images(experiment, store) if any(run.pictures for run in runs) else None,
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
    counts = {name: (kept, total) for name, (kept, total) in found["masks"].items()}
    layers = {name: count for name, count in counts.items() if not name.startswith(DATA)}
    edges = [count for name, count in counts.items() if name.startswith(DATA)]
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
        edges=edges[0] if edges else None,
        flags=tuple(found["flags"]),
        pictures=str((entry.folder / IMAGES).relative_to(store.root)) if IMAGES in entry else "",
    )


def _curve(entry: Entry) -> list[dict[str, float]]:
    return [json.loads(line) for line in entry.read(LOG).decode().splitlines()]


def _images(experiment: Experiment, store: Store) -> Images | None:
    """Return what dense and every arm at the ticket's last level made, of its first seed there.

    Where no ticket made any, of the first that did. A damaged file is left out, with a warning.
    """
    made = [(arm, store.entry(arm.goal, [IMAGES])) for arm in experiment.arms]
    shown = [(arm, entry) for arm, entry in made if entry is not None]
    if not shown:
        return None
    tickets = [arm for arm, _ in shown if arm.name == TICKET] or [shown[0][0]]
    last = max(arm.level.index for arm in tickets)
    seed = next(arm.seed for arm in tickets if arm.level.index == last)
    found = {}
    for arm, entry in shown:
        if arm.seed == seed and arm.level.index in (0, last):
            try:
                tensors, _ = load_tensors(entry.read(IMAGES), IMAGES)
            except StoreError as error:
                print(f"lth-zoo: warning: no pictures of {arm.name}: {error}", file=sys.stderr)
                continue
            found[arm.name] = {name: tensor.numpy() for name, tensor in tensors.items()}
    return Images(seed, last, found)


def _sized(runs: list[Run]) -> list[Run]:
    """Give runs without masks of weights the tickets' denominator.

    Of a network like dense all is kept. A narrower one stands at the density of the ticket whose
    size it has; its own is in ``parameters``.
    """
    size = max((run.prunable for run in runs), default=0)
    whole = max((run.parameters for run in runs), default=0)
    tickets = {run.level: run.kept for run in runs if run.arm == TICKET and not run.error}

    def kept(run: Run) -> int:
        return size if run.parameters == whole else tickets.get(run.level, size)

    bare = [not run.error and not run.prunable for run in runs]
    return [
        replace(r, kept=kept(r), prunable=size) if b else r for r, b in zip(runs, bare, strict=True)
    ]


def _graph(experiment: Experiment, store: Store, data: Path | None) -> dict[str, Any] | None:
    """Return what the first seed's masks keep of the task's graph; None where it cannot be said."""
    recipe = experiment.recipe
    try:
        task = task_for(recipe, data)
        if not experiment.fingerprint.startswith(task.fingerprint()):
            raise DataError(f"the data of {recipe.task!r} is not what it was")
        whole = task.graph()
        assert whole is not None, "its edges were pruned"
        found = _kept(experiment, store)
        if not found or len(found[0].mask) > MOST_EDGES:
            return None
        pairs = whole.elements(found[0].entry).numpy()
        if pairs.shape[1] != len(found[0].mask):
            raise DataError(f"{recipe.task!r} has {pairs.shape[1]:,} edges, not as many as masks")
        return portrait(pairs, whole.nodes, found, labels_of(task, whole.nodes))
    except (BadInput, DataError) as error:
        print(f"lth-zoo: warning: nothing is said of the kept graph: {error}", file=sys.stderr)
        return None


def _kept(experiment: Experiment, store: Store) -> list[Kept]:
    """Return the first seed's edges: each level's ticket, then the arms that keep others."""
    seed = experiment.recipe.seeds[0]
    found: dict[tuple[str, int], Kept] = {}
    for arm in (a for a in experiment.arms if a.seed == seed):
        job = arm.level.masks
        entry = store.entry(job, [MASKS]) if job and store.entry(arm.goal) else None
        for name, mask in (_edges(entry) if entry else Masks({})).items():
            one = Kept(arm.name, arm.level.index, seed, name, mask.numpy())
            ticket = found.get((TICKET, one.level))
            if ticket is None or not one.same(ticket):
                found[one.arm, one.level] = one
    return list(found.values())


def _edges(entry: Entry) -> Masks:
    """Return the masks of edges in a result, without unpacking those of weights."""
    tensors, meta = load_tensors(entry.read(MASKS), MASKS)
    return Masks.unpack(tensors, {n: s for n, s in meta["shapes"].items() if n.startswith(DATA)})


def labels_of(task: Task, nodes: int) -> np.ndarray | None:
    """Return the label of each node, -1 for none; None where a task has no labelled nodes.

    A task may hold them as ``task.nodes.labels``; else they are the targets of its splits.
    """
    import torch

    held = getattr(getattr(task, "nodes", None), "labels", None)
    if held is not None:
        return torch.as_tensor(held).numpy()
    if not task.labelled or task.signature.answer != "nodes":
        return None
    labels = torch.full((nodes,), -1)
    for split in SPLITS:
        view, targets = task.batch(split, torch.arange(task.size(split)))
        labels[view.rows.cpu()] = targets.cpu()
    return labels.numpy()


def machines(experiment: Experiment, store: Store) -> set[tuple[str, str, str]]:
    """Return the (device, processor, torch version) that the arms' trainings ran on."""
    entries = (store.entry(arm.goal) for arm in experiment.arms)
    records = [entry.manifest["record"] for entry in entries if entry is not None]
    return {(r["device"], r["cpu"], r["torch"]) for r in records}


def cost(experiment: Experiment, store: Store) -> dict[str, float]:
    """Return what the search cost, in whole dense trainings, iterations and seconds.

    ``search_dense_runs`` counts a seed's search up to its last mask and start, averaged over seeds;
    ``iterations_total`` and ``seconds_total`` count every job, controls included. A search
    that stopped early counts what it trained.
    """
    recipe = experiment.recipe
    found = [(lv.masks, lv.start) for lv in (a.level for a in experiment.tickets()) if lv.masks]
    own = [job for pair in found for job in own_graph(*pair)]
    every = experiment.jobs
    return {
        "search_dense_runs": sum(_iterations(job, store) for job in own)
        / recipe.training.iterations
        / max(1, len(found)),
        "iterations_total": float(sum(_iterations(job, store) for job in every)),
        "seconds_total": sum(_seconds(store.entry(job)) for job in every),
    }


def _iterations(job: Job, store: Store) -> int:
    """Return how many iterations a job trained, or will where it has not run."""
    planned = iterations_of(job)
    sure = job.kind == "train" and job.config["begin"] is not None
    entry = store.entry(job) if planned and not sure else None
    return int(entry.json().get("iterations", planned)) if entry else planned


def _seconds(entry: Entry | None) -> float:
    record: dict[str, Any] = entry.manifest["record"] if entry else {}
    return float(record.get("seconds", 0.0))
