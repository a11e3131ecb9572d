"""A random mask: how many weights of each layer stay is chosen, which ones is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..allocate import Scope
from ..chain import Chain
from ..jobs import Level
from ..protocols import Finder


@dataclass(frozen=True)
class RandomMask(Finder):
    """Keep random weights, another draw each seed, by given shares of the layers."""

    scope: Scope = "erk"
    """How many stay in each layer: erk, balanced (the same number), smart-ratio, uniform, layer
    (the same share), global (whatever the draw gives)."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, fresh."""

    paper: ClassVar[str] = "Evci et al., ICML 2020, arXiv:1911.11134; Su et al., NeurIPS 2020"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "none, and no data",
        "prune": "a random set, the whole amount at once",
        "re-initialise": "nothing has moved; the start itself (or an early step)",
        "train": "the recipe's training",
    }

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the random mask."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density < 1:
            masks = chain.prune(
                dense.start,
                None,
                density=chain.density,
                score="random",
                scope=self.scope,
                start=dense.start,
            )
            yield chain.retrain(self.rewind, dense.start, masks, 1)
