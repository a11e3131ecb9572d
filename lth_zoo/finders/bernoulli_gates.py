"""Relaxed Bernoulli gates: a differentiable gate on every weight of a random network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..chain import Chain
from ..jobs import Level
from ..protocols import Finder
from .strong_tickets import check_least, check_positive, scores_training, untrained


@dataclass(frozen=True)
class BernoulliGates(Finder):
    """Learn gates with noise on frozen weights, keep the most open (Tsayag & Lindenbaum 2026)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    learning_rate: float = 1e-2
    """Learning rate of the gates at first; Adam on a cosine, whatever the recipe trains with."""
    penalty: float = 0.1
    """Strength of the penalty on the mean chance that a gate is open."""
    scope: Literal["global", "layer", "group", "erk", "uniform"] = "global"
    """Where gates compete when the mask is made exact."""
    weights: Literal["uniform", "kaiming", "signed-constant", "init"] = "uniform"
    """What the frozen weights are: a uniform draw, a normal one or one size a layer, both scaled
    for what is pruned, or what the model's own initialisation is."""

    paper: ClassVar[str] = "Tsayag & Lindenbaum, 2026, arXiv:2603.08914"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train noisy gates on frozen weights by the loss and their expected number",
        "prune": "least open gates, the whole amount at once",
        "re-initialise": "the weights never moved",
        "train": "nothing; batch norm's statistics are taken anew under the mask",
    }

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate")
        check_least(self, "penalty")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the ticket, untrained."""
        training = scores_training(
            chain, self.iterations, learning_rate=self.learning_rate, schedule="cosine"
        )
        yield from untrained(
            chain,
            training,
            method="bernoulli-gates",
            weights=self.weights,
            scope=self.scope,
            strength=self.penalty,
        )
