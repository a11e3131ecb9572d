"""Iterative magnitude pruning, the method of the lottery ticket hypothesis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from .. import registry
from ..allocate import Scope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from ..protocols import Finder


@dataclass(frozen=True)
class IMP(Finder):
    """Train, prune the lowest scores, rewind, repeat (Frankle & Carbin 2019, arXiv 1803.03635)."""

    rate: float = 0.2
    """Share of weights removed a level."""
    of: Literal["remaining", "original"] = "remaining"
    """What the rate is a share of."""
    rates: tuple[str, ...] = ()
    """Layers with a rate of their own, as layer=rate (the paper: output layer at half)."""
    score: str = "magnitude"
    """Criterion: a name of `lth-zoo ls scores`."""
    scope: Scope = "global"
    """Where scores compete: one threshold, one a layer or output, or given layer densities."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""
    levels: int | None = None
    """Stop after so many levels, if the target sparsity is not reached before."""

    paper: ClassVar[str] = "Frankle & Carbin, ICLR 2019, arXiv:1803.03635"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train from the rewind point to the end, every level",
        "prune": "lowest scores of the trained weights, a share a level",
        "re-initialise": "rewind to init or an early step (or learning rate only)",
        "train": "the same training again",
    }

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise BadInput(f"finder.rate is {self.rate}; it must be between 0 and 1")
        if self.levels is not None and self.levels < 1:
            raise BadInput(f"finder.levels is {self.levels}; it must be at least 1")
        registry.check("scores", self.score)
        self.overrides()

    def overrides(self) -> dict[str, Fraction]:
        """Return layer -> rate.

        Raises:
            BadInput: an entry is not layer=rate with a rate in [0, 1).
        """
        found = {}
        for entry in self.rates:
            layer, _, text = entry.partition("=")
            try:
                rate = Fraction(text)
            except (ValueError, ZeroDivisionError):
                rate = Fraction(-1)
            if not 0 <= rate < 1:
                raise BadInput(
                    f"finder.rates entry {entry!r} is not layer=rate with a rate in [0, 1)"
                )
            found[layer] = rate
        return found

    def density_at(self, level: int, rate: Fraction) -> Fraction:
        """Return the density after that many levels at that rate, exactly."""
        if self.of == "original":
            return max(Fraction(0), 1 - rate * level)
        return (1 - rate) ** level

    def schedule(self, target: Fraction) -> list[dict[str, Any]]:
        """Return the amounts of each level down to the target density, the last one clipped."""
        rate, own = Fraction(str(self.rate)), self.overrides()
        levels: list[dict[str, Any]] = []
        while self.density_at(len(levels), rate) > target and len(levels) != self.levels:
            index = len(levels) + 1
            levels.append(
                {
                    "density": self.density_at(index, rate),
                    "overrides": {name: self.density_at(index, r) for name, r in own.items()},
                }
            )
        if levels and levels[-1]["density"] <= target:
            # Without overrides the clip is the density itself; with them all are shifted, and
            # from the level before where this one may be at 0 already.
            last = levels[-2] if self.of == "original" and len(levels) > 1 else levels[-1]
            levels[-1] = last | {"total": target} if own else {**levels[-1], "density": target}
        return levels

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and every pruned one."""
        level = chain.dense(self.rewind)
        yield level
        for index, amounts in enumerate(self.schedule(chain.density), start=1):
            assert level.train is not None
            masks = chain.prune(
                level.train,
                level.masks,
                score=self.score,
                scope=self.scope,
                start=level.start,
                **amounts,
            )
            level = self.level(chain, level.train, masks, index)
            yield level

    def level(self, chain: Chain, trained: Job, masks: Job, index: int) -> Level:
        """Return a pruned level: what the survivors get back, and their training."""
        return chain.retrain(self.rewind, trained, masks, index)
