"""Tickets brought from task to task: which jobs that is, what they carry, what is said of it."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import parity
import pytest
import tiny
import torch
import toys
from torch import nn

import lth_zoo as lz
from lth_zoo.adapters.cnn import CNN
from lth_zoo.api import run_recipes, run_transfer
from lth_zoo.carry import tied, with_base, with_signs
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput, DataError
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP
from lth_zoo.formats import load_masks
from lth_zoo.jobs import graph
from lth_zoo.masks import Masks
from lth_zoo.parse import base_of, with_length
from lth_zoo.protocols import Yardstick
from lth_zoo.report import matrix as report
from lth_zoo.runs import note_transfer, recorded
from lth_zoo.session import MASKS, cached_task, read_state
from lth_zoo.store import Store
from lth_zoo.tasks.embedded import Digits
from lth_zoo.trials.cells import TransferResults, judge_cells
from lth_zoo.trials.collect_cells import collect_transfer
from lth_zoo.trials.transfer import transfer_matrix

SOURCES = ("digits", "parity", "large", "one-shot", "random")
TARGETS = ("digits", "parity")
SEEDS = (0, 1)
LEVELS = 2
NAMES = ("masks.safetensors", "state.safetensors", "result.json", "log.jsonl")


@pytest.fixture(scope="module", autouse=True)
def _tasks():
    with parity.registered():
        yield


def recipe(**fields):
    plain = {"finder": IMP(rate=0.3), "sparsity": 0.5, "seeds": SEEDS, "prune_last": False}
    return toys.tiny_recipe(**plain | fields)


def find_of(task):
    return recipe(task=task, controls=("random-layer",), controls_at="last")


def matrix(sources=SOURCES, targets=TARGETS, carry="mask", **fields):
    return transfer_matrix(recipe(**fields), sources, targets, carry)[0]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished matrix: its store and what it answered."""
    store = Store(tmp_path_factory.mktemp("transfer") / "store")
    return SimpleNamespace(store=store, found=run_transfer(matrix(), store, toys.HERE))


# -- the jobs ------------------------------------------------------------------------------


def test_epochs_are_iterations_of_each_task_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(parity.Parity, "size", lambda self, split: Digits.size(self, split) // 2)
    found = matrix(("digits", "large", "parity"), ("digits",), epochs=2.5)
    batch = found.recipe.training.batch_size
    size = {task: cached_task(task, None, found.recipe.model).size("train") for task in found.tasks}
    assert len({n // batch for n in size.values()}) > 1
    for task in found.tasks:
        ends = {j.config["end"] for j in found.experiments[task].jobs if j.kind == "train"}
        assert ends == {math.ceil(2.5 * (size[task] // batch))}
    note_transfer(Store(tmp_path), found, "running")
    (again,) = recorded(Store(tmp_path))
    assert [j.key for j in again.matrix.jobs] == [j.key for j in found.jobs]


def test_a_length_is_epochs_or_iterations():
    with pytest.raises(BadInput, match="epochs is 0; it must be above 0"):
        recipe(epochs=0)
    base = recipe(epochs=3)
    assert experiment(base).recipe.epochs is None
    assert with_length(base, ["--training.iterations=7"]).epochs is None
    assert with_length(base, ["--training.batch-size", "7"]) is base
    with pytest.raises(BadInput, match=r"both --epochs and --training.iterations are given"):
        base_of(["bert-glue", "--epochs", "1", "--training.iterations", "7"])


def test_each_source_is_searched_once():
    jobs = matrix().jobs
    tasks = 3  # digits, parity, large: a search each, though there are 10 cells a seed
    trainings = Counter(j.config["task"] for j in jobs if j.kind == "train")
    prunings = [j for j in jobs if j.kind == "prune" and j.inputs["trained"].kind == "train"]
    assert len(prunings) == tasks * LEVELS * len(SEEDS)
    # dense and one level before the last mask; on a target its ticket and four other sources
    assert trainings["large"] == len(SEEDS) * LEVELS
    assert trainings["digits"] == trainings["parity"] == len(SEEDS) * (LEVELS + 1 + 4)
    kinds = Counter(j.kind for j in jobs)
    assert kinds["carry"] == 4 * len(SEEDS)  # two other tasks to each of two targets
    assert kinds["control"] == 2 * len(SEEDS)


def test_another_source_costs_one_search_and_its_cells():
    small = {j.key for j in matrix(("digits", "parity")).jobs}
    large = matrix(("digits", "parity", "large")).jobs
    new = [j for j in large if j.key not in small]
    assert small < {j.key for j in large}
    assert Counter((j.kind, j.config["task"]) for j in new) == {
        ("init", "large"): len(SEEDS),
        ("train", "large"): LEVELS * len(SEEDS),
        ("prune", "large"): LEVELS * len(SEEDS),
        **{("carry", t): len(SEEDS) for t in TARGETS},
        **{("train", t): len(SEEDS) for t in TARGETS},
    }


def test_dense_and_same_task_ticket_are_those_of_find(done):
    ours = {j.key for j in done.found.matrix.goals}
    for task in TARGETS:
        one = experiment(find_of(task))
        last = max(arm.level.index for arm in one.arms)
        assert {a.goal.key for a in one.arms if a.level.index in (0, last)} <= ours
    again = run_recipes([find_of(task) for task in TARGETS], done.store, toys.HERE)
    assert [one.outcome.done for one in again] == [0, 0]
    value = again[0].results.values("ticket", LEVELS)
    assert done.found.results.cell("digits", "digits").values == value
    randoms = again[1].results.values("random-layer", LEVELS)
    assert done.found.results.cell("random", "parity").values == randoms


def test_cells_of_a_target_and_seed_have_one_start_and_one_training():
    for target, seed in itertools.product(TARGETS, SEEDS):
        goals = [c.goal for c in matrix().cells if (c.target, c.seed) == (target, seed)]
        assert len({g.inputs["start"].key for g in goals}) == 1
        assert len({json.dumps({**g.config, "keep": ""}, sort_keys=True) for g in goals}) == 1
        assert len({g.inputs["masks"].key for g in goals}) == len(SOURCES)


def test_a_target_that_is_no_source_has_its_same_task_ticket_all_the_same():
    one = matrix(("digits",), ("parity",))
    assert [(c.source, c.target) for c in one.cells if c.seed == 0] == [
        ("digits", "parity"),
        ("parity", "parity"),
    ]
    assert matrix(("digits", "large", "one-shot"), ()).targets == ("digits", "large")


def test_the_head_of_a_level_is_the_targets_own():
    chain = matrix(head="fresh").cells
    starts = {c.goal.inputs["start"] for c in chain if c.target == "parity" and c.seed == 0}
    (start,) = starts
    assert start.kind == "graft"
    assert start.config["task"] == "parity"


# -- what is carried -----------------------------------------------------------------------


def masks_at(store, job):
    return load_masks(store.entry(job).read(MASKS))


def cell(found, source, target, seed=0):
    return next(c for c in found.cells if (c.source, c.target, c.seed) == (source, target, seed))


def test_masks_arrive_unchanged_but_for_the_head(done):
    whole = matrix(("digits", "large"), ("parity",), prune_last=True)
    run([c.masks for c in whole.cells], done.store, toys.HERE)
    for source in ("digits", "large"):
        theirs = masks_at(done.store, whole.tickets[source, 0].level.masks)
        ours = masks_at(done.store, cell(whole, source, "parity").masks)
        assert ours == theirs.without("fc3.weight")
        assert "fc3.weight" in theirs


def test_one_shot_keeps_the_largest_weights_of_theta_0(done):
    brought = cell(done.found.matrix, "one-shot", "digits")
    masks = masks_at(done.store, brought.masks)
    state = read_state(done.store.entry(brought.goal.inputs["start"])).state
    every = torch.cat([state[n].abs().flatten() for n in masks])
    kept = torch.cat([m.flatten() for m in masks.values()])
    assert masks.kept == round(0.5 * masks.size)
    assert every[kept].min() >= every[~kept].max()


def test_random_has_the_layer_counts_of_the_targets_own_ticket(done):
    found = done.found.matrix
    ours = masks_at(done.store, cell(found, "random", "parity").masks)
    theirs = masks_at(done.store, found.tickets["parity", 0].level.masks)
    assert ours.counts == theirs.counts
    assert ours != theirs


@pytest.mark.parametrize("carry", ["mask+state", "mask+signs"])
def test_state_and_signs_are_the_source_tickets(done, carry):
    found = matrix(("digits", "one-shot"), ("parity",), carry)
    goals = [c.goal for c in found.cells]
    assert not run(goals, done.store, toys.HERE).failed
    brought = cell(found, "digits", "parity")
    own = cell(found, "parity", "parity").goal.inputs["start"]
    start = read_state(done.store.entry(own)).state
    source = read_state(done.store.entry(found.tickets["digits", 0].goal)).state
    state = read_state(done.store.entry(brought.goal.inputs["start"])).state
    masks = masks_at(done.store, brought.masks)
    assert state.keys() == start.keys()
    for name, tensor in state.items():
        if name.startswith("fc3"):
            assert tensor.equal(start[name])
        elif carry == "mask+state":
            assert tensor.equal(source[name])
        elif name not in masks:
            assert tensor.equal(start[name])
        else:
            assert tensor.abs().equal(start[name].abs())
            assert tensor[masks[name]].sign().equal(source[name][masks[name]].sign())
            assert tensor[~masks[name]].equal(start[name][~masks[name]])
            assert not tensor.equal(start[name])
    # what has no trained ticket behind it starts from theta_0
    assert cell(found, "one-shot", "parity").goal.inputs["start"] == own


def test_state_moves_by_base_relative_names_and_refuses_another_shape():
    start = {"net.a": torch.zeros(2), "net.b": torch.zeros(3), "head": torch.zeros(2)}
    source = {"net.a": torch.ones(2), "other": torch.ones(3)}
    moved = with_base(start, source, {"head"}, "net.")
    assert {n: float(t.sum()) for n, t in moved.items()} == {"net.a": 2, "net.b": 0, "head": 0}
    assert with_base({"a": start["net.a"]}, source, (), "net.")["a"].sum() == 2
    with pytest.raises(BadInput, match=r"net\.a is \(2,\), not \(5,\)"):
        with_base({"net.a": torch.zeros(5)}, source, (), "net.")
    with pytest.raises(BadInput, match="no tensor of the target's"):
        with_base({"x": torch.zeros(5)}, source, (), "net.")


def test_signs_move_where_a_mask_keeps_and_a_zero_has_none():
    masks = Masks({"w": torch.tensor([True, True, True, False])})
    start = {"w": torch.tensor([1.0, -2.0, 3.0, 4.0])}
    signed = with_signs(start, {"p.w": torch.tensor([-1.0, 5.0, 0.0, -9.0])}, masks, "p.")
    assert signed["w"].tolist() == [-1.0, 2.0, 3.0, 4.0]
    with pytest.raises(BadInput, match="w is missing in the source"):
        with_signs(start, {}, masks, "")


def test_a_head_tied_to_the_base_follows_it():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(4, 3), nn.Linear(3, 4)
            self.head.weight = self.words.weight

    assert tied(Language(), {"head.weight", "head.bias"}) == {"head.weight": "words.weight"}


# -- what came of it -----------------------------------------------------------------------


def test_every_cell_is_measured_and_survives_json(done):
    results = done.found.results
    assert done.found.outcome.failed == {}
    assert {(c.source, c.target) for c in results.cells} == set(itertools.product(SOURCES, TARGETS))
    assert all(set(c.values) == set(SEEDS) and not c.errors for c in results.cells)
    assert {c.kept for c in results.cells} == {results.cells[0].kept}
    text = json.dumps(results.to_json())
    again = TransferResults.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert (again.cells, again.targets) == (results.cells, results.targets)
    assert again.overlaps == results.overlaps
    json.dumps([j.to_json() for j in done.found.judged], allow_nan=False)


def test_targets_are_judged_as_their_task_says_of_the_model(done, monkeypatch):
    plain = done.found.results

    def yardstick(self, model):
        lower = Yardstick("loss", False, 0.05, relative=True)
        return lower if self.name == "parity" else Yardstick("accuracy", True, 2.0)

    monkeypatch.setattr(Digits, "yardstick", yardstick)
    mixed = collect_transfer(matrix(), done.store)
    digits, parity_ = mixed.targets
    assert (digits.headline, digits.margin, digits.margin_share) == ("accuracy", 2.0, 0.0)
    assert (parity_.headline, parity_.higher_is_better) == ("loss", False)
    dense = list(parity_.dense.values.values())
    assert parity_.margin == pytest.approx(0.05 * sum(dense) / len(dense))
    assert parity_.margin_share == 0.05
    pairs = [("one-shot", "digits"), ("one-shot", "parity")]
    same = [mixed.cell(*pair).values == plain.cell(*pair).values for pair in pairs]
    assert same == [True, False], "cells have the metric of their target"
    assert TransferResults.from_json(json.loads(json.dumps(mixed.to_json()))).targets[1] == parity_

    judged = judge_cells(mixed)
    assert report.targets_table(mixed).rows[1][2:4] == (
        "lower",
        f"{parity_.margin:.4g} (5 % of the dense mean)",
    )
    ruled = {
        tuple(t.name for t in targets): report.cells_table(
            replace(mixed, targets=targets, cells=_cells_on(mixed, targets)),
            [j for j in judged if j.target in {t.name for t in targets}],
        ).columns[11]
        for targets in [(digits,), (parity_,), (digits, parity_)]
    }
    assert list(ruled.values()) == [
        *("≥ same task", "≤ same task", "no worse than same task"),
    ]
    by = {(j.source, j.target): j for j in judged}
    cell, own = (mixed.cell(s, "parity").values for s in ("one-shot", "parity"))
    worse = sum(cell.values()) > sum(own.values())
    assert by["one-shot", "parity"].at_least_ticket is not worse


def _cells_on(results, targets):
    names = {target.name for target in targets}
    return tuple(cell for cell in results.cells if cell.target in names)


def test_unequal_counts_and_unequal_starts_are_said(done):
    assert "drawn anew for each task" in done.found.results.notes[0]
    assert "digits; parity, large" in done.found.results.notes[0]
    assert matrix(("parity",), ("large",)).footing.notes == ()
    one = matrix(("parity",), ("digits",), prune_last=True, seeds=(0,))
    found = run_transfer(one, done.store, toys.HERE).results
    assert "do not remove equally many weights" in found.notes[1]


def test_a_carry_that_fails_is_a_failed_cell_and_costs_no_other(done, tmp_path, monkeypatch):
    def misfit(self, masks, model):
        raise BadInput("w is (3, 3) in the ticket, missing in the model")

    monkeypatch.setattr(CNN, "carry", misfit)
    one = matrix(("digits", "one-shot"), ("parity",), seeds=(0,))
    found = run_transfer(one, Store(tmp_path), toys.HERE)
    broken = found.results.cell("digits", "parity")
    assert "missing in the model" in broken.errors[0]
    assert broken.values == {}
    assert found.results.cell("one-shot", "parity").values == {
        0: done.found.results.cell("one-shot", "parity").values[0]
    }
    judged = next(j for j in found.judged if j.source == "digits")
    assert (judged.arm.mean, judged.arm.n, judged.at_least_ticket) == (None, 0, None)
    # what failed is kept with the run: a report made later says the same
    (record,) = lz_runs(tmp_path)
    assert collect_transfer(record.matrix, Store(tmp_path), record.failed) == found.results


def lz_runs(place):
    from lth_zoo.runs import recorded

    return recorded(Store(place))


def test_a_diverged_training_counts_and_a_diverged_search_is_missing(done):
    found = done.found.matrix
    brought = cell(found, "digits", "parity", 1)
    other = Store(done.store.root.parent / "nothing")
    failed = {
        brought.goal.key: "diverged at iteration 3",
        found.tickets["large", 0].level.masks.key: "diverged at iteration 4",
    }
    results = collect_transfer(found, other, failed)
    values = results.cell("digits", "parity").values
    assert list(values) == [1]
    assert math.isnan(values[1])
    lost = results.cell("large", "parity")
    assert (lost.values, lost.errors) == ({}, {0: "diverged at iteration 4"})
    assert results.cell("one-shot", "digits").runs == ()


# -- resuming ------------------------------------------------------------------------------


def test_half_a_matrix_and_then_the_whole_is_the_whole(done, tmp_path):
    store, found = Store(tmp_path), matrix()
    goals = found.goals
    half = run(goals[: len(goals) // 2], store, toys.HERE)
    rest = run_transfer(found, store, toys.HERE)
    assert half.done > 10
    assert rest.outcome.done + half.done == len(graph(goals))
    assert rest.results.cells == done.found.results.cells
    ours, theirs = tiny.files_of(tmp_path, *NAMES), tiny.files_of(done.store.root, *NAMES)
    assert ours.items() <= theirs.items()
    assert len([name for name in ours if name.startswith("train/")]) > 50


def test_killed_in_its_cells_a_matrix_ends_as_if_nothing_had_happened(tmp_path, capsys):
    args = (
        *("transfer", "--from", "digits", "large", "one-shot", "random", "--to", "parity"),
        *("--model", "lenet-300-100x0.1", "--sparsity", "0.5", "--finder.rate", "0.3"),
        *("--training.iterations", "300", "--training.evaluate-every", "100", "--seeds", "0"),
        *("--workers", "0", "--checkpoint-seconds", "0.05", "--json", "--store"),
    )

    def cells(store):
        """The trainings of cells that are done; all others keep their weights."""
        manifests = map(Path.read_text, store.glob("train/*/manifest.json"))
        return sum('"keep": "metrics"' in text for text in manifests)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    uninterrupted = tiny.cli(capsys, *args, whole).json
    process = subprocess.Popen(
        [sys.executable, parity.__file__, *args, str(broken)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert tiny.wait_until(lambda: cells(broken) >= 1, 120)
    finally:
        tiny.kill_group(process.pid)
        process.wait()
    assert 1 <= cells(broken) < cells(whole) == 4, "the run ended before it was hit"
    resumed = tiny.cli(capsys, *args, broken).json
    assert tiny.files_of(broken, *NAMES) == tiny.files_of(whole, *NAMES)
    assert resumed["results"]["cells"] == uninterrupted["results"]["cells"]
    assert resumed["judged"] == uninterrupted["judged"]


# -- overlap, names and bad input ----------------------------------------------------------


def test_sources_overlap_pair_by_pair_without_the_random_one(done):
    found = done.found.results.overlaps
    assert [(o.a, o.b) for o in found] == list(itertools.combinations(SOURCES[:-1], 2))
    assert all(o.n == len(SEEDS) and set(o.layers) == {"fc1.weight", "fc2.weight"} for o in found)
    by = {(o.a, o.b): o.whole for o in found}
    # theta_0 of the two-class tasks is the same, and decides most of so short a search
    assert by["parity", "large"][0] > by["parity", "large"][1] + 0.2
    assert by["digits", "parity"][0] == pytest.approx(by["digits", "parity"][1], abs=0.05)


def test_a_glob_stands_for_the_tasks_at_hand_and_says_what_is_not(monkeypatch):
    def gone(self):
        raise DataError("large is not at hand")

    monkeypatch.setattr(
        "lth_zoo.trials.transfer.known_tasks", lambda: ["digits", "large", "parity"]
    )
    monkeypatch.setattr(parity.Large, "fingerprint", gone)
    found, skipped = transfer_matrix(recipe(), ["*", "one-shot"], ["parity", "p*"])
    assert (found.sources, found.targets) == (("digits", "parity", "one-shot"), ("parity",))
    assert skipped == ["large: large is not at hand"]
    with pytest.raises(DataError, match="not at hand"):
        transfer_matrix(recipe(), ["large"], ["parity"])
    with pytest.raises(BadInput, match=r"no task of 'l\*' can be used: large: large is not"):
        transfer_matrix(recipe(), ["l*"], ["parity"])


@pytest.mark.parametrize(
    ("sources", "targets", "fields", "said"),
    [
        ([], ["digits"], {}, "no sources"),
        (["one-shot"], [], {}, "no targets"),
        (["digit"], ["digits"], {}, "unknown task 'digit'; did you mean 'digits'"),
        (["digitz*"], ["digits"], {}, r"unknown task 'digitz\*'; did you mean 'digits'"),
        (["digits"], ["random"], {}, "'random' is a source, not a task to train on"),
        (["digits"], ["parity"], {"carry": "maks"}, "unknown carry 'maks'; did you mean 'mask'"),
        (
            ["digits", "random"],
            ["digits"],
            {"carry": "mask+state"},
            "needs a source that is a task",
        ),
        (["digits"], ["parity"], {"sparsity": 0.0}, "sparsity is 0"),
        (["digits"], ["parity"], {"finder": IMP(rewind="none=4")}, "must have one start"),
        (["digits"], ["parity"], {"exclude": ("fc9",)}, "unknown layer 'fc9'"),
    ],
)
def test_bad_input(sources, targets, fields, said):
    carry = fields.pop("carry", "mask")
    with pytest.raises(BadInput, match=said):
        transfer_matrix(recipe(**fields), sources, targets, carry)


def test_masks_that_fit_no_target_are_refused_before_any_work(monkeypatch):
    class Wide(Digits):
        """Digits of another size."""

        shape = (1, 4, 16)

        @property
        def signature(self):
            return replace(super().signature, input=(1, 9, 9))

    monkeypatch.setitem(lz.registry._ROWS["tasks"], "wide", Wide)
    with pytest.raises(BadInput, match=r"masks of digits do not fit .* on wide: fc1\.weight is"):
        transfer_matrix(recipe(), ["digits"], ["wide"])
    found, _ = transfer_matrix(recipe(), ["digits", "parity"], ["wide", "digits"])
    assert any("Masks of digits do not fit wide" in note for note in found.footing.notes)


def test_from_python(done, tmp_path):
    plain = recipe()
    found = lz.transfer(
        *(plain.model,),
        sources=["digits", "one-shot"],
        targets=["parity"],
        sparsity=0.5,
        seeds=SEEDS,
        finder=plain.finder,
        training=plain.training,
        prune_last=False,
        store=done.store.root,
    )
    assert found.outcome.done == 0
    theirs = done.found.results.cell("digits", "parity")
    assert found.results.cell("digits", "parity") == theirs
    with pytest.raises(BadInput, match="a transfer has no task of its own"):
        lz.transfer(sources=["digits"], task="parity", store=tmp_path)
