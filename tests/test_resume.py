"""Killed at any moment, a run that is started again ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import tiny

from lth_zoo.cli import main
from lth_zoo.ticket import Ticket

#: 8 trainings of a second or two: long enough to be hit in the middle, with checkpoints.
WORK = (
    *("find", "quick", "--training.iterations", "1500", "--training.evaluate-every", "250"),
    *("--finder.rate", "0.5", "--sparsity", "0.5", "--seeds", "0", "1"),
    *("--controls", "reinit", "shuffle", "--checkpoint-seconds", "0.05", "--json"),
)
#: Ten moments to kill: so many seconds after the start, or after the first new checkpoint.
RNG = random.Random(2019)
HERE = [("start", RNG.uniform(0.2, 2)), *(("checkpoint", RNG.uniform(0, 0.7)) for _ in range(5))]
SPREAD = [("start", RNG.uniform(1, 3)), *(("checkpoint", RNG.uniform(0, 0.7)) for _ in range(3))]
INTERRUPT = ("checkpoint", 0.1)


def two_seconds() -> float:
    """Return two seconds, or as many more as others keep the machine's cores from us."""
    return 2 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The store of an uninterrupted run."""
    store = tmp_path_factory.mktemp("whole") / "store"
    assert main([*WORK, "--store", str(store), "--workers", "0"]) == 0
    return store


def checkpoints(store: Path) -> dict[Path, float]:
    """Return when each checkpoint was written."""
    found = {}
    for path in store.glob("train/*/checkpoint"):
        with suppress(OSError):
            found[path] = path.stat().st_mtime_ns
    return found


def hit(store: Path, workers: int, moment: tuple[str, float], kill) -> bool:
    """Start the run, stop it at that moment; return whether a checkpoint was left."""
    before, (sign, seconds) = checkpoints(store), moment
    process = tiny.start(*WORK, "--store", store, "--workers", workers, cwd=store.parent)
    try:
        if sign == "checkpoint":
            new = tiny.wait_until(lambda: checkpoints(store).items() - before.items(), 60)
            assert new, "no checkpoint was written"
        time.sleep(seconds)
        if sign == "checkpoint":  # one may be finished since: hit a training that has begun
            tiny.wait_until(lambda: checkpoints(store), 60)
        assert process.poll() is None, "the run ended before it was hit: make it longer"
        kill(process)
    finally:
        tiny.kill_group(process.pid)
        process.communicate()
    return bool(checkpoints(store))


def everything(process) -> None:
    tiny.kill_group(process.pid)


def parent_only(process) -> None:
    """Kill the engine alone: its workers must find out and end."""
    workers = set(tiny.group(process.pid)) - {process.pid}
    assert workers
    process.kill()
    process.wait()
    gone = tiny.wait_until(lambda: not tiny.group(process.pid), two_seconds())
    assert gone, f"orphans: {tiny.group(process.pid)}"


def interrupt(process) -> None:
    """Ctrl-C: a SIGINT to the whole group, as a terminal sends it."""

    def over() -> bool:  # the engine, its workers, and last the resource tracker
        return process.poll() is not None and not tiny.group(process.pid)

    os.killpg(process.pid, signal.SIGINT)
    assert tiny.wait_until(over, two_seconds()), f"still there: {tiny.group(process.pid)}"
    _, said = process.communicate()
    assert process.returncode == 130
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said


def same(store: Path, whole: Path) -> None:
    """Assert that two stores hold the same work, bit for bit, and nothing half done."""
    names = ("masks.safetensors", "state.safetensors", "result.json", "log.jsonl")
    ours, theirs = tiny.files_of(store, *names), tiny.files_of(whole, *names)
    assert sum(name.endswith("log.jsonl") for name in theirs) == 8
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    left = [p.name for p in store.glob("*/*/*") if p.name in ("lock", "checkpoint")]
    assert left + list(store.rglob("*.part")) == []
    tickets = [sorted(s.glob("tickets/*/seed-*")) for s in (store, whole)]
    ids = [[Ticket.from_pretrained(t).id for t in found] for found in tickets]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


def finish(store: Path, workers: int) -> None:
    process = tiny.start(*WORK, "--store", store, "--workers", workers, cwd=store.parent)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def test_killed_in_one_process(whole, tmp_path):
    store = tmp_path / "store"
    left = [hit(store, 0, moment, everything) for moment in HERE]
    left.append(hit(store, 0, INTERRUPT, interrupt))
    assert sum(left) >= 3, "no kill left a checkpoint: the test tests nothing"
    finish(store, 0)
    same(store, whole)


def test_killed_with_workers(whole, tmp_path):
    store = tmp_path / "store"
    kills = [everything, parent_only, parent_only, everything]
    left = [hit(store, 2, moment, kill) for moment, kill in zip(SPREAD, kills, strict=True)]
    left.append(hit(store, 2, INTERRUPT, interrupt))
    assert sum(left) >= 3, "no kill left a checkpoint: the test tests nothing"
    finish(store, 2)
    same(store, whole)


def test_a_worker_in_a_long_step_dies_with_its_engine(tmp_path):
    """A worker that says nothing for minutes does not notice by its pipe."""
    (tmp_path / "slow.py").write_text(
        "import time\nfrom torch import nn\n\n\nclass Net(nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(64, 10)\n\n"
        "    def forward(self, x):\n"
        "        open('stepping', 'w').close()\n        time.sleep(120)\n"
    )
    flags = ("--seeds", 0, "--controls", "--workers", 1, "--store", tmp_path / "s")
    process = tiny.start("find", "quick", "--model", "slow:Net", *flags, cwd=tmp_path)
    try:
        assert tiny.wait_until((tmp_path / "stepping").exists, 120), "never came to a step"
        parent_only(process)
    finally:
        tiny.kill_group(process.pid)
        process.communicate()
