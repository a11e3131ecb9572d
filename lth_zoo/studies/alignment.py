"""Whether a ticket's mask fits another initialisation once its units stand in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..chain import Chain
from ..errors import BadInput
from ..experiment import Arm
from ..jobs import DENSE, TICKET, Job, Level
from ..protocols import Yardstick, adapter_of
from ..recipe import Recipe
from ..seeds import seeded
from ..session import task_for
from .alignment_words import (
    NAIVE,
    PERMUTED,
    RANDOM,
    dense_of,
    masks_table,
    match_of,
    match_table,
    matched_words,
    picture,
    rows_of,
    said,
)
from .base import Answer, Measured, Probe, Study
from .shared import points_of, reads, searched, tickets_at


@dataclass(frozen=True)
class Alignment(Study):
    """Does a permuted mask train from another initialisation? (Adnan et al. 2025)

    Network A's ticket is brought to network B, a fresh initialisation: as it is (naive), with A's
    units in the order in which they act like B's (permuted), or with each layer's mask drawn at
    random. The ticket on A itself is the mark to reach.
    """

    points: tuple[str, ...] = ("init", "10%")
    """Places of the dense runs that tickets start from (init, step=K, P%)."""
    levels: tuple[int, ...] = ()
    """Levels of the search (default: the last)."""
    batches: int = 20
    """Training batches of 100 that activations are matched on."""

    paper: ClassVar[str] = "Adnan, Jain, Sharma, Krishnan & Ioannou, ICML 2025, arXiv:2505.05143"

    def __post_init__(self) -> None:
        if self.batches < 1:
            raise BadInput(f"study.batches is {self.batches}; it must be at least 1")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the alignments, their lines, and the trainings from every point."""
        _check(recipe, data)
        one = searched(recipe, data)
        points = points_of(one.recipe, self.points)
        found: list[Probe] = []
        dense = {arm.seed: arm.goal for arm in one.arms if arm.name == DENSE}
        for arm in tickets_at(one, self.levels):
            chain = Chain(one.recipe, arm.seed, one.fingerprint)
            other = chain.initial(draw=1)
            trained = chain.train(other)
            aligned = self._aligned(dense[arm.seed], trained, arm)
            at = {"level": arm.level.index, "seed": arm.seed}
            found += [Probe({"dense": "A", **at}, dense[arm.seed])]
            found += [Probe({"dense": "B", **at}, trained)]
            found += [Probe({"what": "align", **at}, aligned)]
            for name, first in (("before", dense[arm.seed]), ("after", aligned)):
                line = self._line(dense[arm.seed], first, trained)
                found.append(Probe({"what": "line", "of": name, **at}, line))
            for rule, step in points.items():
                goals = _trained(chain, arm, rule, step, other, aligned)
                found += [Probe({"arm": n, "point": step, **at}, job) for n, job in goals]
        return found

    def _aligned(self, first: Job, second: Job, arm: Arm) -> Job:
        assert arm.level.masks is not None
        inputs = {"state-0": first, "state-1": second, "masks": arm.level.masks}
        return Job("align", reads(first) | {"batches": self.batches}, inputs)

    def _line(self, dense: Job, first: Job, second: Job) -> Job:
        batch = dense.config["training"]["batch_size"]
        config = reads(dense) | {"alphas": 11, "split": "validation", "norms": "settled"}
        config |= {"batches": 50, "batch_size": batch}
        return Job("line", config, {"state-0": first, "state-1": second})

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return each arm's accuracy, what alignment gains, and how well units were matched."""
        rows, match, dense = rows_of(measured, by), match_of(measured, by), dense_of(measured, by)
        findings = [matched_words(match), *(said(row, by) for row in rows)]
        blocks = (picture(rows, dense["A"], by), masks_table(rows, dense, by), match_table(match))
        data = {"headline": by.headline, "rows": rows, "match": match, "dense": dense}
        return Answer(tuple(filter(None, findings)), blocks, data)


def _trained(
    chain: Chain, arm: Arm, rule: str, step: int, other: Job, aligned: Job
) -> Iterator[tuple[str, Job]]:
    """Yield the arms of one point: the ticket on its own network, and three masks on the other."""
    level = arm.level
    assert level.train is not None
    assert level.masks is not None
    own = chain.retrain(rule, level.train, level.masks, level.index).train
    start = chain.train(other, end=step, keep="snapshot") if step else other
    options: dict[str, Any] = {"begin": step, "fresh_optimizer": step == 0, "keep": "metrics"}
    naive = chain.train(start, level.masks, **options)
    random = chain.control("random-layer", Level(level.index, start, level.masks, naive), "masks")
    assert own is not None
    assert random.train is not None
    yield TICKET, own
    yield PERMUTED, chain.train(start, aligned, **options)
    yield NAIVE, naive
    yield RANDOM, random.train


def _check(recipe: Recipe, data: Path | None) -> None:
    """Raise if nobody says which units of the model may change places."""
    adapter, task = adapter_of(recipe.model), task_for(recipe, data)
    with seeded(0, "init"):
        model = adapter.build(recipe.model, task.signature)
    if not adapter.permutations(model):
        raise BadInput(
            f"alignment reorders hidden units, and the family of {recipe.model!r} declares none "
            "that may change places: lenet-300-100, lenet-5, conv-N, vgg-N and resnet-N do"
        )
