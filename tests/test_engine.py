"""The local engine: order, sharing, and failures that stay where they are."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter

import pytest
import tiny

from lth_zoo import kinds
from lth_zoo.api import run_recipes
from lth_zoo.cli.summary import say
from lth_zoo.engines.local import Watcher, _inherited, needed, priorities, run
from lth_zoo.errors import Diverged
from lth_zoo.experiment import experiment
from lth_zoo.jobs import Job
from lth_zoo.lock import Lock
from lth_zoo.session import Execution
from lth_zoo.store import Store


def step(name: str, work: int = 1, **inputs: Job) -> Job:
    """Return a job that counts as a training of so many iterations."""
    return Job("train", {"name": name, "begin": 0, "end": work, "keep": "metrics"}, inputs)


class Log(Watcher):
    """Writes down what it is told."""

    def __init__(self):
        self.said = []

    def start(self, jobs, cached):
        self.said.append(("start", len(jobs), cached))

    def began(self, job):
        self.said.append(("began", job.config.get("name")))

    def progress(self, job, done, total):
        self.said.append(("progress", job.config.get("name"), done, total))

    def ended(self, job, error=""):
        self.said.append(("ended", job.config.get("name"), error))

    def stop(self):
        self.said.append(("stop",))

    def names(self, what):
        return [row[1] for row in self.said if row[0] == what]


@pytest.fixture
def stub(monkeypatch):
    """Replace training by a stub; returns what it does by job name."""
    acts = {}

    def train(session):
        session.progress(1, 2)
        acts.get(session.config["name"], lambda: None)()
        session.write_json({"name": session.config["name"]})

    monkeypatch.setitem(kinds.KINDS, "train", (train, ()))
    return acts


def raises(error):
    def act():
        raise error

    return act


# -- order ---------------------------------------------------------------------------------


def test_the_longest_chain_goes_first(tmp_path, stub):
    short = step("short", 25)
    one = step("one", 10)
    two = step("two", 10, start=one)
    three = step("three", 10, start=two)
    watcher = Log()
    run([short, three], Store(tmp_path), Execution(), watcher=watcher)
    # 30 iterations wait for `one`, 20 for `two`: less than the 25 of `short`.
    assert watcher.names("began") == ["one", "short", "two", "three"]


def test_priorities_are_the_work_that_waits_for_a_job():
    root = step("root", 5)
    left, right = step("left", 7, start=root), step("right", 1, start=root)
    end = step("end", 2, start=left, masks=right)
    ranks = priorities([root, left, right, end])
    assert [ranks[j.key] for j in (root, left, right, end)] == [5 + 7 + 2, 7 + 2, 1 + 2, 2]


def test_a_watcher_sees_everything_in_order(tmp_path, stub):
    stub["b"] = raises(Diverged("the loss is nan"))
    a, watcher = step("a"), Log()
    run([step("b", start=a)], Store(tmp_path), Execution(), watcher=watcher)
    assert watcher.said == [
        ("start", 2, 0),
        ("began", "a"),
        ("progress", "a", 1, 2),
        ("ended", "a", ""),
        ("began", "b"),
        ("progress", "b", 1, 2),
        ("ended", "b", "the loss is nan"),
        ("stop",),
    ]
    again = Log()
    run([a], Store(tmp_path), Execution(), watcher=again)
    assert again.said == [("start", 0, 1), ("stop",)]


def test_an_interrupt_stops_the_watcher_and_frees_the_job(tmp_path, stub):
    stub["a"] = raises(KeyboardInterrupt())
    watcher, job = Log(), step("a")
    with pytest.raises(KeyboardInterrupt):
        run([job], Store(tmp_path), Execution(), watcher=watcher)
    assert watcher.said[-1] == ("stop",)
    assert not (Store(tmp_path).folder(job) / "lock").exists()


# -- what must run -------------------------------------------------------------------------


def test_what_is_done_needs_no_inputs_any_more(tmp_path, stub):
    a = step("a")
    b, store = step("b", start=a), Store(tmp_path)
    assert run([b], store, Execution()).done == 2
    (store.folder(a) / "manifest.json").unlink()
    assert needed([b], store) == ([], 1)
    jobs, _ = needed([step("c", start=b)], store)
    assert [j.config["name"] for j in jobs] == ["a", "b", "c"]  # b kept no state to start from


def test_experiments_that_share_a_dense_run_share_the_result(tmp_path, monkeypatch):
    ran, plain = Counter(), kinds.execute

    def execute(session):
        ran[session.job.key] += 1
        return plain(session)

    monkeypatch.setattr(kinds, "execute", execute)
    one = {"seeds": (0,), "controls": ()}
    recipes = [tiny.recipe(**one), tiny.recipe(**one, sparsity=0.75), tiny.recipe()]
    finished = run_recipes(recipes, Store(tmp_path), Execution())
    assert set(ran.values()) == {1}
    dense = [f.results.select("dense", 0)[0] for f in finished]
    assert dense[0].metrics == dense[1].metrics == dense[2].metrics
    # 2 inits, 2 dense; seed 0 has 2 levels; seed 1 has 1; 4 controls: mask or start, training.
    assert len(ran) == 2 + 2 + 2 * 2 + 2 + 4 * 2


# -- failures ------------------------------------------------------------------------------


def test_a_failure_takes_only_what_rests_on_it(tmp_path, stub):
    stub["bad"] = raises(ValueError("no such luck"))
    bad, good = step("bad"), step("good")
    after, later = step("after", start=bad), step("later", start=step("after", start=bad))
    store = Store(tmp_path)
    outcome = run([later, after, step("end", start=good)], store, Execution())
    assert set(outcome.failed) == {bad.key}
    assert outcome.failed[bad.key].startswith("ValueError: no such luck (test_engine.py:")
    assert set(outcome.blocked) == {after, later}
    assert outcome.done == 2
    del stub["bad"]
    again = run([later, after, step("end", start=good)], store, Execution())
    assert (again.failed, again.done, again.cached) == ({}, 3, 1)


def test_a_diverging_training_is_told_with_the_last_good_state(tmp_path, capsys):
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "base: {training: {iterations: 120, evaluate_every: 60, optimizer: sgd}, sparsity: 0.5,"
        " finder: {rate: 0.5}, seeds: [0, 1], controls: []}\n"
        "grid: {training.learning_rate: [0.1, 1.0e+30]}\n"
    )
    args = ["study", grid, "--store", tmp_path / "s", "--workers", 0]
    answer = tiny.cli(capsys, *args, "--json")
    assert answer.code == 1
    good, bad = answer.json
    assert good["failed"] == []
    assert good["verdicts"][-1]["sparsity"] == pytest.approx(0.5, abs=1e-4)
    assert len(bad["failed"]) == 2
    for row in bad["failed"]:
        assert "the loss is" in row["error"]
        assert "at iteration" in row["error"]
        assert "last good state is of iteration 0" in row["error"]
    assert "failed: train" in answer.err
    text = " ".join(tiny.cli(capsys, *args).out.split())
    assert "failed of grid: training.learning_rate=1e+30" in text
    assert "4 jobs that rest on these were not run" in text
    assert "run the same command again" in text


def test_a_failed_run_ends_in_a_table_and_says_how_to_resume(tmp_path, capsys):
    args = ["find", *tiny.FLAGS, "--training.learning-rate", "1e30", "--store", tmp_path]
    answer = tiny.cli(capsys, *args)
    assert answer.code == 1
    text = " ".join(answer.out.replace("│", " ").replace("┃", " ").split())
    for words in ("train seed 0", "train seed 1", "diverged", "iteration", "failed"):
        assert words in text
    # Of 16 jobs 2 inits ran and 2 dense trainings failed.
    assert "12 jobs that rest on these were not run" in text
    assert "mend the cause and run the same command again" in text
    status = tiny.cli(capsys, "status", "--store", tmp_path, "--json").json
    assert [(row["state"], row["done"], row["jobs"]) for row in status] == [("failed", 2, 16)]


def test_checkpoint_of_a_diverged_training_is_named(tmp_path, monkeypatch):
    """The message counts from the last whole checkpoint, not from the start."""
    monkeypatch.setattr(kinds.Watch, "on_step", checkpoint_at_20)
    from lth_zoo.recipe import Training

    training = Training(
        iterations=60,
        evaluate_every=60,
        optimizer="sgd",
        schedule="step",
        milestones=(30,),
        gamma=1e30,
    )
    outcome = tiny.run_tiny(tmp_path, training=training, seeds=(0,), controls=(), sparsity=0.0)
    (why,) = outcome.failed.values()
    assert "the last good state is of iteration 20" in why


def checkpoint_at_20(watch, loop):
    if loop.iteration == 20:
        watch.session.checkpoint(loop.snapshot())


def test_a_worker_inherits_one_thread_and_no_interrupt(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = signal.getsignal(signal.SIGINT)
    with _inherited():
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert signal.getsignal(signal.SIGINT) is before


def test_an_early_interrupt_prints_no_traceback(tmp_path):
    """Ctrl-C while the workers still import torch: it is for the engine alone to act on."""
    flags = ("--training.iterations", "20000", "--workers", "2", "--store", tmp_path / "s")
    process = tiny.start("find", *tiny.FLAGS, *flags, cwd=tmp_path)
    try:  # the engine, the resource tracker, two workers
        assert tiny.wait_until(lambda: len(tiny.group(process.pid)) >= 4, 120)
        workers = set(tiny.group(process.pid)) - {process.pid}
        for _ in range(40):  # two seconds, most of them within the imports
            for pid in workers & set(tiny.group(process.pid)):
                os.kill(pid, signal.SIGINT)
            time.sleep(0.05)
        assert workers <= set(tiny.group(process.pid))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        tiny.kill_group(process.pid)
    assert process.returncode == 130
    assert "Traceback" not in said


class Killer(Watcher):
    """Kills the worker of the first training of seed 0, as the kernel does out of memory."""

    def __init__(self, store):
        self.store, self.victim = store, None

    def progress(self, job, done, total):
        if self.victim is None and job.kind == "train" and job.config["seed"] == 0:
            self.victim = job
            holder = Lock(self.store.folder(job) / "lock").holder()
            assert holder["pid"] != os.getpid()
            os.kill(holder["pid"], signal.SIGKILL)


def test_a_killed_worker_is_reported_and_the_rest_goes_on(tmp_path):
    from lth_zoo.recipe import Training

    store, training = Store(tmp_path), Training(iterations=400, evaluate_every=400)
    recipe = tiny.recipe(training=training, controls=())
    killer = Killer(store)
    (finished,) = run_recipes([recipe], store, Execution(), workers=2, watcher=killer)
    outcome = finished.outcome
    assert outcome.failed == {killer.victim.key: "its worker process died (exit code -9)"}
    assert len(outcome.blocked) == 2  # seed 0's mask and ticket
    assert [r.seed for r in finished.results.select("ticket", 1)] == [1]
    assert "2 jobs that rest on these were not run" in str(say(finished)[-1])
    (again,) = run_recipes([recipe], store, Execution())
    assert again.outcome.failed == {}
    assert again.outcome.done == 3


def test_a_model_that_raises_in_a_worker_is_a_failure_with_its_place(tmp_path, monkeypatch):
    (tmp_path / "faulty.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.layer = nn.Linear(64, 10)\n\n"
        "    def forward(self, x):\n        raise RuntimeError('too big')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = tiny.recipe(model="faulty:Net", seeds=(0,), controls=())
    outcome = run(experiment(recipe).goals, Store(tmp_path / "s"), Execution(), workers=1)
    sys.modules.pop("faulty", None)
    assert list(outcome.failed.values()) == ["RuntimeError: too big (faulty.py:10)"]
    assert len(outcome.blocked) == 2
