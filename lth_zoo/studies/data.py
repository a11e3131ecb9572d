"""Whether a ticket found on one data set is one on another: transfer matrices, one a carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, get_args

from .. import registry
from ..errors import BadInput, unknown
from ..jobs import DENSE
from ..protocols import Yardstick, adapter_of
from ..recipe import Recipe
from ..report.dots import Dots, dots_picture
from ..report.figures import Picture
from ..report.heatmap import transfer_pictures
from ..report.matrix import means_table, overlap_table
from ..report.tables import NONE, Table
from ..seeds import seeded
from ..session import task_for
from ..trials.cells import TransferResults, holm, judge_cells
from ..trials.collect_cells import collect_transfer
from ..trials.compare import Comparison, compare
from ..trials.transfer import RANDOM, RANDOM_LABELS, Carry, searched_on, transfer_matrix
from .base import Answer, Measured, Probe, Study
from .shared import cell, signed

#: Groups of cells, as they are called: what is not the target's own ticket.
OTHER, OWN_PERMUTED, OTHER_PERMUTED, LOTS = (
    "other data",
    "own data, random labels",
    "other data, random labels",
    "random mask",
)

#: What a random mask carries of a source.
NOTHING = "no source"


@dataclass(frozen=True)
class OtherData(Study):
    """Is a ticket found on one data set one on another? (Morcos et al. 2019; Su et al. 2020)

    Every set's ticket is trained on every set, beside tickets found on permuted labels and random
    masks with the layer counts of the target's own.
    """

    sets: tuple[str, ...] = ()
    """Data sets, sources and targets alike (default: the two halves of the recipe's own)."""
    carries: tuple[Carry, ...] = ("mask", "mask+state", "mask+signs")
    """What comes along: the mask alone, with the source ticket's trained weights, their signs."""
    labels: bool = True
    """Whether tickets are also found on permuted labels of every set."""
    prune_last: bool = False
    """Whether searches prune the output layer, which carried masks leave dense."""

    paper: ClassVar[str] = (
        "Morcos et al., NeurIPS 2019, arXiv:1906.02773; Su et al., NeurIPS 2020, arXiv:2009.11094"
    )

    def __post_init__(self) -> None:
        if odd := [c for c in self.carries if c not in get_args(Carry)]:
            raise unknown("carry", odd[0], get_args(Carry))
        if not self.carries:
            raise BadInput("study.carries must hold at least one of mask, mask+state, mask+signs")
        if len(set(self.sets)) == 1:
            raise BadInput(f"study.sets is {self.sets[0]!r} alone; give at least two")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return every cell of the matrices, and the dense networks.

        Raises:
            BadInput: the sets are not images of one shape.
        """
        sets = self.sets or _halves(recipe.task)
        recipe = replace(recipe, prune_last=self.prune_last)
        shapes = {name: task_for(replace(recipe, task=name), data).signature for name in sets}
        if odd := [n for n in sets if shapes[n].input != shapes[sets[0]].input]:
            a, b = ("x".join(map(str, shapes[n].input)) for n in (sets[0], odd[0]))
            raise BadInput(
                f"study.sets holds {sets[0]} ({a}) and {odd[0]} ({b}): a mask fits inputs of one "
                "shape alone"
            )
        _check_head(recipe, data)
        permuted = [name + RANDOM_LABELS for name in sets if self.labels]
        probes = []
        for carry in self.carries:
            matrix, _ = transfer_matrix(recipe, [*sets, *permuted, RANDOM], sets, carry, data)
            of = {"carry": carry, "matrix": matrix}
            probes += [
                Probe({**of, "source": c.source, "target": c.target, "seed": c.seed}, c.goal)
                for c in matrix.cells
            ]
            for target in matrix.targets:
                at = {**of, "source": DENSE, "target": target}
                probes += [
                    Probe({**at, "seed": arm.seed}, arm.goal) for arm in matrix.dense_of(target)
                ]
        return probes

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return each matrix's heat maps, and what groups of cells have less their own tickets."""
        found: dict[str, TransferResults] = {}
        for one in measured:
            if one.of["carry"] not in found:
                assert one.store is not None
                found[one.of["carry"]] = collect_transfer(one.of["matrix"], one.store)
        rows = _rows(found)
        pictures, tables = [], []
        for carry, results in found.items():
            judged = judge_cells(results)
            drawn = transfer_pictures(results, judged)
            pictures += [_named(p, carry) for p in drawn if p.name != "overlap"]
            tables.append(_named(means_table(results, judged), carry))
        first = next(iter(found.values()))
        overlap = transfer_pictures(first, judge_cells(first))[-1:] if first.overlaps else []
        notes = dict.fromkeys(note for results in found.values() for note in results.notes)
        findings = (*(s for row in rows if (s := _said(row, by))), *_alike(first), *notes)
        matrices = {c: r.to_json() for c, r in found.items()}
        data = {"headline": by.headline, "rows": rows, "matrices": matrices}
        blocks = (_dots(rows, by), *pictures, _table(rows, by), *tables)
        return Answer(findings, (*blocks, *overlap, overlap_table(first)), data)


def _halves(task: str) -> tuple[str, ...]:
    """Return the two halves of a task, by name."""
    kind = registry.find("tasks", task)
    known = kind.known_variants() if hasattr(kind, "known_variants") else ()
    if "half-1" not in known or "@" in task:
        raise BadInput(
            f"study.sets is empty, and task {task!r} has no halves: give the data sets, such as "
            "--study.sets mnist fashion-mnist"
        )
    return f"{task}@half-1", f"{task}@half-2"


def _check_head(recipe: Recipe, data: Path | None) -> None:
    """Raise if the finder prunes the output layer by a share of its own, and it is to be dense."""
    adapter = adapter_of(recipe.model)
    with seeded(0, "init"):
        model = adapter.build(recipe.model, task_for(recipe, data).signature)
    layers = {name.rpartition(".")[0] for name in adapter.head(model)}
    odd = layers.intersection(getattr(recipe.finder, "overrides", dict)())
    if odd and not recipe.prune_last:
        raise BadInput(
            f"the finder prunes the output layer {odd.pop()!r} by a share of its own, and carried "
            "masks leave it dense: give --study.prune-last, and tickets keep unequal counts, or a "
            "finder without it"
        )


def _group(source: str, target: str) -> str:
    """Return the group of a cell; empty of the target's own ticket."""
    if source == RANDOM:
        return LOTS
    if searched_on(source) != source:
        return OWN_PERMUTED if searched_on(source) == target else OTHER_PERMUTED
    return "" if source == target else OTHER


def _rows(found: Mapping[str, TransferResults]) -> list[dict[str, Any]]:
    """Return each carry's groups: seed -> mean over cells, less own tickets and random masks.

    Differences are of the same targets, paired by seed; p by Holm over all groups and carries.
    """
    rows: list[dict[str, Any]] = []
    for carry, results in found.items():
        values = {(c.source, c.target): c.values for c in results.cells}
        higher = results.targets[0].higher_is_better
        for group in (OTHER, OWN_PERMUTED, OTHER_PERMUTED, LOTS):
            cells = [pair for pair in values if _group(*pair) == group]
            if not cells or (group == LOTS and rows and rows[0]["carry"] != carry):
                continue  # random masks are the same ones, whatever is carried of others
            own = _mean(values, [(t, t) for _, t in cells])
            less = compare(_mean(values, cells), own, higher_is_better=higher)
            lots = _mean(values, [(RANDOM, t) for _, t in cells])
            beside = compare(_mean(values, cells), lots, higher_is_better=higher)
            rows.append(
                {"carry": NOTHING if group == LOTS else carry, "group": group}
                | {"cells": len(cells)}
                | {"values": _mean(values, cells), "less_own": _plain(less)}
                | {"less_random": _plain(beside) if group != LOTS else None}
            )
    tested = [row["less_own"] for row in rows if row["less_own"]["p"] is not None]
    for test, p in zip(tested, holm([test["p"] for test in tested]), strict=True):
        test["p"] = p
    return rows


def _mean(
    values: Mapping[tuple[str, str], Mapping[int, float]], cells: Sequence[tuple[str, str]]
) -> dict[int, float]:
    """Return the mean over cells of the seeds that all of them have."""
    seeds = set.intersection(*(set(values[pair]) for pair in cells))
    return {seed: fmean(values[pair][seed] for pair in cells) for seed in sorted(seeds)}


def _plain(found: Comparison) -> dict[str, Any]:
    p = None if found.se is None else min(1.0, 2 * min(found.p_worse, found.p_better))
    return {"difference": found.difference, "interval": found.interval, "p": p, "n": found.n[0]}


def _named(block: Any, carry: str) -> Any:
    """Return a picture or table of one matrix under a name of its own."""
    name = f"{block.name}-{carry.replace('+', '-')}"
    return replace(block, name=name, title=f"{block.title}: {carry}")


# -- words, tables, pictures -----------------------------------------------------------------------


def _said(row: Mapping[str, Any], by: Yardstick) -> str:
    """Return a sentence on a group, empty where nothing may be said."""
    own, lots = row["less_own"], row["less_random"]
    if own["interval"] is None:
        return ""
    sign = 1 if by.higher_is_better else -1
    better = "better than" if sign * own["difference"] > 0 else "worse than"
    verdict = better if own["p"] is not None and own["p"] <= 0.05 else "not told apart from"
    beside = ""
    if lots is not None and lots["interval"] is not None:
        beside = f"; less a random mask {signed(lots['difference'], lots['interval'])}"
    head = row["group"] if row["carry"] == NOTHING else f"{row['carry']}, {row['group']}"
    return (
        f"{head[0].upper()}{head[1:]}: {verdict} the target's own ticket, {by.headline} "
        f"{signed(own['difference'], own['interval'])} (mean of {row['cells']} cells, paired, "
        f"n = {own['n']}, Holm over groups and carries){beside}."
    )


def _alike(results: TransferResults) -> Iterator[str]:
    """Yield how much the masks of two sets share, by true and by permuted labels."""
    for o in results.overlaps:
        permuted = [name for name in (o.a, o.b) if name != searched_on(name)]
        if not permuted or searched_on(o.a) == searched_on(o.b):
            yield (
                f"Masks of {o.a} and {o.b}: Jaccard index {o.whole[0]:.3f}, by chance "
                f"{o.whole[1]:.3f}."
            )


def _dots(rows: Sequence[Mapping[str, Any]], by: Yardstick) -> Picture:
    groups = list(dict.fromkeys(row["group"] for row in rows))
    series: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        test = row["less_own"]
        if test["difference"] is not None:
            low, high = test["interval"] or (test["difference"],) * 2
            at = series.setdefault(row["carry"], {})
            at[row["group"]] = (test["difference"], (high - low) / 2)
    across = f"test {by.headline} less the target's own ticket"
    caption = "Mean over cells; bars: 95 % intervals over seeds, paired; dashed: the own ticket."
    panel = Dots(across, series, {"own ticket": (0.0, 0.0)})
    return dots_picture("data", "Tickets of other data", caption, [panel], groups)


def _table(rows: Sequence[Mapping[str, Any]], by: Yardstick) -> Table:
    def less(test: Mapping[str, Any] | None) -> str:
        return signed(test["difference"], test["interval"]) if test else ""

    def mean(values: Mapping[int, float]) -> str:
        return cell(values.values()) if values else NONE

    cells = tuple(
        (
            *(row["carry"], row["group"], str(row["cells"]), mean(row["values"])),
            *(less(row["less_own"]), less(row["less_random"])),
        )
        for row in rows
    )
    columns = ("carry", "mask of", "cells", f"test {by.headline}", "less own", "less random mask")
    note = (
        "Mean over cells, then ± one sample standard deviation over seeds; differences to the "
        "same targets, with 95 % intervals, paired by seed."
    )
    return Table("data", "Tickets of other data", columns, cells, note, frozenset({0, 1}))
