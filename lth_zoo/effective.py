"""What is left of masks without dead paths: weights that lie on a path from input to output.

A kept weight computes nothing where no kept path leads to it from the input, or from it to the
output (Vysogorets & Kempe 2023, "Connectivity matters: neural network pruning through the lens of
effective sparsity"). A unit that nothing leads to is a constant, its bias: the weights that read
it count as pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .masks import Masks
from .permutations import Permutable, output_axis

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Wire:
    """A weight tensor between two layers of units: ``made`` by it, and ``read`` by it.

    Both are places in the list of layers; None are the network's own outputs and inputs. ``axis``
    is that of its outputs, the inputs lie along the other of the first two.
    """

    made: int | None
    read: int | None
    axis: int


def wiring(model: nn.Module, layers: Sequence[Permutable]) -> dict[str, Wire] | None:
    """Return the wires of a model by tensor, None where its layers are not known as a whole.

    ``layers`` are the family's hidden layers of units. They are the whole where one tensor alone
    reads the input, one alone makes the output, and every other lies between two layers.
    """
    ends: dict[str, dict[str, int]] = {}
    axes, state = {}, model.state_dict()
    for place, units in enumerate(layers):
        for part in units.parts:
            if state[part.tensor].dim() > 1:
                axes[part.tensor] = output_axis(model, part.tensor.rpartition(".")[0])
                side = "made" if part.axis == axes[part.tensor] else "read"
                ends.setdefault(part.tensor, {})[side] = place
    found = {n: Wire(e.get("made"), e.get("read"), axes[n]) for n, e in ends.items()}
    first = [n for n, wire in found.items() if wire.read is None]
    last = [n for n, wire in found.items() if wire.made is None]
    return found if len(first) == len(last) == 1 else None


def effective(masks: Masks, wires: Mapping[str, Wire], counts: Sequence[int]) -> Masks:
    """Return the masks less the weights on no path from the input to the output.

    ``counts`` are the units of each layer. Layers that are added, as along shortcuts, are one
    layer here whatever their order, so that what is left there is an upper bound.
    """
    links = {name: _links(masks[name], wire, counts) for name, wire in wires.items()}
    fed = _reached(wires, links, counts, forward=True)
    heard = _reached(wires, links, counts, forward=False)
    left = dict(masks)
    for name, wire in wires.items():
        made, read = links[name].shape
        source = torch.ones(read, dtype=torch.bool) if wire.read is None else fed[wire.read]
        sink = torch.ones(made, dtype=torch.bool) if wire.made is None else heard[wire.made]
        left[name] = masks[name] & _spread(sink, masks[name], wire.axis)
        left[name] = left[name] & _spread(source, masks[name], 1 - wire.axis)
    return Masks(left)


def _links(mask: Tensor, wire: Wire, counts: Sequence[int]) -> Tensor:
    """Return which unit reads which: (units made, units read) bool."""
    flat = mask.transpose(0, wire.axis)
    flat = flat.flatten(2).any(2) if flat.dim() > 2 else flat
    made = flat.shape[0] if wire.made is None else counts[wire.made]
    read = flat.shape[1] if wire.read is None else counts[wire.read]
    return flat.reshape(made, flat.shape[0] // made, read, -1).any(3).any(1)


def _spread(alive: Tensor, mask: Tensor, axis: int) -> Tensor:
    """Return units' flags in the shape of a mask along an axis, each unit as wide as it is."""
    shape = [1] * mask.dim()
    shape[axis] = mask.shape[axis]
    return alive.repeat_interleave(mask.shape[axis] // len(alive)).reshape(shape)


def _reached(
    wires: Mapping[str, Wire], links: Mapping[str, Tensor], counts: Sequence[int], *, forward: bool
) -> list[Tensor]:
    """Return the units of each layer that the input leads to, or that lead to the output."""
    found = [torch.zeros(count, dtype=torch.bool) for count in counts]
    changed = True
    while changed:
        changed = False
        for name, wire in wires.items():
            here, there = (wire.made, wire.read) if forward else (wire.read, wire.made)
            if here is None:
                continue
            table = links[name] if forward else links[name].T
            new = found[here] | (table if there is None else table & found[there]).any(1)
            changed |= not new.equal(found[here])
            found[here] = new
    return found
