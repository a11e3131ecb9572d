"""Masks of whole units as a smaller module: what is pruned is cut out, not multiplied by zero.

:func:`compact` takes every unit that is pruned in all its slices (:class:`~lth_zoo.prunable.Units`)
out of a copy of a model: its rows in the layers that make it, its columns in the one that reads
it, and its entries in biases and norms. The copy answers as the masked model does, learns as it
does, and costs what it keeps. :func:`expand` puts what it learned back among zeros.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from .masks import Masks
from .prunable import Units
from .rewind import Snapshot
from .widths import parameters_of

#: Layers that can be cut -> what the sizes of their weight are called. Subclasses may read a
#: size elsewhere, and stay whole.
_SIZES: dict[type, tuple[str, ...]] = {
    nn.Linear: ("out_features", "in_features"),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), ("out_channels", "in_channels")),
    **dict.fromkeys(
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
        ("in_channels", "out_channels"),
    ),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), ("num_features",)),
}
#: Tensors of such a layer that have an entry for each of its outputs.
_OF_OUTPUTS = ("weight", "bias", "running_mean", "running_var")

#: tensor -> axis -> which of its lines stay, bool
Lines = Mapping[str, Mapping[int, Tensor]]


@dataclass(frozen=True)
class Plan:
    """What a smaller module is of a model; ``masks`` is what is still pruned within it, if any."""

    lines: Lines
    masks: Masks | None


def compact(
    model: nn.Module, masks: Masks | None, units: Sequence[Units]
) -> tuple[nn.Module, Plan]:
    """Return a copy of a model without the units that masks prune whole, and how it was made.

    Weights that masks prune within what stays are left to the plan's own masks. A unit stays,
    masked, where the masks do not cover it whole, where a layer of it is no plain linear,
    convolution or batch norm (spectral norm, a group of channels), where a bias or a norm is not
    among its slices, or where it is the last of its layer.
    """
    smaller = copy.deepcopy(model)
    if masks is None:
        return smaller, Plan({}, None)
    tied = _tied(model)
    able = [unit for unit in units if _separable(model, unit, tied)]
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    lines = lines_of(able, [_staying(unit, masks) for unit in able], shapes)
    lines = {n: cut for n, axes in lines.items() if (cut := _cut(axes))}
    left = {n: narrowed(mask, lines.get(n, {})) for n, mask in masks.weights.items()}
    inside = Masks({n: mask for n, mask in left.items() if not mask.all()}).joined(masks.data)
    _shrink(smaller, lines)
    return smaller, Plan(lines, inside if len(inside) else None)


def made_compact(
    model: nn.Module, masks: Masks | None, units: Sequence[Units]
) -> tuple[nn.Module, Plan, dict[str, Any]]:
    """Return what :func:`compact` does, and what a training of it says of the whole model."""
    smaller, plan = compact(model, masks, units)
    counts = {"parameters": parameters_of(smaller), "dense_parameters": parameters_of(model)}
    about = {"parameters": counts["dense_parameters"], "compact": counts}
    return smaller, plan, about | ({"masks": masks.counts} if masks is not None else {})


def narrow(start: Snapshot, plan: Plan) -> Snapshot:
    """Return a snapshot of the whole model as one of the smaller module.

    Of an optimiser's tensors those are cut that mirror their parameter along an axis.
    """

    def cut(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: narrowed(tensor, plan.lines.get(_owner(n), {})) for n, tensor in group.items()}

    return replace(
        start, state=cut(start.state), average=cut(start.average), optimizer=cut(start.optimizer)
    )


def expand(state: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Return a state of the smaller module in the shapes of the whole model, zeros where cut."""
    whole = dict(state)
    for name, axes in plan.lines.items():
        tensor = whole[name]
        for axis, stay in axes.items():
            shape = (*tensor.shape[:axis], len(stay), *tensor.shape[axis + 1 :])
            places = stay.nonzero().flatten()
            tensor = tensor.new_zeros(shape).index_copy_(axis, places, tensor)
        whole[name] = tensor
    return whole


def lines_of(
    units: Sequence[Units], staying: Sequence[Tensor], shapes: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, Tensor]]:
    """Return which lines of the tensors in ``shapes`` stay where these units do, bool (count,)."""
    lines: dict[str, dict[int, Tensor]] = {}
    for unit, stay in zip(units, staying, strict=True):
        for part in (p for p in (*unit.parts, *unit.beside) if p.tensor in shapes):
            axes = lines.setdefault(part.tensor, {})
            size = shapes[part.tensor][part.axis]
            kept = axes.setdefault(part.axis, torch.ones(size, dtype=torch.bool))
            end = part.offset + unit.count * part.width
            kept[part.offset : end] &= stay.repeat_interleave(part.width)
    return lines


def left_of(lines: Lines, shapes: Mapping[str, Sequence[int]]) -> int:
    """Return how many entries of the tensors in ``shapes`` stay."""
    total = 0
    for name, shape in shapes.items():
        axes = lines.get(name, {})
        total += prod(int(axes[i].sum()) if i in axes else n for i, n in enumerate(shape))
    return total


def narrowed(tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    """Return a tensor without the lines that go, along the axes that it has in full."""
    for axis, stay in axes.items():
        if tensor.dim() > axis and tensor.shape[axis] == len(stay):
            tensor = tensor.index_select(axis, stay.nonzero().flatten().to(tensor.device))
    return tensor


# -- what may go -----------------------------------------------------------------------------


def _staying(unit: Units, masks: Masks) -> Tensor:
    """Return which units of a layer stay: those with a weight left in any slice, or the first."""
    if any(part.tensor not in masks for part in unit.parts):
        return torch.ones(unit.count, dtype=torch.bool)
    alive = [part.rows(unit.count, masks[part.tensor]).any(1) for part in unit.parts]
    stay = torch.stack(alive).any(0)
    if not stay.any():
        stay[0] = True
    return stay


def _separable(model: nn.Module, unit: Units, tied: frozenset[str]) -> bool:
    """Say whether nothing but a unit's own slices has entries of it."""
    found: dict[str, set[str]] = {}
    for part in (*unit.parts, *unit.beside):
        layer, _, name = part.tensor.rpartition(".")
        module = model.get_submodule(layer)
        sizes = _SIZES.get(type(module))
        grouped = getattr(module, "groups", 1) != 1
        if sizes is None or grouped or name not in _OF_OUTPUTS or part.tensor in tied:
            return False
        if name != "weight" or not sizes[part.axis].startswith("in_"):
            found.setdefault(layer, set()).add(name)
    return all(names == _outputs_of(model.get_submodule(n)) for n, names in found.items())


def _outputs_of(module: nn.Module) -> set[str]:
    return {name for name in _OF_OUTPUTS if getattr(module, name, None) is not None}


def _tied(model: nn.Module) -> frozenset[str]:
    """Return the parameters that another name has too."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return frozenset(n for same in names.values() if len(same) > 1 for n in same)


# -- how it goes -----------------------------------------------------------------------------


def _cut(axes: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {axis: stay for axis, stay in axes.items() if not stay.all()}


def _shrink(model: nn.Module, lines: Lines) -> None:
    """Cut a model's tensors in place, and tell its layers their new sizes."""
    for name, axes in lines.items():
        layer, _, own = name.rpartition(".")
        module = model.get_submodule(layer)
        tensor = narrowed(getattr(module, own).detach(), axes)
        if own in module._parameters:
            grown = module.get_parameter(own).requires_grad
            setattr(module, own, nn.Parameter(tensor, requires_grad=grown))
        else:
            setattr(module, own, tensor)
        if own == "weight":
            for size, entries in zip(_SIZES[type(module)], tensor.shape, strict=False):
                setattr(module, size, entries)


def _owner(name: str) -> str:
    """Return whose tensor it is: ``objective:parameter/key`` of an optimiser, or a name itself."""
    return name.partition(":")[2].rpartition("/")[0] if "/" in name else name
