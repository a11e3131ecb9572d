"""GraSP: one pruning before training, by what is left of the gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..allocate import Scope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .amounts import at_least


@dataclass(frozen=True)
class GraSP(Finder):
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

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the scored start."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density < 1:
            masks = chain.prune(
                dense.start,
                None,
                density=chain.density,
                score="grasp",
                scope=self.scope,
                start=dense.start,
                reads={
                    "per_class": self.samples_per_class,
                    "parts": self.parts,
                    "temperature": self.temperature,
                },
            )
            yield chain.retrain(self.rewind, dense.start, masks, 1)
