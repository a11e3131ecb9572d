"""The store: done or not done, never half; damage is named; garbage can be made again."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import tiny

from lth_zoo import store as store_module
from lth_zoo.engines.local import needed, run
from lth_zoo.errors import StoreError, StoreUnwritable
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP
from lth_zoo.gc import collect_garbage
from lth_zoo.jobs import Job
from lth_zoo.lock import Lock, _started
from lth_zoo.session import Execution
from lth_zoo.store import MANIFEST, Store, atomic_write

JOB = tiny.job(number=1)
RESULTS = ("masks.safetensors", "result.json", "log.jsonl")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A store with a finished tiny run, to be read only."""
    root = tmp_path_factory.mktemp("filled") / "store"
    assert tiny.run_tiny(root).failed == {}
    return root


def put(store: Store, job: Job = JOB, **files: bytes):
    """Do a job by hand: claim, write, commit."""
    with store.claim(job) as folder:
        for name, data in files.items():
            atomic_write(folder / name, data)
        return store.commit(job, files, {"seconds": 1.0})


# -- commit and read -----------------------------------------------------------------------


def test_a_job_is_done_when_its_manifest_is_there_and_not_before(tmp_path):
    store, seen = Store(tmp_path), []
    with store.claim(JOB) as folder:
        atomic_write(folder / "state", b"abc")
        atomic_write(folder / "checkpoint", b"half")
        seen.append(store.entry(JOB))
        store.commit(JOB, ["state"], {})
        seen.append(store.entry(JOB))
    assert [entry is not None for entry in seen] == [False, True]
    entry = store.entry(JOB)
    assert entry.read("state") == b"abc"
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "state"]
    assert entry.manifest["config"] == {"seed": 0, "number": 1}
    assert entry.manifest["files"]["state"]["bytes"] == entry.bytes == 3


def test_the_manifest_is_written_last(tmp_path, monkeypatch):
    order = []
    plain = store_module.atomic_write
    monkeypatch.setattr(
        "lth_zoo.session.atomic_write", lambda p, d, **k: (order.append(p.name), plain(p, d, **k))
    )
    monkeypatch.setattr(
        store_module, "atomic_write", lambda p, d, **k: (order.append(p.name), plain(p, d, **k))
    )
    tiny.run_tiny(tmp_path, seeds=(0,), controls=(), sparsity=0.0)
    assert [n for n in order if n[0] != "."] == [
        *("state.safetensors", MANIFEST),
        *("log.jsonl", "result.json", "state.safetensors", MANIFEST),
    ]


def test_a_file_that_was_not_committed_cannot_be_read(tmp_path):
    entry = put(Store(tmp_path), state=b"abc")
    (entry.folder / "extra").write_bytes(b"x")
    with pytest.raises(StoreError, match="extra was not kept"):
        entry.read("extra")
    assert Store(tmp_path).entry(JOB, ["state", "extra"]) is None


def test_what_an_attempt_left_is_cleared_but_its_checkpoint(tmp_path):
    store = Store(tmp_path)
    with store.claim(JOB) as folder:
        for name in ("state", ".state.1.part", "checkpoint"):
            (folder / name).write_bytes(b"x")
        (folder / "sub").mkdir()
        store.clear(folder)
        assert sorted(p.name for p in folder.iterdir()) == ["checkpoint", "lock"]


# -- damage --------------------------------------------------------------------------------


def test_a_flipped_byte_is_found_and_named(tmp_path):
    entry = put(Store(tmp_path), state=bytes(range(100)))
    data = bytearray(entry.read("state"))
    for place in (0, 50, 99):
        data[place] ^= 1
        (entry.folder / "state").write_bytes(data)
        with pytest.raises(StoreError, match=f"{JOB.key}/state is damaged"):
            Store(tmp_path).entry(JOB).read("state")
        data[place] ^= 1


def test_a_lost_file_and_a_damaged_manifest_are_named(tmp_path):
    store = Store(tmp_path)
    entry = put(store, state=b"abc")
    (entry.folder / "state").unlink()
    with pytest.raises(StoreError, match=r"cannot read .*state: No such file"):
        entry.read("state")
    (entry.folder / MANIFEST).write_text("{")
    with pytest.raises(StoreError, match=r"manifest.json is damaged; remove"):
        store.entry(JOB)


def test_a_damaged_input_fails_the_jobs_that_read_it_and_says_what_to_remove(tmp_path):
    one = {"seeds": (0,), "controls": ()}
    tiny.run_tiny(tmp_path, **one, sparsity=0.0)
    path = next(tmp_path.glob("train/*/state.safetensors"))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    outcome = tiny.run_tiny(tmp_path, **one)
    assert [str(path) in why for why in outcome.failed.values()] == [True]
    for file in path.parent.iterdir():
        file.unlink()
    assert tiny.run_tiny(tmp_path, **one).failed == {}


# -- a full disk ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EIO"])
def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, code):
    def full(handle):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    path = tmp_path / "file"
    atomic_write(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    advice = "choose another folder" if code == "EIO" else "free some space and run the same"
    with pytest.raises(StoreError, match=f"cannot write .*file: .*; {advice}"):
        atomic_write(path, b"new and longer")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_disk_that_fills_up_in_a_run_is_said_and_the_run_goes_on_later(
    tmp_path, monkeypatch, filled
):
    plain, writes = os.fsync, []

    def fills_up(handle):
        writes.append(handle)
        if len(writes) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fills_up)
        with pytest.raises(StoreUnwritable, match="No space left on device; free some space"):
            tiny.run_tiny(tmp_path)
    assert len(writes) == 10  # it stopped there
    assert not list(tmp_path.rglob("*.part"))
    assert tiny.run_tiny(tmp_path).failed == {}
    assert tiny.files_of(tmp_path, *RESULTS) == tiny.files_of(filled, *RESULTS)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_real_limit_on_file_size_ends_in_one_clear_line(tmp_path, filled, workers):
    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = tiny.start(
        *("find", *tiny.FLAGS, "--workers", workers, "--store", tmp_path / "s"),
        cwd=tmp_path,
        first=small,
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, ""), err
    (line,) = [line for line in err.splitlines() if "0/16 jobs" not in line]
    assert "File too large; free some space and run the same command again" in line
    assert tiny.files_of(tmp_path / "s", *RESULTS) == {}
    assert not list(tmp_path.rglob("*.part"))
    assert tiny.run_tiny(tmp_path / "s").failed == {}
    assert tiny.files_of(tmp_path / "s", *RESULTS) == tiny.files_of(filled, *RESULTS)


@pytest.mark.parametrize("where", ["file/store", "/proc/store"])
def test_a_store_that_cannot_be_written_is_said_before_any_work(tmp_path, capsys, where):
    (tmp_path / "file").touch()
    answer = tiny.cli(capsys, "find", *tiny.FLAGS, "--store", tmp_path / where)
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert f"cannot write {tmp_path / where}/" in answer.err
    assert "choose another folder" in answer.err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# -- two processes -------------------------------------------------------------------------


def other_holder(store: Store, job: Job) -> subprocess.Popen:
    """Let another process hold a job until it is killed."""
    holder = subprocess.Popen(["sleep", "60"])
    path = store.folder(job) / "lock"
    path.parent.mkdir(parents=True)
    who = Lock(path)._mine() | {"pid": holder.pid, "start": _started(holder.pid)}
    path.write_text(json.dumps(who))
    return holder


def test_a_job_in_other_hands_is_waited_for_and_taken_over_when_they_die(tmp_path, filled):
    store = Store(tmp_path)
    goals = experiment(tiny.recipe()).goals
    first = needed(goals, store)[0][0]
    holder = other_holder(store, first)
    with store.claim(first, wait=False) as folder:
        assert folder is None
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(run(goals, store, Execution())))
    try:
        thread.start()
        thread.join(1.5)
        assert thread.is_alive(), "it did not wait"
        assert store.entry(first) is None
    finally:
        holder.kill()
        holder.wait()
    thread.join(60)
    assert outcomes[0].failed == {}
    assert tiny.files_of(tmp_path, *RESULTS) == tiny.files_of(filled, *RESULTS)


def run_and_count(root: Path, barrier, counts) -> None:
    """Run the tiny recipe in a process of its own; say what this process executed."""
    from lth_zoo import kinds

    ran, plain = [], kinds.execute
    kinds.execute = lambda session: (ran.append(session.job.key), plain(session))
    barrier.wait()
    tiny.run_tiny(root)
    counts.put(ran)


def test_two_processes_on_one_store_share_the_work(tmp_path, filled):
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=run_and_count, args=(tmp_path, barrier, counts)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    ran = [counts.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]
    assert len(ran[0] + ran[1]) == len(set(ran[0] + ran[1])) == 16
    assert tiny.files_of(tmp_path, *RESULTS) == tiny.files_of(filled, *RESULTS)


# -- garbage -------------------------------------------------------------------------------


def test_gc_keeps_what_is_needed_and_a_longer_study_makes_the_rest_again(tmp_path):
    long, short = tmp_path / "long", tmp_path / "short"
    assert tiny.run_tiny(long, sparsity=0.75).failed == {}
    tiny.run_tiny(short)
    folder = short / "train" / ("0" * 64)
    folder.mkdir()
    (folder / "checkpoint").write_bytes(b"x" * 1000)
    small = collect_garbage(Store(short), dry_run=True)
    assert (small.weights, small.leftovers) == (2 + 2 + 2, 1)  # dense, tickets, re-inits
    assert folder.exists()
    before = sum(p.stat().st_size for p in short.rglob("*") if p.is_file())
    freed = collect_garbage(Store(short))
    after = sum(p.stat().st_size for p in short.rglob("*") if p.is_file())
    assert freed == small
    assert before - after == pytest.approx(freed.bytes, rel=0.02)
    assert not folder.exists()
    assert not list(short.glob("train/*/state.safetensors"))
    # The run itself is still whole, and the longer one trains again what it lacks.
    assert tiny.run_tiny(short).done == 0
    longer = tiny.run_tiny(short, sparsity=0.75)
    assert longer.failed == {}
    # 2 prunes, 2 tickets, 4 controls and their trainings; again: 2 dense, 2 tickets.
    assert longer.done >= 2 + 2 + 4 + 4 + 2
    assert tiny.files_of(short, *RESULTS) == tiny.files_of(long, *RESULTS)


def test_gc_keeps_the_weights_that_a_ticket_starts_from(tmp_path, capsys):
    flags = [*tiny.FLAGS, "--finder.rewind", "learning-rate", "--store", tmp_path]
    first = tiny.cli(capsys, "find", *flags, "--json").json
    assert collect_garbage(Store(tmp_path)).weights == 2 + 2  # tickets, re-inits; not dense
    for path in first["tickets"]:
        (Path(path) / "ticket.json").unlink()
        for file in Path(path).iterdir():
            file.unlink()
    again = tiny.cli(capsys, "find", *flags, "--json")
    assert again.code == 0
    assert again.json["tickets"] == first["tickets"]


def test_gc_refuses_a_store_that_somebody_works_in(tmp_path):
    store = Store(tmp_path)
    holder = other_holder(store, JOB)
    try:
        with pytest.raises(StoreError, match="in use"):
            collect_garbage(store)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert collect_garbage(store).leftovers == 1
    assert not store.folder(JOB).exists()


def test_dropping_a_file_survives_a_crash_at_any_point(tmp_path, monkeypatch):
    store = Store(tmp_path)
    entry = put(store, state=b"abc", masks=b"de")

    def crash(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", crash)
    with pytest.raises(KeyboardInterrupt):
        store.drop(entry, "state")
    monkeypatch.undo()
    after = store.entry(JOB)
    assert "state" not in after
    assert after.read("masks") == b"de"


def test_rewinding_differently_shares_the_dense_run(tmp_path):
    first = tiny.run_tiny(tmp_path, controls=(), seeds=(0,))
    other = tiny.run_tiny(tmp_path, controls=(), seeds=(0,), finder=IMP(rate=0.5, scope="layer"))
    assert (first.done, first.cached) == (4, 0)
    assert (other.done, other.cached) == (2, 2)  # the mask and its training
