"""The cells of a transfer matrix as plain data, and what may be said of each.

A cell is one ticket, found on a source and trained on a target, over seeds. It is compared
with the dense network and with the same-task ticket of its target; the marks are corrected
for the number of cells by Holm's method (Holm 1979, Scand. J. Statist. 6:65-70).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .compare import Comparison, compare
from .findings import Arm
from .overlap import Overlap

#: What comes along where edges go from backbone to backbone: see ``TransferResults.carry``.
GRAPH_MASK = "edges"


@dataclass(frozen=True)
class CellRun:
    """One trained network: its headline test metric, and what it kept.

    ``value`` is None where it failed, and ``error`` says why. ``kept`` of ``prunable`` weights are
    left; ``edges`` is the same of a graph's edges, None where none are pruned.
    """

    seed: int
    value: float | None = None
    kept: int = 0
    prunable: int = 0
    flags: tuple[str, ...] = ()
    error: str = ""
    edges: tuple[int, int] | None = None


@dataclass(frozen=True)
class Cell:
    """Every seed's run of a source's ticket on a target; source "dense" is no ticket at all."""

    source: str
    target: str
    runs: tuple[CellRun, ...]

    @property
    def values(self) -> dict[int, float]:
        """Seed -> metric: nan for a run that diverged, nothing for one that failed otherwise."""
        known = {run.seed: run.value for run in self.runs if run.value is not None}
        return known | {run.seed: math.nan for run in self.runs if "diverged" in run.flags}

    @property
    def errors(self) -> dict[int, str]:
        """Seed -> why it failed."""
        return {run.seed: run.error for run in self.runs if run.error}

    @property
    def constant(self) -> tuple[int, ...]:
        """The seeds whose network answers, or makes, one thing whatever it is asked."""
        alike = {"constant", "collapsed"}
        return tuple(run.seed for run in self.runs if alike.intersection(run.flags))

    @property
    def kept(self) -> float | None:
        """Mean number of kept weights over the finished runs."""
        counts = [run.kept for run in self.runs if run.value is not None]
        return sum(counts) / len(counts) if counts else None

    @property
    def kept_edges(self) -> float | None:
        """Mean number of kept edges over the finished runs that have some pruned."""
        counts = [run.edges[0] for run in self.runs if run.value is not None and run.edges]
        return sum(counts) / len(counts) if counts else None


@dataclass(frozen=True)
class Target:
    """A task, or a backbone on the task, that tickets are brought to: how it is measured, dense.

    ``margin`` is in the metric's unit; ``margin_share`` is the share of the dense mean that it is
    by the task's own word, else 0.
    """

    name: str
    headline: str
    higher_is_better: bool
    margin: float
    dense: Cell
    margin_share: float = 0.0


@dataclass(frozen=True)
class TransferResults:
    """A whole matrix as measured; ``cells`` hold each target's own ticket too.

    Sources and targets are tasks; or, where ``axis`` is ``model``, models on one task. Where
    ``carry`` is ``edges`` they are backbones: the own ticket is then its edges alone, with every
    weight. Else they make images, and the own ticket is of the network that does.
    """

    recipe: dict[str, Any]
    sources: tuple[str, ...]
    targets: tuple[Target, ...]
    carry: str
    cells: tuple[Cell, ...]
    overlaps: tuple[Overlap, ...] = ()
    notes: tuple[str, ...] = ()
    cost: dict[str, float] = field(default_factory=dict)
    axis: str = "task"

    @property
    def of_backbones(self) -> bool:
        """Whether edges were brought from backbone to backbone, and not tickets between tasks."""
        return self.carry == GRAPH_MASK

    @property
    def of_makers(self) -> bool:
        """Whether tickets of decoders and generators were brought from model to model."""
        return self.axis == "model" and not self.of_backbones

    def cell(self, source: str, target: str) -> Cell:
        """Return one cell."""
        return next(c for c in self.cells if (c.source, c.target) == (source, target))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TransferResults:
        """Read what :meth:`to_json` returned, from JSON as well."""
        targets = [Target(**{**t, "dense": _cell(t["dense"])}) for t in data["targets"]]
        return cls(
            **{
                **data,
                "sources": tuple(data["sources"]),
                "targets": tuple(targets),
                "cells": tuple(map(_cell, data["cells"])),
                "overlaps": tuple(Overlap.from_json(o) for o in data["overlaps"]),
                "notes": tuple(data["notes"]),
            }
        )


def _cell(data: Mapping[str, Any]) -> Cell:
    runs = []
    for run in data["runs"]:
        edges = tuple(run["edges"]) if run.get("edges") else None
        runs.append(CellRun(**{**run, "flags": tuple(run["flags"]), "edges": edges}))
    return Cell(data["source"], data["target"], tuple(runs))


@dataclass(frozen=True)
class Judged:
    """What may be said of a cell.

    ``against_dense`` and ``against_ticket`` are cell minus dense and cell minus same-task
    ticket (of backbones: their own edges), in the metric's own unit, with intervals that no other
    cell widens. ``p_differs`` (two-sided), ``p_as_good`` (not worse than the same-task ticket by
    the margin) and ``p_matches`` (the same against dense) are corrected by Holm's method, each
    among all the cells asked that question; None where fewer than two seeds can answer.
    ``at_least_ticket`` is the rule of Chen et al. 2020: its mean is at least that ticket's.
    """

    source: str
    target: str
    arm: Arm
    against_dense: Comparison
    against_ticket: Comparison | None
    p_differs: float | None
    p_as_good: float | None
    p_matches: float | None
    at_least_ticket: bool | None
    higher_is_better: bool
    alpha: float

    @property
    def better(self) -> bool:
        """Whether it is significantly better than the same-task ticket."""
        return self._differs(1)

    @property
    def worse(self) -> bool:
        """Whether it is significantly worse than the same-task ticket."""
        return self._differs(-1)

    @property
    def as_good(self) -> bool:
        """Whether it is shown to be no worse than the same-task ticket by the margin."""
        return self.p_as_good is not None and self.p_as_good <= self.alpha

    @property
    def matches(self) -> bool:
        """Whether it is shown to be no worse than the dense network by the margin."""
        return self.p_matches is not None and self.p_matches <= self.alpha

    def _differs(self, sign: int) -> bool:
        if self.p_differs is None or self.p_differs > self.alpha or self.against_ticket is None:
            return False
        found = self.against_ticket
        return (found.p_better < found.p_worse) == (sign > 0)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; no value is nan or infinite."""
        said = {name: getattr(self, name) for name in ("better", "worse", "as_good", "matches")}
        return {**asdict(self), **said}


def judge_cells(results: TransferResults, alpha: float = 0.05) -> list[Judged]:
    """Compare every cell with its target's dense network and same-task ticket.

    The chance that any mark of one kind is false, over the whole matrix, is at most ``alpha``.
    """
    paired = results.recipe.get("compare", "paired") == "paired"
    raw = [_compared(results, cell, paired, alpha) for cell in results.cells]
    columns = zip(*(ps for *_, ps in raw), strict=True)
    adjusted = list(zip(*map(_family, columns), strict=True))
    found = []
    for cell, (dense, ticket, at_least, _), ps in zip(results.cells, raw, adjusted, strict=True):
        higher = _target(results, cell.target).higher_is_better
        found.append(
            Judged(
                *(cell.source, cell.target, Arm.of(cell.values), dense, ticket),
                *(*ps, at_least, higher, alpha),
            )
        )
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [1.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, ps[index] * (len(ps) - rank)))
        adjusted[index] = highest
    return adjusted


def _family(ps: Sequence[float | None]) -> list[float | None]:
    """Correct the p-values of one question; cells that cannot answer it are not counted."""
    corrected = iter(holm([p for p in ps if p is not None]))
    return [None if p is None else next(corrected) for p in ps]


Row = tuple[Comparison, Comparison | None, bool | None, tuple[float | None, ...]]


def _compared(results: TransferResults, cell: Cell, paired: bool, alpha: float) -> Row:
    """Return both comparisons, the mean rule, and the raw p of: differs, as good, matches."""
    target = _target(results, cell.target)
    values = cell.values
    higher = target.higher_is_better

    def against(other: Mapping[int, float]) -> Comparison:
        return compare(values, other, paired=paired, alpha=alpha, higher_is_better=higher)

    dense = target.dense.values
    with_dense = against(dense)
    p_matches = _p(with_dense, values, dense, target.margin)
    if cell.source == cell.target:
        return with_dense, None, None, (None, None, p_matches)
    ticket = results.cell(cell.target, cell.target).values
    found = against(ticket)
    p_differs = min(1.0, 2 * min(found.p_worse, found.p_better)) if _two(values, ticket) else None
    at_least = None
    means = Arm.of(values).mean, Arm.of(ticket).mean
    if means[0] is not None and means[1] is not None:
        at_least = (means[0] >= means[1]) if higher else (means[0] <= means[1])
    return (
        *(with_dense, found, at_least),
        (p_differs, _p(found, values, ticket, target.margin), p_matches),
    )


def _two(a: Mapping[int, float], b: Mapping[int, float]) -> bool:
    """Say whether two arms have enough runs, diverged ones included, for a test."""
    return min(len(a), len(b)) >= 2


def _p(
    found: Comparison, values: Mapping[int, float], other: Mapping[int, float], margin: float
) -> float | None:
    """Return the p of "not worse by the margin"; a cell with a diverged run never is."""
    if not _two(values, other):
        return None
    return 1.0 if Arm.of(values).diverged else found.p_gain_above(-margin)


def _target(results: TransferResults, name: str) -> Target:
    return next(target for target in results.targets if target.name == name)
