"""SNIP: one pruning before training, by what the loss says of each connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..allocate import Scope
from ..chain import Chain
from ..jobs import Job
from .amounts import at_least
from .at_start import AtStart

#: Examples a batch where nothing is said of it: what a prune job reads anyway.
EXAMPLES = 100


@dataclass(frozen=True)
class SNIP(AtStart):
    """Keep the connections that the loss of one mini-batch depends on most (Lee et al. 2019)."""

    examples: int = EXAMPLES
    """Training examples of the mini-batch (the paper: 100 on MNIST, 128 on CIFAR-10)."""
    scope: Scope = "global"
    """Where scores compete: one threshold (the paper), or others."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, fresh; the start that is scored is theirs."""

    paper: ClassVar[str] = "Lee et al., ICLR 2019, arXiv:1810.02340"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "none: one forward and backward pass of one mini-batch",
        "prune": "lowest |w dL/dw|, the whole amount at once",
        "re-initialise": "nothing has moved; the start itself (or an early step)",
        "train": "the recipe's training",
    }

    def __post_init__(self) -> None:
        at_least(self, 1, "examples")

    def masks(self, chain: Chain, start: Job) -> Job:
        """Return the job of the mask, scored by one mini-batch."""
        return chain.prune(
            start,
            None,
            density=chain.density,
            score="snip",
            scope=self.scope,
            start=start,
            reads=batches_of(self.examples),
        )


def batches_of(examples: int) -> dict[str, int]:
    """Return what a job says of its batches: nothing where they are as they always are."""
    return {} if examples == EXAMPLES else {"examples": examples}
