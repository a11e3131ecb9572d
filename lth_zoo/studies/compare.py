"""Finders side by side: one model, one task, the same seeds, and what each search costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from .. import registry
from ..errors import BadInput
from ..jobs import DENSE
from ..protocols import Yardstick
from ..recipe import Recipe
from ..report.charts import Chart, Line, chart_picture
from ..report.compared import cost_picture
from ..report.tables import Table
from ..trials.compare import compare
from .base import Answer, Measured, Probe, Study
from .shared import cell, fitting, kept_share, mean_sd, tickets_at

#: The finder that every other is measured against, besides dense.
RANDOM = "random-mask"


@dataclass(frozen=True)
class Compare(Study):
    """Which finder finds the best ticket, and at what price?

    Every finder runs with its published defaults at every sparsity, on the same seeds and batches;
    its ticket is compared with the dense network and with a random mask, seed by seed. One that
    did not end on every seed stands behind those that did.
    """

    finders: tuple[str, ...] = ()
    """Names of finders (default: all that suit the recipe)."""
    sparsities: tuple[float, ...] = ()
    """Removed shares of the prunable weights (default: the recipe's)."""

    def __post_init__(self) -> None:
        for name in self.finders:
            registry.check("finders", name)
        for sparsity in self.sparsities:
            if not 0 < sparsity < 1:
                raise BadInput(f"study.sparsities holds {sparsity}; it must be between 0 and 1")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the dense trainings and every finder's tickets.

        Raises:
            BadInput: a finder that was asked for does not suit the recipe.
        """
        probes: dict[str, Probe] = {}
        left: dict[str, str] = {}
        for sparsity in self.sparsities or (recipe.sparsity,):
            found, why = fitting(replace(recipe, sparsity=sparsity), self.finders, data)
            if missing := [name for name in self.finders if name in why]:
                raise BadInput(f"finder {missing[0]!r} does not suit: {why[missing[0]]}")
            at = f" at {100 * sparsity:g} %" if len(self.sparsities) > 1 else ""
            left |= {f"{name}{at}": reason for name, reason in why.items()}
            for name, one in found.items():
                for arm in one.arms:
                    # A rewind to a step parts the dense run in two jobs; a whole one goes first.
                    key, whole = f"{DENSE} {arm.seed}", not arm.goal.config["begin"]
                    if arm.name == DENSE and (whole or key not in probes):
                        of = {"seed": arm.seed, "finder": DENSE, "sparsity": 0.0, "left_out": left}
                        probes[key] = Probe(of, arm.goal)
                for arm in tickets_at(one, ()):
                    of = {"seed": arm.seed, "finder": name, "sparsity": sparsity}
                    probes[f"{name} {sparsity} {arm.seed}"] = Probe(of, arm.goal)
        return list(probes.values())

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:
        """Return every finder's test metric, cost and differences, best first."""
        seeds = len(recipe.seeds)
        dense = _values([m for m in measured if m.of["finder"] == DENSE], by)
        once = _middle(m.cost for m in measured if m.of["finder"] == DENSE)
        rows: list[dict[str, Any]] = []
        for sparsity in dict.fromkeys(m.of["sparsity"] for m in measured if m.of["sparsity"]):
            here = [m for m in measured if m.of["sparsity"] == sparsity]
            blind = _values([m for m in here if m.of["finder"] == RANDOM], by)
            found = [
                self._row(name, sparsity, [m for m in here if m.of["finder"] == name], by)
                | {"dense_seconds": once}
                for name in dict.fromkeys(m.of["finder"] for m in here)
            ]
            found.sort(key=lambda r: _rank(r["values"], by))
            rows += [row | _against(row["values"], dense, blind, by) for row in found]
        left: dict[str, str] = next(
            (m.of["left_out"] for m in measured if m.of["finder"] == DENSE), {}
        )
        findings = [*_said(rows, dense, seeds, by)]
        if left:
            findings.append(f"Left out, since they do not suit: {', '.join(left)}.")
        pictures = [cost_picture(rows, dense, by.headline)] if rows else []
        blocks = (*pictures, *_curves(rows, dense, by))
        data = {"dense": dense, "rows": rows, "left_out": left, "headline": by.headline}
        return Answer(tuple(findings), (*blocks, _table(rows, dense, once, seeds, by)), data)

    def _row(
        self, name: str, sparsity: float, runs: Sequence[Measured], by: Yardstick
    ) -> dict[str, Any]:
        kept, edges = kept_share(runs), kept_share(runs, edges=True)
        return {
            "finder": name,
            "asked": sparsity,
            "sparsity": 0.0 if kept is None else 1 - kept,
            "graph_sparsity": None if edges is None else 1 - edges,
            "values": _values(runs, by),
            "search": _middle(m.cost - m.seconds for m in runs),
            "training": _middle(m.seconds for m in runs),
            "flags": sorted({flag for m in runs for flag in m.result["flags"]}),
        }


@dataclass(frozen=True)
class FindersQuick(Compare):
    """Every finder on the digits, in minutes: the first look at all of them.

    LeNet-300-100 on scikit-learn's 8 x 8 digits; small data, so read differences with their
    intervals.
    """


def _values(measured: Sequence[Measured], by: Yardstick) -> dict[int, float]:
    return {m.of["seed"]: float(m.result["metrics"]["test"][by.headline]) for m in measured}


def _against(
    values: Mapping[int, float],
    dense: Mapping[int, float],
    blind: Mapping[int, float],
    by: Yardstick,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, other in (("dense", dense), ("random", blind)):
        compared = compare(values, other, higher_is_better=by.higher_is_better)
        found[f"over_{name}"] = compared.difference
        found[f"over_{name}_interval"] = compared.interval
        found[f"p_worse_than_{name}"] = compared.p_worse
        found[f"p_better_than_{name}"] = compared.p_better
    return found


def _middle(seconds: Iterable[float]) -> float:
    """Return the median, which a slow first run does not move; NaN of nothing."""
    known = list(seconds)
    return median(known) if known else math.nan


def _rank(values: Mapping[int, float], by: Yardstick) -> tuple[int, float]:
    """Return what finders are sorted by: how many seeds ended, then the mean, best first."""
    mean = mean_sd(values.values())[0]
    return -len(values), -mean if by.higher_is_better else mean


def _said(
    rows: Sequence[Mapping[str, Any]], dense: Mapping[int, float], seeds: int, by: Yardstick
) -> list[str]:
    """Return what may be said at each sparsity, tests corrected for the number of finders."""
    said = []
    for sparsity in dict.fromkeys(row["asked"] for row in rows):
        here = [row for row in rows if row["asked"] == sparsity]
        level = 0.05 / len(here)
        better = [r["finder"] for r in here if r["p_better_than_random"] < level]
        worse = [r["finder"] for r in here if r["p_worse_than_dense"] < level]
        first = here[0]
        words = [
            f"{100 * sparsity:g} % sparse, {seeds} seeds: the best mean is {first['finder']}'s, "
            f"{by.headline} {cell(first['values'].values())}; dense has {cell(dense.values())}."
        ]
        if _tested(here, "random"):
            names = ", ".join(better) or "none"
            words.append(f"Better than a random mask (5 % over all finders): {names}.")
        if _tested(here, "dense"):
            words.append(f"Worse than dense: {', '.join(worse) or 'none shown'}.")
        if short := [
            f"{r['finder']} on {len(r['values'])}" for r in here if len(r["values"]) < seeds
        ]:
            words.append(f"Did not end on every seed: {', '.join(short)}.")
        said.append(" ".join(words))
    return said


def _tested(rows: Sequence[Mapping[str, Any]], other: str) -> bool:
    """Say whether any finder was tested against dense or random masks: there were two pairs."""
    return any(row[f"over_{other}_interval"] is not None for row in rows)


def _curves(
    rows: Sequence[Mapping[str, Any]], dense: Mapping[int, float], by: Yardstick
) -> list[Any]:
    """Return the curve of every finder where there are several sparsities."""
    if len({row["asked"] for row in rows}) < 2:
        return []
    lines = [Line(DENSE, ((0.0, *mean_sd(dense.values())),), level=True)]
    for name in dict.fromkeys(row["finder"] for row in rows):
        points = [
            (100 * r["sparsity"], *mean_sd(r["values"].values()))
            for r in rows
            if r["finder"] == name
        ]
        lines.append(Line(name, tuple(sorted(points))))
    title = f"Test {by.headline} against sparsity, by finder"
    note = "Bands: one standard deviation over seeds."
    return [
        chart_picture(
            "curves", title, note, [Chart("sparsity, %", f"test {by.headline}", tuple(lines))]
        )
    ]


def _sizes(row: Mapping[str, Any]) -> str:
    """Return how much was removed of the weights, and of a graph's edges beside it."""
    weights, edges = row["sparsity"], row["graph_sparsity"]
    more = "" if edges is None else f", edges {100 * edges:.1f} %"
    return f"{100 * weights:.1f} %{more}"


def _table(
    rows: Sequence[Mapping[str, Any]],
    dense: Mapping[int, float],
    once: float,
    seeds: int,
    by: Yardstick,
) -> Table:
    def between(row: Mapping[str, Any], name: str) -> str:
        if row[f"over_{name}"] is None:
            return "—"
        interval = row[f"over_{name}_interval"]
        around = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""
        return f"{row[f'over_{name}']:+.2f}{around}"

    cells = [
        (
            row["finder"],
            _sizes(row),
            f"{len(row['values'])} of {seeds}",
            cell(row["values"].values()),
            between(row, "dense"),
            between(row, "random"),
            f"{row['search'] / once:.2f}",
            f"{row['training'] / once:.2f}",
            ", ".join(row["flags"]),
        )
        for row in rows
    ]
    ended = f"{len(dense)} of {seeds}"
    cells.append((DENSE, "0 %", ended, cell(dense.values()), "", "", "", "1.00", ""))
    head = f"test {by.headline}"
    columns = (
        "finder",
        "sparsity",
        "seeds",
        head,
        "- dense",
        "- random-mask",
        "search",
        "training",
        "flags",
    )
    note = (
        "Mean ± one sample standard deviation over the seeds that ended; differences with 95 % "
        "intervals, paired by seed. Search and training: in dense runs, by measured time, the "
        "median of a ticket's; judges and a pre-training, which all are given, are in neither."
    )
    title = f"Finders: {head} and cost"
    return Table("finders", title, columns, tuple(cells), note, frozenset({0, 8}))
