"""A winning sign: a mask and signs, found without leaning on norms, for any initialisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ..chain import Chain
from ..jobs import Job, Level
from ..protocols import Finder
from .amounts import iterations_in
from .imp import IMP


@dataclass(frozen=True)
class AWS(Finder):
    """Prune and train on in turn, then give mask and signs to a new draw (Oh et al. 2025)."""

    rate: float = 0.2
    """Share of the remaining weights removed a round."""
    scope: Literal["global", "layer", "group", "erk", "uniform", "row"] = "global"
    """Where magnitudes compete: one threshold, one a layer or output, or given layer densities."""
    warm_up: str = "10%"
    """Iterations before the first pruning, or their share of a training (published: 10 epochs of
    100)."""
    each: str = "10%"
    """Iterations after each pruning, likewise (published: 10 epochs of 100)."""
    interpolate: bool = True
    """Whether norms fade at random in the search; without it is plain learning-rate rewinding."""
    signs: bool = True
    """Whether the new draw gets the signs; without them the mask alone."""
    tickets: Literal["last", "all"] = "last"
    """Which rounds give a ticket that is trained: the last, or each."""

    paper: ClassVar[str] = "Oh, Baik & Lee, ICLR 2025, arXiv:2504.05357"
    #: What its tickets start from, in the words of the other finders.
    rewind: ClassVar[str] = "fresh"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train on from the weights as they are, at a constant rate, norms interpolated",
        "prune": "lowest magnitudes, a share a round",
        "re-initialise": "a new draw, with the signs of the kept weights",
        "train": "the recipe's training",
    }

    def __post_init__(self) -> None:
        IMP(rate=self.rate)  # refuses a rate that cannot be

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and those of the tickets.

        Raises:
            BadInput: a length is no length.
        """
        dense = chain.dense("init")
        yield dense
        whole = chain.recipe.training.iterations
        end = iterations_in(self.warm_up, whole, "warm_up")
        each = iterations_in(self.each, whole, "each")
        rounds = IMP(rate=self.rate).schedule(chain.density)
        trained, masks, index = self._trained(chain, dense.start, None, 0, end), None, 0
        for number, amounts in enumerate(rounds, start=1):
            masks = chain.prune(trained, masks, scope=self.scope, **amounts)
            begin, end = end, end + each
            trained = self._trained(chain, trained, masks, begin, end)
            if self.tickets == "all" or number == len(rounds):
                index += 1
                start = chain.initial(draw=1)
                if self.signs:
                    start = chain.signed(start, trained, masks)
                yield Level(index, start, masks, chain.train(start, masks))

    def _trained(self, chain: Chain, start: Job, masks: Job | None, begin: int, end: int) -> Job:
        """Return a round of the search: a fresh optimiser, the rate after the recipe's warm-up."""
        training = replace(
            chain.recipe.training,
            iterations=end,
            schedule="constant",
            milestones=(),
            warmup=0,
            result="last",
        )
        options: dict[str, Any] = {"training": training.plain()}
        if self.interpolate:
            options["norms"] = "interpolate"
        return chain.train(start, masks, begin=begin, end=end, **options)
