"""The list of runs: names, runs that cannot be read any more, commands, machines, times."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tiny

from lth_zoo import estimate, registry, runs
from lth_zoo.api import run_recipes
from lth_zoo.errors import BadInput
from lth_zoo.experiment import lay_out, resolved
from lth_zoo.finders import OneShot
from lth_zoo.session import Execution, cached_task
from lth_zoo.store import Store
from lth_zoo.tasks.embedded import Digits

ONE = {"seeds": (0,), "controls": (), "finder": OneShot()}


def noted(store: Store, **fields: object) -> str:
    return runs.note(store, lay_out(tiny.recipe(**ONE, **fields), "data"), "done")


def test_a_whole_name_comes_before_a_head(tmp_path):
    store = Store(tmp_path)
    quick, conv = noted(store, name="quick"), noted(store, name="quick-conv", sparsity=0.4)
    assert [r.id for r in runs.listed(store, ("quick",))] == [quick]
    assert [r.id for r in runs.listed(store, (conv,))] == [conv]
    assert {r.id for r in runs.listed(store, ("quic",))} == {quick, conv}
    with pytest.raises(BadInput, match="unknown run 'slow'"):
        runs.listed(store, ("slow",))


@pytest.mark.parametrize(("kind", "target"), [("tasks", Digits), ("finders", OneShot)])
def test_a_run_of_a_lost_plugin_is_left_out_with_a_warning(tmp_path, capsys, kind, target):
    store, fields = Store(tmp_path), {"name": "lost"}
    registry.register(kind, "plug", type("Plug", (target,), {"__doc__": "From outside."}))
    try:
        fields |= {"task": "plug"} if kind == "tasks" else {"finder": registry.find(kind, "plug")()}
        recipe = tiny.recipe(**ONE | fields)
        lost = runs.note(store, lay_out(recipe, "data"), "done")
    finally:
        registry.unregister(kind, "plug")
    kept = noted(store, name="kept")
    answer = tiny.cli(capsys, "status", "--store", tmp_path, "--json")
    assert [row["run"] for row in answer.json] == [kept]
    (line,) = answer.err.splitlines()
    assert f"run {lost} is left out" in line
    assert "'plug'" in line
    asked = tiny.cli(capsys, "status", lost, "--store", tmp_path)
    assert asked.code == 2
    assert "'plug'" in asked.err


def test_status_says_the_command_that_resumes(tmp_path, capsys):
    flags = [*tiny.FLAGS, "--seeds", "0", "--controls", "--store", str(tmp_path / "my store")]
    assert tiny.cli(capsys, "find", *flags).code == 0
    (row,) = tiny.cli(capsys, "status", "--store", tmp_path / "my store", "--json").json
    assert row["resume"] == " ".join(["lth-zoo", "find", *flags[:-1], f"'{flags[-1]}'"])


# -- machines ------------------------------------------------------------------------------


def elsewhere(store: Store) -> None:
    """Say of one training that another processor did it."""
    path = next(store.root.glob("train/*/manifest.json"))
    manifest = json.loads(path.read_text())
    manifest["record"]["cpu"] = "Abacus 1"
    path.write_text(json.dumps(manifest))


def test_mixed_machines_are_refused_before_work_or_warned_of(tmp_path, capsys):
    store, recipe = Store(tmp_path / "s"), tiny.recipe(**ONE)
    run_recipes([recipe], store, Execution())
    elsewhere(store)
    more = replace(recipe, seeds=(0, 1))
    for wanted in (recipe, more):
        with pytest.raises(BadInput, match=r"would be of different machines .*Abacus 1"):
            run_recipes([wanted], store, Execution(), one_machine=True)
    assert len(list(store.root.glob("train/*"))) == 2
    answer = tiny.cli(capsys, "report", "--store", store.root, "--out", tmp_path / "r")
    assert answer.code == 0
    (line,) = answer.err.splitlines()
    assert "warning: arms ran on different machines (cpu / " in line
    assert "cpu / Abacus 1 / " in line
    assert runs.run_id(resolved(recipe)) in line


def test_find_warns_of_machines(tmp_path, capsys):
    flags = [*tiny.FLAGS, "--seeds", "0", "--controls", "--store", tmp_path]
    assert "warning" not in tiny.cli(capsys, "find", *flags).err
    elsewhere(Store(tmp_path))
    assert "Abacus 1" in tiny.cli(capsys, "find", *flags).err


# -- what a run costs ----------------------------------------------------------------------


def test_cells_of_a_study_read_the_data_once(tmp_path, monkeypatch):
    reads, plain = [], Digits.read
    monkeypatch.setattr(Digits, "read", lambda self: reads.append(1) or plain(self))
    recipes = [tiny.recipe(**ONE, sparsity=s) for s in (0.3, 0.5)]
    estimate.estimate(recipes, Store(tmp_path), Execution(), 1)
    assert len(reads) == 1
    cached_task.cache_clear()


def test_times_of_another_device_do_not_count(tmp_path, monkeypatch):
    store, recipe = Store(tmp_path), tiny.recipe(**ONE)
    run_recipes([recipe], store, Execution())
    assert estimate._past(store, "cpu")
    assert estimate._past(store, "NVIDIA H100") == {}


def test_a_probe_is_never_below_zero(monkeypatch):
    """An evaluation that took longer than the training and its own evaluation together."""
    recipe = tiny.recipe(**ONE)
    (job,) = [
        j for j in lay_out(recipe, "data").jobs if j.kind == "train" and not j.inputs.get("masks")
    ]
    clock = iter([0.0, 5.0, 5.0, 6.0])
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(clock))
    assert estimate.probe(job, Execution()) == 5.0 / recipe.training.evaluate_every
