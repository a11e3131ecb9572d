"""Concrete ticket search: gates on the frozen weights of an early step, learned in one go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .amounts import iterations_in, with_adam

#: Share of the search after which the learning rate is a tenth.
DECAY = 0.88


@dataclass(frozen=True)
class CTS(Finder):
    """Learn random gates by what the dense network answers, keep the likeliest (Arora 2025)."""

    objective: Literal["rkl", "fkl", "ce"] = "rkl"
    """What is minimised: KL(sparse || dense) of the answers, KL(dense || sparse), or the task's
    own loss. Values and images are compared by squared error, whichever KL it is."""
    length: str = "50%"
    """Iterations of the search, or their share of a training; published: 12.5%, 50%, 100%."""
    learning_rate: float = 0.1
    """Learning rate of the gates' logits, by Adam; a tenth after 88 % of the search."""
    temperature: float = 2 / 3
    """Temperature of the gates: the lower, the harder."""
    slack: float = 1.1
    """The expected count is pulled down to this multiple of the count that is asked for."""
    smoothing: float = 0.99
    """Decay of the average that the strength of the pull is."""
    rewind: str = "6%"
    """What is searched and what survivors get back: init, step=K, P%, ... (published: 9 of 160
    epochs)."""

    paper: ClassVar[str] = "Arora & Teuscher, 2025, arXiv:2512.07142"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train to the rewind point; then its weights are frozen and gates learned",
        "prune": "lowest logits, over all layers, the whole amount at once",
        "re-initialise": "the weights never moved from the rewind point",
        "train": "the rest of the same training",
    }

    def __post_init__(self) -> None:
        for name in ("learning_rate", "temperature", "slack"):
            if not 0 < getattr(self, name) < float("inf"):
                raise BadInput(f"finder.{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.smoothing < 1:
            raise BadInput(f"finder.smoothing is {self.smoothing}; it must be at least 0, below 1")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the learned mask.

        Raises:
            BadInput: the length is no length.
        """
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == 1:
            return
        recipe = chain.recipe.training
        iterations = iterations_in(self.length, recipe.iterations, "length")
        decay = (round(DECAY * iterations),)
        training = with_adam(
            recipe, iterations, self.learning_rate, schedule="step", milestones=decay
        )
        masks = chain.search(
            "concrete",
            {"start": dense.start},
            training=training.plain(),
            begin=0,
            end=iterations,
            objective=self.objective,
            temperature=self.temperature,
            slack=self.slack,
            smoothing=self.smoothing,
            density=str(chain.density),
            scope="global",
            overrides={},
            total=None,
        )
        yield chain.retrain(self.rewind, masks, masks, 1)
