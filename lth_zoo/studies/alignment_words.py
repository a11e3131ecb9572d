"""What the study ``alignment`` shows: rows of arms, sentences, a picture and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ..jobs import DENSE, TICKET
from ..protocols import Yardstick
from ..report.charts import Chart, Line, chart_picture
from ..report.figures import Picture
from ..report.tables import Table
from ..trials.compare import compare
from .base import Measured
from .shared import cell, grouped, mean_sd, signed, told, value_of

PERMUTED, NAIVE, RANDOM = "permuted", "naive", "random"


def rows_of(measured: Sequence[Measured], by: Yardstick) -> list[dict[str, Any]]:
    """Return each arm's values by seed, with its difference to the naive mask."""
    runs = [m for m in measured if "point" in m.of]
    values = {
        key: {seed: run["metrics"]["test"][by.headline] for seed, run in found.items()}
        for key, found in grouped(runs, "level", "point", "arm").items()
    }
    rows = []
    for (level, point, arm), own in values.items():
        naive = values.get((level, point, NAIVE), {})
        row: dict[str, Any] = {"level": level, "point": point, "arm": arm, "values": own}
        if arm != NAIVE:
            against = compare(own, naive, higher_is_better=by.higher_is_better)
            row |= {"difference": against.difference, "interval": against.interval}
        if arm == PERMUTED:
            row["closed"] = _closed(own, naive, values.get((level, point, TICKET), {}))
        rows.append(row)
    return rows


def _closed(
    own: Mapping[int, float], naive: Mapping[int, float], ticket: Mapping[int, float]
) -> float | None:
    """Return the share of the gap between naive and ticket that is closed; None where it is none.

    A gap that seeds do not tell from zero is no gap.
    """
    gap = compare(ticket, naive)
    seeds = own.keys() & naive.keys() & ticket.keys()
    if not seeds or not told(gap.interval):
        return None
    gain = fmean(own[s] for s in seeds) - fmean(naive[s] for s in seeds)
    return gain / fmean(ticket[s] - naive[s] for s in seeds)


def dense_of(measured: Sequence[Measured], by: Yardstick) -> dict[str, dict[int, float]]:
    """Return the dense networks' values, A's and B's, by seed."""
    return {
        name: {m.of["seed"]: value_of(m, by) for m in measured if m.of.get("dense") == name}
        for name in ("A", "B")
    }


def match_of(measured: Sequence[Measured], by: Yardstick) -> dict[str, dict[int, float]]:
    """Return by seed how well units were matched, and the barriers between the networks.

    ``moved`` is the share of units that changed places; ``before`` and ``after`` are the mean
    correlations over groups of units that stand in one place, ``barrier ...`` of the dense lines.
    """
    found: dict[str, dict[int, float]] = {"moved": {}, "before": {}, "after": {}}
    for one in measured:
        seed = one.of["seed"]
        if one.of.get("what") == "align":
            found["moved"][seed] = one.result["moved"]
            for name, key in (("before", "before"), ("after", "matched")):
                found[name][seed] = fmean(group[key] for group in one.result["groups"])
        if one.of.get("what") == "line":
            values = found.setdefault(f"barrier {one.of['of']}", {})
            values[seed] = _drop(one.result["rows"], by)
    return found


def _drop(rows: Sequence[Mapping[str, float]], by: Yardstick) -> float:
    """Return how much worse the worst place of a line is than the mean of its ends."""
    values = [row[by.headline] if by.higher_is_better else -row[by.headline] for row in rows]
    return fmean((values[0], values[-1])) - min(values)


def matched_words(match: Mapping[str, Mapping[int, float]]) -> str:
    """Return a sentence on how well the units of two networks were matched."""
    if not match["moved"]:
        return ""
    means = {name: fmean(values.values()) for name, values in match.items() if values}
    text = (
        f"Matching moves {100 * means['moved']:.0f} % of the units; the mean correlation of "
        f"their activations goes from {means['before']:.2f} to {means['after']:.2f}"
    )
    first, second = (means.get(f"barrier {name}") for name in ("before", "after"))
    if first is not None and second is not None:
        text += f", the barrier between the dense networks from {first:.1f} to {second:.1f}"
    return f"{text}, n = {len(match['moved'])}."


def said(row: Mapping[str, Any], by: Yardstick) -> str:
    """Return a sentence on the permuted mask against the naive one, "" on other arms."""
    if row["arm"] != PERMUTED or row["interval"] is None:
        return ""
    side = told(row["interval"]) * (1 if by.higher_is_better else -1)
    word = {1: "better than", 0: "not told from", -1: "worse than"}[side]
    share = ""
    if side > 0 and row["closed"] is not None:
        share = f"; {100 * row['closed']:.0f} % of the gap to the ticket is closed"
    return (
        f"Level {row['level']}, from iteration {row['point']}: the permuted mask is {word} the "
        f"naive one, {by.headline} {signed(row['difference'], row['interval'])}, paired, "
        f"n = {len(row['values'])}{share}."
    )


def picture(
    rows: Sequence[Mapping[str, Any]], dense: Mapping[int, float], by: Yardstick
) -> Picture:
    """Return every arm's metric over the points that training starts from, a panel a level."""
    charts = [_chart(level, rows, dense, by) for level in dict.fromkeys(r["level"] for r in rows)]
    return chart_picture(
        *("alignment", f"Test {by.headline} of a mask on another initialisation"),
        "Bands: one standard deviation over seeds; dashed: the dense network.",
        charts,
        [DENSE, TICKET, PERMUTED, NAIVE, RANDOM],
    )


def _chart(
    level: int, rows: Sequence[Mapping[str, Any]], dense: Mapping[int, float], by: Yardstick
) -> Chart:
    own = [row for row in rows if row["level"] == level]
    lines = [Line(DENSE, ((0.0, *mean_sd(dense.values())),), level=True)] if dense else []
    for arm in dict.fromkeys(row["arm"] for row in own):
        points = [
            (float(row["point"]), *mean_sd(row["values"].values()))
            for row in own
            if row["arm"] == arm
        ]
        lines.append(Line(arm, tuple(sorted(points))))
    ticks = tuple(sorted({float(row["point"]) for row in own}))
    up = f"test {by.headline}"
    return Chart("trained from iteration", up, tuple(lines), f"level {level}", ticks=ticks)


def masks_table(
    rows: Sequence[Mapping[str, Any]], dense: Mapping[str, Mapping[int, float]], by: Yardstick
) -> Table:
    """Return every arm's metric, and what alignment gains over the naive mask."""
    plain = [
        ("", "", f"{DENSE} {name}", cell(values.values()), "", "")
        for name, values in dense.items()
        if values
    ]
    cells = [
        (
            str(row["level"]),
            str(row["point"]),
            row["arm"],
            cell(row["values"].values()),
            signed(row.get("difference"), row.get("interval")),
            "" if row.get("closed") is None else f"{100 * row['closed']:.0f} %",
        )
        for row in rows
    ]
    columns = ("level", "from", "mask", f"test {by.headline}", "against naive")
    note = (
        "Mean ± one sample standard deviation over seeds; differences are paired, with their 95 % "
        "interval. ticket: on its own network A; the others on a fresh initialisation, B. Gap: "
        "between naive and ticket, where seeds tell it from zero."
    )
    title = "A mask on another initialisation"
    shown = (*plain, *cells)
    return Table("masks", title, (*columns, "gap closed"), shown, note, frozenset({2}))


def match_table(match: Mapping[str, Mapping[int, float]]) -> Table:
    """Return how well units were matched."""
    what = {
        "correlation of units in one place": ("before", "after"),
        "barrier between the dense networks": ("barrier before", "barrier after"),
    }
    cells = tuple(
        (label, *(cell(match[name].values()) for name in names))
        for label, names in what.items()
        if all(match.get(name) for name in names)
    )
    columns = ("", "as they are", "units matched")
    note = "Mean ± one sd over seeds. Barrier: on the validation part, norms settled."
    return Table("matches", "How well units were matched", columns, cells, note)
