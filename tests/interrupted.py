"""A job that is stopped in its middle, again and again, ends as one that never was."""

from __future__ import annotations

from typing import Any

import pytest

from lth_zoo import kinds
from lth_zoo.engines.local import run
from lth_zoo.jobs import Job
from lth_zoo.session import Execution
from lth_zoo.store import Store


class Stopped(Exception):
    """The power went."""


def check_ends_alike(
    job: Job, whole: Store, store: Store, stops: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop a job in ``store`` after each of these iterations; compare every file with ``whole``'s.

    Each stop leaves a checkpoint and raises; what the job rests on is not stopped.
    """
    watch, left, how = kinds.Watch.on_iteration, set(stops), Execution(device="cpu")

    def stop(self: Any, loop: Any) -> None:
        watch(self, loop)
        if self.session.job == job and loop.iteration in left:
            left.discard(loop.iteration)
            self.session.checkpoint(loop.snapshot())
            raise Stopped

    monkeypatch.setattr(kinds.Watch, "on_iteration", stop)
    while left:
        before = set(left)
        failed = run([job], store, how).failed
        assert list(failed) == [job.key]
        assert "Stopped" in failed[job.key]
        assert left < before
    assert run([job], store, how).failed == {}
    ended, other = store.entry(job), whole.entry(job)
    assert ended is not None
    assert other is not None
    assert ended.manifest["files"].keys() == other.manifest["files"].keys()
    for file in other.manifest["files"]:
        assert ended.read(file) == other.read(file), file
