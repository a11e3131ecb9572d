"""What may be pruned of a model: tensors by module type and place, and structured units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import BadInput

if TYPE_CHECKING:
    from torch import nn

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


@dataclass(frozen=True)
class Units:
    """Equal structured units of one layer: the heads of an attention, the neurons of an FFN.

    ``parts`` are the slices that vanish together when a unit does.
    """

    layer: str
    role: Literal["head", "neuron", "channel"]
    depth: int
    count: int
    parts: tuple[Part, ...]


def check_fit(masks: Masks, model: nn.Module) -> None:
    """Assert that a model has every masked tensor, in its mask's shape.

    Raises:
        BadInput: naming each tensor that does not fit, and why.
    """
    theirs = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
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


def default_prunable(model: nn.Module) -> dict[str, Prunable]:
    """Return the weight of every linear and convolution module, in module order.

    Chosen by module type, not by name; a tensor shared by two modules is listed once;
    the last one has the role ``output``. Biases and norms are not prunable.
    """
    from torch import nn

    roles = {nn.Linear: "linear", nn.Conv1d: "conv", nn.Conv2d: "conv", nn.Conv3d: "conv"}
    found: dict[str, Prunable] = {}
    seen: set[int] = set()
    for layer, module in model.named_modules():
        role = next((r for t, r in roles.items() if isinstance(module, t)), None)
        if role is None or id(module.weight) in seen:
            continue
        seen.add(id(module.weight))
        name = f"{layer}.weight" if layer else "weight"
        found[name] = Prunable(layer, role, depth=len(found))
    if found:
        last = list(found)[-1]
        found[last] = Prunable(found[last].layer, "output", found[last].depth)
    return found


def count_macs(model: nn.Module, example: Any, prunable: Mapping[str, Prunable]) -> dict[str, int]:
    """Count multiply-accumulates by prunable layer with torch's own FLOP counter.

    ``example`` is a batch of one; the counter's FLOPs are halved.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(**example) if isinstance(example, Mapping) else model(example)
    model.train(training)
    root = type(model).__name__
    counts = counter.get_flop_counts()
    return {
        name: sum(counts.get(f"{root}.{p.layer}" if p.layer else root, {}).values()) // 2
        for name, p in prunable.items()
    }
