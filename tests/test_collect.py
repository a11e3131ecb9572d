"""What the store holds of an experiment, as runs: counts, curves, costs, failures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, OneShot
from lth_zoo.recipe import Recipe
from lth_zoo.store import Store
from lth_zoo.trials.collect import collect, machines
from lth_zoo.trials.results import Results

FIELDS = {"sparsity": 0.75, "controls": ("shuffle",)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("collect") / "store"
    assert tiny.run_tiny(root, **FIELDS).failed == {}
    return root


@pytest.fixture(scope="module")
def results(store) -> Results:
    return collect(experiment(tiny.recipe(**FIELDS)), Store(store))


def test_every_arm_level_and_seed_is_there_once(results):
    found = [(r.arm, r.level, r.seed) for r in results.runs]
    arms = [("dense", 0), ("ticket", 1), ("ticket", 2), ("shuffle", 1), ("shuffle", 2)]
    assert sorted(found) == sorted((arm, level, seed) for arm, level in arms for seed in (0, 1))
    assert results.arms() == ["dense", "ticket", "shuffle"]
    assert results.levels() == [0, 1, 2]
    assert (results.headline, results.higher_is_better, results.margin) == ("accuracy", True, 2.0)


def test_counts_are_exact_and_share_one_denominator(results):
    kept = {(r.arm, r.level): r.kept for r in results.runs}
    assert kept == {
        ("dense", 0): 50_200,
        ("ticket", 1): 25_100,
        ("ticket", 2): 12_550,
        ("shuffle", 1): 25_100,
        ("shuffle", 2): 12_550,
    }
    assert {r.prunable for r in results.runs} == {50_200}
    assert {r.parameters for r in results.runs} == {50_610}
    for run in results.runs:
        if run.layers:
            assert sum(k for k, _ in run.layers.values()) == run.kept
    shuffled, ticket = (
        next(r for r in results.runs if (r.arm, r.level, r.seed) == (arm, 2, 0)).layers
        for arm in ("shuffle", "ticket")
    )
    assert shuffled == ticket


def test_curves_and_metrics_are_what_the_jobs_wrote(results, store):
    for run in results.runs:
        assert [row["iteration"] for row in run.curve] == [20, 40]
        assert set(run.metrics) == {"validation", "test"}
        assert run.curve[-1]["validation_accuracy"] == run.metrics["validation"]["accuracy"]
        best = min(run.curve, key=lambda row: row["validation_loss"])
        assert run.early_stop == best["iteration"]
        assert run.iterations == 40
    written = [json.loads(p.read_text())["metrics"] for p in store.glob("train/*/result.json")]
    assert all(run.metrics in written for run in results.runs)


def test_a_seed_is_its_own(results):
    for arm, level in (("dense", 0), ("ticket", 2), ("shuffle", 1)):
        values = results.values(arm, level, metric="loss")
        assert len(set(values.values())) == 2


def test_costs(results):
    # A ticket at level 2 rests on the dense run and one pruned training.
    assert results.cost["search_dense_runs"] == 2
    assert results.cost["iterations_total"] == 2 * 40 * (1 + 2 + 2)
    assert results.cost["seconds_total"] > sum(r.seconds for r in results.runs) > 0


def test_costs_of_rewinding_count_the_way_to_the_rewind_point(tmp_path):
    fields = {"finder": IMP(rate=0.5, rewind="step=10"), "controls": (), "seeds": (0,)}
    recipe = tiny.recipe(**fields, sparsity=0.75)
    tiny.run_tiny(tmp_path, **fields, sparsity=0.75)
    cost = collect(experiment(recipe), Store(tmp_path)).cost
    assert cost["iterations_total"] == 10 + 30 + 30 + 30
    assert cost["search_dense_runs"] == (10 + 30 + 30) / 40


def test_one_shot_at_the_start_costs_nothing(tmp_path):
    fields = {"finder": OneShot(after="start"), "controls": (), "seeds": (0,)}
    tiny.run_tiny(tmp_path, **fields)
    found = collect(experiment(tiny.recipe(**fields)), Store(tmp_path))
    assert found.cost["search_dense_runs"] == 0
    assert [(r.arm, r.kept) for r in found.runs] == [("dense", 50_200), ("ticket", 25_100)]


def test_what_did_not_run_is_left_out_and_what_failed_has_its_reason(store, tmp_path):
    recipe = tiny.recipe(**FIELDS)
    one = experiment(recipe)
    nothing = collect(one, Store(tmp_path / "empty"))
    assert nothing.runs == []
    dense = next(a for a in one.arms if a.name == "dense" and a.seed == 1).goal
    why = "diverged: the loss is nan at iteration 3"
    partly = collect(one, Store(tmp_path / "empty"), {dense.key: why})
    assert {r.arm for r in partly.runs} == {"dense", "ticket", "shuffle"}
    assert {(r.seed, r.error, r.flags) for r in partly.runs} == {(1, why, ("diverged",))}
    assert partly.select("dense", 0) == []


def test_results_survive_json(results):
    plain = json.loads(json.dumps(results.to_json()))
    back = Results.from_json(plain)
    assert back == replace(results, recipe=plain["recipe"])
    assert Recipe.from_dict(back.recipe) == tiny.recipe(**FIELDS, head="rewind")


def test_the_machines_are_known(store):
    import torch

    (machine,) = machines(experiment(tiny.recipe(**FIELDS)), Store(store))
    assert machine[0] == "cpu"
    assert machine[2] == torch.__version__
