"""What the store holds of an experiment, as runs: counts, curves, costs, failures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, OneShot
from lth_zoo.formats import dump_tensors
from lth_zoo.protocols import Yardstick
from lth_zoo.recipe import Recipe
from lth_zoo.session import IMAGES
from lth_zoo.store import MANIFEST, Store
from lth_zoo.tasks.embedded import Digits
from lth_zoo.trials.collect import collect, machines
from lth_zoo.trials.results import Results, margin_of

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


# -- what a task says of a model ------------------------------------------------------------


def test_a_margin_that_is_a_share_is_one_number_from_then_on(store, results, monkeypatch):
    asked = []

    def yardstick(self, model):
        asked.append(model)
        return Yardstick("loss", False, 0.05, relative=True)

    monkeypatch.setattr(Digits, "yardstick", yardstick)
    found = collect(experiment(tiny.recipe(**FIELDS)), Store(store))
    assert asked == [tiny.recipe().model]
    dense = [r.metrics["test"]["loss"] for r in results.runs if r.arm == "dense"]
    assert len(dense) == 2
    assert (found.headline, found.higher_is_better) == ("loss", False)
    assert found.margin == pytest.approx(0.05 * sum(dense) / 2)
    assert found.margin_share == 0.05
    assert results.margin_share == 0
    plain = json.loads(json.dumps(found.to_json()))
    assert (plain["margin"], plain["margin_share"]) == (found.margin, 0.05)
    nothing = collect(experiment(tiny.recipe(**FIELDS)), Store(store / "none"))
    assert (nothing.margin, nothing.margin_share) == (0.05, 0.05)


@pytest.mark.parametrize(
    ("dense", "margin"),
    [
        ([4.0, 6.0], 0.5),
        ([-4.0, -6.0], 0.5),
        ([float("nan"), 4.0], 0.4),
        ([float("inf")], 0.1),
        ([], 0.1),
        ([0.0], 0.1),
    ],
)
def test_a_share_is_of_the_finite_dense_mean_and_never_no_margin(dense, margin):
    share = Yardstick("cfd", False, 0.1, relative=True)
    assert margin_of(share, dense) == (pytest.approx(margin), 0.1)
    assert margin_of(replace(share, relative=False), dense) == (0.1, 0.0)


# -- pictures ------------------------------------------------------------------------------


def shade_of(arm):
    """A shade that only this arm has."""
    return 100 * arm.seed + 10 * arm.level.index + len(arm.name) % 10


def pictured(store, arms):
    """Leave images beside the results of these arms, as a generative task does."""
    for arm in arms:
        entry = Store(store).entry(arm.goal)
        shade = torch.full((32, 1, 8, 8), shade_of(arm), dtype=torch.uint8)
        (entry.folder / IMAGES).write_bytes(dump_tensors({"samples": shade}, {}))
        (entry.folder / MANIFEST).unlink()
        record = entry.manifest["record"]
        Store(store).commit(arm.goal, [*entry.manifest["files"], IMAGES], record)


def test_images_are_those_of_one_seed_dense_and_the_last_level(store, results, tmp_path, capsys):
    root = shutil.copytree(store, tmp_path / "store")
    one = experiment(tiny.recipe(**FIELDS))
    pictured(root, one.arms)
    found = collect(one, Store(root))
    assert all(run.pictures for run in found.runs)
    assert all((root / run.pictures).is_file() for run in found.runs)
    assert (found.images.seed, found.images.level) == (0, 2)
    shades = {name: int(made["samples"][0, 0, 0, 0]) for name, made in found.images.arms.items()}
    first = {arm.name: shade_of(arm) for arm in one.arms if not arm.seed and arm.level.index != 1}
    assert shades == first
    assert list(first) == ["dense", "ticket", "shuffle"]
    assert found == replace(results, runs=found.runs), "nothing else differs"
    back = Results.from_json(json.loads(json.dumps(found.to_json())))
    assert (back.images, back.runs[0].pictures) == (None, found.runs[0].pictures)

    damaged = next(run for run in found.runs if (run.arm, run.level, run.seed) == ("shuffle", 2, 0))
    (root / damaged.pictures).write_bytes(b"no images")
    assert list(collect(one, Store(root)).images.arms) == ["dense", "ticket"]
    assert "warning: no pictures of shuffle" in capsys.readouterr().err


def test_images_are_of_the_first_seed_whose_ticket_got_furthest(store, tmp_path):
    root = shutil.copytree(store, tmp_path / "store")
    one = experiment(tiny.recipe(**FIELDS))
    dense = [arm for arm in one.arms if arm.name == "dense"]
    pictured(root, dense[:1])
    assert (collect(one, Store(root)).images.seed, collect(one, Store(root)).images.level) == (0, 0)
    second = [arm for arm in one.arms if arm.seed == 1 and arm.level.index < 2]
    pictured(root, second)
    found = collect(one, Store(root)).images
    assert (found.seed, found.level) == (1, 1)
    assert list(found.arms) == ["dense", "ticket", "shuffle"]
    pictured(root, [arm for arm in one.arms if arm.name == "shuffle" and arm.level.index == 2])
    assert collect(one, Store(root)).images.level == 1, "a control alone shows nothing of a ticket"


def test_without_images_there_are_none(results):
    assert results.images is None
    assert {run.pictures for run in results.runs} == {""}


def test_the_machines_are_known(store):
    (machine,) = machines(experiment(tiny.recipe(**FIELDS)), Store(store))
    assert machine[0] == "cpu"
    assert machine[2] == torch.__version__
