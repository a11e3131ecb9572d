"""A ticket's start that is a public checkpoint: named and checked, not copied.

The values of a pre-trained model are everybody's; a ticket keeps its own tensors (the head),
and of the rest a digest each, with pruned entries as 0: so the digest is of what the ticket
is, and a model that was masked with it before still fits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from .errors import TicketError
from .masks import Masks
from .protocols import Checkpoint

#: Hex digits kept of each tensor's sha256; the whole is covered by the checkpoint's fingerprint.
DIGITS = 16


@dataclass(frozen=True)
class Pretrained:
    """Where a ticket's pre-trained tensors are from, and how to know them.

    ``digests`` maps their names to the first digits of the sha256 of dtype, shape and values,
    pruned entries as 0; ``values`` is how many numbers they hold in all; ``versions`` are of
    the libraries that made names out of the checkpoint's file.
    """

    id: str
    revision: str
    fingerprint: str
    digests: Mapping[str, str]
    values: int
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, public: Checkpoint, tensors: Mapping[str, Tensor], masks: Masks, **versions: str
    ) -> Pretrained:
        """Return the pointer to those tensors of a checkpoint, under a ticket's masks."""
        digests = {n: digest(n, t, masks) for n, t in tensors.items()}
        values = sum(t.numel() for t in tensors.values())
        return cls(public.id, public.revision, public.fingerprint, digests, values, versions)

    @classmethod
    def read(cls, meta: Mapping[str, Any]) -> Pretrained | None:
        """Return what a ticket's metadata say, None where the ticket holds all it needs.

        Raises:
            TicketError: they say something else than :meth:`to_meta` writes.
        """
        said = meta.get("pretrained")
        if said is None:
            return None
        try:
            found = cls(**said)
            known = all(isinstance(text, str) for text in found.digests.values())
        except (TypeError, AttributeError) as error:
            raise TicketError(f"'pretrained' names no checkpoint: {error}") from error
        if not known or type(found.values) is not int:
            raise TicketError("'pretrained' names no checkpoint: digests or values are no such")
        return found

    def to_meta(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def refusal(self, odd: Sequence[str], dtype: torch.dtype) -> str:
        """Return what to say of a model in which those tensors have other values."""
        named = ", ".join(repr(name) for name in odd[:3])
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        kind = "" if dtype == torch.float32 else f", or was loaded as {dtype}"
        return (
            f"{len(odd)} of {len(self.digests)} tensors differ from the ticket's start {self}: "
            f"{named}{more}; the model was trained since, or is another revision{kind}. "
            'apply_to(model, start="any") masks it as it is'
        )

    def pinned(self, model: str) -> str:
        """Return a model's name with the commit of the hub that it stood for, if any."""
        commit = re.fullmatch(r"[0-9a-f]{40}", self.revision)
        return f"{self.id}@{self.revision}" if commit and model.startswith(self.id) else model

    def __str__(self) -> str:
        return self.id if self.revision in ("", "local") else f"{self.id}@{self.revision}"


def digest(name: str, tensor: Tensor, masks: Masks) -> str:
    """Return the first digits of the sha256 of dtype, shape and values, pruned entries as 0."""
    plain = tensor.detach().cpu()
    if name in masks:
        plain = torch.where(masks[name], plain, torch.zeros((), dtype=plain.dtype))
    hasher = hashlib.sha256(json.dumps([str(plain.dtype), list(plain.shape)]).encode())
    hasher.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()[:DIGITS]


def borrowed(state: Mapping[str, Tensor], ours: Mapping[str, str]) -> set[str]:
    """Return the tensors of a state that a checkpoint gives, those tied to them among them.

    ``ours`` are those found by name (:func:`~lth_zoo.session.public_tensors`). A tensor of the
    head that equals one of them and is not constant is tied to it (an output layer to the
    embeddings); zeros and ones are equal by chance.
    """
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name in ours:
        by_shape.setdefault(tuple(state[name].shape), []).append(name)
    tied = {
        name
        for name, tensor in state.items()
        if name not in ours
        and tensor.numel() > 1
        and any(tensor.equal(state[n]) for n in by_shape.get(tuple(tensor.shape), []))
        and bool(tensor.min() < tensor.max())
    }
    return {*ours, *tied}
