"""How much of a planted ticket a finder's masks keep, beside what chance would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from ..masks import Masks
from ..protocols import adapter_of, task_of
from ..seeds import seeded

if TYPE_CHECKING:
    from torch import Tensor

    from ..ticket import Ticket


@dataclass(frozen=True)
class LayerRecovery:
    """One tensor: how many weights it has, are planted, are kept, and are both."""

    name: str
    size: int
    planted: int
    kept: int
    found: int

    @property
    def by_chance(self) -> float:
        """Planted weights that a random mask with as many kept weights finds on average."""
        return self.planted * self.kept / self.size


@dataclass(frozen=True)
class Recovery:
    """A mask against the planted one, over all layers and in each, from the input on."""

    layers: tuple[LayerRecovery, ...]

    @property
    def planted(self) -> int:
        """Number of planted weights."""
        return sum(layer.planted for layer in self.layers)

    @property
    def kept(self) -> int:
        """Number of kept weights."""
        return sum(layer.kept for layer in self.layers)

    @property
    def found(self) -> int:
        """Number of planted weights that are kept."""
        return sum(layer.found for layer in self.layers)

    @property
    def recall(self) -> float:
        """Kept share of the planted weights, in [0, 1]."""
        return self.found / self.planted

    @property
    def precision(self) -> float:
        """Planted share of the kept weights, in [0, 1]; 0 where none is kept."""
        return self.found / self.kept if self.kept else 0.0

    @property
    def chance_recall(self) -> float:
        """What ``recall`` would be on average for a random mask of the same layer densities."""
        return sum(layer.by_chance for layer in self.layers) / self.planted

    @property
    def chance_precision(self) -> float:
        """What ``precision`` would be on average for such a mask."""
        return sum(layer.by_chance for layer in self.layers) / self.kept if self.kept else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        whole = ("planted", "kept", "found", "recall", "precision")
        names = (*whole, "chance_recall", "chance_precision")
        layers = [vars(layer) | {"by_chance": layer.by_chance} for layer in self.layers]
        return {name: getattr(self, name) for name in names} | {"layers": layers}


def recovery(masks: Masks, planted: Masks) -> Recovery:
    """Compare masks with the planted ones; a planted tensor that they leave out is dense.

    Raises:
        BadInput: a tensor has another shape here and there.
    """
    layers = []
    for name, truth in planted.items():
        mask = masks[name] if name in masks else truth | True
        if mask.shape != truth.shape:
            raise BadInput(
                f"{name!r} has shape {tuple(mask.shape)} in the masks, {tuple(truth.shape)} where "
                "the ticket is planted"
            )
        counts = (truth.numel(), int(truth.sum()), int(mask.sum()), int((mask & truth).sum()))
        layers.append(LayerRecovery(name, *counts))
    return Recovery(tuple(layers))


def recovery_of(ticket: Ticket) -> Recovery:
    """Return what a ticket keeps of the ticket planted in its model.

    Raises:
        BadInput: nothing is planted there.
    """
    return recovery(ticket.masks, planted_in(ticket.meta.get("model", ""), ticket.state))


def planted_in(model: str, state: Mapping[str, Tensor]) -> Masks:
    """Return where the state of a model of that name hides its ticket.

    Raises:
        BadInput: nothing is planted there; the message names models where something is.
    """
    found = adapter_of(model).planted(state) if model else None
    if not found:
        raise BadInput(
            f"nothing is planted in model {model or 'without a name'!r}: recovery is measured on "
            "planted-circle, planted-helix and planted-relu"
        )
    return found


def planted_density(model: str, task: str, data: Path | None = None) -> Fraction:
    """Return the share of a model's prunable weights that are planted: the same for every seed.

    Raises:
        BadInput: nothing is planted there, or the model does not read the task.
    """
    adapter = adapter_of(model)
    with seeded(0, "init"):
        drawn = adapter.build(model, task_of(task, data).signature)
    masks = planted_in(model, drawn.state_dict())
    return Fraction(masks.kept, masks.size)


def planted_sparsity(model: str, task: str, data: Path | None = None) -> float:
    """Return a recipe's ``sparsity`` at which as many weights stay as are planted.

    >>> planted_sparsity("planted-relu-10x2", "planted/relu")
    0.9

    Raises:
        BadInput: as :func:`planted_density`.
    """
    return float(1 - planted_density(model, task, data))
