"""Dropping what a store can make again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .errors import StoreError
from .lock import Lock
from .session import STATE
from .store import MANIFEST, Store

#: Kinds of jobs that write trained weights beside their masks.
SEARCHES = (
    *("learn", "soup", "early-bird", "gates", "denoise", "scorer", "inform", "channels"),
    *("dynamic", "supermask", "concrete"),
)


@dataclass
class Freed:
    """What was dropped."""

    bytes: int = 0
    weights: int = 0
    leftovers: int = 0


def collect_garbage(store: Store, dry_run: bool = False) -> Freed:
    """Drop trained weights, what is made of them, and the folders of dead attempts.

    Rewind snapshots, initial states, masks, metrics and curves stay, and so do weights that
    another training starts from (learning-rate rewinding). Folders that a live process holds
    are left alone.
    """
    if any(Lock(path).holder() is not None for path in store.root.glob("*/*/lock")):
        raise StoreError(f"{store.root} is in use: its jobs may need what would go; wait for them")
    freed = Freed()
    entries = list(store.entries())
    starts = {e.manifest["inputs"].get("start", {}).get("key") for e in entries}
    for entry in entries:
        kind, config = entry.manifest["kind"], entry.manifest["config"]
        trained = kind == "train" and config["keep"] == "weights"
        trained = trained or kind in SEARCHES
        derived = kind in ("control", "carry", "elastic", "trace", "align")
        spare = derived or (trained and entry.manifest["key"] not in starts)
        if spare and STATE in entry:
            freed.weights += 1
            freed.bytes += entry.manifest["files"][STATE]["bytes"]
            if not dry_run:
                store.drop(entry, STATE)
    for folder in sorted(store.root.glob("*/*")):
        unfinished = folder.is_dir() and len(folder.name) == 64 and not (folder / MANIFEST).exists()
        if unfinished and Lock(folder / "lock").holder() is None:
            freed.leftovers += 1
            freed.bytes += _bytes(folder)
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)
    return freed


def _bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
