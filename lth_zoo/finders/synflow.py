"""SynFlow: prune before training, without data, so that no layer dries up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..allocate import Scope
from ..chain import Chain
from ..jobs import Job
from .amounts import at_least
from .at_start import AtStart


@dataclass(frozen=True)
class SynFlow(AtStart):
    """Keep what carries the flow of an input of ones, in many small steps (Tanaka et al. 2020)."""

    rounds: int = 100
    """Times the network is scored; one round may leave layers without a weight."""
    schedule: Literal["exponential", "linear"] = "exponential"
    """How the kept share falls over the rounds."""
    scope: Scope = "global"
    """Where scores compete: one threshold (the paper), or others."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, fresh; the start that is scored is theirs."""

    paper: ClassVar[str] = "Tanaka et al., NeurIPS 2020, arXiv:2006.05467"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "none, and no data: one backward pass of one input of ones a round",
        "prune": "lowest |w dR/dw|, a little more each round",
        "re-initialise": "nothing has moved; the start itself (or an early step)",
        "train": "the recipe's training",
    }

    def __post_init__(self) -> None:
        at_least(self, 1, "rounds")

    def masks(self, chain: Chain, start: Job) -> Job:
        """Return the job of the mask, scored in rounds."""
        return chain.rounds(
            start,
            self.rounds,
            schedule=self.schedule,
            nested=True,
            density=chain.density,
            score="synflow",
            scope=self.scope,
        )
