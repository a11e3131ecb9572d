"""A ticket's network as one plain safetensors file, under the model's own tensor names."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from ..store import atomic_write
from ..ticket import Ticket


def write(ticket: Ticket, path: Path) -> dict[str, object]:
    """Write the masked starting state; any framework loads it without lth_zoo.

    Pruned weights are stored as zeros: the file is as large as the dense network's.
    """
    state = {name: tensor.contiguous() for name, tensor in ticket.state.items()}
    counts = ticket.counts()
    meta = {"ticket": ticket.id, "sparsity": repr(ticket.sparsity), "format": "pt"}
    data = safetensors.torch.save(state, metadata=meta)
    atomic_write(path, data)
    return {"path": str(path), "bytes": len(data), "tensors": len(state), **counts}
