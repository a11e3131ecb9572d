"""Supermasks: a coin for every weight of a random network, whose chance is learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .strong_tickets import check_least, check_positive, scores_training, untrained


@dataclass(frozen=True)
class Supermask(Finder):
    """Learn the chance that each frozen weight stays, keep the likeliest (Zhou et al. 2019)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    learning_rate: float = 100.0
    """Learning rate of the scores; SGD, whatever the recipe trains with."""
    momentum: float = 0.9
    """Momentum of the scores."""
    scope: Literal["global", "layer", "group", "erk", "uniform"] = "global"
    """Where scores compete when the mask is made exact."""
    weights: Literal["init", "signed-std"] = "init"
    """What the frozen weights are: the initialisation, or its signs times its standard deviation
    in each layer."""
    rescale: bool = False
    """Whether the weights of a layer are multiplied by size / kept in every step."""
    samples: int = 10
    """Tosses that the search's own figures are a mean of."""

    paper: ClassVar[str] = "Zhou et al., NeurIPS 2019, arXiv:1905.01067"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train the chance of each frozen weight, tossed in every step",
        "prune": "lowest chances, the whole amount at once",
        "re-initialise": "the weights never moved",
        "train": "nothing; batch norm's statistics are taken anew under the mask",
    }

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate")
        check_least(self, "momentum")
        if self.samples < 1:
            raise BadInput(f"finder.samples is {self.samples}; it must be at least 1")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the ticket, untrained."""
        training = scores_training(
            chain,
            self.iterations,
            optimizer="sgd",
            learning_rate=self.learning_rate,
            momentum=self.momentum,
        )
        yield from untrained(
            chain,
            training,
            method="supermask",
            weights=self.weights,
            finish="rescaled" if self.rescale else "",
            scope=self.scope,
            samples=self.samples,
        )
