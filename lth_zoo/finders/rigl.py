"""RigL: sparse all along; the smallest weights give way to those with the largest gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .dynamic import (
    LayerScope,
    check_iterations,
    check_within,
    levels,
    search_training,
    update_every,
)


@dataclass(frozen=True)
class RigL(Finder):
    """Train a sparse network, swapping connections by magnitude and gradient (Evci et al. 2020)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    scope: LayerScope = "erk"
    """Densities of the layers: Erdos-Renyi-kernel; equal with the first layer dense;
    equal; or balanced, smart-ratio."""
    every: str | None = None
    """Iterations between two updates, or a share of the search (2%) (default: the paper's 100, or
    5 % of a search of less than 2,000)."""
    stop: float = 0.75
    """Share of the search that updates end at."""
    share: float = 0.3
    """Share of each layer's active weights that the first updates swap (the paper's alpha)."""
    anneal: Literal["cosine", "constant"] = "cosine"
    """Whether that share falls to 0 at the stop, or stays."""
    accumulate: int = 1
    """Iterations whose gradients are averaged to choose what grows; more at small batches."""
    reinit_when_same: bool = False
    """Whether a weight that is dropped and grown in one update starts anew from 0."""
    rewind: str = "none=0"
    """What survivors get back: none=0 the trained weights as they are; init, step=K, P%, fresh."""

    paper: ClassVar[str] = "Evci et al., ICML 2020, arXiv:1911.11134"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "a sparse training from a random mask; smallest weights out, largest dense "
        "gradients in",
        "prune": "nothing more: the count is exact in every step",
        "re-initialise": "nothing; init and the like ask whether the last mask is a ticket",
        "train": "nothing; the network is measured as the search leaves it",
    }

    def __post_init__(self) -> None:
        check_iterations(self)
        check_within(self, "stop", 0, 1)
        check_within(self, "share", 0, 1)
        if self.accumulate < 1:
            raise BadInput(f"finder.accumulate is {self.accumulate}; it must be at least 1")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the last mask.

        Raises:
            BadInput: updates that would never come, or that read more gradients than there are.
        """
        training = search_training(self, chain)
        whole = training.iterations
        every = update_every(self.every, whole, parts=20, least=2)
        stop = int(self.stop * whole)
        if not 2 <= every < stop:
            raise BadInput(
                f"finder.every is {self.every or every}: of {whole} iterations it must be from 2, "
                f"as an update takes the place of a training step, to {stop - 1}, as updates end "
                f"before finder.stop {self.stop}"
            )
        if self.accumulate > every:
            raise BadInput(
                f"finder.accumulate is {self.accumulate}, but updates are {every} iterations "
                "apart: it must be at most that"
            )
        yield from levels(
            self,
            chain,
            "rigl",
            training,
            every=every,
            stop=stop,
            share=self.share,
            anneal=self.anneal == "cosine",
            accumulate=self.accumulate,
            reset=self.reinit_when_same,
        )
