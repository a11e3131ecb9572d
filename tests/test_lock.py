"""Locks: one holder, and a dead one is told from a live one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest
import tiny

from lth_zoo import lock as lock_module
from lth_zoo.errors import StoreError
from lth_zoo.lock import SILENT, Lock

#: Takes each lock in turn, all processes at the same moments, and holds on to what it got.
RACER = """
import sys, time
from pathlib import Path
from lth_zoo.lock import Lock
folder, start, rounds, name = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
for number in range(rounds):
    while time.time() < start + 0.02 * number:
        pass
    if Lock(folder / f"lock-{number}").acquire():
        (folder / f"got-{number}-{name}").touch()
(folder / f"ready-{name}").touch()
while not (folder / "enough").exists():
    time.sleep(0.05)
"""


def write(path, age=0.0, **who):
    """Write a lock as another process would have, that many seconds ago."""
    mine = Lock(path)._mine()
    path.write_text(json.dumps(mine | who))
    os.utime(path, (time.time() - age,) * 2)


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_one_holder_who_can_be_read_and_who_leaves_nothing(tmp_path):
    lock = Lock(tmp_path / "a" / "lock")
    with lock.held() as got:
        assert got
        assert lock.holder() == {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot": lock_module._boot(),
            "start": lock_module._started(os.getpid()),
        }
        with Lock(lock.path).held(wait=False) as again:
            assert not again
        assert lock.path.exists(), "the one who did not get it removed it"
    assert list(lock.path.parent.iterdir()) == []
    assert lock.holder() is None


def test_a_wait_ends_when_the_holder_is_killed(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen(["sleep", "60"])
    write(path, pid=holder.pid, start=lock_module._started(holder.pid))
    assert not Lock(path).acquire()
    began = time.monotonic()
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {holder.pid}"])
    while holder.poll() is None and not Lock(path).acquire():
        time.sleep(0.01)
    killer.wait()
    with Lock(path).held(poll=0.02) as got:
        assert got
    assert 0.4 < time.monotonic() - began < 5


DEAD = {
    "no such process": {"pid": dead_pid()},
    "the machine was started anew": {"boot": "another boot"},
    "its number went to another process": {"start": "1"},
    "silent on another host": {"host": "elsewhere", "age": SILENT + 1},
    "unreadable and old": {"text": '{"pid": 12', "age": 3},
    "empty and old": {"text": "", "age": 3},
    "not what a lock holds": {"text": "[1, 2]", "age": 3},
    "a number that is none": {"pid": "twelve", "age": 3},
}
ALIVE = {
    "another process": {"pid": 1, "start": lock_module._started(1)},
    "heard of on another host": {"host": "elsewhere", "age": SILENT - 30},
    "being written": {"text": ""},
}


def forged(path, row) -> Lock:
    row = dict(row)
    age, text = row.pop("age", 0.0), row.pop("text", None)
    write(path, age, **row)
    if text is not None:
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)
    return Lock(path)


@pytest.mark.parametrize("why", DEAD)
def test_a_dead_holder_is_taken_over(tmp_path, why):
    lock = forged(tmp_path / "lock", DEAD[why])
    assert lock.holder() is None
    assert lock.acquire()
    assert lock.holder()["pid"] == os.getpid()
    assert not list(tmp_path.glob("*.takeover"))


@pytest.mark.parametrize("why", ALIVE)
def test_a_live_holder_is_left_alone(tmp_path, why):
    lock = forged(tmp_path / "lock", ALIVE[why])
    before = lock.path.read_bytes()
    assert not lock.acquire()
    assert lock.path.read_bytes() == before


def test_a_heartbeat_keeps_a_lock_young(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT", 0.02)
    lock = Lock(tmp_path / "lock")
    with lock.held():
        os.utime(lock.path, (0, 0))
        young = tiny.wait_until(lambda: lock.path.stat().st_mtime > time.time() - 5, 5)
    assert young


def test_a_holder_who_was_taken_over_does_not_release_the_new_one(tmp_path):
    lock = Lock(tmp_path / "lock")
    with lock.held():
        write(lock.path, host="elsewhere", pid=7)  # it was thought dead while it was suspended
        other = lock.path.read_bytes()
    assert lock.path.read_bytes() == other


def test_a_takeover_that_died_half_way_is_swept_aside(tmp_path):
    path = tmp_path / "lock"
    write(path, pid=dead_pid())
    guard = tmp_path / "lock.takeover"
    write(guard, pid=dead_pid())
    assert not Lock(path).acquire(), "somebody may be at it this moment"
    os.utime(guard, (time.time() - 11,) * 2)
    assert not Lock(path).acquire()  # sweeps
    assert Lock(path).acquire()


def test_a_race_for_dead_locks_has_one_winner_each(tmp_path):
    rounds, racers = 40, 5
    for number in range(rounds):
        write(tmp_path / f"lock-{number}", pid=dead_pid())
    start = time.time() + 1.5
    args = [sys.executable, "-c", RACER, str(tmp_path), str(start), str(rounds)]
    processes = [subprocess.Popen([*args, str(n)]) for n in range(racers)]
    try:
        assert tiny.wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == racers, 60)
    finally:
        (tmp_path / "enough").touch()
        codes = [p.wait(10) for p in processes]
    assert codes == [0] * racers
    winners = [len(list(tmp_path.glob(f"got-{n}-*"))) for n in range(rounds)]
    assert winners == [1] * rounds


def test_a_lock_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write .*file/lock"):
        Lock(tmp_path / "file" / "lock").acquire()
