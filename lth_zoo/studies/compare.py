"""Finders side by side: one model, one task, the same seeds, and what each search costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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
from .shared import cell, fitting, mean_sd, tickets_at

#: The finder that every other is measured against, besides dense.
RANDOM = "random-mask"


@dataclass(frozen=True)
class Compare(Study):
    """Which finder finds the best ticket, and at what price?

    Every finder runs with its published defaults at every sparsity, on the same seeds and batches;
    its ticket is compared with the dense network and with a random mask, seed by seed.
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
        for sparsity in self.sparsities or (recipe.sparsity,):
            found, why = fitting(replace(recipe, sparsity=sparsity), self.finders, data)
            if missing := [name for name in self.finders if name in why]:
                raise BadInput(f"finder {missing[0]!r} does not suit: {why[missing[0]]}")
            for name, one in found.items():
                for arm in one.arms:
                    # A rewind to a step parts the dense run in two jobs; a whole one goes first.
                    key, whole = f"{DENSE} {arm.seed}", not arm.goal.config["begin"]
                    if arm.name == DENSE and (whole or key not in probes):
                        of = {"seed": arm.seed, "finder": DENSE, "sparsity": 0.0, "left_out": why}
                        probes[key] = Probe(of, arm.goal)
                for arm in tickets_at(one, ()):
                    of = {"seed": arm.seed, "finder": name, "sparsity": sparsity}
                    probes[f"{name} {sparsity} {arm.seed}"] = Probe(of, arm.goal)
        return list(probes.values())

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return every finder's test metric, cost and differences, best first."""
        dense = _values([m for m in measured if m.of["finder"] == DENSE], by)
        once = mean_sd(m.cost for m in measured if m.of["finder"] == DENSE)[0]
        rows: list[dict[str, Any]] = []
        for sparsity in dict.fromkeys(m.of["sparsity"] for m in measured if m.of["sparsity"]):
            here = [m for m in measured if m.of["sparsity"] == sparsity]
            blind = _values([m for m in here if m.of["finder"] == RANDOM], by)
            found = [
                self._row(name, sparsity, [m for m in here if m.of["finder"] == name], by)
                | {"dense_seconds": once}
                for name in dict.fromkeys(m.of["finder"] for m in here)
            ]
            found.sort(key=lambda r: mean_sd(r["values"].values())[0], reverse=by.higher_is_better)
            rows += [row | _against(row["values"], dense, blind, by) for row in found]
        left: dict[str, str] = next(
            (m.of["left_out"] for m in measured if m.of["finder"] == DENSE), {}
        )
        findings = [*_said(rows, dense, by)]
        if left:
            findings.append(f"Left out, since they do not suit: {', '.join(left)}.")
        blocks = (cost_picture(rows, dense, by.headline), *_curves(rows, dense, by))
        data = {"dense": dense, "rows": rows, "left_out": left, "headline": by.headline}
        return Answer(tuple(findings), (*blocks, _table(rows, dense, once, by)), data)

    def _row(
        self, name: str, sparsity: float, runs: Sequence[Measured], by: Yardstick
    ) -> dict[str, Any]:
        kept = [tuple(map(sum, zip(*m.result["masks"].values(), strict=True))) for m in runs]
        return {
            "finder": name,
            "asked": sparsity,
            "sparsity": mean_sd(1 - k / n for k, n in kept)[0],
            "values": _values(runs, by),
            "search": mean_sd(m.cost - m.seconds for m in runs)[0],
            "training": mean_sd(m.seconds for m in runs)[0],
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


def _said(
    rows: Sequence[Mapping[str, Any]], dense: Mapping[int, float], by: Yardstick
) -> list[str]:
    """Return what may be said at each sparsity, tests corrected for the number of finders."""
    said = []
    for sparsity in dict.fromkeys(row["asked"] for row in rows):
        here = [row for row in rows if row["asked"] == sparsity]
        level = 0.05 / len(here)
        better = [r["finder"] for r in here if r["p_better_than_random"] < level]
        worse = [r["finder"] for r in here if r["p_worse_than_dense"] < level]
        first = here[0]
        said.append(
            f"{100 * sparsity:g} % sparse, n = {len(dense)}: the highest mean is "
            f"{first['finder']}'s, {by.headline} {cell(first['values'].values())}; dense has "
            f"{cell(dense.values())}. "
            f"Better than a random mask (5 % over all finders): {', '.join(better) or 'none'}. "
            f"Worse than dense: {', '.join(worse) or 'none shown'}."
        )
    return said


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


def _table(
    rows: Sequence[Mapping[str, Any]], dense: Mapping[int, float], once: float, by: Yardstick
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
            f"{100 * row['sparsity']:.1f} %",
            cell(row["values"].values()),
            between(row, "dense"),
            between(row, "random"),
            f"{row['search'] / once:.2f}",
            f"{row['training'] / once:.2f}",
            ", ".join(row["flags"]),
        )
        for row in rows
    ]
    cells.append((DENSE, "0 %", cell(dense.values()), "", "", "", "1.00", ""))
    head = f"test {by.headline}"
    columns = (
        "finder",
        "sparsity",
        head,
        "- dense",
        "- random-mask",
        "search",
        "training",
        "flags",
    )
    note = (
        f"Mean ± one sample standard deviation, {len(dense)} seeds; differences with 95 % "
        "intervals, paired by seed. Search and training: in dense runs, by measured time, of one "
        "ticket."
    )
    title = f"Finders: {head} and cost"
    return Table("finders", title, columns, tuple(cells), note, frozenset({0, 7}))
