"""lth-zoo plan: what a command would run, and what that costs; starts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..parse import base_of
from .options import Running, WithRecipe, emit, execution_of, parse, workers_of
from .progress import clock


@dataclass(frozen=True, kw_only=True)
class Plan(WithRecipe):
    """Say what `find` of a recipe, or `study` of a grid file, would run with the same arguments."""


@dataclass(frozen=True, kw_only=True)
class PlanGrid(Running):
    """Say what `study` would run; the grid file holds the recipes, so no flag changes them."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    grid = Path(args[0]) if args and args[0].endswith((".yaml", ".yml")) else None
    if grid is not None and _is_grid(grid):
        from .study import cells

        options: Running = parse(PlanGrid, list(args)[1:], "plan")
        recipes = cells(grid)
    else:
        base, rest = base_of(args)
        options = one = parse(Plan, rest, "plan", Plan(recipe=base))
        recipes = [one.recipe]
    from ..estimate import estimate
    from ..store import Store

    workers = workers_of(options)
    found = estimate(recipes, Store(options.store), execution_of(options), workers)
    kinds = Counter(job.kind for job in found.jobs)
    answer = {
        "jobs": len(found.jobs),
        "by_kind": dict(kinds),
        "cached": found.cached,
        "iterations": found.iterations,
        "seconds": found.seconds,
        "workers": workers,
        "disk_bytes": found.disk,
        "estimated_from": found.source,
    }
    what = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "nothing"
    lines = [
        f"to run: {len(found.jobs)} jobs ({what}); found done: {found.cached}",
        f"iterations: {found.iterations:,}",
        f"time: about {clock(found.seconds)} with {workers} workers ({found.source})",
        f"disk: about {found.disk / 2**20:,.1f} MiB in {options.store}",
    ]
    emit(answer, options.json, lines)
    return 0


def _is_grid(path: Path) -> bool:
    from ..recipe import read_yaml

    return path.is_file() and "grid" in read_yaml(path)
