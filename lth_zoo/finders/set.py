"""SET: sparse evolutionary training; the weights nearest zero give way to random ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .amounts import iterations_in
from .dynamic import LayerScope, check_iterations, check_within, levels, search_training


@dataclass(frozen=True)
class SET(Finder):
    """Train a sparse network, replacing its weakest connections at random (Mocanu et al. 2018)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    scope: LayerScope = "erk"
    """Densities of the layers: Erdos-Renyi; equal with the first layer dense;
    equal; or balanced, smart-ratio."""
    every: str = "epoch"
    """When connections are replaced: after each epoch, or so many iterations, or a share of the
    search (2%)."""
    share: float = 0.3
    """Share of the active weights of either sign that is replaced (the paper's zeta)."""
    rewind: str = "none=0"
    """What survivors get back: none=0 the trained weights as they are; init, step=K, P%, fresh."""

    paper: ClassVar[str] = "Mocanu et al., Nature Communications 2018, arXiv:1707.04780"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "a sparse training from a random mask; each epoch the weights nearest zero "
        "out, random ones in",
        "prune": "nothing more: the count is exact in every step",
        "re-initialise": "nothing; init and the like ask whether the last mask is a ticket",
        "train": "nothing; the network is measured as the search leaves it",
    }

    def __post_init__(self) -> None:
        check_iterations(self)
        check_within(self, "share", 0, 1)

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the last mask.

        Raises:
            BadInput: updates that would never come.
        """
        training = search_training(self, chain)
        every: str | int = self.every
        if every != "epoch":
            every = iterations_in(self.every, training.iterations, "every")
            if every >= training.iterations:
                raise BadInput(
                    f"finder.every is {self.every!r}, and the search has {training.iterations} "
                    "iterations: it would never update"
                )
        yield from levels(self, chain, "set", training, every=every, share=self.share)
