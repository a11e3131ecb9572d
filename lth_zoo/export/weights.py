"""A ticket's network as one plain safetensors file, under the model's own tensor names."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from ..errors import BadInput
from ..protocols import adapter_of
from ..store import atomic_write
from ..ticket import Ticket


def write(ticket: Ticket, path: Path) -> dict[str, object]:
    """Write the masked starting state; any framework loads it without lth_zoo.

    Pruned weights are stored as zeros: the file is as large as the dense network's. What a
    ticket leaves to a public checkpoint is read from there. Tied tensors are written once.

    Raises:
        TicketError: the checkpoint is not what it was.
    """
    state = dict(ticket.materialize().state_dict() if named_by_base(ticket) else ticket.state)
    counts = ticket.counts()
    meta = {"ticket": ticket.id, "sparsity": repr(ticket.sparsity), "format": "pt"}
    first = {t.data_ptr(): n for n, t in reversed(state.items())}
    own = {n: t.contiguous() for n, t in state.items() if first[t.data_ptr()] == n or not t.numel()}
    data = safetensors.torch.save(own, metadata=meta)
    atomic_write(path, data)
    return {"path": str(path), "bytes": len(data), "tensors": len(own), **counts}


def named_by_base(ticket: Ticket) -> bool:
    """Say whether a ticket's names, or some of its values, are not the model's own."""
    if ticket.pretrained is not None:
        return True
    try:
        name = ticket.meta.get("model", "")
        return adapter_of(name).prefix(name) != ""
    except BadInput:  # of no family that is known here: an object, or an imported ticket
        return False
