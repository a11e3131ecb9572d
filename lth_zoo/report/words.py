"""What a report says in sentences: findings, a summary of recipes, and honest limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import series
from .amounts import at_point, left_cells, left_heads, remaining, remaining_short
from .panels import percent
from .tables import NONE, Table, mean_cell, recipe_name

if TYPE_CHECKING:
    from lth_zoo.trials.results import Results
    from lth_zoo.trials.verdict import LevelVerdict


def findings(results: Results, verdicts: Sequence[LevelVerdict]) -> tuple[str, ...]:
    """Return what was found, most important first, in one sentence each."""
    lines = [_claimed(verdicts), _winning(verdicts), _best(results)]
    if verdicts:
        last = verdicts[-1]
        lines.append(f"Last level, {remaining(last)}: {last.sentence}.")
    failed = sum(bool(run.error) for run in results.runs)
    if failed:
        lines.append(f"{failed} of {len(results.runs)} runs failed; they are listed below.")
    return tuple(filter(None, lines))


def _claimed(verdicts: Sequence[LevelVerdict]) -> str:
    claimed = [found for found in verdicts if found.claimed]
    if not verdicts:
        return "No ticket was trained, so nothing is judged."
    if not claimed:
        return "No level is shown to match the dense network."
    first, last = claimed[0], claimed[-1]
    if first is last:
        return f"The ticket matches the dense network at {remaining(last)}."
    return (
        f"The ticket matches the dense network from {remaining_short(first)} "
        f"down to {remaining(last)}."
    )


def _winning(verdicts: Sequence[LevelVerdict]) -> str:
    won = [found for found in verdicts if found.name == "WINNING"]
    if any(found.graph_sparsity is not None for found in won):
        return f"WINNING at {'; '.join(map(remaining_short, won))}."
    shown = ", ".join(percent(1 - found.sparsity) for found in won)
    return f"WINNING at {shown} % remaining." if won else ""


def _best(results: Results) -> str:
    best, dense = series.best_ticket(results), series.dense_point(results)
    if best is None or dense is None:
        return ""
    digits = series.decimals(results)
    return (
        f"Best ticket by mean test {results.headline}: {mean_cell(best, digits)} at "
        f"{at_point(best, results.prunes_edges)}; dense {mean_cell(dense, digits)}. "
        "It is picked after the fact: read the curve, not the peak."
    )


def summary_table(found: Sequence[tuple[Results, Sequence[LevelVerdict]]]) -> Table:
    """Return one row a recipe: dense, its sparsest level's ticket, and what is claimed."""
    rows = []
    edges = any(results.prunes_edges for results, _ in found)
    for results, verdicts in found:
        digits = series.decimals(results)
        dense = series.dense_point(results)
        claimed = [level for level in verdicts if level.claimed]
        tickets = series.points(results, "ticket")
        rows.append(
            (
                recipe_name(results),
                results.headline,
                mean_cell(dense, digits) if dense else NONE,
                mean_cell(tickets[-1], digits) if tickets else NONE,
                *left_cells(tickets[-1] if tickets else None, edges, NONE),
                str(verdicts[-1].name) if verdicts else NONE,
                remaining_short(claimed[-1]) if claimed else "no level",
            )
        )
    columns = (
        *("recipe", "metric", "dense", "last ticket", *left_heads(edges), "its verdict"),
        "matches down to",
    )
    words = frozenset({0, 1, len(columns) - 2})
    return Table("summary", "Recipes in this report", columns, tuple(rows), words=words)


def limits(found: Sequence[Results]) -> tuple[str, ...]:
    """Return what a reader must not take from these numbers."""
    seeds = series.seeds_phrase(len({run.seed for run in results.runs}) for results in found)
    said = [f"{series.margin_said(r.margin, r.margin_share)} ({r.headline})" for r in found]
    margins = ", ".join(dict.fromkeys(said))
    graph = (
        "Graph sparsity counts the edges of the task's graph, self-loops apart, and the splits, "
        "features and labels are those of the whole graph. Fewer edges save aggregation, which is "
        "a small part of the arithmetic where layers are wide.",
    )
    return (
        "An unstructured ticket is not faster by itself: its zeros are still stored and "
        "multiplied until a format and hardware skip them. Sparsity here counts prunable "
        "weights, not time, memory or energy, and the search costs more than the dense training.",
        f"Matching means: not worse than dense by the margin, {margins}. The margin belongs to "
        "the task and was set before the runs; another margin can give another verdict.",
        f"Each arm has {seeds}; a seed is its own search and its own retraining on the same data "
        "split. Other data, models and longer training are not covered. INCONCLUSIVE means that "
        "these seeds do not decide; it is neither a match nor a failure.",
        "The controls are compared at the same density and with the same training as the ticket, "
        "not with hyper-parameters tuned for them.",
        *(graph if any(results.prunes_edges for results in found) else ()),
    )
