"""Hidden units that may change places: which tensors' axes move together, and how.

A network computes the same function when the units of a hidden layer are reordered in all that
makes them (weights, biases, norms) and in all that reads them. Where layers are added, as along
the shortcuts of a residual network, all of their units share one order. Masks move as weights do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .prunable import Part

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Permutable:
    """Units that share one order, and where they lie.

    ``parts`` are all tensors with an axis along them; ``seen`` names the module whose input, or
    output (``side``), has their activations on its second axis, each as often as a feature map
    has places.
    """

    seen: str
    side: Literal["input", "output"]
    count: int
    parts: tuple[Part, ...]


def permutable(
    model: nn.Module, made: Sequence[str], read: Sequence[str], output: str = ""
) -> Permutable:
    """Return the units that some modules make or norm, and some layers read.

    Linear layers, convolutions and norms, by module name. The units are seen in what the first
    reader is given, or in what the module ``output`` returns.
    """
    state = model.state_dict()
    count = state[f"{made[0]}.weight"].shape[output_axis(model, made[0])]
    parts = []
    for module in made:
        for name in (n for n in state if n.rpartition(".")[0] == module and state[n].dim()):
            axis = output_axis(model, module) if state[name].dim() > 1 else 0
            parts.append(Part(name, axis, state[name].shape[axis] // count))
    for module in read:
        name, axis = f"{module}.weight", 1 - output_axis(model, module)
        parts.append(Part(name, axis, state[name].shape[axis] // count))
    if output:
        return Permutable(output, "output", count, tuple(parts))
    return Permutable(read[0], "input", count, tuple(parts))


def permuted(
    tensors: Mapping[str, Tensor], spec: Sequence[Permutable], orders: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return tensors (a state, or masks) with units reordered: the new unit u is order[u] of old.

    Tensors in no part are as they were.
    """
    found = dict(tensors)
    for units, order in zip(spec, orders, strict=True):
        for part in units.parts:
            if part.tensor in found:
                index = _places(part, order)
                found[part.tensor] = found[part.tensor].index_select(part.axis, index)
    return found


def inverse(order: Tensor) -> Tensor:
    """Return the order that undoes an order."""
    return order.argsort()


def _places(part: Part, order: Tensor) -> Tensor:
    """Return an axis' indices under an order of its units, of ``width`` places each."""
    import torch

    return (order[:, None] * part.width + torch.arange(part.width)).reshape(-1)


def output_axis(model: nn.Module, module: str) -> int:
    """Return the axis of a layer's outputs in its weight."""
    return 1 if getattr(model.get_submodule(module), "transposed", False) else 0
