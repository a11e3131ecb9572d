"""One-shot pruning: the whole amount in one level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from .. import registry
from ..allocate import Scope
from ..chain import Chain
from ..jobs import Level
from ..protocols import Finder


@dataclass(frozen=True)
class OneShot(Finder):
    """Score once and prune to the target at once (Frankle & Carbin 2019, section 2)."""

    score: str = "magnitude"
    """Criterion: a name of `lth-zoo ls scores`."""
    scope: Scope = "global"
    """Where scores compete: one threshold, one a layer or output, or given layer densities."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""
    after: Literal["training", "start"] = "training"
    """Whether the trained weights are scored or those the training starts from."""

    paper: ClassVar[str] = "Frankle & Carbin, ICLR 2019, arXiv:1803.03635"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "one whole training, or none (after=start)",
        "prune": "lowest scores, the whole amount at once",
        "re-initialise": "rewind to init or an early step (or learning rate only)",
        "train": "the same training again",
    }

    def __post_init__(self) -> None:
        registry.check("scores", self.score)

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the pruned one."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density < 1:
            scored = dense.start if self.after == "start" else dense.train
            assert scored is not None
            masks = chain.prune(
                scored,
                None,
                density=chain.density,
                score=self.score,
                scope=self.scope,
                start=dense.start,
            )
            yield chain.retrain(self.rewind, scored, masks, 1)
