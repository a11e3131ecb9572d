"""A progress bar for a whole job graph, with the time left; plain lines off a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from ..engines.local import Watcher, weight
from ..jobs import Job


def describe(job: Job) -> str:
    """Return what a person calls a job."""
    config = job.config
    name = {"control": config.get("name", "")}.get(job.kind, "")
    return f"{job.kind} {name} seed {config.get('seed')}".replace("  ", " ")


class Bar(Watcher):
    """Iterations done of the whole graph, the time left, and what runs now."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._running: dict[str, tuple[Job, float]] = {}
        self._done = self._failed = self._jobs = 0
        self._ended_work = 0.0
        self._total = 1.0
        self._cached = 0
        self._last = self._began = time.monotonic()
        self._bar: Any = None

    def start(self, jobs: list[Job], cached: int) -> None:
        """Draw the empty bar."""
        self._jobs, self._cached = len(jobs), cached
        self._total = float(sum(map(weight, jobs))) or 1.0
        self._began = time.monotonic()
        if not jobs:
            return
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                TextColumn(
                    "{task.percentage:3.0f} %  {task.fields[jobs]}  left {task.fields[left]}"
                ),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[now]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.title, total=self._total, jobs="", left="?", now=""
            )
        self._show(force=True)

    def began(self, job: Job) -> None:
        """Note a running job."""
        self._running[job.key] = (job, 0.0)
        self._show()

    def progress(self, job: Job, done: int, total: int) -> None:
        """Move the bar."""
        self._running[job.key] = (job, weight(job) * done / max(total, 1))
        self._show()

    def ended(self, job: Job, error: str = "") -> None:
        """Count a job; a failure is said at once."""
        self._running.pop(job.key, None)
        self._ended_work += weight(job)
        self._done += not error
        self._failed += bool(error)
        if error:
            print(f"failed: {describe(job)}: {error}", file=sys.stderr)
        self._show()

    def stop(self) -> None:
        """Leave the last state on the screen."""
        if self._jobs:
            self._show(force=True)
        if self._bar is not None:
            self._bar.stop()

    def left(self) -> float:
        """Return the seconds left at the speed so far; infinite before there is one."""
        work = self._ended_work + sum(done for _, done in self._running.values())
        speed = work / max(1e-9, time.monotonic() - self._began)
        return (self._total - work) / speed if work else float("inf")

    def _show(self, force: bool = False) -> None:
        now, work = time.monotonic(), self._ended_work + sum(d for _, d in self._running.values())
        jobs = f"{self._done}/{self._jobs} jobs" + (
            f", {self._failed} failed" if self._failed else ""
        )
        if self._bar is not None:
            doing = ", ".join(describe(job) for job, _ in list(self._running.values())[:3])
            self._bar.update(
                self._task, completed=work, jobs=jobs, left=clock(self.left()), now=doing
            )
        elif force or now - self._last > 10:
            self._last = now
            share = 100 * work / self._total
            text = f"{self.title}: {share:.0f} %, {jobs} ({self._cached} found done)"
            text += f", left {clock(self.left())}"
            print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss.

    >>> clock(3661)
    '1:01:01'
    """
    if seconds == float("inf"):
        return "?"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
