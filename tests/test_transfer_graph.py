"""Tickets with edges brought from task to task, and graph masks from backbone to backbone."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import parity
import pytest
import tiny
import tiny_graphs
import torch
import toys
from toys import HERE

import lth_zoo as lz
from lth_zoo.api import run_recipes, run_transfer
from lth_zoo.edge_scores import selected
from lth_zoo.engines.local import Watcher, run
from lth_zoo.errors import BadInput
from lth_zoo.finders import IMP, UGS, GraphEarlyBird, GraphIMP
from lth_zoo.formats import load_masks
from lth_zoo.graph import EDGES
from lth_zoo.jobs import DENSE, graph
from lth_zoo.recipe import Recipe, Training
from lth_zoo.runs import note_transfer, recorded, transfer_id
from lth_zoo.seeds import generator
from lth_zoo.session import MASKS, cached_task, read_state
from lth_zoo.store import Store
from lth_zoo.trials.backbones import backbone_matrix
from lth_zoo.trials.cells import TransferResults
from lth_zoo.trials.collect_cells import collect_transfer
from lth_zoo.trials.transfer import transfer_matrix

TASKS, FREE = ("karate", "links/karate"), ("one-shot", "random")
BONES = ("gcn-4", "gin-4")
SEEDS, LEVELS = (0, 1), 2
HEAD = "convs.1.lin.weight"
NAMES = ("masks.safetensors", "state.safetensors", "result.json", "log.jsonl")


def recipe(**fields):
    training = Training(iterations=4, batch_size=100, learning_rate=0.01, evaluate_every=4)
    plain = {
        "model": "gcn-4",
        "task": "karate",
        "finder": GraphIMP(rate=0.3, edge_rate=0.2),
        "training": training,
        "sparsity": 0.5,
        "graph_sparsity": 0.3,
        "seeds": SEEDS,
        "controls": (),
        "prune_last": False,
    }
    return Recipe(**plain | fields)


def learned(**fields):
    return recipe(finder=UGS(rate=0.3, edge_rate=0.2), prune_last=True, **fields)


def masks_at(store, job):
    return load_masks(store.entry(job).read(MASKS))


def cell(found, source, target, seed=0):
    return next(c for c in found.cells if (c.source, c.target, c.seed) == (source, target, seed))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A finished matrix from task to task, with the weights of the source."""
    store = Store(tmp_path_factory.mktemp("tasks"))
    matrix, _ = transfer_matrix(recipe(), (*TASKS, *FREE), TASKS, "mask+state")
    return SimpleNamespace(store=store, matrix=matrix, found=run_transfer(matrix, store, HERE))


@pytest.fixture(scope="module")
def bones(tmp_path_factory):
    """A finished matrix from backbone to backbone."""
    store = Store(tmp_path_factory.mktemp("bones"))
    study = backbone_matrix(learned(), BONES)
    return SimpleNamespace(store=store, study=study, found=run_transfer(study, store, HERE))


# -- from task to task -----------------------------------------------------------------------


def test_the_keys_of_transfers_without_a_graph_stay():
    fields = {"finder": IMP(rate=0.3), "sparsity": 0.5, "seeds": SEEDS, "prune_last": False}
    sources = ("digits", "parity", "one-shot", "random")
    with parity.registered():
        found, _ = transfer_matrix(
            toys.tiny_recipe(**fields), sources, ("digits", "large"), "mask+state"
        )
        keys = "".join(job.key for job in found.jobs)
    assert transfer_id(found) == "transfer-of-lenet-300-100x0.1-f5c17484"
    assert len(found.jobs) == 64
    assert hashlib.sha256(keys.encode()).hexdigest()[:16] == "29117fec04f16b4b"


def test_a_cell_has_the_sources_weights_and_the_targets_edges(tasks):
    assert tasks.found.outcome.failed == {}
    assert tasks.matrix.footing.notes == ()  # one theta_0, though one head has 4 rows, one 64
    for (source, target), seed in itertools.product(itertools.permutations(TASKS), SEEDS):
        ours = masks_at(tasks.store, cell(tasks.matrix, source, target, seed).masks)
        tickets = [tasks.matrix.tickets[task, seed].level.masks for task in (source, target)]
        theirs, own = (masks_at(tasks.store, job) for job in tickets)
        assert ours.weights == theirs.weights.without(HEAD)
        assert ours.data == own.data
        assert ours.data != theirs.data


def test_the_state_that_comes_along_leaves_the_head(tasks):
    start = cell(tasks.matrix, "links/karate", "links/karate").goal.inputs["start"]
    own, source, came = (
        read_state(tasks.store.entry(job)).state
        for job in (
            start,
            tasks.matrix.tickets["karate", 0].goal,
            cell(tasks.matrix, "karate", "links/karate").goal.inputs["start"],
        )
    )
    assert own[HEAD].shape == (64, 4)
    for name, tensor in came.items():
        assert tensor.equal(own[name] if name.startswith("convs.1") else source[name])


def test_rows_that_search_nothing_have_the_targets_edges_too(tasks):
    for task in TASKS:
        own = masks_at(tasks.store, tasks.matrix.tickets[task, 0].level.masks)
        one_shot, random = (
            masks_at(tasks.store, cell(tasks.matrix, name, task).masks) for name in FREE
        )
        assert one_shot.data == random.data == own.data
        assert one_shot.kept == own.kept
        assert random.counts == own.counts
        assert random.weights != own.weights
        start = read_state(tasks.store.entry(tasks.matrix.tickets[task, 0].level.start)).state
        kept = torch.cat([m.flatten() for m in one_shot.weights.values()])
        size = torch.cat([start[n].abs().flatten() for n in one_shot.weights])
        assert size[kept].min() >= size[~kept].max()


def test_weights_and_edges_are_counted_apart(tasks):
    results = tasks.found.results
    assert {c.kept for c in results.cells} == {34 * 4 / 2}
    for task, count in zip(TASKS, (55, 48), strict=True):  # of 78, and of 68 to train on
        assert {c.kept_edges for c in results.cells if c.target == task} == {count}
    assert results.notes == ()
    pairs = [*itertools.combinations((*TASKS, "one-shot"), 2)]
    assert [(o.a, o.b) for o in results.overlaps] == pairs
    assert {tuple(o.layers) for o in results.overlaps} == {("convs.0.lin.weight",)}
    again = TransferResults.from_json(json.loads(json.dumps(results.to_json())))
    assert (again.cells, again.overlaps) == (results.cells, results.overlaps)


def test_a_pruned_head_is_said(tmp_path):
    one = recipe(prune_last=True, seeds=(0,))
    matrix, _ = transfer_matrix(one, ["karate"], ["links/karate"])
    (note,) = run_transfer(matrix, Store(tmp_path), HERE).results.notes
    assert "do not remove equally many weights" in note


@pytest.fixture
def folder(tmp_path):
    """Three graphs of one's own: two with the same features, one with more."""
    for seed, (name, features, classes) in enumerate((("a", 5, 3), ("b", 5, 4), ("c", 7, 3))):
        arrays = tiny_graphs.saved_arrays(classes=classes, seed=seed)
        arrays["x"] = np.random.default_rng(seed).normal(size=(60, features)).astype(np.float32)
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "data.npz", **arrays)
    return tmp_path


def test_from_graph_to_graph_of_the_same_features(folder):
    one = recipe(seeds=(0,))
    matrix, _ = transfer_matrix(one, ["pyg/a"], ["pyg/b"], data=folder)
    store = Store(folder / "store")
    found = run_transfer(matrix, store, replace(HERE, data=folder))
    assert found.outcome.failed == {}
    counts = [t.counts for t in (masks_at(store, c.masks).data for c in matrix.cells)]
    assert counts[0] == counts[1]
    said = r"masks of pyg/a do not fit gcn-4 on pyg/c: .*a node has 5 features there, 7 here"
    with pytest.raises(BadInput, match=said):
        transfer_matrix(one, ["pyg/a"], ["pyg/c"], data=folder)


# -- from backbone to backbone: the jobs -----------------------------------------------------


def test_each_backbone_is_searched_once(bones):
    kinds = Counter((j.kind, j.config["model"]) for j in bones.study.jobs)
    for name in BONES:
        assert kinds["gates", name] == LEVELS * len(SEEDS)
        assert kinds["prune", name] == 2 * len(SEEDS)  # the edges by degree, and at random
        assert kinds["control", name] == 3 * len(SEEDS)
        # dense, and on the edges of two backbones, by degree and at random
        assert kinds["train", name] == (1 + 4) * len(SEEDS)
    assert {kind for kind, _ in kinds} == {"init", "train", "gates", "prune", "control"}


def test_another_backbone_costs_one_search_and_its_cells(bones):
    small = {job.key for job in bones.study.jobs}
    large = backbone_matrix(learned(), ("sage-4", *BONES)).jobs
    assert small < {job.key for job in large}
    new = Counter((j.kind, j.config["model"]) for j in large if j.key not in small)
    assert {name for _, name in new} == {"sage-4", *BONES}
    assert all(new[kind, name] == 0 for kind in ("gates", "prune", "control") for name in BONES)
    assert new["train", "gcn-4"] == len(SEEDS)


def test_dense_and_own_edges_are_those_of_find(bones):
    asked = [learned(model=name, controls=("graph-only",), controls_at="last") for name in BONES]
    keys = {job.key for job in bones.study.goals}
    for one in run_recipes(asked, bones.store, HERE):
        arms = {arm.name: arm for arm in one.experiment.arms if arm.seed == 0}
        assert {arms[name].goal.key for name in (DENSE, "graph-only")} <= keys
        name = one.experiment.recipe.model
        values = one.results.values("graph-only", LEVELS)
        assert bones.found.results.cell(name, name).values == values
        (target,) = [t for t in bones.found.results.targets if t.name == name]
        assert target.dense.values == one.results.values(DENSE, 0)


def test_cells_of_a_backbone_and_seed_have_one_start_and_one_training(bones):
    for target, seed in itertools.product(BONES, SEEDS):
        goals = [c.goal for c in bones.study.cells if (c.target, c.seed) == (target, seed)]
        assert len(goals) == 4
        assert len({g.inputs["start"].key for g in goals}) == 1
        assert len({json.dumps(g.config, sort_keys=True) for g in goals}) == 1
        assert len({g.inputs["masks"].key for g in goals}) == 4


def test_masks_of_cells_have_edges_alone(bones):
    assert bones.found.outcome.failed == {}
    shape = cached_task("karate", None, "gcn-4").graph()
    for one in bones.study.cells:
        ours = masks_at(bones.store, one.masks)
        if one.source in BONES:
            whole = masks_at(bones.store, bones.study.tickets[one.source, one.seed].level.masks)
            assert len(whole.weights) > 0
            assert ours == whole.data
        else:
            rng = generator(one.seed, "prune", "edges", one.source)
            assert ours == selected(shape, EDGES, one.source, "7/10", rng)
        assert ours.counts == {EDGES: (55, 78)}


def test_results_have_edges_and_overlap(bones):
    results = bones.found.results
    assert (results.sources, results.carry) == ((*BONES, "degree", "random"), "edges")
    assert [(t.name, t.headline, t.margin) for t in results.targets] == [
        (name, "accuracy", 10.0) for name in BONES
    ]
    assert {(r.kept, r.prunable, r.edges) for c in results.cells for r in c.runs} == {
        (0, 0, (55, 78))
    }
    found = {(o.a, o.b): o for o in results.overlaps}
    assert list(found) == [*itertools.combinations(results.sources, 2)]
    pairs = [
        [masks_at(bones.store, cell(bones.study, s, "gcn-4", seed).masks) for s in BONES]
        for seed in SEEDS
    ]
    mean = sum(a.jaccard(b) for a, b in pairs) / len(pairs)
    assert found[BONES].whole == (pytest.approx(mean), pytest.approx(55 * 55 / 78 / 71.218, 1e-3))
    assert results.notes == ()


def test_judged_against_dense_and_own_edges(bones):
    judged = {(j.source, j.target): j for j in bones.found.judged}
    assert len(judged) == 8
    for (source, target), one in judged.items():
        values = bones.found.results.cell(source, target).values
        own = bones.found.results.cell(target, target).values
        if source == target:
            assert one.against_ticket is None
        else:
            gap = sum(values[s] - own[s] for s in SEEDS) / len(SEEDS)
            assert one.against_ticket.difference == pytest.approx(gap)
            assert one.p_differs is not None


def test_a_finder_that_reads_no_model_is_said_to(bones, tmp_path):
    study = backbone_matrix(recipe(seeds=(0,)), BONES)
    (note,) = study.footing.notes
    assert "every backbone's ticket has the same ones" in note
    assert not run([c.masks for c in study.cells], Store(tmp_path), HERE).failed
    masks = {s: masks_at(Store(tmp_path), cell(study, s, "gin-4").masks) for s in study.sources}
    assert masks["gcn-4"] == masks["gin-4"] == masks["degree"] != masks["random"]


# -- resuming, records, commands -------------------------------------------------------------


class Killed(BaseException):
    """What ends a process."""


class Killer(Watcher):
    """Ends the run in the third training of a cell that is begun."""

    def __init__(self):
        self.cells = 0

    def progress(self, job, done, total):
        self.cells += job.kind == "train" and job.config["keep"] == "metrics"
        if self.cells == 3:
            raise Killed


def test_killed_in_a_cell_it_ends_as_if_nothing_had_happened(bones, tmp_path):
    store = Store(tmp_path)
    with pytest.raises(Killed):
        run_transfer(bones.study, store, HERE, watcher=Killer())
    (record,) = recorded(store)
    assert record.state == "running"
    assert [j.key for j in record.jobs] == [j.key for j in bones.study.jobs]
    partly = collect_transfer(record.matrix, store)
    assert 0 < sum(len(c.runs) for c in partly.cells) < len(bones.study.cells)
    rest = run_transfer(record.matrix, store, HERE)
    assert 0 < rest.outcome.done < len(graph(bones.study.goals))
    assert (rest.results.cells, rest.judged) == (bones.found.results.cells, bones.found.judged)
    ours, theirs = tiny.files_of(tmp_path, *NAMES), tiny.files_of(bones.store.root, *NAMES)
    assert ours.items() <= theirs.items()


def test_a_record_reads_back_and_ids_tell_studies_apart(bones, tmp_path):
    ids = {
        transfer_id(backbone_matrix(replace(learned(), **fields), names))
        for fields, names in (
            ({}, BONES),
            ({"task": "links/karate"}, BONES),
            ({}, BONES[:1]),
            ({"graph_sparsity": 0.2}, BONES),
        )
    }
    assert len(ids) == 4
    assert transfer_id(bones.study) in ids
    assert transfer_id(backbone_matrix(learned(model="sage"), BONES)) in ids  # it is not used
    note_transfer(Store(tmp_path), bones.study, "running")
    (record,) = recorded(Store(tmp_path))
    assert record.matrix == bones.study


FLAGS = (
    *("gcn-digits-knn", "--task", "karate", "--sparsity", 0.5, "--graph-sparsity", 0.3),
    *("--training.iterations", 4, "--workers", 0, "--seeds", 0, 1),
)


def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTH_ZOO_STORE", "store")
    asked = ("transfer", *FLAGS, "--backbones", *BONES, "--finder", "ugs", "--finder.rate", 0.5)
    answer = tiny.cli(capsys, *asked, "--json")
    assert answer.code == 0, answer.err
    assert answer.json.keys() == {
        *("run", "store", "results", "judged", "skipped", "failed", "report")
    }
    assert answer.json["run"].startswith("gcn-digits-knn-backbones-")
    assert len(answer.json["judged"]) == 8
    again = tiny.cli(capsys, *asked)
    assert "0 jobs run in 0:00" in again.out
    for words in ("edges from", "own edges", "under each backbone on karate at 30 % graph"):
        assert words in again.out
    (row,) = tiny.cli(capsys, "status", answer.json["run"], "--json").json
    assert (row["state"], row["done"]) == ("done", row["jobs"])
    assert "--backbones gcn-4 gin-4" in row["resume"]
    assert tiny.cli(capsys, "report", answer.json["run"], "--out", "report").code == 0
    assert len({*(tmp_path / "report").glob("*.png")}) == 3
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for words in (
        "Transfer against the backbone's own edges",
        "| edges from | under | less dense |",
        "| gcn-4 | gin-4 | 2 |",
        "| backbone | metric |",
        "with every weight kept",
    ):
        assert words in text, words
    assert "same-task" not in text.replace("transfer-same-task.png", "")
    assert "mask from" not in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--backbones",), "no backbones; give models"),
        (("--backbones", "gcn-4", "--from", "karate"), "--from has no meaning here: --backbones"),
        (("--backbones", "gcn-4", "--carry", "mask"), "--carry has no meaning here: --backbones"),
        (("--backbones", "gcn-4", "--to", "karate"), "--to has no meaning here: --backbones"),
        (("--backbones", "gcn-4", "--model", "gcn"), "--model has no meaning here: --backbones"),
        (("--backbones", "gnc"), "unknown model 'gnc'; did you mean 'gin' or 'gcn'"),
        (("--backbones", "lenet-300-100"), "'lenet-300-100' does not read the graph of task"),
        (("--backbones", "gcn-4", "--finder", "imp"), "finder 'imp' prunes no edges"),
        (("--backbones", "gcn-4", "--graph-sparsity", 0), "graph_sparsity is 0"),
        (("--from", "karate"), "--task has no meaning here: give --from and --to"),
    ],
)
def test_bad_input_is_one_line_before_any_work(capsys, tmp_path, flags, said):
    answer = tiny.cli(capsys, "transfer", *FLAGS, *flags, "--store", tmp_path / "store")
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_bad_input_from_python():
    for given in ({"sources": ["karate"]}, {"targets": ["karate"]}, {"carry": "mask+state"}):
        with pytest.raises(BadInput, match="backbones have no sources, targets or carry"):
            lz.transfer(backbones=["gcn-4"], task="karate", **given)
    with pytest.raises(BadInput, match="no sources"):
        lz.transfer()
    with pytest.raises(BadInput, match="backbones are 'gcn-4'; give a list"):
        lz.transfer(backbones="gcn-4", task="karate")
    with pytest.raises(BadInput, match="bert-mini' does not read the graph of task 'karate'"):
        backbone_matrix(recipe(), ["bert-mini"])
    with pytest.raises(BadInput, match=r"'toys:custom' does not read the graph .* IndexError"):
        backbone_matrix(recipe(), ["toys:custom"])
    with pytest.raises(BadInput, match="the task has none"):
        backbone_matrix(recipe(task="digits"), ["gcn-4"])
    with pytest.raises(BadInput, match="must have one start"):
        backbone_matrix(recipe(finder=GraphEarlyBird()), ["gcn-4"])


def test_from_python(bones):
    plain = learned()
    found = lz.transfer(
        backbones=BONES,
        task="karate",
        sparsity=0.5,
        graph_sparsity=0.3,
        seeds=SEEDS,
        finder=plain.finder,
        training=plain.training,
        store=bones.store.root,
    )
    assert found.outcome.done == 0
    assert found.results.cells == bones.found.results.cells
