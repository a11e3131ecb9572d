"""Whether the weights to prune are those that change too slowly: criteria beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from .. import registry
from ..chain import Chain
from ..errors import BadInput, unknown
from ..finders import IMP, Elastic
from ..jobs import DENSE, Job, Level
from ..protocols import Yardstick
from ..recipe import Recipe, finder_name
from ..report.dots import Dots, dots_picture
from ..report.figures import Picture
from ..report.tables import Table
from ..trials.cells import holm
from ..trials.compare import compare
from ..trials.overlap import Shared, jaccard
from .base import Answer, Measured, Probe, Study
from .shared import cell, kept_share, mean_sd, searched, signed, tickets_at, value_of

Way = Literal["iterative", "one-shot"]
#: What the others are measured against: the size of the trained weight.
REFERENCE = "large_final"
#: The same score under the name that a search has by default, so that both share their jobs.
_SAME = {REFERENCE: "magnitude"}
FLOOR = "random"
#: Rewind rules by which a level goes on from the weights of the one before.
_GO_ON = ("learning-rate", "none")


@dataclass(frozen=True)
class Movement(Study):
    """Should the weights that change too slowly be pruned? Each criterion against |w| at the end.

    Every criterion searches its own masks, level by level and at once; masks are compared with
    those of large_final, tickets by their accuracy.
    """

    criteria: tuple[str, ...] = (
        *("movement", "magnitude_increase", "path_length", "sanh"),
        *("early_movement_1", "early_movement_2", "early_movement_5", "early_movement_10"),
    )
    """Scores beside large_final: names of `lth-zoo ls scores`."""
    ways: tuple[Way, ...] = ("iterative", "one-shot")
    """iterative: a level after another; one-shot: each level at once, from the dense run."""
    levels: tuple[int, ...] = ()
    """Levels of the search (default: the last)."""

    paper: ClassVar[str] = (
        "Zhou et al., NeurIPS 2019, arXiv:1905.01067, table 1; Sanh et al., NeurIPS 2020, "
        "arXiv:2005.07683; Frankle & Carbin, ICLR 2019, arXiv:1803.03635, appendix F.5"
    )

    def __post_init__(self) -> None:
        for name in self.criteria:
            registry.check("scores", name)
        if odd := [way for way in self.ways if way not in get_args(Way)]:
            raise unknown("ways", odd[0], get_args(Way))
        if not set(self.criteria) - {REFERENCE, FLOOR} or not self.ways:
            raise BadInput(
                f"study.criteria and study.ways must hold at least one, beside {REFERENCE!r}, "
                "which is always there"
            )

    @property
    def scores(self) -> tuple[str, ...]:
        """The reference, the criteria, and random scores as the floor, each once."""
        return tuple(dict.fromkeys((REFERENCE, *self.criteria, FLOOR)))

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the dense run, each criterion's tickets, and how alike their masks are."""
        if not isinstance(recipe.finder, IMP) or isinstance(recipe.finder, Elastic):
            raise BadInput(
                f"study 'movement' prunes by one score after another, and finder "
                f"{finder_name(recipe.finder)!r} has its own way: take imp"
            )
        one = searched(recipe, data)
        levels = sorted({arm.level.index for arm in tickets_at(one, self.levels)})
        probes = []
        for arm in one.arms:
            if arm.name == DENSE:
                probes.append(Probe({"arm": DENSE, "seed": arm.seed}, arm.goal))
        for seed in one.recipe.seeds:
            chain = Chain(one.recipe, seed, one.fingerprint)
            for way in self.ways:
                masks: dict[tuple[str, int], Job] = {}
                for score in self.scores:
                    for level in _levels(chain, _SAME.get(score, score), way, levels):
                        assert level.masks is not None
                        assert level.train is not None
                        of = {"arm": score, "way": way, "level": level.index, "seed": seed}
                        probes.append(Probe(of | {"what": "training"}, level.train))
                        masks[score, level.index] = level.masks
                        if score != REFERENCE:
                            both = {
                                "masks-a": masks[REFERENCE, level.index],
                                "masks-b": level.masks,
                            }
                            alike = Job("overlap", {"seed": seed}, both)
                            probes.append(Probe(of | {"what": "overlap"}, alike))
        return probes

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return each criterion's accuracy and masks beside large_final's."""
        dense = [value_of(m, by) for m in measured if m.of["arm"] == DENSE]
        tickets = [m for m in measured if m.of["arm"] != DENSE]
        rows: list[dict[str, Any]] = []
        pictures: list[Picture] = []
        findings: list[str] = []
        for level in sorted({m.of["level"] for m in tickets}):
            here = [m for m in tickets if m.of["level"] == level]
            found = {str(way): self._rows(here, way, by) for way in self.ways}
            for way, group in found.items():
                rows += [{"level": level, "way": way, **row} for row in group]
                findings += _said(level, way, group, by)
            pictures.append(_picture(level, found, dense, by))
        data = {"headline": by.headline, "dense": dense, "rows": rows}
        return Answer(tuple(findings), (*pictures, _table(rows, by)), data)

    def _rows(self, here: Sequence[Measured], way: str, by: Yardstick) -> list[dict[str, Any]]:
        rows = []
        own: dict[int, float] = {}
        for score in self.scores:
            mine = [m for m in here if (m.of["arm"], m.of["way"]) == (score, way)]
            trained = [m for m in mine if m.of["what"] == "training"]
            if not trained:
                continue
            values = {m.of["seed"]: value_of(m, by) for m in trained}
            row: dict[str, Any] = {
                "criterion": score,
                "kept": kept_share(trained) or 0.0,
                "values": values,
            }
            if score == REFERENCE:
                own = values
            else:
                against = compare(values, own, higher_is_better=by.higher_is_better)
                pairs = [_alike(m.result) for m in mine if m.of["what"] == "overlap"]
                row |= {"difference": against.difference, "interval": against.interval}
                row |= {"p_worse": against.p_worse, "p_better": against.p_better}
                row |= {"jaccard": [j for j, _ in pairs], "chance": [c for _, c in pairs]}
            rows.append(row)
        tested = [row for row in rows if row.get("interval") is not None]
        ps = holm([min(1.0, 2 * min(row["p_worse"], row["p_better"])) for row in tested])
        for row, p in zip(tested, ps, strict=True):
            row["p"] = p
        return rows


def _levels(chain: Chain, score: str, way: str, wanted: Sequence[int]) -> Iterator[Level]:
    """Yield the levels of a criterion; at once, each has the whole amount of its level."""
    finder = chain.recipe.finder
    assert isinstance(finder, IMP)
    # Where each level starts afresh, random scores are level by level what they are at once.
    afresh = type(finder) is IMP and finder.rewind.partition("=")[0] not in _GO_ON
    if way == "iterative" and not (score == FLOOR and afresh):
        found = replace(finder, score=score).search(chain)
        yield from (level for level in found if level.index in wanted)
        return
    dense = chain.dense(finder.rewind)
    assert dense.train is not None
    amounts = finder.schedule(chain.density)
    for index in wanted:
        masks = chain.prune(
            *(dense.train, None),
            **(amounts[index - 1] | {"score": score, "scope": finder.scope, "start": dense.start}),
        )
        yield replace(finder.level(chain, dense.train, masks, 1), index=index)


def _alike(result: Mapping[str, Any]) -> tuple[float, float]:
    return jaccard(Shared(**row) for row in result["layers"].values())


def _said(level: int, way: str, rows: Sequence[Mapping[str, Any]], by: Yardstick) -> Iterator[str]:
    """Yield what a level's criteria come to: accuracy, then masks."""
    tested = [row for row in rows if "p" in row]
    groups: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for row in tested:
        sure = row["p"] < 0.05
        verdict = ("better" if row["p_better"] < row["p_worse"] else "worse") if sure else "open"
        groups[verdict].append(f"{row['criterion']} {signed(row['difference'], row['interval'])}")
    words = {
        "better": f"better than {REFERENCE}",
        "worse": "worse",
        "open": "not told apart from it",
    }
    kept = f"{100 * rows[0]['kept']:.3g} % kept" if rows else ""
    for verdict, found in groups.items():
        if found:
            n = len(tested[0]["values"])
            yield (
                f"Level {level} ({kept}), {way}, {words[verdict]} in {by.headline}: "
                f"{'; '.join(found)} (paired, n = {n}, Holm over {len(tested)} criteria)."
            )
    pairs = [r for r in rows if r.get("jaccard") and r["criterion"] != FLOOR]
    if pairs:
        alike = "; ".join(
            f"{r['criterion']} {cell(r['jaccard'])} (chance {mean_sd(r['chance'])[0]:.2f})"
            for r in pairs
        )
        yield f"Level {level}, {way}, Jaccard index of the masks and those of {REFERENCE}: {alike}."


def _picture(
    level: int,
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    dense: Sequence[float],
    by: Yardstick,
) -> Picture:
    names = list(dict.fromkeys(row["criterion"] for rows in found.values() for row in rows))
    values = {
        way: {row["criterion"]: mean_sd(row["values"].values()) for row in rows}
        for way, rows in found.items()
    }
    alike = {
        way: {row["criterion"]: mean_sd(row["jaccard"]) for row in rows if row.get("jaccard")}
        for way, rows in found.items()
    }
    chance = {
        way: {row["criterion"]: mean_sd(row["chance"])[0] for row in rows if row.get("chance")}
        for way, rows in found.items()
    }
    lines = {DENSE: mean_sd(dense)} if dense else {}
    return dots_picture(
        f"movement-{level}",
        f"Criteria at level {level}",
        "Bars: one standard deviation over seeds. Grey strokes: two random masks with the same "
        "densities by layer.",
        [
            Dots(f"test {by.headline}", values, lines),
            Dots(f"Jaccard index with {REFERENCE}", alike, {}, chance),
        ],
        names,
    )


def _table(rows: Sequence[Mapping[str, Any]], by: Yardstick) -> Table:
    cells = tuple(
        (
            str(row["level"]),
            row["way"],
            row["criterion"],
            f"{100 * row['kept']:.3g} %",
            cell(row["values"].values()),
            signed(row.get("difference"), row.get("interval")),
            f"{row['p']:.3f}" if "p" in row else "",
            cell(row["jaccard"]) if row.get("jaccard") else "",
            f"{mean_sd(row['chance'])[0]:.2f}" if row.get("chance") else "",
        )
        for row in rows
    )
    columns = (
        *("level", "way", "criterion", "kept", f"test {by.headline}", f"against {REFERENCE}"),
        *("p", "Jaccard", "by chance"),
    )
    note = (
        "Mean ± one sample standard deviation over seeds; differences paired by seed, with their "
        "95 % interval; p two-sided, Holm over the criteria of a level and way."
    )
    return Table("movement", "Criteria beside each other", columns, cells, note, frozenset({1, 2}))
