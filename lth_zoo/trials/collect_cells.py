"""What the store holds of a transfer matrix, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..formats import load_masks
from ..jobs import DENSE, Job, graph, iterations_of
from ..masks import DATA
from ..protocols import task_of
from ..session import MASKS
from ..store import Store
from .cells import Cell, CellRun, Target, TransferResults
from .overlap import Packed, overlaps, packed
from .results import margin_of
from .transfer_study import TransferStudy

#: Cells of a target may differ by this share of the weights they remove without a word.
_ROUNDING = 0.002


def collect_transfer(
    matrix: TransferStudy, store: Store, failed: Mapping[str, str] | None = None
) -> TransferResults:
    """Read what the store holds of a matrix; ``failed`` maps job keys to reasons.

    A run that neither ended nor failed is left out; its cell stays, with fewer runs.
    """
    failed = failed or {}
    targets = tuple(_target(matrix, name, store, failed) for name in matrix.targets)
    headlines = {target.name: target.headline for target in targets}
    cells: dict[tuple[str, str], list[CellRun]] = {}
    for one in matrix.cells:
        runs = cells.setdefault((one.source, one.target), [])
        runs += _runs(one.goal, one.seed, headlines[one.target], store, failed)
    jobs = matrix.jobs
    entries = [entry for job in jobs if (entry := store.entry(job)) is not None]
    found = tuple(Cell(s, t, tuple(runs)) for (s, t), runs in cells.items())
    return TransferResults(
        recipe=matrix.recipe.to_dict(),
        sources=matrix.sources,
        targets=targets,
        carry=matrix.carry,
        axis=matrix.axis,
        cells=found,
        overlaps=overlaps(_packed(matrix, store), matrix.footing.roles),
        notes=(*matrix.footing.notes, *_kept_note(found), *_machine_note(entries)),
        cost={
            "jobs": float(len(jobs)),
            "searches": float(matrix.searches),
            "iterations_total": float(sum(map(iterations_of, jobs))),
            "seconds_total": sum(float(e.manifest["record"]["seconds"]) for e in entries),
        },
    )


def _target(matrix: TransferStudy, name: str, store: Store, failed: Mapping[str, str]) -> Target:
    recipe = matrix.recipe_of(name)
    by = task_of(recipe.task).yardstick(recipe.model)
    arms = matrix.dense_of(name)
    runs = [run for a in arms for run in _runs(a.goal, a.seed, by.headline, store, failed)]
    dense = Cell(DENSE, name, tuple(runs))
    margin, share = margin_of(by, dense.values.values())
    return Target(name, by.headline, by.higher_is_better, margin, dense, share)


def _runs(
    goal: Job, seed: int, headline: str, store: Store, failed: Mapping[str, str]
) -> Iterator[CellRun]:
    """Yield the run that a training was, or why it failed."""
    entry = store.entry(goal)
    if entry is not None:
        result = entry.json()
        value = result["metrics"]["test"][headline]
        masks = {name: (kept, size) for name, (kept, size) in result["masks"].items()}
        weights = [count for name, count in masks.items() if not name.startswith(DATA)]
        kept, size = sum(k for k, _ in weights), sum(n for _, n in weights)
        edges = next((count for name, count in masks.items() if name.startswith(DATA)), None)
        yield CellRun(seed, value, kept, size, tuple(result["flags"]), edges=edges)
        return
    reasons = [failed[job.key] for job in graph([goal]) if job.key in failed]
    if reasons:
        # A search that diverged gave no masks: only a cell's own training can diverge.
        diverged = failed.get(goal.key, "").startswith("diverged")
        yield CellRun(seed, flags=("diverged",) if diverged else (), error=reasons[0])


def _packed(matrix: TransferStudy, store: Store) -> Iterator[dict[str, Packed]]:
    for seed in matrix.recipe.seeds:
        found: dict[str, Packed] = {}
        for source in matrix.sources:
            job = matrix.masks_of(source, seed)
            entry = store.entry(job, (MASKS,)) if job is not None else None
            if entry is not None:
                masks = load_masks(entry.read(MASKS))
                found[source] = packed(masks, matrix.footing.roles, matrix.prefix_of(source))
        yield found


def _kept_note(cells: Sequence[Cell]) -> list[str]:
    """Say so where the tickets of one target do not all remove the same number of weights."""
    removed: dict[str, list[int]] = {}
    for cell in cells:
        counts = [run.prunable - run.kept for run in cell.runs if run.value is not None]
        removed.setdefault(cell.target, []).extend(counts)
    odd = {
        target: (min(counts), max(counts))
        for target, counts in removed.items()
        if counts and max(counts) - min(counts) > _ROUNDING * max(counts)
    }
    if not odd:
        return []
    said = ", ".join(f"{least:,} to {most:,} on {target}" for target, (least, most) in odd.items())
    return [
        f"Tickets of one target do not remove equally many weights: {said}. An output layer that "
        "the search prunes is dense after a transfer; leave it dense in the search as well."
    ]


def _machine_note(entries: Sequence[Any]) -> list[str]:
    """Say so where the jobs ran on different machines."""
    records = [entry.manifest["record"] for entry in entries if entry.manifest["kind"] == "train"]
    found = sorted({" / ".join((r["device"], r["cpu"], r["torch"])) for r in records})
    if len(found) < 2:
        return []
    return [f"Trainings ran on different machines ({'; '.join(found)}), so cells differ in that."]
