"""lth-zoo status: how far each run of the store is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from .ls import table_of
from .options import Place, emit, parse


@dataclass(frozen=True, kw_only=True)
class Status(Place):
    """Say how far each run of the store is, and what is being worked on now."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Run ids or recipe names (default: all)."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Status, args, "status")
    from ..lock import Lock
    from ..runs import recorded
    from ..store import Store

    store = Store(options.store)
    rows = []
    for record in recorded(store, options.runs):
        jobs = record.jobs
        done = sum(store.entry(job) is not None for job in jobs)
        working = sum(Lock(store.folder(job) / "lock").holder() is not None for job in jobs)
        state = "running" if working else ("done" if done == len(jobs) else "stopped")
        rows.append(
            {
                "run": record.id,
                "state": "failed" if record.failed and state == "stopped" else state,
                "done": done,
                "jobs": len(jobs),
                "working": working,
                "failed": len(record.failed),
                "resume": record.command,
            }
        )
    emit(rows, options.json, table_of(rows, f"runs in {store.root}"))
    return 0
