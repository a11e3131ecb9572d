"""Tables of what a recipe is, what its tickets keep, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lth_zoo.trials.results import DENSE, TICKET, Results, Run, mean_sd

from . import series
from .panels import percent
from .tables import NONE, Table, number


def cost_table(results: Results) -> Table:
    """Return iterations and seconds of each arm, and their share of dense runs."""
    rows = []
    dense = mean_sd(r.seconds for r in results.runs if r.arm == DENSE and not r.error)[0]
    for arm in results.arms():
        runs = [r for r in results.runs if r.arm == arm and not r.error]
        seconds = sum(r.seconds for r in runs)
        iterations = sum(r.iterations for r in runs)
        each = mean_sd(r.seconds for r in runs)[0]
        ratio = number(each / dense, 2) if dense and dense > 0 else NONE
        cells = (f"{iterations:,}", number(seconds, 1), number(each, 2), ratio)
        rows.append((arm, str(len(runs)), *cells))
    columns = ("arm", "runs", "iterations", "seconds", "seconds a run", "of a dense run")
    return Table("cost", "Cost of the training runs", columns, tuple(rows), cost_note(results))


def cost_note(results: Results) -> str:
    """Return the cost of the whole recipe in words."""
    cost = results.cost
    parts = []
    if "search_dense_runs" in cost:
        parts.append(f"Search: {cost['search_dense_runs']:.3g} dense-run equivalents.")
    if "iterations_total" in cost:
        parts.append(f"All work: {cost['iterations_total']:,.0f} iterations")
        if "seconds_total" in cost:
            parts[-1] += f" in {duration(cost['seconds_total'])} of training time"
        parts[-1] += "."
    elif "seconds_total" in cost:
        parts.append(f"All work: {duration(cost['seconds_total'])} of training time.")
    known = {"search_dense_runs", "iterations_total", "seconds_total"}
    parts += [
        f"{key.replace('_', ' ')}: {value:g}." for key, value in cost.items() if key not in known
    ]
    return " ".join(parts)


def duration(seconds: float) -> str:
    """Return a time span in words.

    >>> duration(12.3), duration(600), duration(7300)
    ('12.3 s', '10.0 min', '2.0 h')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counts_table(results: Results) -> Table:
    """Return the ticket's kept weights by level, of the prunable and of all parameters.

    A control of another size has a column with its parameters.
    """
    rows = []
    sizes = series.other_sizes(results)
    for level in series.pruned_levels(results):
        run = results.select(TICKET, level)[0]
        others = run.parameters - run.prunable
        whole = (run.kept + others) / run.parameters if run.parameters else math.nan
        counts = (f"{run.kept:,}", f"{run.prunable:,}", percent(run.density))
        parameters: tuple[str, ...] = (f"{run.parameters:,}", percent(whole))
        parameters += tuple(f"{by[level]:,}" if level in by else NONE for by in sizes.values())
        rows.append((str(level), *counts, *parameters, *_edges(run, results.prunes_edges)))
    columns: tuple[str, ...] = (
        *("level", "kept", "prunable", "% of prunable"),
        *("all parameters", "% of all", *(f"all of {arm}" for arm in sizes)),
    )
    note = "Counts of the first seed's ticket. Biases, norms and excluded layers are never pruned."
    if results.prunes_edges:
        columns = (*columns, "edges kept", "edges", "% of edges")
        note += " Self-loops are no edges: layers that want them add their own, and keep them."
    return Table("counts", "What is kept", columns, tuple(rows), note, frozenset())


def _edges(run: Run, shown: bool) -> tuple[str, ...]:
    if not shown:
        return ()
    kept, total = run.edges or (0, 0)
    return (f"{kept:,}", f"{total:,}", percent(1 - run.graph_sparsity)) if total else (NONE,) * 3


def recipe_table(results: Results) -> Table:
    """Return every field of the recipe, nested ones as ``training.iterations``."""
    rows = tuple(
        (key, value)
        for key, value in flat(results.recipe)
        if key not in ("name", "paper", "expected")
    )
    columns = ("field", "value")
    return Table("recipe", "Recipe", columns, rows, words=frozenset({0, 1}))


def flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested data as dotted keys and printed values.

    >>> flat({"a": {"b": [1, 2]}, "c": None})
    [('a.b', '1, 2'), ('c', '—')]
    """
    found: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", _printed(value)))
    return found


def _printed(value: Any) -> str:
    if value is None or value == "" or value == () or value == []:
        return NONE
    if isinstance(value, list | tuple):
        return ", ".join(map(_printed, value))
    return " ".join(str(value).split())
