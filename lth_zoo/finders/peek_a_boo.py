"""Peek-a-Boo: subnetworks in disguise, a mask of the start and signs that are learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from .. import registry
from ..allocate import Scope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from ..protocols import Finder
from .amounts import at_least


@dataclass(frozen=True)
class PeekABoo(Finder):
    """Prune the start, then learn the survivors' signs alone (Chen, Zhang & Wang 2022).

    What is masked keeps the sizes it has at the start; other parameters (norms, biases, the head)
    are trained by the recipe's optimiser.
    """

    score: str = "synflow"
    """Criterion that prunes the start: a name of `lth-zoo ls scores`."""
    rounds: int = 100
    """Times the start is scored, on an exponential; one for criteria that want no rounds."""
    scope: Scope = "global"
    """Where scores compete: one threshold (the paper), or others."""
    optimizer: Literal["bop", "prox"] = "bop"
    """What moves the signs: Bop (as released), or ProxSGD on signs relaxed to [-1, 1]."""
    gamma: float = 1e-3
    """Rate of the moving average of gradients."""
    decay: float = 0.15
    """What the rate is multiplied by at each share of the training."""
    every: float = 0.25
    """That share: 45 of 180 epochs."""
    tau: float = 1e-6
    """Least average gradient of a sign that flips it (bop)."""
    mu: float = 1e-6
    """Average gradient of a sign that moves its goal by 1 (prox; no published value)."""
    step: float = 0.01
    """Share of the way to its goal that a relaxed sign takes (prox; no published value)."""
    head: Literal["trained", "signs"] = "trained"
    """Whether the output layer is trained as usual under its mask, or by its signs too."""
    rewind: str = "init"
    """Whose sizes survivors keep: init, step=K, P%, fresh."""

    paper: ClassVar[str] = "Chen, Zhang & Wang, ICLR 2022 (Peek-a-Boo)"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "nothing",
        "prune": "lowest scores of the start, without any training",
        "re-initialise": "sizes of the start",
        "train": "signs of the survivors by Bop; norms, biases and head as usual",
    }

    def __post_init__(self) -> None:
        registry.check("scores", self.score)
        at_least(self, 1, "rounds")
        for name in ("gamma", "decay", "every", "step"):
            if not 0 < getattr(self, name) <= 1:
                raise BadInput(
                    f"finder.{name} is {getattr(self, name)}; it must be above 0 and at most 1"
                )
        for name in ("tau", "mu"):
            if not 0 < getattr(self, name) < float("inf"):
                raise BadInput(f"finder.{name} is {getattr(self, name)}; it must be above 0")
        if self.rewind.startswith(("none", "learning-rate")):
            raise BadInput(
                f"finder.rewind is {self.rewind!r}, but peek-a-boo trains no weights to go on "
                "from: choose init, step=K, P% or fresh"
            )

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one whose signs are trained.

        Raises:
            BadInput: the recipe averages weights, or trains in fp16.
        """
        training = chain.recipe.training
        if training.average is not None or training.precision == "fp16":
            odd = "average" if training.average is not None else "precision"
            raise BadInput(
                f"training.{odd} is {getattr(training, odd)!r}: peek-a-boo trains signs, which "
                "have no average and no scaled gradients; leave it out"
            )
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == 1:
            return
        level = chain.retrain(self.rewind, dense.start, self._masks(chain, dense.start), 1)
        assert level.train is not None
        config = {**level.train.config, "signs": self._signs()}
        yield replace(level, train=replace(level.train, config=config))

    def _masks(self, chain: Chain, start: Job) -> Job:
        """Return the job that prunes the start."""
        return chain.rounds(
            *(start, self.rounds),
            schedule="exponential",
            nested=True,
            density=chain.density,
            score=self.score,
            scope=self.scope,
        )

    def _signs(self) -> dict[str, Any]:
        """Return what a training job is told of signs: what its optimiser reads."""
        own = ("tau",) if self.optimizer == "bop" else ("mu", "step")
        names = ("optimizer", "gamma", "decay", "every", "head", *own)
        return {name: getattr(self, name) for name in names}
