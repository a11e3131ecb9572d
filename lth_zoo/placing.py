"""Where a ticket's tensors are in a model, and which of them do not fit.

A ticket of a Hugging Face model names its tensors as the base model does, without ``bert.``;
so it fits the same base under another task's head, and the bare base. Other models have one
set of names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import TicketError
from .masks import Masks


def base_prefix(model: nn.Module) -> str | None:
    """Return what stands before the base's tensor names in a Hugging Face model, else None.

    It is empty where the model is the base itself.
    """
    name = getattr(model, "base_model_prefix", None)
    if not isinstance(name, str):
        return None
    return f"{name}." if name and isinstance(getattr(model, name, None), nn.Module) else ""


@dataclass(frozen=True)
class Places:
    """A ticket's tensor names in one model.

    ``found`` maps those that the model has to its own names; ``head`` are those of them that
    lie outside the base; ``absent`` are those it has no place for, in whole parts that it does
    not have at all (a pooler, another task's head); ``missing`` are the others it lacks, and
    ``left`` the model's own tensors, head apart, that the ticket knows nothing of.
    """

    found: Mapping[str, str]
    head: frozenset[str]
    absent: frozenset[str]
    missing: tuple[str, ...]
    left: tuple[str, ...]


def places(names: Iterable[str], model: nn.Module, rename: Callable[[str], str] = str) -> Places:
    """Return where those tensors of a ticket are in a model.

    ``rename`` is asked for the names that are not there: an older library's, say.
    """
    theirs, prefix = model.state_dict().keys(), base_prefix(model)
    before = prefix or ""
    names = list(names)
    found = {n: c for n in names for c in (n, before + n) if c in theirs}
    for name in names:
        if name not in found and (other := rename(name)) in theirs:
            found[name] = other
    head = frozenset(n for n, c in found.items() if not c.startswith(before))
    lacking = [n for n in names if n not in found]
    covered = set(found.values())
    spare = [n for n in theirs if n.startswith(before) and n not in covered]
    if prefix is None:
        return Places(found, head, frozenset(), tuple(lacking), tuple(spare))
    parts = {_part(n.removeprefix(before)) for n in theirs if n.startswith(before)}
    absent = frozenset(n for n in lacking if _part(n) not in parts)
    known = {_part(n) for n in names}
    return Places(
        found,
        head,
        absent,
        tuple(n for n in lacking if n not in absent),
        tuple(n for n in spare if _part(n.removeprefix(before)) in known),
    )


def _part(name: str) -> str:
    return name.partition(".")[0]


def check_places(
    where: Places, shapes: Mapping[str, tuple[int, ...]], masked: Iterable[str], model: nn.Module
) -> None:
    """Assert that a model has a ticket's tensors; those of a head only where they are masked.

    ``shapes`` are those known of the ticket's tensors; a ``masked`` one may not be absent.

    Raises:
        TicketError: naming the tensors that do not fit, and why.
    """
    theirs = model.state_dict()
    masked, free = set(masked), where.head - set(masked)
    needed = [*where.missing, *sorted(masked & where.absent)]
    odd = [f"the model has no tensor {n!r}" for n in needed]
    for name, shape in shapes.items():
        there = where.found.get(name)
        if there is not None and name not in free and theirs[there].shape != shape:
            odd.append(
                f"{name!r} is {tuple(theirs[there].shape)} in the model, {shape} in the ticket"
            )
    if where.left:
        odd.append(f"the ticket has no tensor {min(where.left)!r} (of {len(where.left)} missing)")
    refuse(odd)


def refuse(odd: list[str]) -> None:
    """Raise what is wrong, if anything is: the first three, and how many more.

    Raises:
        TicketError: there is something.
    """
    if odd:
        more = f"; and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise TicketError("; ".join(odd[:3]) + more)


def head_fits(where: Places, head: Mapping[str, Tensor], model: nn.Module) -> bool:
    """Say whether a model's head is the ticket's, in names and shapes."""
    theirs, before = model.state_dict(), base_prefix(model) or ""
    outside = {n for n in theirs if not n.startswith(before)}
    shapes = all(theirs[where.found[n]].shape == t.shape for n, t in head.items())
    return shapes and outside == {where.found[n] for n in where.head}


def renamed(masks: Masks, where: Places) -> Masks:
    """Return the masks under the names that the model has."""
    return Masks({where.found[n]: m for n, m in masks.items()})


@torch.no_grad()
def zero_(model: nn.Module, masks: Masks) -> None:
    """Set the pruned weights of a model to 0, never -0.0, in place."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        tensors[name].masked_fill_(~mask.to(tensors[name].device), 0.0)
