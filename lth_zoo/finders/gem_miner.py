"""Gem-Miner: a ticket at initialisation, by scores that are rounded and frozen out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .strong_tickets import check_least, check_positive, scores_training, searched


@dataclass(frozen=True)
class GemMiner(Finder):
    """Learn scores on frozen weights, freeze the lowest out, then train (Sreenivasan et al.)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    learning_rate: float = 0.1
    """Learning rate of the scores at first; SGD on a cosine, whatever the recipe trains with."""
    momentum: float = 0.9
    """Momentum of the scores."""
    penalty: float = 1e-4
    """Strength of the penalty on the sum of the squared scores."""
    period: int = 5
    """Epochs between two rounds of freezing out."""
    scope: Literal["global", "layer", "group", "erk", "uniform"] = "global"
    """Where scores compete: one threshold (the paper), one a layer, or given layer densities."""
    weights: Literal["signed-constant", "kaiming", "init"] = "signed-constant"
    """What weights are searched on, and are then trained from: one size a layer with the signs of
    the draw, a normal draw of that size, or what the model's own initialisation is."""

    paper: ClassVar[str] = "Sreenivasan et al., NeurIPS 2022, arXiv:2202.12002"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train scores by the loss on frozen weights, rounded, straight through",
        "prune": "the lowest scores left, a share every few epochs",
        "re-initialise": "to where the search was: the weights never moved",
        "train": "the recipe's training",
    }

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate")
        check_least(self, "momentum", "penalty")
        if self.period < 1:
            raise BadInput(f"finder.period is {self.period}; it must be at least 1")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the ticket."""
        dense = chain.dense("init")
        yield dense
        if chain.density == 1:
            return
        training = scores_training(
            chain,
            self.iterations,
            optimizer="sgd",
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            schedule="cosine",
        )
        found = searched(
            chain,
            dense.start,
            training,
            method="gem-miner",
            weights=self.weights,
            scope=self.scope,
            strength=self.penalty,
            period=self.period,
            settle=0,
        )
        yield Level(1, found, found, chain.train(found, found))
