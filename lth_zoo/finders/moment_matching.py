"""Moment matching: a generator inside a random one, by a learned mask; no weight is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..allocate import TensorScope
from ..chain import Chain
from ..jobs import Job, Level
from ..protocols import Finder
from .amounts import with_adam
from .mask_training import check_shares

#: Batches that running statistics are from, of the ticket and of each control alike.
SETTLE = 50


@dataclass(frozen=True)
class MomentMatching(Finder):
    """Learn which weights of a random generator stay, by its images' moments (Yeo et al. 2023).

    The generator (or decoder) alone is pruned. The ticket is used as found: its one level is
    measured without any training, and so are the controls.
    """

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    learning_rate: float = 1e-2
    """Learning rate of the scores at first; Adam on a cosine, whatever the recipe trains with."""
    scope: TensorScope = "global"
    """Where scores compete: one threshold, one a layer, or given layer densities."""
    weights: Literal["signed-constant", "init"] = "signed-constant"
    """What the frozen weights are: one size a layer with the signs of the draw, or the draw."""

    paper: ClassVar[str] = "Yeo et al., AAAI 2023, arXiv:2212.08311"
    prunes: ClassVar[tuple[str, ...]] = ("decoder", "generator")
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train scores by the moments of generated features, straight through the mask",
        "prune": "lowest learned scores, the whole amount at once",
        "re-initialise": "the weights never moved",
        "train": "nothing; batch norm's statistics are taken anew under the mask",
    }

    def __post_init__(self) -> None:
        check_shares(self)

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the learned mask, untrained."""
        dense = chain.dense("init")
        yield dense
        if chain.density == 1:
            return
        found = self._learned(chain, dense.start)
        yield Level(1, found, found, chain.train(found, found, end=0, settle=SETTLE))

    def _learned(self, chain: Chain, start: Job) -> Job:
        """Return the job that learns the mask."""
        recipe = chain.recipe.training
        length = self.iterations or recipe.iterations
        training = with_adam(recipe, length, self.learning_rate, schedule="cosine")
        constant = {"weights": self.weights} if self.weights != "init" else {}
        return chain.search(
            "learn",
            {"start": start},
            training=training.plain(),
            begin=0,
            end=training.iterations,
            objective="moments",
            settle=SETTLE,
            live="none",
            scores="random",
            score_rate=self.learning_rate,
            relaxation="top-k",
            density=str(chain.density),
            scope=self.scope,
            overrides={},
            total=None,
            first=str(chain.density),
            warm_up=0.0,
            cool_down=0.0,
            **constant,
        )
