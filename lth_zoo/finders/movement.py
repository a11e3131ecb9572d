"""Movement pruning: scores learn which weights move away from zero while these are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..allocate import TensorScope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .mask_training import check_shares


@dataclass(frozen=True)
class Movement(Finder):
    """Train weights and scores at once, keep the highest scores (Sanh et al. 2020)."""

    soft: bool = False
    """A threshold on the scores and a penalty instead of a count a step; the count is exact at
    the end all the same."""
    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    score_learning_rate: float = 1e-2
    """Learning rate of the scores; it follows the recipe's schedule, as the weights' does."""
    scope: TensorScope = "global"
    """Where scores compete: one threshold, one a layer, or given layer densities."""
    warm_up: float = 0.1
    """Share of the search, at its start, that is dense."""
    cool_down: float = 0.2
    """Share of the search, at its end, that the target density (or threshold) is held for."""
    threshold: float = 0.1
    """Final threshold on sigmoid(score), if soft."""
    penalty: float = 30.0
    """Final strength of the penalty on the mean sigmoid(score), if soft."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""

    paper: ClassVar[str] = "Sanh et al., NeurIPS 2020, arXiv:2005.07683"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train weights and scores together, the density falling on a cubic",
        "prune": "lowest scores: weights that moved towards zero",
        "re-initialise": "rewind to init or an early step; none keeps the search's weights",
        "train": "the recipe's training",
    }

    def __post_init__(self) -> None:
        check_shares(self, "warm_up", "cool_down")
        if not 0 < self.threshold < 1:
            raise BadInput(f"finder.threshold is {self.threshold}; it must be between 0 and 1")
        if not 0 <= self.penalty < float("inf"):
            raise BadInput(f"finder.penalty is {self.penalty}; it must be at least 0")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the learned mask."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == 1:
            return
        training = chain.recipe.training
        training = replace(training, iterations=self.iterations or training.iterations)
        soft = {"threshold": self.threshold, "penalty": self.penalty} if self.soft else {}
        masks = chain.search(
            "learn",
            {"start": dense.start},
            training=training.plain(),
            begin=0,
            end=training.iterations,
            live="all",
            scores="zero",
            score_rate=self.score_learning_rate,
            relaxation="soft" if self.soft else "top-k",
            density=str(chain.density),
            scope=self.scope,
            overrides={},
            total=None,
            first="1",
            warm_up=self.warm_up,
            cool_down=self.cool_down,
            **soft,
        )
        yield chain.retrain(self.rewind, masks, masks, 1)
