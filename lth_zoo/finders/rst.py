"""Random sparse network transformation: make a random mask a good one, before the cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from ..protocols import Finder
from ..recipe import Training
from .amounts import iterations_in

#: Iterations that the published penalty grows for, and learning rate x strength at its end.
GROWN, PULL = 50_000, 1e-3


@dataclass(frozen=True)
class RST(Finder):
    """Draw a mask at random; fade out the rest while training (Bai et al. 2022, dual tickets)."""

    pick: Literal["random", "smallest"] = "random"
    """What goes: weights drawn at random (the paper), or the smallest of the start (the default of
    the released one-shot command)."""
    scope: Literal["layer", "global", "group", "erk", "uniform"] = "layer"
    """Among which weights the random ones are drawn; layer has the same density everywhere."""
    cycles: int = 1
    """Rounds that the weights to go are shared out over: 1 at once; 5 is the iterative form."""
    grow: str = "64%"
    """How long the penalty grows, all cycles together: iterations, or a share of a whole training
    (published: 50,000, to 78,200 of the training)."""
    stabilise: str = "51%"
    """How long it then stays, all cycles together (published: 40,000)."""
    strength: float | None = None
    """Last strength of the penalty (default: so that learning rate x strength, summed, is that of
    the published lengths; 1 there, more in a shorter search)."""
    schedule: Literal["linear", "square", "cube"] = "linear"
    """Curve on which the strength grows: x, x^2, x^3."""
    learning_rate: float = 1e-3
    """Learning rate of the search, SGD without momentum, constant."""
    batch_size: int = 64
    """Examples a step of the search."""
    rewind: str = "learning-rate"
    """What survivors get back: learning-rate (their informed weights and the whole schedule),
    none[=K] (no schedule); others forget what the search has moved: init, step=K, P%, fresh."""

    paper: ClassVar[str] = "Bai et al., ICLR 2022, arXiv:2203.04248"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train all weights, with a growing L2 penalty on those that are to go",
        "prune": "random weights, drawn before any training",
        "re-initialise": "nothing: survivors keep what the search moved into them",
        "train": "a whole training",
    }

    def __post_init__(self) -> None:
        if self.cycles < 1:
            raise BadInput(f"finder.cycles is {self.cycles}; it must be at least 1")
        if self.cycles > 1 and self.pick != "random":
            raise BadInput(f"finder.cycles is {self.cycles}, which is for finder.pick random")
        if self.batch_size < 1:
            raise BadInput(f"finder.batch_size is {self.batch_size}; it must be at least 1")
        for name in ("strength", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise BadInput(f"finder.{name} is {value}; it must be above 0")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the drawn mask."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == 1:
            return
        drawn = chain.prune(
            *(dense.start, None),
            density=chain.density,
            score="random" if self.pick == "random" else "magnitude",
            scope=self.scope,
            start=dense.start,
        )
        yield chain.retrain(self.rewind, self._informed(chain, dense.start, drawn), drawn, 1)

    def _informed(self, chain: Chain, start: Job, drawn: Job) -> Job:
        """Return the job that moves into a mask what the rest of a start carries."""
        recipe = chain.recipe.training
        grow = iterations_in(self.grow, recipe.iterations, "grow")
        end = grow + iterations_in(self.stabilise, recipe.iterations, "stabilise")
        training = replace(
            Training(),
            iterations=end,
            batch_size=self.batch_size,
            optimizer="sgd",
            learning_rate=self.learning_rate,
            weight_decay=recipe.weight_decay,
            **{
                name: getattr(recipe, name)
                for name in (
                    *("evaluate_every", "accumulation", "clip_norm"),
                    *("precision", "threads", "deterministic"),
                )
            },
        )
        return chain.search(
            "inform",
            {"start": start, "masks": drawn},
            training=training.plain(),
            begin=0,
            end=end,
            pick=self.pick,
            cycles=self.cycles,
            grow=grow,
            growth=float(("linear", "square", "cube").index(self.schedule) + 1),
            strength=self.strength or self._scaled(grow),
        )

    def _scaled(self, grow: int) -> float:
        """Return the strength that pulls as far in so many iterations as the published in its own.

        At half of 1 / learning rate a step of the penalty halves a weight: there it stops.
        """
        return min(PULL * GROWN / grow, 0.5) / self.learning_rate
