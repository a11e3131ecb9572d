"""Biprop: multi-prize tickets, subnetworks of a random network whose weights are signs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .edge_popup import check_popup, frozen_of, popup_training
from .strong_tickets import untrained


@dataclass(frozen=True)
class Biprop(Finder):
    """Edge-popup with weights made binary, alpha times their sign (Diffenderfer & Kailkhura)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    learning_rate: float = 0.1
    """Learning rate of the scores at first; SGD on a cosine, whatever the recipe trains with."""
    momentum: float = 0.9
    """Momentum of the scores."""
    weight_decay: float = 1e-4
    """Weight decay of the scores."""
    scope: Literal["global", "layer", "group", "erk", "uniform"] = "layer"
    """Where scores compete: one threshold a layer, one, or given layer densities."""
    progressive: float = 0.1
    """Share of the search in which the density falls to the target on a cubic, where scope is
    global: at once, layers may vanish; 0 is at once."""
    weights: Literal["kaiming", "signed-constant", "init"] = "kaiming"
    """What the weights are of which sign and mean size are taken: a normal draw, one size a layer,
    or what the model's own initialisation is."""
    frozen_kept: float = 0.0
    """Share of the weights, drawn at random, that is kept whatever is learned."""
    frozen_pruned: float = 0.0
    """Share of the weights, drawn at random, that is pruned whatever is learned."""

    paper: ClassVar[str] = "Diffenderfer & Kailkhura, ICLR 2021, arXiv:2103.09377"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train scores by the loss on frozen binary weights, straight through the mask",
        "prune": "smallest scores, the same share of every layer",
        "re-initialise": "signs never moved; one size a layer, the mean of what is kept",
        "train": "nothing; batch norm's statistics are taken anew under the mask",
    }

    def __post_init__(self) -> None:
        check_popup(self)
        if not 0 <= self.progressive <= 1:
            raise BadInput(f"finder.progressive is {self.progressive}; it must be between 0 and 1")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the ticket, untrained.

        Raises:
            BadInput: more is frozen than the density leaves room for.
        """
        falls = self.scope == "global" and self.progressive > 0
        schedule = {"first": "1", "cool_down": 1 - self.progressive} if falls else {}
        yield from untrained(
            chain,
            popup_training(self, chain),
            method="edge-popup",
            weights=self.weights,
            finish="binary",
            scope=self.scope,
            **schedule,
            **frozen_of(self, chain),
        )
