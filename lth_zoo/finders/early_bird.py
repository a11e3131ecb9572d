"""Early-bird tickets: stop the search training as soon as the mask has settled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..allocate import Scope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .amounts import iterations_in


@dataclass(frozen=True)
class EarlyBird(Finder):
    """Train until the mask stops changing, keep it, retrain (You et al. 2020, Chen et al. 2021)."""

    every: str = "2%"
    """How often a mask is drawn: iterations, or a share of a whole training (5%, 1/50)."""
    window: int = 5
    """Masks that are compared: the newest with those before it."""
    threshold: float = 0.1
    """Largest share of entries in which they may differ for the search to stop."""
    scope: Scope = "global"
    """Where magnitudes compete: one threshold, one a layer or output, or given layer densities."""
    structure: bool = False
    """Whether whole attention heads and FFN neurons are removed; scope is then of no account."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""

    paper: ClassVar[str] = "Chen et al., ACL 2021, arXiv:2101.00063"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train until masks drawn on the way stay the same",
        "prune": "lowest magnitudes at that moment, the whole amount at once",
        "re-initialise": "rewind to init or an early step (none: train on)",
        "train": "a whole training of the ticket",
    }

    def __post_init__(self) -> None:
        if self.window < 2:
            raise BadInput(f"finder.window is {self.window}; it must be at least 2")
        if not 0 < self.threshold <= 1:
            raise BadInput(f"finder.threshold is {self.threshold}; it must be in (0, 1]")
        if self.structure and self.scope != "global":
            raise BadInput(
                f"finder.scope is {self.scope!r} with finder.structure: whole units of one role "
                "compete over all layers; leave it at 'global'"
            )

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the pruned one."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == 1:
            return
        assert dense.train is not None
        whole = chain.recipe.training.iterations
        masks = chain.search(
            "early-bird",
            {"start": dense.start},
            begin=dense.train.config["begin"],
            end=whole,
            every=iterations_in(self.every, whole, "every"),
            window=self.window,
            threshold=self.threshold,
            shares={"*": str(chain.density)} if self.structure else None,
            density=str(chain.density),
            scope=self.scope,
            overrides={},
            total=None,
        )
        level = chain.retrain(self.rewind, masks, masks, 1)
        yield chain.going_on(level) if self.rewind == "none" else level
