"""Early-bird tickets of channels: stop once they have settled, cut them out, train what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .amounts import iterations_in


@dataclass(frozen=True)
class ChannelEarlyBird(Finder):
    """Train until the channels of small norm scales settle, cut them out, go on (You et al. 2020).

    It removes as few channels as reach the sparsity; the density is then that of whole channels.
    """

    every: str = "2%"
    """How often channels are marked: iterations, or a share of a whole training (5%, 1/50)."""
    window: int = 5
    """Marks that are compared: the newest with those before it."""
    threshold: float = 0.1
    """Largest share of channels in which they may differ for the search to stop."""
    scope: Literal["global", "group"] = "group"
    """Where scales compete: over all layers, or within each network of the model (the same share
    of its channels goes); a network of one kind is one group."""
    latest: str = "50%"
    """When the search stops at the latest, settled or not: iterations, or a share of a whole
    training."""
    strength: float = 1e-4
    """Weight of the L1 norm of the norms' scales in the search."""
    rewind: str = "none"
    """What survivors get back: none (they train on from where the search stopped to the end of
    the schedule), init, step=K, P%, learning-rate[=K], fresh; none=K trains K iterations more."""
    shrink: bool = True
    """Whether the channels are cut out of the network, which then costs what it keeps, or only
    masked."""

    paper: ClassVar[str] = "You et al., ICLR 2020, arXiv:1909.11957"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train under a pull on norm scales until the channels to go stay the same",
        "prune": "channels of the smallest scales, over all layers, the whole amount at once",
        "re-initialise": "nothing: survivors train on (or init, an early step)",
        "train": "what is left of the schedule, on the smaller network",
    }

    def __post_init__(self) -> None:
        if self.window < 2:
            raise BadInput(f"finder.window is {self.window}; it must be at least 2")
        if not 0 < self.threshold <= 1:
            raise BadInput(f"finder.threshold is {self.threshold}; it must be in (0, 1]")
        if not 0 <= self.strength < float("inf"):
            raise BadInput(f"finder.strength is {self.strength}; it must be at least 0")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the pruned one.

        Raises:
            BadInput: the search would end before it begins.
        """
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == 1:
            return
        assert dense.train is not None
        whole = chain.recipe.training.iterations
        begin, end = dense.train.config["begin"], iterations_in(self.latest, whole, "latest")
        if begin >= end:
            raise BadInput(
                f"finder.latest {self.latest!r} is iteration {end}, and with rewind "
                f"{self.rewind!r} the search begins at {begin}"
            )
        masks = chain.search(
            "channels",
            {"start": dense.start},
            begin=begin,
            end=end,
            every=iterations_in(self.every, whole, "every"),
            window=self.window,
            threshold=self.threshold,
            strength=self.strength,
            score="scale",
            scope=self.scope,
            density=str(chain.density),
        )
        level = chain.retrain(self.rewind, masks, masks, 1)
        level = chain.going_on(level) if self.rewind == "none" else level
        assert level.train is not None
        config = {**level.train.config, **({"compact": True} if self.shrink else {})}
        yield replace(level, train=replace(level.train, config=config))
