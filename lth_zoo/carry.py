"""What a job of kind ``carry`` does: bring a ticket found elsewhere to a target's model.

The masks always come; ``changes`` in the job's config says what else does: ``masks`` nothing,
``state`` the source ticket's trained weights, ``signs`` only their signs. From another task the
output head stays the target's own in every case, and so do the edges where tickets prune a graph:
those of another task's graph mean nothing here.

From another model, ``parts`` names the network that both have, there and here: ``decoder`` and
``generator``. Only it comes; ``start`` brings the weights that the source's ticket is rewound to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .errors import BadInput, StoreError
from .masks import Masks
from .prunable import check_fit, within
from .rewind import Snapshot

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .session import Session


def carry(session: Session) -> None:
    """Write the source's masks under the target's names and, if asked, the start they train from.

    Raises:
        BadInput: a tensor of the source does not fit the target's model.
    """
    masks = session.masks("masks")
    if masks is None:
        raise StoreError(f"{session.job.label} has no masks")
    adapter, model, parts = session.adapter, session.build(), session.config.get("parts")
    if parts:
        carried = Masks(renamed(masks, *parts))
        check_fit(carried, model)
    else:
        carried = adapter.carry(masks.weights, model)
    own = session.masks("own")
    if own is not None:
        carried = carried.joined(own.data)
    session.write_masks(carried)
    session.write_json({"masks": carried.counts, "kept": carried.kept, "prunable": carried.size})
    changes = session.config["changes"]
    if changes == "masks":
        return
    if parts:
        theirs = renamed(session.snapshot("source").state, *parts)
        session.write_start(with_part(session.snapshot("start"), theirs))
        return
    start, source = session.snapshot("start"), session.snapshot("source").state
    prefix = adapter.prefix(session.config["model"])
    if changes == "signs":
        state = in_step(model, start.state, with_signs(start.state, source, carried, prefix))
    else:
        head = adapter.head(model)
        state = with_base(start.state, source, head, prefix)
        state |= {name: state[base] for name, base in tied(model, head).items()}
    # A new start has no past: its optimiser and generators begin anew.
    session.write_start(Snapshot(state, start.iteration))


def renamed(tensors: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """Return the tensors inside one module, by the names they have inside another.

    >>> renamed({"decoder.0.weight": 1, "encoder.0.weight": 2}, "decoder", "generator")
    {'generator.0.weight': 1}
    """
    own = {name.removeprefix(source): name for name in tensors if within(name, source)}
    return {(target + rest).lstrip("."): tensors[name] for rest, name in own.items()}


def with_part(start: Snapshot, part: Mapping[str, Tensor]) -> Snapshot:
    """Return a start with the tensors of a part from elsewhere; what it does not name goes on.

    The part has no past here: its optimiser state and averages begin anew.

    Raises:
        BadInput: the start lacks a tensor, or has it in another shape.
    """
    if odd := [
        n for n, t in part.items() if n not in start.state or start.state[n].shape != t.shape
    ]:
        ours = tuple(start.state[odd[0]].shape) if odd[0] in start.state else "missing"
        raise BadInput(f"{odd[0]} is {tuple(part[odd[0]].shape)} in the source, {ours} here")

    def others(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: t for n, t in tensors.items() if _parameter(n) not in part}

    state = {**start.state, **part}
    return replace(
        start, state=state, optimizer=others(start.optimizer), average=others(start.average)
    )


def _parameter(name: str) -> str:
    """Return the parameter that a tensor of a snapshot's optimiser is about.

    >>> _parameter("nelbo:decoder.0.weight/exp_avg"), _parameter("decoder.0.weight")
    ('decoder.0.weight', 'decoder.0.weight')
    """
    return name.rpartition("/")[0].partition(":")[2] or name


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


def in_step(
    model: nn.Module, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a changed state in which every name of a shared tensor has what one of them got."""
    shared: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shared.setdefault(id(parameter), []).append(name)
    state = dict(after)
    for names in shared.values():
        moved = [n for n in names if not after[n].equal(before[n])]
        state |= dict.fromkeys(names, after[moved[0]]) if moved else {}
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
