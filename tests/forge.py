"""Tickets to damage: a tiny one, and a forger who fits the digests."""

from __future__ import annotations

import json
from pathlib import Path

import tiny

import lth_zoo as lz
from lth_zoo.folder import MASKS, META, STATE, _sha, _written
from lth_zoo.jobs import canonical
from lth_zoo.ticket import Ticket


def find(store: Path, **fields) -> Ticket:
    given = {"sparsity": 0.75, "seed": 3, "training": tiny.TRAINING}
    return lz.find(store=store, **{"finder": lz.finders.IMP(rate=0.5)} | given | fields)


def reseal(folder: Path, change=None, **files: bytes) -> None:
    """Rewrite a ticket with digests that fit, as somebody who means harm would."""
    for name, data in files.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    data = json.loads((folder / META).read_text())
    for name in (MASKS, STATE):
        raw = (folder / name).read_bytes()
        data["files"][name] = {"sha256": _sha(raw), "bytes": len(raw)}
    if change:
        change(data)
    del data["digest"]
    (folder / META).write_bytes(_written({**data, "digest": _sha(canonical(data).encode())}))
