"""How much noise on its initial weights a ticket bears, and whether it is the signs that matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from ..chain import Chain
from ..errors import BadInput, unknown
from ..experiment import Arm
from ..jobs import DENSE, TICKET, Job
from ..protocols import Yardstick
from ..recipe import Recipe
from ..report.charts import Chart, Line, chart_picture
from ..report.tables import Table
from ..trials.cells import holm
from ..trials.compare import compare
from .base import Answer, Measured, Probe, Study
from .shared import cell, grouped, mean_sd, searched, tickets_at

Signs = Literal["free", "kept"]
#: What the arm with noise is called, by whether its signs may flip.
NOISED = {"free": "noise", "kept": "noise, signs kept"}


@dataclass(frozen=True)
class Noise(Study):
    """Does a ticket still train after noise on its initial weights? (Frankle & Carbin 2019, F.7)

    Kept weights get N(0, (sigma s)^2), s the sd of the layer's initial draw, then the ticket
    trains as usual, paired with the ticket itself; a fresh initialisation is the floor.
    """

    sigmas: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)
    """Noise in standard deviations of each layer's initial draw."""
    signs: tuple[Signs, ...] = ("free", "kept")
    """free: weights may cross zero; kept: what would is drawn again."""
    draws: int = 1
    """Noise draws a seed."""
    levels: tuple[int, ...] = ()
    """Levels of the search (default: the last)."""

    paper: ClassVar[str] = "Frankle & Carbin, ICLR 2019, arXiv:1803.03635, appendix F.7"

    def __post_init__(self) -> None:
        for sigma in self.sigmas:
            if not 0 <= sigma < float("inf"):
                raise BadInput(f"study.sigmas holds {sigma}; it must be at least 0")
        if odd := [s for s in self.signs if s not in get_args(Signs)]:
            raise unknown("signs", odd[0], get_args(Signs))
        if self.draws < 1 or not self.sigmas or not self.signs:
            raise BadInput("study.draws, study.sigmas and study.signs must hold at least one")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return dense, ticket and re-initialised trainings, and those of every noised start."""
        one = searched(recipe, data, ["reinit"])
        found = [Probe({"arm": DENSE, "seed": a.seed}, a.goal) for a in one.arms if a.name == DENSE]
        for arm in tickets_at(one, self.levels):
            at = {"level": arm.level.index, "seed": arm.seed}
            chain = Chain(one.recipe, arm.seed, one.fingerprint)
            fresh = chain.control("reinit", arm.level, "init").train
            assert fresh is not None
            found += [Probe({"arm": TICKET, **at}, arm.goal), Probe({"arm": "reinit", **at}, fresh)]
            found += self._noised(chain, arm, at)
        return found

    def _noised(self, chain: Chain, arm: Arm, at: Mapping[str, Any]) -> Iterator[Probe]:
        level, first = arm.level, chain.initial()
        assert level.masks is not None
        for sigma in self.sigmas:
            for signs in self.signs:
                for draw in range(self.draws):
                    config = {"seed": arm.seed, "sigma": sigma, "signs": signs, "draw": draw}
                    inputs = {"start": level.start, "masks": level.masks, "init": first}
                    noise = Job("noise", config, inputs)
                    of = {"arm": NOISED[signs], "sigma": sigma, "draw": draw, **at}
                    train = chain.again(arm.goal, noise, level.masks)
                    yield Probe(of | {"what": "training"}, train)
                    yield Probe(of | {"what": "noise"}, noise)

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return the accuracy under every noise beside the ticket's and a fresh start's."""
        dense = [_value(m, by) for m in measured if m.of["arm"] == DENSE]
        levels = sorted({m.of["level"] for m in measured if "level" in m.of})
        rows: list[dict[str, Any]] = []
        charts, findings = [], []
        for level in levels:
            here = [m for m in measured if m.of.get("level") == level]
            found = self._rows(here, by)
            rows += [{"level": level, **row} for row in found]
            charts.append(_chart(level, found, dense, by))
            findings += [said for row in found if (said := _said(level, row, by))]
        chart = chart_picture(
            *("noise", f"Test {by.headline} after noise on the initial weights"),
            "Bands: one standard deviation over seeds; dashed: no noise to compare with.",
            charts,
        )
        data = {"headline": by.headline, "rows": rows, "dense": dense}
        return Answer(tuple(findings), (chart, _table(rows, by)), data)

    def _rows(self, here: Sequence[Measured], by: Yardstick) -> list[dict[str, Any]]:
        plain = grouped([m for m in here if "sigma" not in m.of], "arm")
        values = {
            arm: {seed: r["metrics"]["test"][by.headline] for seed, r in runs.items()}
            for (arm,), runs in plain.items()
        }
        rows = [{"arm": arm, "sigma": None, "values": found} for arm, found in values.items()]
        own = values.get(TICKET, {})
        noised = [m for m in here if m.of.get("what") == "training"]
        for key in dict.fromkeys((m.of["arm"], m.of["sigma"]) for m in noised):
            runs = [m for m in noised if (m.of["arm"], m.of["sigma"]) == key]
            seeds: dict[int, list[float]] = {}
            for run in runs:
                seeds.setdefault(run.of["seed"], []).append(_value(run, by))
            means = {seed: sum(found) / len(found) for seed, found in seeds.items()}
            flips = [
                m.result["flipped"]
                for m in here
                if m.of.get("what") == "noise" and (m.of["arm"], m.of["sigma"]) == key
            ]
            against = compare(means, own, higher_is_better=by.higher_is_better)
            row = {"arm": key[0], "sigma": key[1], "values": means, "flipped": flips}
            rows.append(
                row
                | {"difference": against.difference, "interval": against.interval}
                | {"p_worse": against.p_worse, "p_better": against.p_better}
            )
        tested = [row for row in rows if row.get("interval") is not None]
        ps = holm([min(1.0, 2 * min(row["p_worse"], row["p_better"])) for row in tested])
        for row, p in zip(tested, ps, strict=True):
            row |= {"p": p, "tests": len(tested)}
        return rows


def _value(one: Measured, by: Yardstick) -> float:
    return float(one.result["metrics"]["test"][by.headline])


def _said(level: int, row: Mapping[str, Any], by: Yardstick) -> str:
    """Return a sentence on one noise, empty where there is nothing to say."""
    if row.get("difference") is None or row.get("interval") is None:
        return ""
    low, high = row["interval"]
    mean = 100 * mean_sd(row["flipped"])[0]
    side = "worse than" if row["p_worse"] < row["p_better"] else "better than"
    verdict = side if row["p"] < 0.05 else "not told apart from"
    return (
        f"Level {level}, {row['arm']} of {row['sigma']:g} sd ({mean:.0f} % of the kept weights "
        f"change sign): {verdict} the ticket, {by.headline} {row['difference']:+.2f} "
        f"[{low:+.2f}, {high:+.2f}] (paired, n = {len(row['values'])}, Holm over {row['tests']})."
    )


def _chart(
    level: int, rows: Sequence[Mapping[str, Any]], dense: Sequence[float], by: Yardstick
) -> Chart:
    lines = [Line(DENSE, ((0.0, *mean_sd(dense)),), level=True)] if dense else []
    for row in rows:
        if row["sigma"] is None:
            lines.append(Line(row["arm"], ((0.0, *mean_sd(row["values"].values())),), level=True))
    for arm in dict.fromkeys(row["arm"] for row in rows if row["sigma"] is not None):
        points = [
            (row["sigma"], *mean_sd(row["values"].values())) for row in rows if row["arm"] == arm
        ]
        lines.append(Line(arm, tuple(sorted(points))))
    across = "noise, in sd of the layer's initial draw"
    return Chart(across, f"test {by.headline}", tuple(lines), f"level {level}")


def _table(rows: Sequence[Mapping[str, Any]], by: Yardstick) -> Table:
    cells = tuple(
        (
            str(row["level"]),
            row["arm"],
            "" if row["sigma"] is None else f"{row['sigma']:g}",
            f"{100 * mean_sd(row['flipped'])[0]:.1f} %" if "flipped" in row else "",
            cell(row["values"].values()),
            f"{row['difference']:+.2f}" if row.get("difference") is not None else "",
        )
        for row in rows
    )
    columns = ("level", "arm", "sd", "signs flipped", f"test {by.headline}", "against the ticket")
    note = "Mean ± one sample standard deviation over seeds; draws of a seed are averaged first."
    return Table("noise", "Tickets after noise", columns, cells, note, frozenset({1}))
