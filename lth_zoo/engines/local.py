"""The local engine: a job graph over this process or persistent worker processes.

Workers are spawned, never forked after torch ran, with one thread each. A failed job fails
only what rests on it. Whatever stops the engine, running it again resumes.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import StoreUnwritable
from ..jobs import Job, iterations_of
from ..session import MASKS, RESULT, STATE, Execution
from ..store import Store
from .worker import attempt, serve

#: What an input's reader needs of it, by role.
_STARTS = ("start", "trained", "init", "rewind", "head", "pretrained", "source", "trace")
READS = {"masks": MASKS, "within": MASKS} | dict.fromkeys(
    (*_STARTS, "judge", "teacher", "state"), STATE
)


@dataclass
class Outcome:
    """How a graph ended: counts, and why each failed job failed."""

    cached: int = 0
    done: int = 0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[Job] = field(default_factory=list)


class Watcher:
    """What may look at a running graph; the command line draws a progress bar."""

    def start(self, jobs: list[Job], cached: int) -> None:
        """Before the first job; ``jobs`` are those to run."""

    def began(self, job: Job) -> None:
        """A job is being worked on."""

    def progress(self, job: Job, done: int, total: int) -> None:
        """A job says how far it is."""

    def ended(self, job: Job, error: str = "") -> None:
        """A job is done, or failed."""

    def stop(self) -> None:
        """After the last job, or on the way out of an error."""


def needed(goals: Iterable[Job], store: Store) -> tuple[list[Job], int]:
    """Return the jobs that must run, inputs first, and the number found done.

    A finished job does not need its inputs to be there any more.
    """
    wanted: dict[str, set[str]] = {}
    run: dict[str, Job] = {}
    found: set[str] = set()

    def visit(job: Job, files: set[str]) -> None:
        known = wanted.setdefault(job.key, set())
        if (job.key in run or job.key in found) and files <= known:
            return
        known |= files
        if store.entry(job, known) is not None:
            found.add(job.key)
            return
        found.discard(job.key)
        for role, other in job.inputs.items():
            visit(other, {READS.get(role.partition("-")[0], RESULT)})
        run.setdefault(job.key, job)

    for goal in goals:
        visit(goal, {STATE} if goal.kind in ("init", "graft", "control") else {RESULT})
    return list(run.values()), len(found)


def weight(job: Job) -> int:
    """Return the iterations a job trains: its share of the work."""
    return max(1, iterations_of(job))


def priorities(jobs: list[Job]) -> dict[str, int]:
    """Return the longest chain of work that waits for each job; long chains go first."""
    rank = {job.key: weight(job) for job in jobs}
    for job in reversed(jobs):
        for other in job.inputs.values():
            if other.key in rank:
                rank[other.key] = max(rank[other.key], weight(other) + rank[job.key])
    return rank


def run(
    goals: Iterable[Job],
    store: Store,
    execution: Execution,
    workers: int = 0,
    watcher: Watcher | None = None,
) -> Outcome:
    """Run what is missing of a graph; 0 workers means this process.

    Returns:
        What was found, done, failed, and could not be run because of a failure.

    Raises:
        StoreUnwritable: the store cannot be written, or no more: its disk is full.
    """
    store.prepare()
    watcher = watcher or Watcher()
    jobs, cached = needed(goals, store)
    outcome = Outcome(cached=cached)
    began = time.perf_counter()
    watcher.start(jobs, cached)
    try:
        graph = _Graph(jobs, outcome, watcher)
        if workers and len(jobs) > 1:
            _parallel(graph, store, execution, min(workers, len(jobs)))
        else:
            _here(graph, store, execution)
    finally:
        watcher.stop()
        outcome.seconds = time.perf_counter() - began
    return outcome


class _Graph:
    """What is left to do, and what may be done now."""

    def __init__(self, jobs: list[Job], outcome: Outcome, watcher: Watcher) -> None:
        self.left = {job.key: job for job in jobs}
        self.outcome, self.watcher = outcome, watcher
        self._busy: dict[str, float] = {}
        self._rank = priorities(jobs)
        self._waits = {j.key: {i.key for i in j.inputs.values()} & set(self.left) for j in jobs}
        self._after: dict[str, list[str]] = {}
        for key, needs in self._waits.items():
            for need in needs:
                self._after.setdefault(need, []).append(key)
        self._ready: list[tuple[int, str]] = []
        for key, needs in self._waits.items():
            if not needs:
                self._push(key)

    def _push(self, key: str) -> None:
        heapq.heappush(self._ready, (-self._rank[key], key))

    def next(self) -> Job | None:
        """Take the ready job that most work waits for."""
        now = time.monotonic()
        for key in [key for key, until in self._busy.items() if until <= now]:
            del self._busy[key]
            self._push(key)
        return self.left[heapq.heappop(self._ready)[1]] if self._ready else None

    def ended(self, job: Job, error: str | None) -> None:
        """Note a result; an error takes everything that rests on the job with it."""
        if error == "busy":  # another live process works on it: look again in a moment
            self._busy[job.key] = time.monotonic() + 0.5
            return
        self.left.pop(job.key, None)
        self.watcher.ended(job, error or "")
        if error is None:
            self.outcome.done += 1
            for key in self._after.get(job.key, ()):
                self._waits[key].discard(job.key)
                if not self._waits[key]:
                    self._push(key)
            return
        self.outcome.failed[job.key] = error
        lost = {job.key}
        for other in list(self.left.values()):
            if any(i.key in lost for i in other.inputs.values()):
                lost.add(other.key)
                self.outcome.blocked.append(self.left.pop(other.key))


def _here(graph: _Graph, store: Store, execution: Execution) -> None:
    while graph.left:
        job = graph.next()
        if job is None:
            time.sleep(0.2)
            continue
        graph.watcher.began(job)
        progress = partial(graph.watcher.progress, job)
        graph.ended(job, attempt(job, store, execution, progress))


@contextmanager
def _inherited() -> Iterator[None]:
    """Set what a new worker must have before it imports anything, put it back after.

    One thread, which is read when torch is loaded; and no SIGINT, or a Ctrl-C in those seconds
    would print a traceback for every worker.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    job: Job | None = None


def _parallel(graph: _Graph, store: Store, execution: Execution, count: int) -> None:
    context = multiprocessing.get_context("spawn")

    def hire() -> _Worker:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, store, execution), daemon=True)
        with _inherited():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    workers = [hire() for _ in range(count)]
    try:
        while graph.left:
            for worker in workers:
                if worker.job is None and (job := graph.next()) is not None:
                    worker.job = job
                    graph.watcher.began(job)
                    with suppress(OSError):  # a worker that has just died is noticed below
                        worker.pipe.send(job.shallow())
            for pipe in wait([w.pipe for w in workers], timeout=0.5):
                index = next(i for i, w in enumerate(workers) if w.pipe is pipe)
                if not _listen(workers[index], graph):
                    workers[index] = hire()
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(timeout=1)
            if worker.process.is_alive():
                worker.process.kill()


def _listen(worker: _Worker, graph: _Graph) -> bool:
    """Take one message of a worker; False if it died."""
    try:
        kind, *values = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join(timeout=1)
        if worker.job is not None:
            code = worker.process.exitcode
            graph.ended(worker.job, f"its worker process died (exit code {code})")
        return False
    if kind == "fatal":
        raise StoreUnwritable(values[0])
    assert worker.job is not None
    if kind == "progress":
        graph.watcher.progress(worker.job, *values)
    else:
        job, worker.job = worker.job, None
        graph.ended(job, values[0])
    return True
