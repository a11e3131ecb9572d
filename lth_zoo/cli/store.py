"""lth-zoo store: list or clean the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from .ls import table_of
from .options import Place, emit, parse


@dataclass(frozen=True, kw_only=True)
class Keep(Place):
    """List the store by kind, or drop what can be made again.

    gc drops trained weights, the starts of controls, and the leftovers of attempts that
    died; masks, rewind states and metrics stay. A longer study that needs what was dropped
    makes it again.
    """

    action: Annotated[Literal["ls", "gc"], tyro.conf.Positional] = "ls"
    """ls or gc."""
    dry_run: bool = False
    """With gc: say what would go, drop nothing."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Keep, args, "store")
    from ..store import Store

    store = Store(options.store)
    if options.action == "gc":
        from ..gc import collect_garbage

        freed = collect_garbage(store, options.dry_run)
        verb = "would free" if options.dry_run else "freed"
        what = f"{freed.weights} trained weights, {freed.leftovers} leftovers"
        text = f"{verb} {freed.bytes / 2**20:,.1f} MiB: {what}"
        emit(freed.__dict__, options.json, text)
        return 0
    kinds: dict[str, list[int]] = {}
    for entry in store.entries():
        kinds.setdefault(entry.manifest["kind"], []).append(entry.bytes)
    rows = [
        {"kind": kind, "jobs": len(sizes), "bytes": sum(sizes)}
        for kind, sizes in sorted(kinds.items())
    ]
    emit(rows, options.json, table_of(rows, f"kinds of jobs in {store.root}"))
    return 0
