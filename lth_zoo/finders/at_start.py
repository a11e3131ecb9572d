"""What the finders share that prune the start, before any training: one mask, one level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..chain import Chain
from ..jobs import Job, Level
from ..protocols import Finder


@dataclass(frozen=True)
class AtStart(Finder):
    """Prune the start to the target at once; subclasses say by what in :meth:`masks`."""

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the pruned start."""
        rewind: str = self.rewind  # type: ignore[attr-defined]
        dense = chain.dense(rewind)
        yield dense
        if chain.density < 1:
            yield chain.retrain(rewind, dense.start, self.masks(chain, dense.start), 1)

    def masks(self, chain: Chain, start: Job) -> Job:
        """Return the job that makes the mask of a start."""
        raise NotImplementedError
