"""What a ticket's tensor files hold, and how a folder of them is put in place whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import StoreError, TicketError
from .folder import MASKS, STATE
from .formats import dump_tensors, load_masks, load_tensors
from .graph import Graph
from .masks import Masks
from .ticket_graph import dumped, taken


def packed(masks: Masks, state: Mapping[str, Tensor], graph: Graph | None = None) -> bytes:
    """Return the state file: kept values flat, every unmasked tensor whole, a graph's edges."""
    tensors = {n: t[masks[n]] if n in masks else t for n, t in state.items()}
    compact = sorted(masks.keys() & state.keys())
    return dump_tensors(tensors | dumped(graph), {"compact": compact})


def unpacked(
    files: Mapping[str, bytes], meta: Mapping[str, Any]
) -> tuple[Masks, dict[str, Tensor], Graph | None]:
    """Return masks, state with the kept values put back in their places, and the graph.

    Raises:
        StoreError, TicketError: a file is damaged, or does not fit the others.
    """
    masks = load_masks(files[MASKS], MASKS)
    tensors, info = load_tensors(files[STATE], STATE)
    graph, state = taken(tensors, meta), dict(tensors)
    for name in info["compact"]:
        mask, values = masks[name], tensors[name]
        if values.numel() != mask.sum():
            raise TicketError(f"{name!r} has {values.numel()} values for its mask")
        state[name] = torch.zeros(mask.shape, dtype=values.dtype)
        state[name][mask] = values
    return masks, state, graph


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files at once; what was there is replaced whole.

    Raises:
        StoreError: it cannot be written; nothing half written stays.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, data in files.items():
                (part / name).write_bytes(data)
            part.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}") from error
