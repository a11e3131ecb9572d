"""Structured tickets: whole attention heads and FFN neurons, by how much the loss needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder


@dataclass(frozen=True)
class Structured(Finder):
    """Remove whole heads and FFN neurons by gradients, rewind, retrain (Prasanna et al. 2020)."""

    score: Literal["importance", "magnitude", "random"] = "importance"
    """What ranks units: the loss's slope at a gate on each, the norm of its weights, or chance."""
    after: Literal["training", "start"] = "training"
    """Whether the trained weights are scored or those the training starts from."""
    heads: float | None = None
    """Removed share of the attention heads (default: the sparsity)."""
    neurons: float | None = None
    """Removed share of the FFN neurons (default: the sparsity)."""
    levels: int = 1
    """Equal steps down to the target, a training and a rewind each."""
    keep_one: bool = True
    """Whether every layer keeps at least its best head and neuron."""
    batches: int = 100
    """Training batches that importance is taken over; fewer where an epoch has fewer."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""

    paper: ClassVar[str] = "Prasanna et al., EMNLP 2020, arXiv:2005.00561"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train from the rewind point to the end, or none (after=start)",
        "prune": "whole units of the smallest importance, the same share of heads and neurons",
        "re-initialise": "rewind to init or an early step (or learning rate only)",
        "train": "the same training again",
    }

    def __post_init__(self) -> None:
        for name in ("heads", "neurons"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise BadInput(f"finder.{name} is {value}; it must be in [0, 1)")
        for name in ("levels", "batches"):
            if getattr(self, name) < 1:
                raise BadInput(f"finder.{name} is {getattr(self, name)}; it must be at least 1")

    def shares(self, level: int, target: Fraction) -> dict[str, str]:
        """Return role -> kept share of its units at a level; ``*`` is that of other roles."""
        removed = {"head": self.heads, "neuron": self.neurons}
        goals = {r: Fraction(str(v)) for r, v in removed.items() if v is not None}
        goals["*"] = 1 - target
        return {role: str(1 - goal * level / self.levels) for role, goal in goals.items()}

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and every pruned one."""
        level = chain.dense(self.rewind)
        yield level
        if chain.density == 1 and not self.heads and not self.neurons:
            return
        for index in range(1, self.levels + 1):
            scored = level.start if self.after == "start" else level.train
            assert scored is not None
            inputs = {"trained": scored} | ({"within": level.masks} if level.masks else {})
            options: dict[str, Any] = {
                "score": self.score,
                "shares": self.shares(index, chain.density),
                "keep_one": self.keep_one,
            }
            if self.score == "importance":
                options["batches"] = self.batches
            masks = chain.search("units", inputs, **options)
            level = chain.retrain(self.rewind, scored, masks, index)
            yield level
