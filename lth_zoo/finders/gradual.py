"""Gradual magnitude pruning: from dense to sparse on a cubic, within one training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..allocate import TensorScope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .dynamic import check_iterations, levels, search_training, update_every


@dataclass(frozen=True)
class Gradual(Finder):
    """Drop the smallest weights little by little while training (Zhu & Gupta 2017)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    scope: TensorScope = "layer"
    """Where magnitudes compete: one threshold a layer (the paper), one for all, or given layer
    densities."""
    begin: float = 0.1
    """Share of the search, at its start, that is dense."""
    end: float = 0.8
    """Share of the search at which the target is reached; the rest trains the sparse network."""
    every: str | None = None
    """Iterations between two updates, or a share of the search (1%) (default: the paper's 100, or
    2 % of a search of less than 5,000)."""
    rewind: str = "none=0"
    """What survivors get back: none=0 the trained weights as they are; init, step=K, P%, fresh."""

    paper: ClassVar[str] = "Zhu & Gupta 2017, arXiv:1710.01878"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "one training, dense at first",
        "prune": "lowest magnitudes, on a cubic from all to the target",
        "re-initialise": "nothing; init and the like ask whether the last mask is a ticket",
        "train": "nothing; the network is measured as the search leaves it",
    }

    def __post_init__(self) -> None:
        check_iterations(self)
        if not 0 <= self.begin < self.end <= 1:
            raise BadInput(
                f"finder.begin is {self.begin} and finder.end {self.end}; they must be shares of "
                "the search, the first below the second"
            )

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the last mask.

        Raises:
            BadInput: an end before the first iteration is over.
        """
        training = search_training(self, chain)
        whole = training.iterations
        first, last = round(self.begin * whole), round(self.end * whole)
        if last < 1:
            raise BadInput(f"finder.end is {self.end} of {whole} iterations: nothing comes before")
        every = update_every(self.every, whole, parts=50)
        yield from levels(self, chain, "gradual", training, every=every, first=first, last=last)
