"""LoRA over a ticket: unmerged, or merged under the mask; never denser without a word.

An adapter that is not merged leaves the ticket as it is. ``merge_and_unload`` adds a dense
product BA to a sparse W: at 40 % sparsity, 32.7 % was what was left of it elsewhere.
PEFT is not imported here: its models are told by their methods, its names by their parts.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import BadInput, TicketError
from ..masks import Masks
from ..placing import zero_

#: What PEFT puts into parameter names, before and between the model's own.
_BEFORE, _BETWEEN = "base_model.model.", (".base_layer.", ".original_module.")
_COPY = ".modules_to_save."


def masks_in(model: nn.Module, masks: Masks) -> Masks:
    """Return masks of a plain model under the names its parameters have once PEFT wrapped it.

    A module of ``modules_to_save`` is there twice, and masked twice. Names that the model has
    stay as they are.

    Raises:
        TicketError: a masked tensor is not there, or has another shape.
    """
    live = dict(model.named_parameters(remove_duplicate=False))
    own: dict[str, list[str]] = {}
    for name in live:
        own.setdefault(plain_name(name), []).append(name)
    places = {n: [n] if n in live else own.get(n, []) for n in masks}
    odd = [n for n, m in masks.items() if not places[n] or live[places[n][0]].shape != m.shape]
    if odd:
        named = ", ".join(repr(n) for n in odd[:3])
        raise TicketError(
            f"{len(odd)} of {len(masks)} masks fit no tensor of {type(model).__name__}: {named}"
        )
    return Masks({place: masks[n] for n in masks for place in places[n]})


def plain_name(name: str) -> str:
    """Return the name that a parameter had before PEFT wrapped its module.

    >>> plain_name("base_model.model.bert.layer.0.query.base_layer.weight")
    'bert.layer.0.query.weight'
    """
    plain = name.removeprefix(_BEFORE)
    for part in _BETWEEN:
        plain = plain.replace(part, ".")
    if _COPY in plain:  # ....modules_to_save.ADAPTER.weight
        before, _, after = plain.partition(_COPY)
        plain = f"{before}.{after.partition('.')[2]}"
    return plain


def revived(model: nn.Module, masks: Masks) -> dict[str, int]:
    """Return how many pruned weights are not 0, by tensor; empty where the sparsity holds."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    counts = {}
    for name, mask in masks_in(model, masks).items():
        tensor = tensors[name].detach()
        counts[name] = int(tensor.masked_fill(mask.to(tensor.device), 0).count_nonzero())
    return {name: count for name, count in counts.items() if count}


def check_sparsity(model: nn.Module, masks: Masks) -> None:
    """Assert that every pruned weight of a model is exactly 0, adapters or not.

    Raises:
        TicketError: some are not, as after a plain ``merge_and_unload``: the message names
            the tensors that are denser; or the masks do not fit.
    """
    if found := revived(model, masks):
        named = ", ".join(f"{name!r} ({count:,})" for name, count in list(found.items())[:3])
        more = f" and {len(found) - 3} more tensors" if len(found) > 3 else ""
        raise TicketError(
            f"{sum(found.values()):,} pruned weights are not 0: {named}{more}; "
            "merge adapters with lth_zoo.integrations.lora.merge_lora"
        )


def merge_lora(model: Any, masks: Masks, **options: Any) -> nn.Module:
    """Merge a PEFT model's adapters under the masks: every weight becomes (W + BA) * m.

    Returns the plain model, as ``merge_and_unload(**options)`` does. What BA added at pruned
    places is lost, so its answers differ from the unmerged model's: evaluate it, or keep the
    adapter unmerged.

    Raises:
        BadInput: the model has no adapters to merge.
        TicketError: the model is not the masks' ticket (a pruned weight is not 0), or the masks
            do not fit.
    """
    if not callable(getattr(model, "merge_and_unload", None)):
        raise BadInput(
            f"{type(model).__name__} has no merge_and_unload: give the model that PEFT returned"
        )
    check_sparsity(model, masks)
    merged: nn.Module = model.merge_and_unload(**options)
    zero_(merged, masks_in(merged, masks))
    check_sparsity(merged, masks)
    return merged
