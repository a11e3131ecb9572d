"""Elastic tickets: found on one depth of a network, stretched or squeezed to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from .imp import IMP


@dataclass(frozen=True)
class Elastic(IMP):
    """IMP on a source model; its tickets are carried to the recipe's depth (Chen et al. 2021).

    The recipe's sparsity is asked of the source. What is left of the target follows from which
    blocks are repeated or left out, and is what results say.
    """

    source: str = ""
    """The model that is searched, of another depth and the same widths: resnet-14 for resnet-20."""
    order: Literal["append", "interpolate"] = "append"
    """Whether copies come after all of the source's blocks, or each after its own; fewer blocks
    are the first of the source, or spread over it."""
    map: str = ""
    """Blocks of a stage as source:targets, 0:0;1:1,2;2:3,4, one for all stages or one for each
    between slashes (default: all but the first equally often)."""

    paper: ClassVar[str] = "Chen et al., NeurIPS 2021, arXiv:2103.16547"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train the source from the rewind point to the end, every level",
        "prune": "lowest scores of the source's trained weights, a share a level",
        "re-initialise": "the source's masks and rewound weights, block by block",
        "train": "the target's training, from where the source's rewinds to",
    }

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the target's dense level, and the source's levels carried to it.

        Raises:
            BadInput: there is no source, or it is the target.
        """
        model = chain.recipe.model
        if self.source in ("", model):
            raise BadInput(
                f"finder.source is {self.source!r}: name a model of another depth than {model!r} "
                "whose tickets are brought to it, such as resnet-14 for resnet-20"
            )
        yield chain.dense(self.rewind)
        elsewhere = replace(chain, recipe=replace(chain.recipe, model=self.source))
        for level in super().search(elsewhere):
            if level.index:
                yield self._carried(chain, level)

    def _carried(self, chain: Chain, level: Level) -> Level:
        """Return a level of the source as one of the target."""
        assert level.masks is not None
        assert level.train is not None
        base = {k: v for k, v in chain.initial().config.items() if k != "draw"}
        how = {"source": self.source, "order": self.order, "map": self.map}
        job = Job("elastic", {**base, **how}, {"masks": level.masks, "source": level.start})
        span = {name: level.train.config[name] for name in ("begin", "end")}
        return Level(level.index, job, job, chain.train(job, job, **span))
