"""How the study of robustness says what it found: sentences, pictures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..report.charts import Chart, Line, chart_picture
from ..report.dots import Dots, dots_picture
from ..report.figures import Picture
from ..report.tables import Table
from .base import Measured
from .shared import cell, mean_sd, signed


def _middle(values: Mapping[str, Any]) -> str:
    """Return the PGD measure that sentences are about: of the second smallest eps."""
    kinds = [name for name in values if name.startswith("pgd")]
    return kinds[min(1, len(kinds) - 1)]


def said(level: int, kept: float, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence on the ticket beside each other arm."""
    tests = sum("p" in row for row in rows)
    for row in (r for r in rows if "p" in r):
        gap, bounds, key = row["difference"], row["interval"], _middle(row["values"])
        easier = "easier" if gap["distance"] < 0 else "harder"
        verdict = f"{easier} to attack than" if row["p"] < 0.05 else "not told apart from"
        head = f"Level {level} ({100 * kept:.3g} % kept): the ticket is {verdict} {row['arm']}"
        parts = {
            "median smallest attack": signed(gap["distance"], bounds["distance"], 4),
            f"accuracy under PGD of {key.split()[1]}": signed(gap[key], bounds[key], 1),
            "corrupted": signed(gap["corrupted"], bounds["corrupted"], 1),
            "clean": signed(gap["clean"], bounds["clean"], 1),
        }
        numbers = ", ".join(f"{name} {value}" for name, value in parts.items())
        n = len(row["values"]["clean"])
        yield f"{head}: {numbers} (paired, n = {n}; verdict on the first, Holm over {tests})."


def transferred(level: int, measured: Sequence[Measured], arms: Sequence[str]) -> Iterator[str]:
    """Yield how far attacks on the dense network and on tickets fool the other."""
    for arm in arms:
        parts = []
        for what, words in (("to", f"made on dense fool the {arm}"), ("from", "back")):
            mine = [m for m in measured if (m.of["arm"], m.of.get("level")) == (arm, level)]
            found = [m.result["eps"] for m in mine if m.of["what"] == what]
            if found:
                at = min(1, len(found[0]) - 1)
                other, own = ([rows[at][k] for rows in found] for k in ("other", "own"))
                size = f"{found[0][at]['eps']:.3g}"
                parts.append(f"{words} in {cell(other, 1)} % (where made: {cell(own, 1)} %)")
        if parts:
            yield f"Level {level}: attacks of {size} {', '.join(parts)}."


def sanity(attacks: Sequence[Measured]) -> str:
    """Return whether stronger attacks fooled more, and how much hides from slopes."""
    rows = [row for m in attacks for row in m.result["eps"]]
    pgd = sum(row["pgd"] <= row["fgsm"] for row in rows)
    noise = sum(row["fgsm"] <= row["noise"] for row in rows)
    still = max((m.result["still"] for m in attacks), default=0.0)
    return (
        f"Sanity: PGD fools at least as many as FGSM in {pgd} of {len(rows)} cases, FGSM at least "
        f"as many as noise of its norm in {noise}; at most {100 * still:.1f} % of a network's "
        "right answers have no slope to climb."
    )


# -- pictures and tables -------------------------------------------------------------------------


def pictures(level: int, rows: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Draw accuracy over the size of an attack, corruptions, and the smallest attack."""
    lines: dict[str, list[Line]] = {"pgd": [], "noise": []}
    for row in rows:
        for kind, found in lines.items():
            clean = (0.0, *mean_sd(row["values"]["clean"].values()))
            names = [n for n in row["values"] if n.startswith(f"{kind} ")]
            points = [(float(n.split()[1]), *mean_sd(row["values"][n].values())) for n in names]
            found.append(Line(row["arm"], (clean, *points)))
    titles = {"pgd": "PGD", "noise": "noise of equal norm"}
    charts = [
        Chart("eps, of a pixel's range", "test accuracy", tuple(found), titles[kind])
        for kind, found in lines.items()
    ]
    harms = [n for n in rows[0]["values"] if n in _harms(rows)]
    series = {
        row["arm"]: {harm: mean_sd(row["values"][harm].values()) for harm in harms} for row in rows
    }
    near = {
        row["arm"]: {"smallest attack": mean_sd(row["values"]["distance"].values())} for row in rows
    }
    bands = "Bands and bars: one standard deviation over seeds."
    return [
        chart_picture(f"robustness-{level}", f"Attacks at level {level}", bands, charts),
        dots_picture(
            f"corruptions-{level}",
            f"Corruptions at level {level}",
            f"{bands} Each the mean of three strengths.",
            [Dots("test accuracy", series)],
            harms,
        ),
        dots_picture(
            f"distance-{level}",
            f"Median smallest attack at level {level}",
            f"{bands} Over the images that a network answers right.",
            [Dots("eps, of a pixel's range", near)],
            ["smallest attack"],
        ),
    ]


def _harms(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the corruptions."""
    values = rows[0]["values"]
    kinds = ("noise ", "fgsm ", "pgd ", "clean", "distance", "corrupted")
    return [name for name in values if not name.startswith(kinds)]


def tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return the table of attacks and that of corruptions."""
    if not rows:
        return []
    attacks = [n for n in rows[0]["values"] if n.startswith(("fgsm ", "pgd "))]
    plain = Table(
        "robustness",
        "Accuracy under attack",
        ("level", "arm", "clean", *attacks, "smallest attack", "ticket - it"),
        tuple(
            (
                *(str(row["level"]), row["arm"], cell(row["values"]["clean"].values(), 1)),
                *(cell(row["values"][name].values(), 1) for name in attacks),
                cell(row["values"]["distance"].values(), 4),
                signed(row["difference"]["distance"], row["interval"]["distance"], 4)
                if "difference" in row
                else "",
            )
            for row in rows
        ),
        "Mean ± one sample standard deviation over seeds; the smallest attack is the median eps "
        "over images answered right, the last column paired by seed, with its 95 % interval.",
        frozenset({1}),
    )
    harms = [*_harms(rows), "corrupted"]
    harmed = tuple(
        (str(row["level"]), row["arm"], *(cell(row["values"][n].values(), 1) for n in harms))
        for row in rows
    )
    columns = ("level", "arm", *harms[:-1], "mean")
    note = "Each the mean over three strengths."
    title = "Accuracy under corruptions"
    return [plain, Table("corruptions", title, columns, harmed, note, frozenset({1}))]
