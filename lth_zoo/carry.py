"""What a job of kind ``carry`` does: bring a ticket found on one task to another task's model.

The masks always come; ``changes`` in the job's config says what else does: ``masks`` nothing,
``state`` the source ticket's trained weights, ``signs`` only their signs. The output head is
the target's own in every case, and so are the edges where tickets prune a graph: those of
another task's graph mean nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch

from .errors import BadInput, StoreError
from .rewind import Snapshot

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .masks import Masks
    from .session import Session


def carry(session: Session) -> None:
    """Write the source's masks under the target's names and, if asked, the start they train from.

    Raises:
        BadInput: a tensor of the source does not fit the target's model.
    """
    masks = session.masks("masks")
    if masks is None:
        raise StoreError(f"{session.job.label} has no masks")
    adapter, model = session.adapter, session.build()
    carried = adapter.carry(masks.weights, model)
    own = session.masks("own")
    if own is not None:
        carried = carried.joined(own.data)
    session.write_masks(carried)
    session.write_json({"masks": carried.counts, "kept": carried.kept, "prunable": carried.size})
    changes = session.config["changes"]
    if changes == "masks":
        return
    start, source = session.snapshot("start"), session.snapshot("source").state
    prefix = adapter.prefix(session.config["model"])
    if changes == "signs":
        state = with_signs(start.state, source, carried, prefix)
    else:
        head = adapter.head(model)
        state = with_base(start.state, source, head, prefix)
        state |= {name: state[base] for name, base in tied(model, head).items()}
    # A new start has no past: its optimiser and generators begin anew.
    session.write_start(Snapshot(state, start.iteration))


def with_base(
    start: Mapping[str, Tensor], source: Mapping[str, Tensor], own: Collection[str], prefix: str
) -> dict[str, Tensor]:
    """Return the start with the source's tensors of the same base-relative name.

    ``own`` names what stays the start's (the head); so does what the source's model lacks.

    Raises:
        BadInput: a tensor has another shape in the source, or none is there.
    """
    theirs = {name.removeprefix(prefix): tensor for name, tensor in source.items()}
    base = {n: n.removeprefix(prefix) for n in start if n not in own}
    found = {name: theirs[key] for name, key in base.items() if key in theirs}
    if odd := [n for n, tensor in found.items() if tensor.shape != start[n].shape]:
        shapes = f"{tuple(found[odd[0]].shape)}, not {tuple(start[odd[0]].shape)}"
        raise BadInput(f"{len(odd)} tensors of the source do not fit: {odd[0]} is {shapes}")
    if not found:
        raise BadInput("the source's model has no tensor of the target's, so no state is carried")
    return {**start, **found}


def with_signs(
    start: Mapping[str, Tensor], source: Mapping[str, Tensor], masks: Masks, prefix: str
) -> dict[str, Tensor]:
    """Return the start with the signs of the source's weights where a mask keeps them.

    Magnitudes stay the start's; so does the sign where the source's weight is exactly 0.

    Raises:
        BadInput: the source's model lacks a masked tensor, or has it in another shape.
    """
    theirs = {name.removeprefix(prefix): tensor for name, tensor in source.items()}
    state = dict(start)
    for name, mask in masks.items():
        tensor = theirs.get(name.removeprefix(prefix))
        if tensor is None or tensor.shape != mask.shape:
            shape = "missing" if tensor is None else tuple(tensor.shape)
            raise BadInput(f"{name} is {shape} in the source, {tuple(mask.shape)} in the masks")
        signed = torch.copysign(start[name], tensor)
        state[name] = torch.where(mask & (tensor != 0), signed, start[name])
    return state


def tied(model: nn.Module, head: Collection[str]) -> dict[str, str]:
    """Return the head's names of tensors that the base has too: name -> name in the base.

    A language model's output matrix is its embedding: whatever the base gets, it has.
    """
    base = {
        id(parameter): name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in head
    }
    return {
        name: base[id(parameter)]
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name in head and id(parameter) in base
    }
