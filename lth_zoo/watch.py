"""Hooks that look on while a job trains: progress, checkpoints, live curves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .errors import unknown
from .hooks import Hook
from .session import Session

if TYPE_CHECKING:
    from .train import Loop


class Watch(Hook):
    """Reports progress and writes checkpoints, by the clock; draws nothing."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._written = self._shown = time.monotonic()

    def on_start(self, loop: Loop) -> None:
        """Say where the training stands."""
        self.session.progress(loop.iteration - loop.begin, loop.end - loop.begin)

    def on_iteration(self, loop: Loop) -> None:
        """Show and keep the state, every so often."""
        now = time.monotonic()
        if now - self._shown < 0.2:
            return
        self._shown = now
        self.session.progress(loop.iteration - loop.begin, loop.end - loop.begin)
        if now - self._written >= self.session.execution.checkpoint_seconds:
            loop.check()
            snapshot = loop.snapshot()
            snapshot.extra["seconds"] = self.session.seconds()
            self.session.checkpoint(snapshot)
            self._written = time.monotonic()


class Track(Hook):
    """Sends the rows of a training to one of Accelerate's trackers."""

    def __init__(self, session: Session, kind: str) -> None:
        from accelerate.tracking import TensorBoardTracker

        trackers = {"tensorboard": TensorBoardTracker}
        if kind not in trackers:
            raise unknown("tracker", kind, trackers)
        job = session.job
        run = f"{job.config['model']}-{job.config['task']}-seed{job.config['seed']}-{job.key[:8]}"
        self.tracker = trackers[kind](run.replace("/", "_"), session.store.root / "tracking")
        self.tracker.start()

    def on_row(self, loop: Loop, row: dict[str, float]) -> None:  # noqa: ARG002 - the contract
        """Send one row."""
        values = {k: v for k, v in row.items() if k != "iteration"}
        self.tracker.log(values, step=int(row["iteration"]))

    def on_end(self, loop: Loop) -> None:  # noqa: ARG002 - the contract
        """Close the tracker."""
        self.tracker.finish()


def tracker(session: Session) -> list[Hook]:
    """Return the hook of the tracker that was asked for, if any."""
    kind = session.execution.track
    return [Track(session, kind)] if kind else []
