"""FORCE and iterative SNIP: SNIP's score again and again, under the masks so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..allocate import Scope
from ..chain import Chain
from ..jobs import Job
from .amounts import at_least
from .at_start import AtStart
from .snip import EXAMPLES, batches_of


@dataclass(frozen=True)
class FORCE(AtStart):
    """Sparsify step by step by SNIP's score after pruning (de Jorge et al. 2021)."""

    variant: Literal["force", "iterative-snip"] = "force"
    """Whether what was pruned may return (force), or is gone (iterative-snip)."""
    rounds: int = 60
    """Times the network is scored."""
    schedule: Literal["exponential", "linear"] = "exponential"
    """How the kept share falls over the rounds."""
    examples: int = EXAMPLES
    """Training examples of a round's mini-batch; each round reads the next one."""
    scope: Scope = "global"
    """Where scores compete: one threshold (the paper), or others."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, fresh; the start that is scored is theirs."""

    paper: ClassVar[str] = "de Jorge et al., ICLR 2021, arXiv:2006.09081"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "none: one forward and backward pass a round",
        "prune": "lowest |w dL/dw| of the pruned network, a little more each round",
        "re-initialise": "nothing has moved; the start itself (or an early step)",
        "train": "the recipe's training",
    }

    def __post_init__(self) -> None:
        at_least(self, 1, "rounds", "examples")

    def masks(self, chain: Chain, start: Job) -> Job:
        """Return the job of the mask, scored in rounds."""
        return chain.rounds(
            start,
            self.rounds,
            schedule=self.schedule,
            nested=self.variant == "iterative-snip",
            density=chain.density,
            score="snip",
            scope=self.scope,
            reads=batches_of(self.examples),
        )
