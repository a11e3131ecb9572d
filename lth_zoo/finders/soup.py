"""Instant Soup: masks of many cheap, slightly different trainings, united round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import ClassVar

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .amounts import iterations_in


@dataclass(frozen=True)
class InstantSoup(Finder):
    """Train a little, unite the masks of briefly trained clones, repeat (Jaiswal et al. 2023)."""

    main: str = "1/6"
    """Training of the main network a round: iterations, or a share of a whole training (5%, 1/6);
    the paper: half an epoch, which is a sixth of three."""
    clones: int = 5
    """Copies of the main network a round."""
    clone: str = "1/30"
    """Training of each clone, on its own data order; the paper: a tenth of an epoch."""
    rate: float = 0.1
    """Share of the survivors that each clone drops."""
    slack: float = 0.05
    """Density above the target at which the rounds stop; the rest is cut at once."""
    rounds: int | None = None
    """Most rounds (default: half as many again as clones that agree would need)."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""

    paper: ClassVar[str] = "Jaiswal et al., ICML 2023, arXiv:2306.10460"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "a part of a training a round, and briefly each of the clones",
        "prune": "each clone drops its smallest; what any clone keeps stays; one last exact cut",
        "re-initialise": "rewind to init or an early step (or learning rate only)",
        "train": "a whole training of the ticket",
    }

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise BadInput(f"finder.rate is {self.rate}; it must be between 0 and 1")
        if not 0 <= self.slack < 1:
            raise BadInput(f"finder.slack is {self.slack}; it must be in [0, 1)")
        if self.clones < 1:
            raise BadInput(f"finder.clones is {self.clones}; it must be at least 1")
        if self.rounds is not None and self.rounds < 1:
            raise BadInput(f"finder.rounds is {self.rounds}; it must be at least 1")

    def most_rounds(self, target: Fraction) -> int:
        """Return how many rounds a search down to a density has at most; at least one."""
        if self.rounds is not None:
            return self.rounds
        density, goal, count = Fraction(1), target + Fraction(str(self.slack)), 0
        while density > goal and density > target:
            density *= 1 - Fraction(str(self.rate))
            count += 1
        return max(1, ceil(Fraction(3, 2) * count))

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the pruned one."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == 1:
            return
        assert dense.train is not None
        whole = chain.recipe.training.iterations
        main = iterations_in(self.main, whole, "main")
        clone = iterations_in(self.clone, whole, "clone")
        begin, last = dense.train.config["begin"], dense.start
        for number in range(1, self.most_rounds(chain.density) + 1):
            last = chain.search(
                "soup",
                {"start": last} | ({"masks": last} if number > 1 else {}),
                round=number,
                begin=begin,
                end=begin + main + self.clones * clone,
                main=main,
                clones=self.clones,
                clone=clone,
                rate=str(self.rate),
                density=str(chain.density),
                slack=str(self.slack),
            )
            begin += main
        masks = chain.prune(last, last, density=chain.density, start=dense.start)
        yield chain.retrain(self.rewind, last, masks, 1)
