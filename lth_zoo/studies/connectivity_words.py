"""What the study ``connectivity`` shows: rows of barriers, sentences, pictures and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ..jobs import DENSE
from ..report.charts import Chart, Line, chart_picture
from ..report.figures import Picture
from ..report.tables import Table
from ..trials.compare import compare
from .base import Measured
from .shared import between, cell, mean_sd, told


def row_of(lines: Sequence[Measured], limit: float) -> dict[str, Any]:
    """Return a pair of networks' barriers by seed, the verdict, and the mean line with its sd.

    Errors are 100 - accuracy, in points.
    """
    seeds: dict[int, list[list[float]]] = {}
    for one in lines:
        errors = [100 - row["accuracy"] for row in one.result["rows"]]
        seeds.setdefault(one.of["seed"], []).append(errors)
    barriers = {seed: fmean(map(_barrier, found)) for seed, found in seeds.items()}
    against = compare(barriers, dict.fromkeys(barriers, limit))
    verdict = {-1: "stable", 0: "undecided", 1: "unstable"}[told(against.interval)]
    means = [[fmean(at) for at in zip(*found, strict=True)] for found in seeds.values()]
    alphas = [row["alpha"] for row in lines[0].result["rows"]]
    line = [(a, *mean_sd(e)) for a, e in zip(alphas, zip(*means, strict=True), strict=True)]
    interval = against.interval and tuple(limit + end for end in against.interval)
    ends = {seed: fmean([e[0] for e in f] + [e[-1] for e in f]) for seed, f in seeds.items()}
    return {
        "barriers": barriers,
        "interval": interval,
        "verdict": verdict,
        "pairs": len(lines),
        "ends": ends,
        "line": line,
    }


def _barrier(errors: Sequence[float]) -> float:
    from ..probes.line import barrier

    return barrier(errors)


def name_of(row: Mapping[str, Any]) -> str:
    """Return ``dense``, ``level 3``, or which levels a line goes between."""
    ends = [f"level {n}" if n else DENSE for n in (row["from"], row["to"])]
    return ends[0] if row["what"] == "noise" else f"{ends[0]} to {ends[1]}"


def said(row: Mapping[str, Any], limit: float) -> str:
    """Return a sentence on one row."""
    n = len(row["barriers"])
    what = {
        "stable": f"below {limit:g}, stable",
        "unstable": f"above {limit:g}, not stable",
        "undecided": f"not told from {limit:g}",
    }[row["verdict"]]
    if n < 2:
        what = "one seed decides nothing"
    noise = "two copies on other SGD noise" if row["what"] == "noise" else "on the same noise"
    mean = fmean(row["barriers"].values())
    return (
        f"From iteration {row['point']}, {name_of(row)}, {noise}: barrier {mean:.1f} points"
        f" {between(row['interval'], 1)}".rstrip()
        + f", {what}, n = {n}."
    )


def pictures(rows: Sequence[Mapping[str, Any]], limit: float, split: str) -> list[Picture]:
    """Return the barriers over the rewind points, and the errors along the lines."""
    found = [_barriers(rows, limit)]
    caption = "Mean over seeds; bands: one standard deviation over seeds."
    kinds = {
        "noise": "Error between copies that saw other SGD noise",
        "levels": "Error between networks of several levels",
    }
    for what, title in kinds.items():
        own = [row for row in rows if row["what"] == what]
        if not own:
            continue
        charts: list[Chart] = []
        for point in dict.fromkeys(row["point"] for row in own):
            lines = [Line(name_of(r), tuple(r["line"])) for r in own if r["point"] == point]
            up = f"{split} error (%)" if not charts else ""
            title_of = f"from iteration {point}"
            charts.append(Chart("place on the line", up, tuple(lines), title_of))
        found.append(chart_picture(f"line-{what}", title, caption, charts))
    return found


def _barriers(rows: Sequence[Mapping[str, Any]], limit: float) -> Picture:
    charts: list[Chart] = []
    for what, title in (("noise", "other SGD noise"), ("levels", "between levels")):
        own = [row for row in rows if row["what"] == what]
        lines = []
        for name in dict.fromkeys(map(name_of, own)):
            points = [
                (float(row["point"]), *mean_sd(row["barriers"].values()))
                for row in own
                if name_of(row) == name
            ]
            lines.append(Line(name, tuple(points)))
        if lines:
            lines.append(Line(f"limit {limit:g}", ((0.0, limit, 0.0),), level=True))
            ticks = tuple(sorted({float(row["point"]) for row in own}))
            up = "barrier (points)" if not charts else ""
            charts.append(Chart("rewound to iteration", up, tuple(lines), title, ticks=ticks))
    caption = "Highest error on the line over the mean of its ends; bands: one sd over seeds."
    return chart_picture("barriers", "Barriers", caption, charts)


def table(rows: Sequence[Mapping[str, Any]], split: str) -> Table:
    """Return the barriers as a table."""
    cells = tuple(
        (
            str(row["point"]),
            name_of(row),
            cell(row["barriers"].values(), 1),
            between(row["interval"], 1),
            row["verdict"] if len(row["barriers"]) > 1 else "",
            cell(row["ends"].values(), 1),
            cell(row["test"].values()) if row["test"] else "",
        )
        for row in rows
    )
    columns = (
        *("from", "networks", "barrier", "95 %", "verdict"),
        *("error of the ends", "test accuracy"),
    )
    note = (
        f"In points of {split} error, mean ± one sample standard deviation over seeds; pairs of a "
        "seed are averaged first. One network: copies on other SGD noise; one to another: on the "
        "same noise. A barrier is at least half of what the ends differ by. The test accuracy is "
        "of the last named."
    )
    return Table("barriers", "Barriers on the line", columns, cells, note, frozenset({1, 4}))
