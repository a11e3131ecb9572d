"""One worker: takes jobs from a pipe, runs them, and dies with the process that hired it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from ..errors import LthZooError, StoreUnwritable
from ..jobs import Job
from ..session import Execution, Session
from ..store import Store


def attempt(
    job: Job, store: Store, execution: Execution, progress: Callable[[int, int], None]
) -> str | None:
    """Run one job unless it is done; return None, ``busy``, or why it failed.

    Raises:
        StoreUnwritable: no job can write its result any more.
    """
    from ..kinds import execute, outputs

    try:
        with store.claim(job, wait=False) as folder:
            if folder is None:
                return "busy"
            # Another process may have finished it while we waited.
            if store.entry(job, outputs(job)) is None:
                execute(Session(job, store, execution, progress))
            return None
    except StoreUnwritable:
        raise
    except LthZooError as error:
        return str(error)
    except Exception as error:  # a job of the user's own may raise anything
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
        )


def serve(pipe: Connection, store: Store, execution: Execution) -> None:
    """Work through the jobs that come over the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine decides when to stop
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        shown = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown > 0.1:
                shown = now
                pipe.send(("progress", done, total))

        try:
            pipe.send(("ended", attempt(job, store, execution, progress)))
        except StoreUnwritable as error:
            pipe.send(("fatal", str(error)))


def _die_with_parent() -> None:
    """End this process when its parent is gone, so that no orphan holds a lock."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
