"""How much is left, in words and columns: of the weights and, where any are pruned, of edges.

The two sparsities are never one number: where a recipe prunes a graph, each has its own column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .panels import percent

if TYPE_CHECKING:
    from lth_zoo.trials.findings import LevelVerdict

    from .series import Point


def left_heads(edges: bool) -> tuple[str, ...]:
    """Return the heads of the columns that say what remains."""
    return ("% of weights", "% of edges") if edges else ("% remaining",)


def left_cells(point: Point | None, edges: bool, none: str) -> tuple[str, ...]:
    """Return what remains at a point, a cell a column; ``none`` where there is no point."""
    if point is None:
        return (none,) * len(left_heads(edges))
    return (percent(point.density), *([percent(point.edges)] if edges else []))


def sparsity_heads(edges: bool) -> tuple[str, ...]:
    """Return the heads of the columns that say what is removed."""
    return ("weight sparsity %", "graph sparsity %") if edges else ("sparsity %",)


def sparsity_cells(found: LevelVerdict, edges: bool) -> tuple[str, ...]:
    """Return what is removed at a level, a cell a column."""
    amounts = [found.sparsity, *([found.graph_sparsity or 0.0] if edges else [])]
    return tuple(f"{100 * amount:.1f}" for amount in amounts)


def remaining(found: LevelVerdict) -> str:
    """Return what remains at a level, in words."""
    weights = f"{percent(1 - found.sparsity)} % of the prunable weights"
    return weights + _and_edges(found)


def remaining_short(found: LevelVerdict) -> str:
    """Return what remains at a level, in fewer words."""
    if found.graph_sparsity is None:
        return f"{percent(1 - found.sparsity)} %"
    return f"{percent(1 - found.sparsity)} % of weights{_and_edges(found)}"


def at_point(point: Point, edges: bool) -> str:
    """Return what remains at a point, in words."""
    if not edges:
        return f"{percent(point.density)} % remaining"
    return f"{percent(point.density)} % of the weights and {percent(point.edges)} % of the edges"


def left_words(point: Point, edges: bool) -> str:
    """Return what remains at a point, behind the colon of a panel's head."""
    if not edges:
        return f" {percent(point.density)} % remain"
    return f"\n{percent(point.density)} % of weights, {percent(point.edges)} % of edges"


def _and_edges(found: LevelVerdict) -> str:
    if found.graph_sparsity is None:
        return ""
    return f" and {percent(1 - found.graph_sparsity)} % of the edges"
