"""Iterative magnitude pruning of a GAN, with a rule of its own for the discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ..allocate import Scope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from .imp import IMP

PART = "discriminator"


@dataclass(frozen=True)
class GanIMP(IMP):
    """IMP of generator and discriminator (Chen et al. 2021, arXiv 2106.00134).

    ``--only generator`` leaves the discriminator dense: IMP_G of the paper; without it IMP_GD.
    """

    scope: Scope = "group"
    """Where scores compete: group is one threshold a network, global one over both."""
    discriminator: Literal["rewind", "keep-trained", "fresh", "distill"] = "rewind"
    """What a ticket's discriminator starts from: back with the generator, the trained weights of
    the level before, a fresh draw; or back, and taught by the trained dense one."""

    paper: ClassVar[str] = "Chen et al., ICLR 2021, arXiv:2106.00134"
    needs_parts: ClassVar[tuple[str, ...]] = ("generator", PART)
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train both networks from the rewind point to the end, every level",
        "prune": "lowest magnitudes of the trained weights, a share a level of each network",
        "re-initialise": "rewind; the discriminator by its own rule",
        "train": "the same training again (distill: towards the dense discriminator's verdicts)",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = self.rewind.partition("=")[0]
        if self.discriminator != "rewind" and kind in ("learning-rate", "none"):
            raise BadInput(
                f"finder.discriminator is {self.discriminator!r} with finder.rewind "
                f"{self.rewind!r}, which goes on from the trained weights of both networks; "
                "rewind to init, step=K or a share"
            )

    def level(self, chain: Chain, trained: Job, masks: Job, index: int) -> Level:
        """Return a pruned level whose discriminator starts by the rule."""
        level = super().level(chain, trained, masks, index)
        assert level.train is not None
        inputs = dict(level.train.inputs)
        if self.discriminator == "distill":
            teacher = chain.dense(self.rewind).train
            assert teacher is not None
            inputs["teacher"] = teacher
        elif self.discriminator != "rewind":
            fresh = self.discriminator == "fresh"
            other = chain.initial(draw=index) if fresh else trained
            inputs["start"] = chain.graft(level.start, other, PART)
        return replace(level, start=inputs["start"], train=replace(level.train, inputs=inputs))
