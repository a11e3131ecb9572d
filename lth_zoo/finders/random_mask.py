"""A random mask: how many weights of each layer stay is chosen, which ones is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..allocate import Scope
from ..chain import Chain
from ..jobs import Job
from .at_start import AtStart


@dataclass(frozen=True)
class RandomMask(AtStart):
    """Keep random weights, another draw each seed, by given shares of the layers."""

    scope: Scope = "erk"
    """How many stay in each layer: erk, balanced (the same number), smart-ratio, uniform, layer
    (the same share), global (whatever the draw gives)."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, fresh."""

    paper: ClassVar[str] = "Evci et al., ICML 2020, arXiv:1911.11134; Su et al., NeurIPS 2020"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "none, and no data",
        "prune": "a random set, the whole amount at once",
        "re-initialise": "nothing has moved; the start itself (or an early step)",
        "train": "the recipe's training",
    }

    def masks(self, chain: Chain, start: Job) -> Job:
        """Return the job of the mask, drawn at random."""
        return chain.prune(
            start,
            None,
            density=chain.density,
            score="random",
            scope=self.scope,
            start=start,
        )
