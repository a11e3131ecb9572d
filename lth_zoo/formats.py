"""Snapshots and masks as safetensors bytes: never pickle, nothing executed on reading."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import StoreError
from .masks import Masks
from .rewind import Snapshot


def dump_tensors(tensors: dict[str, Tensor], meta: dict[str, Any]) -> bytes:
    """Return tensors and plain metadata as one safetensors file.

    A tensor that shares memory with another is copied, so that tied weights can be written.
    """
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if pointer in seen else tensor.contiguous()
        seen.add(pointer)
    data: bytes = safetensors.torch.save(own, metadata={"lth_zoo": json.dumps(meta)})
    return data


def load_tensors(data: bytes, what: str = "file") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`dump_tensors` wrote.

    Raises:
        StoreError: not a safetensors file of ours.
    """
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        return tensors, json.loads(header["__metadata__"]["lth_zoo"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"{what} is damaged: {error}") from error


def dump_snapshot(snapshot: Snapshot) -> bytes:
    """Return a snapshot as bytes."""
    return dump_tensors(
        snapshot.tensors(), {"iteration": snapshot.iteration, "extra": snapshot.extra}
    )


def load_snapshot(data: bytes, what: str = "snapshot") -> Snapshot:
    """Read what :func:`dump_snapshot` wrote."""
    tensors, meta = load_tensors(data, what)
    return Snapshot.from_tensors(tensors, meta["iteration"], meta["extra"])


def dump_masks(masks: Masks) -> bytes:
    """Return masks as bytes, one bit a weight."""
    return dump_tensors(masks.pack(), {"shapes": {n: list(m.shape) for n, m in masks.items()}})


def load_masks(data: bytes, what: str = "masks") -> Masks:
    """Read what :func:`dump_masks` wrote."""
    tensors, meta = load_tensors(data, what)
    return Masks.unpack(tensors, meta["shapes"])


def state_fingerprint(state: dict[str, Tensor]) -> str:
    """Return the sha256 over sorted names, dtypes, shapes and values; -0.0 counts as 0.0."""
    hasher = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        if tensor.is_floating_point():
            tensor = tensor + 0.0  # turns -0.0 into 0.0
        hasher.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        hasher.update(
            tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        )
    return hasher.hexdigest()
