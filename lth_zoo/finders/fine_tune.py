"""Fine-tuning: prune a trained network and train its survivors on, gently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from .imp import IMP


@dataclass(frozen=True)
class FineTune(IMP):
    """Train, prune, train on at a small constant learning rate, repeat (Han et al. 2015).

    IMP that rewinds nothing: what there was before lottery tickets, and what they are held against.
    """

    rewind: str = "none"
    """How long survivors train on: none (a whole training), none=K, none=P%."""
    learning_rate_factor: float = 0.1
    """Their learning rate as a share of the recipe's: a tenth (LeNet) or a hundredth (AlexNet)."""

    paper: ClassVar[str] = "Han et al., NeurIPS 2015, arXiv:1506.02626"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train to the end, every level from the weights of the level before",
        "prune": "lowest magnitudes of the trained weights, a share a level",
        "re-initialise": "nothing: survivors keep their trained weights",
        "train": "on at a tenth of the learning rate, constant",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rewind.startswith("none"):
            raise BadInput(
                f"finder.rewind is {self.rewind!r}, but fine-tune rewinds nothing: choose none, "
                "none=K or =P%, finder lrr to restart the schedule, or imp for the other rules"
            )
        if not 0 < self.learning_rate_factor <= 1:
            raise BadInput(
                f"finder.learning_rate_factor is {self.learning_rate_factor}; it must be above 0 "
                "and at most 1"
            )

    def level(self, chain: Chain, trained: Job, masks: Job, index: int) -> Level:
        """Return a pruned level: the trained survivors, and their gentle training."""
        training = chain.recipe.training
        gentle = replace(
            training,
            learning_rate=training.learning_rate * self.learning_rate_factor,
            schedule="constant",
            milestones=(),
            warmup=0,
        )
        own = replace(chain, recipe=replace(chain.recipe, training=gentle))
        return own.retrain(self.rewind, trained, masks, index)
