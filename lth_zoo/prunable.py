"""What may be pruned of a model: tensors by module type and place, and structured units."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from .errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .masks import Masks


@dataclass(frozen=True)
class Prunable:
    """One entry that a mask may cover.

    ``kind`` is ``parameter`` (a tensor of the model) or ``data`` (elements of the input,
    such as a graph's edges). ``layer`` names the module, ``role`` what it is in the
    family (``conv``, ``linear``, ``output``), ``depth`` its place from the input.
    """

    layer: str
    role: str
    depth: int
    kind: Literal["parameter", "data"] = "parameter"
    axis: int = 0


@dataclass(frozen=True)
class Part:
    """Where units lie in one tensor: unit u is ``[offset + u * width, offset + (u + 1) * width)``.

    ``tensor`` is a prunable name, ``axis`` the dimension the units lie along.
    """

    tensor: str
    axis: int
    width: int = 1
    offset: int = 0

    def rows(self, count: int, tensor: Tensor) -> Tensor:
        """Return this part of each of ``count`` units as one row, (count, entries of a unit)."""
        lines = tensor.movedim(self.axis, 0)
        return lines[self.offset : self.offset + count * self.width].reshape(count, -1)


@dataclass(frozen=True)
class Units:
    """Equal structured units of one layer: the heads of an attention, the neurons of an FFN.

    Those of one ``role`` (head, neuron, channel) compete over all layers. ``parts`` are the
    slices that vanish together when a unit does, the reader's last. ``scale``
    names the norm weight whose entries score the units, empty where there is none; ``beside`` is
    where else units have entries: biases and a norm's tensors, which no mask covers.
    """

    layer: str
    role: str
    depth: int
    count: int
    parts: tuple[Part, ...]
    scale: str = ""
    beside: tuple[Part, ...] = ()


def channels_under(
    model: nn.Module, prunable: Mapping[str, Prunable], made: str, norm: str, read: str
) -> Units:
    """Return the channels that a layer makes, a norm scales and one layer alone reads.

    ``made``, ``norm`` and ``read`` name modules. A linear layer at either end has as many rows or
    columns a channel as the feature map has places.
    """
    layers = {entry.layer: (name, entry) for name, entry in prunable.items()}
    count = model.get_parameter(f"{norm}.weight").numel()

    def part(layer: str, reads: bool) -> Part:
        name, entry = layers[layer]
        axis = 1 - entry.axis if reads else entry.axis
        return Part(name, axis, model.get_parameter(name).shape[axis] // count)

    state = model.state_dict()
    names = (f"{made}.bias", *(f"{norm}.{n}" for n in ("weight", "bias", "running_mean")))
    names = (*names, f"{norm}.running_var")
    return Units(
        layer=made,
        role="channel",
        depth=layers[made][1].depth,
        count=count,
        parts=(part(made, False), part(read, True)),
        scale=f"{norm}.weight",
        beside=tuple(Part(n, 0, state[n].numel() // count) for n in names if n in state),
    )


def check_fit(masks: Masks, model: nn.Module) -> None:
    """Assert that a model has every masked tensor, in its mask's shape.

    Raises:
        BadInput: naming each tensor that does not fit, and why.
    """
    theirs = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
    masks = masks.weights
    odd = [
        f"{n} is {tuple(m.shape)} in the ticket, {theirs.get(n, 'missing')} in the model"
        for n, m in masks.items()
        if theirs.get(n) != tuple(m.shape)
    ]
    if odd:
        more = f"; and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise BadInput(
            f"{len(odd)} of {len(masks)} masks do not fit {type(model).__name__}: "
            f"{'; '.join(odd[:3])}{more}"
        )


#: Layers of PyTorch Geometric that hold matrices of weights: module, class, names of the tensors.
#: Its other convolutions hold theirs in linear layers; attention vectors are no matrices.
_GEOMETRIC = (
    ("torch_geometric.nn.dense.linear", "Linear", ("weight",)),
    ("torch_geometric.nn.dense.linear", "HeteroLinear", ("weight",)),
    ("torch_geometric.nn.conv.gcn2_conv", "GCN2Conv", ("weight1", "weight2")),
    ("torch_geometric.nn.conv.arma_conv", "ARMAConv", ("init_weight", "weight", "root_weight")),
    ("torch_geometric.nn.conv.gated_graph_conv", "GatedGraphConv", ("weight",)),
    ("torch_geometric.nn.conv.rgcn_conv", "RGCNConv", ("weight", "root")),
)


def default_prunable(model: nn.Module) -> dict[str, Prunable]:
    """Return the weight of every linear and convolution module, in module order.

    Chosen by module type, not by name, PyTorch Geometric's among them; a tensor shared by two
    modules is listed once; the last one has the role ``output``, as have all of a graph
    convolution that it is in. Under spectral norm it is the raw weight, before the division.
    Biases and norms are not prunable. The axis is that of the layer's outputs.

    Raises:
        BadInput: a layer has no size before its first call, or its weight is computed from
            other tensors (weight norm).
    """
    from torch.nn.parameter import UninitializedParameter

    found: dict[str, Prunable] = {}
    seen: set[int] = set()
    kinds = _kinds()
    for layer, module in model.named_modules():
        role, tensors = next(((r, t) for kind, r, t in kinds if isinstance(module, kind)), ("", ()))
        for tensor in tensors:
            raw = _raw(module, tensor)
            if raw is None or id(weight := module.get_parameter(raw)) in seen:
                continue
            name = f"{layer}.{raw}" if layer else raw
            if isinstance(weight, UninitializedParameter):
                raise BadInput(f"{name!r} has no size before its first call: give its layer one")
            seen.add(id(weight))
            axis = 1 if isinstance(module, _transposed()) else 0
            found[name] = Prunable(layer, role, depth=len(found), axis=axis)
    if found:
        place = _last_place(model, found)
        for name, entry in found.items():
            if within(entry.layer, place):
                found[name] = replace(entry, role="output")
    return found


def _kinds() -> list[tuple[type, str, tuple[str, ...]]]:
    """Return the prunable module types with their role and their tensors, most common first.

    A library that nobody has imported has no modules in the model.
    """
    from torch import nn

    kinds: list[tuple[type, str, tuple[str, ...]]] = [(nn.Linear, "linear", ("weight",))]
    kinds += [(kind, "conv", ("weight",)) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)]
    kinds += [(kind, "conv", ("weight",)) for kind in _transposed()]
    for place, name, tensors in _GEOMETRIC:
        kind = getattr(sys.modules.get(place), name, None)
        if kind is not None:
            kinds.append((kind, "linear", tensors))
    return kinds


def _transposed() -> tuple[type, ...]:
    """Return the convolutions whose weight is (inputs, outputs, ...)."""
    from torch import nn

    return nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d


def _raw(module: nn.Module, tensor: str) -> str | None:
    """Return the parameter that a weight is, or that spectral norm divides; None where none.

    Its name is below the module. The weight itself is not touched: reading it under spectral norm
    in training mode runs a power iteration.

    Raises:
        BadInput: the weight is computed in another way.
    """
    if tensor in module._parameters:
        return tensor if module._parameters[tensor] is not None else None
    rules: Any = getattr(module, "parametrizations", {})
    if tensor in rules and all(_is_spectral_norm(rule) for rule in rules[tensor]):
        return f"parametrizations.{tensor}.original"
    if f"{tensor}_u" in module._buffers:  # torch.nn.utils.spectral_norm, by hooks
        return f"{tensor}_orig"
    if tensor not in rules and not hasattr(module, tensor):
        return None
    raise BadInput(
        f"the {tensor} of {type(module).__name__} is computed from other tensors: of these, only "
        "spectral norm's raw weight can be pruned; fold the others in first"
    )


def _is_spectral_norm(rule: nn.Module) -> bool:
    return any(kind.__name__ == "_SpectralNorm" for kind in type(rule).__mro__)


def head_of(model: nn.Module, prunable: Mapping[str, Prunable]) -> frozenset[str]:
    """Return the tensors of the last prunable layer, or of the graph convolution that it is in.

    A convolution's weights, attention vectors and bias may all have the size of its answer, and
    are replaced together on another task.
    """
    place = _last_place(model, prunable)
    return frozenset(n for n in model.state_dict() if within(n.rpartition(".")[0], place))


def _last_place(model: nn.Module, prunable: Mapping[str, Prunable]) -> str:
    """Return the last layer, or the graph convolution inside the model that it is in."""
    layer = outer = list(prunable.values())[-1].layer
    while outer := outer.rpartition(".")[0]:
        around = model.get_submodule(outer)
        reads = [m for m in around.modules() if "edge_index" in arguments_of(m)]
        if around in reads:
            return outer if len(reads) == 1 else layer
    return layer


def arguments_of(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Return what a module's forward is called with; nothing where it does not say."""
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return {}


def within(layer: str, place: str) -> bool:
    """Say whether a module is another one, or inside it."""
    return layer == place or layer.startswith(f"{place}.")


def count_macs(model: nn.Module, example: Any, prunable: Mapping[str, Prunable]) -> dict[str, int]:
    """Count multiply-accumulates by prunable name with torch's own FLOP counter.

    ``example`` is a batch of one, or a graph as a mapping with ``x`` and ``edge_index``, of which
    one node is the example: gathering along edges is not counted. The counter's FLOPs are
    halved, and shared in proportion by several tensors of one layer.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from .edge_sums import SumCounter

    training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, SumCounter():  # which keeps sums over edges out
        model(**example) if isinstance(example, Mapping) else model(example)
    model.train(training)
    examples = len(example["x"]) if isinstance(example, Mapping) and "edge_index" in example else 1
    counts = counter.get_flop_counts()
    root = type(model).__name__

    def flops(layer: str) -> int:
        return sum(counts.get(f"{root}.{layer}" if layer else root, {}).values())

    found = {}
    for name, entry in prunable.items():
        inner = model.get_submodule(entry.layer).named_children()
        own = flops(entry.layer) - sum(
            flops(f"{entry.layer}.{child}" if entry.layer else child) for child, _ in inner
        )
        beside = [n for n, p in prunable.items() if p.layer == entry.layer]
        size = {n: model.get_parameter(n).numel() for n in beside}
        found[name] = own * size[name] // (2 * examples * sum(size.values()))
    return found
