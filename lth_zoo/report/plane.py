"""The plane of both sparsities: where it was measured, what matches dense there, and the front.

A spot is one arm at one level: a pair of kept shares, of the weights and of the edges. Each is
tested against dense by itself; no sequence over levels binds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lth_zoo.trials.results import DENSE, TICKET, Results

from . import series
from .panels import percent
from .tables import NONE, Table, mean_cell

#: Level of a test of one spot.
ALPHA = 0.05
#: Fields of a recipe in which the runs of one plane may differ.
FREE = (
    *("sparsity", "graph_sparsity", "name", "paper", "expected"),
    *("seeds", "controls", "controls_at"),
)
FREE_FINDER = ("rate", "edge_rate", "levels")
#: Arms that prune along the axes, beside the ticket, with the ticket's own masks.
HALVES = ("graph-only", "weights-only")
Pair = tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """One arm at one level: the kept share of weights and of edges, and how it compares.

    ``difference`` is its mean less dense's. ``tested`` says whether there are seeds enough for a
    test; else ``matches`` is only that the mean is within the margin.
    """

    arm: str
    level: int
    weights: float
    edges: float
    mean: float
    sd: float
    n: int
    difference: float | None
    matches: bool
    tested: bool
    last: bool = False

    @property
    def pair(self) -> Pair:
        """The kept shares of weights and edges, as far as a pair is told from another."""
        return float(f"{self.weights:.3g}"), float(f"{self.edges:.3g}")


def spots(results: Results) -> list[Spot]:
    """Return every arm but dense at every level where it finished."""
    found = []
    for arm in results.arms():
        points = series.points(results, arm) if arm != DENSE else []
        for point in points:
            matches, tested = _matches(results, arm, point)
            dense = series.dense_point(results)
            found.append(
                Spot(
                    *(arm, point.level, point.density, point.edges, point.mean, point.sd, point.n),
                    difference=point.mean - dense.mean if dense else None,
                    matches=matches,
                    tested=tested,
                    last=point is points[-1],
                )
            )
    return found


def _matches(results: Results, arm: str, point: series.Point) -> tuple[bool, bool]:
    """Say whether an arm is shown to be no worse than dense by the margin, and if by a test."""
    from lth_zoo.trials.compare import compare

    def values(arm: str, level: int) -> dict[int, float]:
        runs = results.select(arm, level)
        return {run.seed: series.headline(run, results) for run in runs}

    own, dense = values(arm, point.level), values(DENSE, 0)
    paired = results.recipe.get("compare", "paired") == "paired"
    higher = results.higher_is_better
    found = compare(own, dense, paired=paired, alpha=ALPHA, higher_is_better=higher)
    if point.n < len(own):  # a diverged run
        return False, True
    if found.se is not None:
        return found.p_gain_above(-results.margin) <= ALPHA, True
    gain = (found.difference or 0.0) * (1 if higher else -1)
    return found.difference is not None and gain >= -results.margin, False


def front(found: Iterable[Spot]) -> list[Pair]:
    """Return the pairs where something matches and nothing sparser in both ways does.

    From the sparsest in weights to the sparsest in edges.
    """
    pairs = sorted({spot.pair for spot in found if spot.matches})
    best: list[Pair] = []
    for weights, edges in pairs:
        if not best or edges < best[-1][1]:
            best.append((weights, edges))
    return best


def front_table(found: Sequence[Spot], digits: int) -> Table:
    """Return the front: what is left of weights and edges, and the arms that match there."""
    rows = []
    for pair in front(found):
        there = [spot for spot in found if spot.pair == pair and spot.matches]
        arms = dict.fromkeys(f"{s.arm} {mean_cell(_point(s), digits)}" for s in there)
        rows.append((percent(pair[0]), percent(pair[1]), ", ".join(arms)))
    note = (
        "Pairs at which an arm matches and no arm does with less of one and no more of the other. "
        f"{_rule(found)}"
    )
    columns, words = ("% of weights", "% of edges", "what matches there"), frozenset({2})
    return Table("front", "The sparsest pairs that match", columns, tuple(rows), note, words)


def _rule(found: Sequence[Spot]) -> str:
    if all(spot.tested for spot in found):
        return (
            f"Each arm is tested at each pair by itself at {100 * ALPHA:g} %: not worse than dense "
            f"by the margin. Of {len(found)} tests some pass by chance, so the front says where to "
            "look; what is claimed are the verdicts, which go level by level."
        )
    return "One seed: matching says no more here than that the mean is within the margin of dense."


def rule_words(found: Sequence[Spot]) -> str:
    """Return what a filled mark means, for a caption."""
    if all(spot.tested for spot in found):
        return "shown to be no worse than dense by the margin, each by itself"
    return "mean within the margin of dense (one seed: no test)"


def _point(spot: Spot) -> series.Point:
    values = (spot.mean,) * spot.n
    return series.Point(spot.level, spot.weights, spot.mean, spot.sd, values, spot.edges)


# -- several recipes -----------------------------------------------------------------------


@dataclass(frozen=True)
class Plane:
    """Recipes that differ only in how much they prune: one plane of pairs.

    ``cells`` maps the kept shares (weights, edges) to the best measured spot there: a ticket at its
    recipe's last level, one on the way, or a ticket of which one half is undone.
    """

    name: str
    results: tuple[Results, ...]
    spots: tuple[tuple[Spot, ...], ...]
    cells: Mapping[Pair, Spot]

    @property
    def every(self) -> list[Spot]:
        """The spots of all recipes."""
        return [spot for found in self.spots for spot in found]

    @property
    def weights(self) -> list[float]:
        """Kept shares of weights, the densest first."""
        return sorted({weights for weights, _ in self.cells}, reverse=True)

    @property
    def edges(self) -> list[float]:
        """Kept shares of edges, the densest first."""
        return sorted({edges for _, edges in self.cells}, reverse=True)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        from dataclasses import asdict

        return {"name": self.name, "cells": [asdict(spot) for spot in self.cells.values()]}


def planes(results: Sequence[Results]) -> list[Plane]:
    """Return the planes of a report: recipes alike but for the amounts, of 2 x 2 cells or more."""
    groups: dict[str, list[Results]] = {}
    for each in results:
        if each.prunes_edges:
            groups.setdefault(_alike(each.recipe), []).append(each)
    found = [_plane(group) for group in groups.values() if len(group) > 1]
    return [plane for plane in found if plane is not None]


def _alike(recipe: Mapping[str, Any]) -> str:
    """Return what the recipes of one plane share."""
    fixed = {key: value for key, value in recipe.items() if key not in FREE}
    finder = dict(fixed.get("finder") or {})
    fixed["finder"] = {key: value for key, value in finder.items() if key not in FREE_FINDER}
    return json.dumps(fixed, sort_keys=True, default=str)


def _plane(group: Sequence[Results]) -> Plane | None:
    every = tuple(tuple(spots(each)) for each in group)
    flat = [spot for found in every for spot in found if spot.arm in (TICKET, *HALVES)]
    ends = {spot.pair for spot in flat if spot.arm == TICKET and spot.last}
    rows, columns = {w for w, _ in ends} | {1.0}, {e for _, e in ends} | {1.0}
    here = [spot for spot in flat if spot.pair[0] in rows and spot.pair[1] in columns]
    # The first of a pair stays: a ticket at its last level, then one on the way, then a half.
    here.sort(key=lambda s: (s.arm != TICKET, not s.last, -s.n))
    cells: dict[Pair, Spot] = {}
    for spot in here:
        cells.setdefault(spot.pair, spot)
    if any(len({pair[side] for pair in ends}) < 2 for side in (0, 1)):
        return None
    recipe = group[0].recipe
    name = f"{recipe.get('model')} on {recipe.get('task')}: weights x edges"
    return Plane(name, tuple(group), every, cells)


def plane_table(plane: Plane) -> Table:
    """Return the metric over the plane: rows of kept weights, columns of kept edges."""
    digits = series.decimals(plane.results[0])
    dense = series.dense_point(plane.results[0])
    rows = []
    for weights in plane.weights:
        line = []
        for edges in plane.edges:
            spot = plane.cells.get((weights, edges))
            whole = weights == edges == 1.0 and spot is None
            point = _point(spot) if spot else dense if whole else None
            mark = " ✓" if spot and spot.matches else ""
            line.append(f"{mean_cell(point, digits)}{mark}" if point else NONE)
        rows.append((percent(weights), *line))
    columns = ("% of weights", *(f"{percent(edges)} % of edges" for edges in plane.edges))
    note = f"Test {plane.results[0].headline}. ✓: {rule_words(plane.every)}."
    return Table("plane", "Over both sparsities", columns, tuple(rows), note, frozenset())


def plane_findings(plane: Plane) -> tuple[str, ...]:
    """Return what was found, in one sentence each."""
    tickets = [spot for spot in plane.cells.values() if spot.arm == TICKET]
    matching = [spot for spot in tickets if spot.matches]
    recipes = f"{len(plane.results)} recipes alike but for how much they prune"
    lines = [f"{recipes}: {len(matching)} of {len(tickets)} tickets match dense."]
    if matching:
        least_weights = min(matching, key=lambda s: (s.weights, s.edges))
        least_edges = min(matching, key=lambda s: (s.edges, s.weights))
        for what, spot in (("weights", least_weights), ("edges", least_edges)):
            lines.append(
                f"Fewest {what} of a ticket that matches: {percent(spot.weights)} % of the weights "
                f"with {percent(spot.edges)} % of the edges."
            )
    return tuple(lines)
