"""GraSP: one pruning before training, by what is left of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..allocate import Scope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job
from .amounts import at_least
from .at_start import AtStart


@dataclass(frozen=True)
class GraSP(AtStart):
    """Keep the weights whose removal would cost gradient flow (Wang et al. 2020)."""

    samples_per_class: int = 10
    """Training examples of each class (the paper: 10 on CIFAR)."""
    temperature: float = 200.0
    """What the answers are divided by in the loss that is scored (the released code)."""
    parts: int = 1
    """Batches that the examples are cut into, g and H g summed over them (released code: 2)."""
    scope: Scope = "global"
    """Where scores compete: one threshold (the paper), or others."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, fresh; the start that is scored is theirs."""

    paper: ClassVar[str] = "Wang et al., ICLR 2020, arXiv:2002.07376"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "none: two backward passes over ten examples of each class",
        "prune": "lowest w (H g), the whole amount at once",
        "re-initialise": "nothing has moved; the start itself (or an early step)",
        "train": "the recipe's training",
    }

    def __post_init__(self) -> None:
        at_least(self, 1, "samples_per_class", "parts")
        if not 0 < self.temperature < float("inf"):
            raise BadInput(f"finder.temperature is {self.temperature}; it must be above 0")

    def masks(self, chain: Chain, start: Job) -> Job:
        """Return the job of the mask, scored by a few examples of each class."""
        return chain.prune(
            start,
            None,
            density=chain.density,
            score="grasp",
            scope=self.scope,
            start=start,
            reads={
                "per_class": self.samples_per_class,
                "parts": self.parts,
                "temperature": self.temperature,
            },
        )
