"""Edge-popup: a network inside a random one, by scores that pop edges up; no weight is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from ..recipe import Training
from .mask_training import exact
from .strong_tickets import check_least, check_positive, scores_training, untrained


@dataclass(frozen=True)
class EdgePopup(Finder):
    """Learn which weights of a random network stay; none is trained (Ramanujan et al. 2020)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    learning_rate: float = 0.1
    """Learning rate of the scores at first; SGD on a cosine, whatever the recipe trains with."""
    momentum: float = 0.9
    """Momentum of the scores."""
    weight_decay: float = 1e-4
    """Weight decay of the scores."""
    scope: Literal["global", "layer", "group", "erk", "uniform"] = "layer"
    """Where scores compete: one threshold a layer (the paper), one, or given layer densities."""
    weights: Literal["signed-constant", "kaiming", "init"] = "signed-constant"
    """What the frozen weights are: one size a layer with the signs of the draw, a normal draw of
    that size, or what the model's own initialisation is."""
    frozen_kept: float = 0.0
    """Share of the weights, drawn at random, that is kept whatever is learned."""
    frozen_pruned: float = 0.0
    """Share of the weights, drawn at random, that is pruned whatever is learned."""

    paper: ClassVar[str] = "Ramanujan et al., CVPR 2020, arXiv:1911.13299"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train scores by the loss on frozen weights, straight through the mask",
        "prune": "smallest scores, the same share of every layer",
        "re-initialise": "the weights never moved",
        "train": "nothing; batch norm's statistics are taken anew under the mask",
    }

    def __post_init__(self) -> None:
        check_popup(self)

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the ticket, untrained.

        Raises:
            BadInput: more is frozen than the density leaves room for.
        """
        yield from untrained(
            chain,
            popup_training(self, chain),
            method="edge-popup",
            weights=self.weights,
            scope=self.scope,
            **frozen_of(self, chain),
        )


def check_popup(finder: Any) -> None:
    """Assert what edge-popup and biprop have in common.

    Raises:
        BadInput: a number out of its bounds.
    """
    check_positive(finder, "learning_rate")
    check_least(finder, "momentum", "weight_decay", "frozen_kept", "frozen_pruned")


def popup_training(finder: Any, chain: Chain) -> Training:
    """Return how the scores of such a finder are trained."""
    return scores_training(
        chain,
        finder.iterations,
        optimizer="sgd",
        learning_rate=finder.learning_rate,
        momentum=finder.momentum,
        weight_decay=finder.weight_decay,
        schedule="cosine",
    )


def frozen_of(finder: Any, chain: Chain) -> dict[str, Any]:
    """Return what a search reads of the shares that are fixed beforehand; nothing if none is.

    Raises:
        BadInput: they are more than is kept, or than is pruned.
    """
    density = chain.density
    rooms = {"frozen_kept": ("kept", density), "frozen_pruned": ("pruned", 1 - density)}
    for name, (what, room) in rooms.items():
        if exact(getattr(finder, name)) > room and density != 1:
            raise BadInput(
                f"finder.{name} is {getattr(finder, name)}; at sparsity {float(1 - density):g} no "
                f"more than {float(room):g} of the weights are {what}"
            )
    shares = [str(exact(getattr(finder, name))) for name in rooms]
    return {"frozen": shares} if any(exact(getattr(finder, n)) for n in rooms) else {}
