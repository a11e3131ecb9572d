"""DEEP R: connections with fixed signs that die at zero and wake at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ..allocate import TensorScope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from ..recipe import Training
from .dynamic import check_iterations, levels, search_training


@dataclass(frozen=True)
class DeepR(Finder):
    """Train a sparse network whose connections rewire at random (Bellec et al. 2018)."""

    variant: Literal["hard", "soft"] = "hard"
    """Whether the count is exact in every step, or free until an exact cut at the end."""
    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    scope: TensorScope = "layer"
    """Where connections may wake: in the layer of the one that died, in its group, or anywhere;
    the other scopes give the layers densities of their own."""
    optimizer: Literal["sgd", "recipe"] = "sgd"
    """Plain SGD at learning_rate, times 0.8 ten times over the search as in the paper; or what
    the recipe trains with."""
    learning_rate: float | None = None
    """Learning rate of that SGD (default: 0.5, soft 0.05)."""
    l1: float = 1e-5
    """Pull of the active weights towards 0 (the paper's alpha), times the learning rate."""
    noise: float = 1e-5
    """Size of the random walk, times the learning rate."""
    rewind: str = "none=0"
    """What survivors get back: none=0 the trained weights as they are; init, step=K, P%, fresh."""

    paper: ClassVar[str] = "Bellec et al., ICLR 2018, arXiv:1711.05136"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "a sparse training by SGD, L1 and noise; what changes sign goes dormant, "
        "random ones wake",
        "prune": "nothing more: the count is exact in every step; soft: one exact cut at the end",
        "re-initialise": "nothing; init and the like ask whether the last mask is a ticket",
        "train": "nothing; the network is measured as the search leaves it",
    }

    def __post_init__(self) -> None:
        check_iterations(self)
        for name in ("l1", "noise"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise BadInput(f"finder.{name} is {value}; it must be at least 0")
            if self.variant == "soft" and not value:
                raise BadInput(
                    f"finder.{name} is 0, and soft needs it above: connections wake by it"
                )
        if self.learning_rate is None:
            return
        if not 0 < self.learning_rate < float("inf"):
            raise BadInput(f"finder.learning_rate is {self.learning_rate}; it must be above 0")
        if self.optimizer == "recipe":
            raise BadInput(
                f"finder.learning_rate is {self.learning_rate} with optimizer 'recipe', whose rate "
                "is training.learning_rate; leave one of them out"
            )

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the last mask."""
        training = search_training(self, chain)
        if self.optimizer == "sgd":
            training = self._plain_sgd(training)
        rule = "deep-r" if self.variant == "hard" else "soft-deep-r"
        rate = training.rate_at(0)
        own = {"l1": self.l1, "noise": self.noise, "rate": rate}
        yield from levels(self, chain, rule, training, **own)

    def _plain_sgd(self, training: Training) -> Training:
        """Return the paper's SGD: no momentum or decay, the rate times 0.8 after each tenth."""
        usual = 0.5 if self.variant == "hard" else 0.05
        return replace(
            training,
            optimizer="sgd",
            learning_rate=self.learning_rate or usual,
            momentum=0.0,
            nesterov=False,
            betas=None,
            weight_decay=0.0,
            schedule="step",
            milestones=tuple(training.iterations * tenth // 10 for tenth in range(1, 10)),
            gamma=0.8,
            warmup=0,
        )
