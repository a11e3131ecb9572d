"""What a verdict says and from what: plain frozen data with a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any

from .compare import Comparison, finite, usable
from .power import SEEDS_CAP

Values = Mapping[int, float]


class Outcome(StrEnum):
    """What a verdict says, in one word."""

    WINNING = "WINNING"
    MATCHING = "MATCHING"
    INIT_FREE = "INIT-FREE"
    LAYERWISE_ONLY = "LAYERWISE-ONLY"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Arm:
    """One arm's finite runs: mean, sample sd and n; and the seeds that diverged."""

    mean: float | None
    sd: float | None
    n: int
    diverged: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: Values) -> Arm:
        """Summarise seed -> value; None where there are too few runs."""
        used = list(finite(values).values())
        return cls(
            fmean(used) if used else None,
            stdev(used) if len(used) > 1 else None,
            len(used),
            tuple(sorted(seed for seed, value in values.items() if not usable(value))),
        )

    def text(self, digits: int) -> str:
        """Return ``98.1 ± 0.1 (n=5)``."""
        if self.mean is None:
            return f"nothing (n={self.n})"
        sd = f" ± {self.sd:.{digits}f}" if self.sd is not None else ""
        return f"{self.mean:.{digits}f}{sd} (n={self.n})"


@dataclass(frozen=True)
class FieldRules:
    """The field's own rules; None where there are too few runs to apply them."""

    within_one_dense_sd: bool | None
    at_least_dense: bool | None


@dataclass(frozen=True)
class Control:
    """A control beside the ticket; ``against`` is ticket minus control.

    ``better``: the ticket is significantly better. ``as_good``: the control is itself
    non-inferior to the ticket by the margin, and none of its runs diverged.
    """

    name: str
    arm: Arm
    against: Comparison
    p_as_good: float
    better: bool
    as_good: bool


@dataclass(frozen=True)
class Verdict:
    """What was decided about a ticket, and everything it was decided from.

    ``against`` is ticket minus dense. ``rivals`` are the random controls that WINNING
    requires beaten. ``power`` is the chance that a ticket truly equal to dense would have
    matched with these sds and n; ``seeds_needed`` the seeds an arm for 80 % of it (None:
    more than ``SEEDS_CAP``, or no spread known). ``flags`` name what is degenerate,
    ``notes`` what a reader should know.
    """

    name: Outcome
    dense: Arm
    ticket: Arm
    against: Comparison
    p_noninferior: float
    controls: tuple[Control, ...]
    rivals: tuple[str, ...]
    field_rules: FieldRules
    power: float | None
    seeds_needed: int | None
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    margin: float
    alpha: float
    higher_is_better: bool

    @property
    def matches(self) -> bool:
        """Whether the ticket was found non-inferior to dense; a diverged run forbids it."""
        return self.p_noninferior <= self.alpha and not self.ticket.diverged

    @property
    def sentence(self) -> str:
        """The verdict in one plain sentence."""
        # Two figures of the margin are what the numbers are worth.
        digits = max(0, 1 - math.floor(math.log10(self.margin)))
        arms = f"ticket {self.ticket.text(digits)} against dense {self.dense.text(digits)}"
        parts = [f"{self.name}: {arms}"]
        if self.against.difference is not None:
            parts.append(self._difference(digits))
        undecided = self.name is Outcome.INCONCLUSIVE and not self.ticket.diverged
        if undecided and self.power is not None:
            parts.append(self._what_would_decide(self.power))
        return "; ".join([*parts, *self.notes, *self.flags])

    def _difference(self, digits: int) -> str:
        interval = ", ".join(f"{x:+.{digits}f}" for x in self.against.interval or ())
        shown = f"difference {self.against.difference:+.{digits}f}"
        shown += f" [{interval}]" if interval else ""
        lower = "" if self.higher_is_better else " (lower is better)"
        p = "p<0.001" if self.p_noninferior < 0.001 else f"p={self.p_noninferior:.3f}"
        return f"{shown}, margin {self.margin:.{digits}f}{lower}, {p}"

    def _what_would_decide(self, power: float) -> str:
        needed = self.seeds_needed or f"more than {SEEDS_CAP}"
        if self.seeds_needed and self.seeds_needed <= min(self.against.n):
            return f"a ticket equal to dense would have matched in {power:.0%} of such studies"
        return f"{needed} seeds an arm would decide if it equals dense (power now {power:.0%})"

    def to_json(self) -> dict[str, Any]:
        """Return plain data, the sentence included; no value is NaN or infinite."""
        return {**asdict(self), "matches": self.matches, "sentence": self.sentence}


@dataclass(frozen=True)
class LevelVerdict:
    """A level's own verdict, and what may be claimed of it in the sequence of levels.

    ``verdict`` is unadjusted. ``claimed``: it and every level before it matched. ``name`` is
    what to report: the verdict's, but INCONCLUSIVE for a match after the sequence stopped.
    ``sparsity`` is that of the weights, ``graph_sparsity`` that of a graph's edges, None where
    the recipe prunes none.
    """

    level: int
    sparsity: float
    verdict: Verdict
    claimed: bool
    name: Outcome
    note: str = ""
    graph_sparsity: float | None = None

    @property
    def amounts(self) -> str:
        """How sparse the level is: ``80.00% sparsity``, with edges both sparsities."""
        if self.graph_sparsity is None:
            return f"{self.sparsity:.2%} sparsity"
        return f"{self.sparsity:.2%} weight sparsity, {self.graph_sparsity:.2%} graph sparsity"

    @property
    def sentence(self) -> str:
        """What to say of the level: the verdict's sentence under the name that may be claimed."""
        own = self.verdict.sentence.removeprefix(f"{self.verdict.name}: ")
        return f"{self.name}: {own}" + (f"; {self.note}" if self.note else "")

    def __str__(self) -> str:
        """Return the sentence with the level it is about."""
        return f"level {self.level}, {self.amounts}: {self.sentence}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data; ``graph_sparsity`` only where there is one."""
        data = {**asdict(self), "verdict": self.verdict.to_json(), "sentence": self.sentence}
        return {k: v for k, v in data.items() if k != "graph_sparsity" or v is not None}
