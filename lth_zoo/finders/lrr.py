"""Learning-rate rewinding: prune, keep the trained weights, restart the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..errors import BadInput
from .imp import IMP


@dataclass(frozen=True)
class LRR(IMP):
    """Train, prune, train on by the whole schedule from its beginning (Renda et al. 2020).

    It is IMP with another default: the jobs are those of ``imp --finder.rewind learning-rate``.
    """

    rewind: str = "learning-rate"
    """How far the schedule goes back: learning-rate (all of it), learning-rate=K, =P%."""

    paper: ClassVar[str] = "Renda et al., ICLR 2020, arXiv:2003.02389"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train to the end, every level from the weights of the level before",
        "prune": "lowest magnitudes of the trained weights, a share a level",
        "re-initialise": "nothing but the learning rate's schedule",
        "train": "the whole training again, from the trained weights",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rewind.startswith("learning-rate"):
            raise BadInput(
                f"finder.rewind is {self.rewind!r}, but lrr rewinds the learning rate: choose "
                "learning-rate, learning-rate=K or =P%, or finder imp for the other rules"
            )
