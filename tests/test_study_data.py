"""The study of other data: variants of a data set, sources on permuted labels, and its sums."""

from __future__ import annotations

import image_files
import pytest
import torch
from toys import HERE, tiny_recipe

from lth_zoo.api import run_transfer
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP
from lth_zoo.formats import load_masks
from lth_zoo.protocols import task_of
from lth_zoo.runs import recorded
from lth_zoo.session import MASKS
from lth_zoo.store import Store
from lth_zoo.studies.data import LOTS, OTHER, OTHER_PERMUTED, OWN_PERMUTED, OtherData, _rows, _said
from lth_zoo.terms import Yardstick
from lth_zoo.trials.cells import Cell, CellRun, Target, TransferResults
from lth_zoo.trials.transfer import transfer_matrix

HALVES = ("digits@half-1", "digits@half-2")
BY = Yardstick("accuracy", higher_is_better=True, margin=1.0)


def recipe(**fields):
    return tiny_recipe(**{"sparsity": 0.5, "prune_last": False} | fields)


# -- variants of a data set ------------------------------------------------------------------------


def test_halves_part_the_training_images_and_share_the_others():
    whole, *parts = (task_of(name) for name in ("digits", *HALVES))
    seen = [set(map(bytes, part.splits["train"].pixels.numpy())) for part in (whole, *parts)]
    assert [part.size("train") for part in parts] == [599, 598]
    assert seen[1] | seen[2] == seen[0]
    counts = [torch.bincount(part.labels("train"), minlength=10) for part in parts]
    assert (counts[0] - counts[1]).abs().max() <= 2
    assert parts[0].labels("test").equal(whole.labels("test"))
    assert len({task.fingerprint() for task in (whole, *parts)}) == 3


def test_questions_are_of_the_numerals():
    labels = task_of("digits").labels("test")
    loops, odd, large = (task_of(f"digits@{q}") for q in ("loops", "parity", "above-4"))
    assert odd.labels("test").equal(labels % 2)
    assert large.labels("test").equal((labels > 4).long())
    assert loops.signature.output == 3
    assert [int(loops.labels("test")[labels == k][0]) for k in (0, 1, 4, 8, 9)] == [1, 0, 1, 2, 1]
    with pytest.raises(BadInput, match=r"variant of 'cifar10' 'parity'.*half-1"):
        task_of("cifar10@parity")


def test_a_question_is_read_from_published_files_too(tmp_path):
    image_files.write_idx(tmp_path / "mnist", image_files.arrays(image_files.GREY))
    whole, odd = (image_files.SmallMNIST(f"mnist{at}", tmp_path) for at in ("", "@parity"))
    assert odd.labels("test").equal(whole.labels("test") % 2)
    assert (odd.signature.output, whole.signature.output) == (2, 10)


# -- sources on permuted labels --------------------------------------------------------------------


def test_the_search_sees_permuted_labels_and_the_cell_true_ones(tmp_path):
    sources = ("digits", "digits@random-labels", "digits@half-1@random-labels")
    matrix, _ = transfer_matrix(recipe(), sources, ())
    assert matrix.targets == ("digits",)
    assert matrix.searches == 3
    own, permuted, _ = matrix.cells
    assert own.goal == experiment(recipe()).tickets()[0].goal
    search = permuted.masks.inputs["masks"].inputs["trained"]
    assert search.config["labels"] == "random"
    control = experiment(recipe(controls=("random-labels",))).arms[-1]
    assert permuted.masks.inputs["masks"] == control.level.masks  # find's control, the same search
    assert "labels" not in permuted.goal.config
    assert permuted.goal.inputs["start"] == own.goal.inputs["start"]
    store = Store(tmp_path)
    found = run_transfer(matrix, store, HERE)
    assert not found.outcome.failed
    masks = [load_masks(store.entry(c.masks).read(MASKS)) for c in matrix.cells]
    assert masks[0].kept == masks[1].kept
    assert masks[0] != masks[1]
    (again,) = recorded(store)
    assert [j.key for j in again.matrix.jobs] == [j.key for j in matrix.jobs]


def test_what_cannot_be_permuted_is_said_before_anything_runs():
    with pytest.raises(BadInput, match="'digits@random-labels' is a source, not a task"):
        transfer_matrix(recipe(), ("digits",), ("digits@random-labels",))
    plain = recipe(model="vae-8x0.1", task="generation/digits")
    with pytest.raises(BadInput, match=r"permutes labels, and 'generation/digits' has none"):
        transfer_matrix(plain, ("generation/digits@random-labels",), ("generation/digits",))
    with pytest.raises(BadInput, match="no targets"):
        transfer_matrix(recipe(), ("digits@random-labels",))


# -- the study -------------------------------------------------------------------------------------


def test_a_set_on_itself_is_its_own_ticket_bit_for_bit(tmp_path):
    study = OtherData(carries=("mask", "mask+state"))
    probes = study.lay_out(recipe(prune_last=True), None)
    jobs = {(p.of["carry"], p.of["source"], p.of["target"]): p.job for p in probes}
    for half in HALVES:
        plain = experiment(recipe(task=half))
        for carry in study.carries:
            assert jobs[carry, half, half] == plain.tickets()[0].goal
            assert jobs[carry, "dense", half] == plain.arms[0].goal
    store = Store(tmp_path)
    assert not run(list(jobs.values()), store, HERE).failed
    kept = {
        key: sum(k for k, _ in store.entry(job).json()["masks"].values())
        for key, job in jobs.items()
        if key[1] != "dense"
    }
    assert len(set(kept.values())) == 1


def results(values):
    targets = tuple(
        Target(t, "accuracy", True, 1.0, Cell("dense", t, (CellRun(0, 99.0),))) for t in "ab"
    )
    cells = tuple(
        Cell(s, t, tuple(CellRun(seed, v) for seed, v in enumerate(found)))
        for (s, t), found in values.items()
    )
    return TransferResults({"seeds": [0, 1, 2]}, ("a", "b"), targets, "mask", cells)


def test_groups_are_means_over_cells_paired_with_their_targets_own():
    random = {("random", t): (80.0, 80.0, 80.0) for t in "ab"}
    permuted = {(f"{s}@random-labels", t): (81.0, 81.0, 81.0) for s in "ab" for t in "ab"}
    own = {("a", "a"): (90.0, 92.0, 94.0), ("b", "b"): (80.0, 82.0, 84.0)}
    other = {("a", "b"): (79.0, 80.0, 81.0), ("b", "a"): (89.0, 91.0, 93.0)}
    found = {"mask": results(own | other | permuted | random)}
    found["mask+signs"] = found["mask"]
    rows = {(row["carry"], row["group"]): row for row in _rows(found)}
    groups = [OTHER, OWN_PERMUTED, OTHER_PERMUTED]
    assert [group for _, group in rows] == [*groups, LOTS, *groups]
    less = rows["mask", OTHER]
    assert less["values"] == {0: 84.0, 1: 85.5, 2: 87.0}
    # Less own: -1, -1.5, -2; sd 0.5, t(2) = 4.303: 1.242 each way; p = 0.035, of 7 tests 0.18.
    assert less["less_own"]["difference"] == -1.5
    assert less["less_own"]["interval"] == pytest.approx((-2.742, -0.258), abs=1e-3)
    assert less["less_random"]["difference"] == 5.5
    assert less["less_own"]["p"] > 5 * 0.035
    assert _said(less, BY) == (
        "Mask, other data: not told apart from the target's own ticket, accuracy -1.50 [-2.74, "
        "-0.26] (mean of 2 cells, paired, n = 3, Holm over groups and carries); less a random "
        "mask +5.50 [+1.77, +9.23]."
    )


def test_what_cannot_be_is_said_before_anything_runs():
    with pytest.raises(BadInput, match=r"carry 'masks'.*mask"):
        OtherData(carries=("masks",))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="'mnist' alone"):
        OtherData(sets=("mnist",))
    with pytest.raises(BadInput, match=r"'digits@half-1' has no halves"):
        OtherData().lay_out(recipe(task="digits@half-1"), None)
    with pytest.raises(BadInput, match=r"'fc3' by a share of its own.*--study.prune-last"):
        OtherData().lay_out(recipe(finder=IMP(rates=("fc3=0.1",))), None)
    with pytest.raises(BadInput, match=r"'karate' has no halves"):
        OtherData().lay_out(recipe(model="gcn-4", task="karate"), None)
    with pytest.raises(BadInput, match=r"digits \(1x8x8\) and cifar10 \(3x32x32\).*one shape"):
        OtherData(sets=("digits", "cifar10")).lay_out(recipe(model="conv-2x0.1"), None)
