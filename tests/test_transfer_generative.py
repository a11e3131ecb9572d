"""Tickets of decoders and generators brought from model to model, and from task to task."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import parity
import pytest
import tiny
import torch
from toys import HERE

import lth_zoo as lz
from lth_zoo import registry
from lth_zoo.api import run_recipes, run_transfer
from lth_zoo.carry import renamed, with_part
from lth_zoo.engines.local import Watcher, run
from lth_zoo.errors import BadInput
from lth_zoo.finders import IMP, GanIMP
from lth_zoo.formats import load_masks
from lth_zoo.given import judges_of
from lth_zoo.jobs import DENSE, TICKET, graph
from lth_zoo.protocols import adapter_of, task_of
from lth_zoo.recipe import Recipe, Training
from lth_zoo.rewind import Snapshot
from lth_zoo.runs import note_transfer, recorded, transfer_id
from lth_zoo.session import MASKS, cached_task, read_state
from lth_zoo.store import Store
from lth_zoo.tasks import generation, generation_looks
from lth_zoo.tasks.embedded import Digits
from lth_zoo.trials.cells import TransferResults
from lth_zoo.trials.collect_cells import collect_transfer
from lth_zoo.trials.makers import between_models
from lth_zoo.trials.transfer import transfer_matrix

MODELS = ("vae-8x0.1", "dcgan-8x0.1")
PART = {"vae-8x0.1": "decoder", "dcgan-8x0.1": "generator"}
HEADLINE = {"vae-8x0.1": "nelbo", "dcgan-8x0.1": "cfd"}
FREE = ("one-shot", "random")
SEEDS, LEVELS, STEP = (0, 1), 2, 2
NAMES = ("masks.safetensors", "state.safetensors", "result.json", "log.jsonl")


class Wide(Digits):
    """Digits of another size: 12x12, a frame of ink around them."""

    shape = (1, 12, 12)

    def read(self):
        pad = torch.nn.functional.pad
        parts = super().read().items()
        return {n: replace(p, pixels=pad(p.pixels, (2, 2, 2, 2), value=16)) for n, p in parts}


@pytest.fixture(scope="module", autouse=True)
def _cheap():
    """Looks of milliseconds, by one judge of a few steps; tasks beside digits."""
    with pytest.MonkeyPatch.context() as patch, parity.registered():
        patch.setattr(generation, "SMALL", (20, 64, 32))
        patch.setattr(generation, "JUDGES", 1)
        patch.setattr(generation_looks, "MOST", dict.fromkeys(generation_looks.MOST, 200))
        patch.setattr(generation_looks, "WEIGHTED", (20, 5))
        registry.register("tasks", "wide", Wide)
        judges_of.cache_clear()
        cached_task.cache_clear()
        yield
        registry.unregister("tasks", "wide")
    judges_of.cache_clear()
    cached_task.cache_clear()


def recipe(**fields):
    training = Training(iterations=4, batch_size=32, learning_rate=1e-3, evaluate_every=4)
    plain = {
        "model": "vae-8x0.1",
        "task": "generation/digits",
        "finder": IMP(rate=0.5, rewind=f"step={STEP}"),
        "training": training,
        "sparsity": 0.75,
        "seeds": SEEDS,
        "controls": (),
    }
    return Recipe(**plain | fields)


def masks_at(store, job):
    return load_masks(store.entry(job).read(MASKS))


def state_at(store, job):
    return read_state(store.entry(job)).state


def cell(found, source, target, seed=0):
    return next(c for c in found.cells if (c.source, c.target, c.seed) == (source, target, seed))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study of masks with their starts."""
    store = Store(tmp_path_factory.mktemp("makers"))
    study = between_models(recipe(), MODELS, "mask+start")
    return SimpleNamespace(store=store, study=study, found=run_transfer(study, store, HERE))


# -- the jobs --------------------------------------------------------------------------------


def test_each_model_is_searched_once(done):
    kinds = Counter((j.kind, j.config["model"]) for j in done.study.jobs)
    assert kinds["train", "judge"] == 1
    for name in MODELS:
        assert kinds["prune", name] == LEVELS * len(SEEDS)
        assert kinds["carry", name] == len(SEEDS)
        assert kinds["control", name] == 2 * len(SEEDS)
        # to the rewind point, dense, each level, and three other sources
        assert kinds["train", name] == (1 + 1 + LEVELS + 3) * len(SEEDS)


def test_masks_alone_differ_in_the_cells_that_are_brought(done):
    alone = between_models(recipe(), MODELS)
    (note,) = alone.footing.notes
    assert "not drawn to the same theta_0: vae-8x0.1; dcgan-8x0.1" in note
    assert done.study.footing.notes == ()
    new = {j.key for j in alone.goals} - {j.key for j in done.study.goals}
    brought = [c for c in alone.cells if c.source in MODELS and c.source != c.target]
    assert new == {c.goal.key for c in brought}
    for target, seed in itertools.product(MODELS, SEEDS):
        goals = [c.goal for c in alone.cells if (c.target, c.seed) == (target, seed)]
        assert len(goals) == 4
        assert len({g.inputs["start"].key for g in goals}) == 1
        assert len({g.inputs["masks"].key for g in goals}) == 4
        others = [{k: v for k, v in g.config.items() if k != "keep"} for g in goals]
        assert all(config == others[0] for config in others)


def test_dense_own_ticket_and_random_are_those_of_find(done):
    asked = [
        recipe(model=name, only=(part,), controls=("one-shot", "random-layer"), controls_at="last")
        for name, part in PART.items()
    ]
    keys = {job.key for job in done.study.goals}
    for one in run_recipes(asked, done.store, HERE):
        assert one.outcome.done == 0
        arms = {(a.name, a.level.index): a.goal.key for a in one.experiment.arms if a.seed == 0}
        ours = [(DENSE, 0), *((name, LEVELS) for name in (TICKET, "one-shot", "random-layer"))]
        assert {arms[arm] for arm in ours} <= keys
        name = one.experiment.recipe.model
        results = done.found.results
        assert results.cell(name, name).values == one.results.values(TICKET, LEVELS)
        assert results.cell("random", name).values == one.results.values("random-layer", LEVELS)


def test_a_recipe_of_either_part_is_the_same_study(done):
    for only, exclude in ((("decoder",), ("generator.project",)), ((), ("decoder.project",))):
        found = between_models(recipe(only=only, exclude=exclude), MODELS)
        assert {found.recipe_of(name).only for name in MODELS} == {(p,) for p in PART.values()}
        assert "project.weight" not in found.footing.roles
    assert between_models(recipe(only=("generator",)), MODELS, "mask+start") == done.study


# -- what comes along ------------------------------------------------------------------------


def test_masks_are_those_of_the_source_under_the_targets_names(done):
    assert done.found.outcome.failed == {}
    for (source, target), seed in itertools.product(itertools.permutations(MODELS), SEEDS):
        ours = masks_at(done.store, cell(done.study, source, target, seed).masks)
        theirs = masks_at(done.store, done.study.tickets[source, seed].level.masks)
        own = masks_at(done.store, done.study.tickets[target, seed].level.masks)
        assert ours.size == own.size
        assert {n.partition(".")[0] for n in ours} == {PART[target]}
        assert dict(ours.items()).keys() == renamed(theirs, PART[source], PART[target]).keys()
        for name, mask in renamed(theirs, PART[source], PART[target]).items():
            assert ours[name].equal(mask)
        assert ours.digest() != own.digest()


def test_the_start_that_comes_along_is_the_sources_part_and_nothing_else(done):
    for source, target in itertools.permutations(MODELS):
        own = read_state(done.store.entry(done.study.tickets[target, 0].level.start))
        theirs = state_at(done.store, done.study.tickets[source, 0].level.start)
        came = read_state(done.store.entry(cell(done.study, source, target).goal.inputs["start"]))
        part = renamed(theirs, PART[source], PART[target])
        assert len(part) > 3
        assert any("running_var" in name for name in part)
        for name, tensor in came.state.items():
            assert tensor.equal(part[name] if name in part else own.state[name])
        assert came.iteration == STEP
        # The other network goes on from step K; this one has no past in this model.
        kept = {name for name in own.optimizer if f":{PART[target]}." not in name}
        assert set(came.optimizer) == kept
        assert kept
        weight = next(n for n in part if n.endswith("project.weight"))
        assert not part[weight].equal(own.state[weight])


def test_rows_that_search_nothing_are_the_targets(done):
    for target in MODELS:
        own = masks_at(done.store, done.study.tickets[target, 0].level.masks)
        one_shot, random = (
            masks_at(done.store, cell(done.study, name, target).masks) for name in FREE
        )
        assert random.counts == own.counts
        assert random != own
        assert one_shot.kept == own.kept
        start = state_at(done.store, done.study.tickets[target, 0].level.start)
        kept = torch.cat([m.flatten() for m in one_shot.values()])
        size = torch.cat([start[n].abs().flatten() for n in one_shot])
        assert size[kept].min() >= size[~kept].max()
        for name in FREE:
            goal = cell(done.study, name, target).goal
            assert goal.inputs["start"] == done.study.tickets[target, 0].level.start


def test_a_part_replaces_tensors_and_their_past():
    start = Snapshot(
        {"a.w": torch.zeros(2), "b.w": torch.zeros(2)},
        3,
        {"x:a.w/step": torch.ones(1), "y:b.w/step": torch.ones(1)},
        {"a.w": torch.ones(2), "b.w": torch.ones(2)},
    )
    found = with_part(start, {"a.w": torch.full((2,), 5.0)})
    assert found.state["a.w"].tolist() == [5, 5]
    assert found.state["b.w"].tolist() == [0, 0]
    assert (found.optimizer.keys(), found.average.keys()) == ({"y:b.w/step"}, {"b.w"})
    assert found.iteration == 3
    with pytest.raises(BadInput, match=r"a\.w is \(3,\) in the source, \(2,\) here"):
        with_part(start, {"a.w": torch.zeros(3)})
    with pytest.raises(BadInput, match=r"c is \(3,\) in the source, missing here"):
        with_part(start, {"c": torch.zeros(3)})


# -- what is measured ------------------------------------------------------------------------


def test_targets_have_their_own_metric_and_margin(done):
    results = done.found.results
    assert (results.sources, results.carry, results.axis) == (
        (*MODELS, *FREE),
        "mask+start",
        "model",
    )
    for target in results.targets:
        assert (target.headline, target.higher_is_better) == (HEADLINE[target.name], False)
        dense = list(target.dense.values.values())
        assert target.margin == pytest.approx(target.margin_share * sum(dense) / len(dense))
    counts = {(r.kept, r.prunable) for c in results.cells for r in c.runs}
    ((kept, prunable),) = counts
    model = adapter_of(MODELS[0]).build(MODELS[0], task_of("generation/digits").signature)
    assert prunable == sum(p.numel() for n, p in model.decoder.named_parameters() if p.dim() > 1)
    assert kept == round(prunable / 4)
    assert results.notes == ()


def test_overlap_is_of_the_shared_network(done):
    found = {(o.a, o.b): o for o in done.found.results.overlaps}
    assert list(found) == [*itertools.combinations((*MODELS, "one-shot"), 2)]
    pairs = []
    for seed in SEEDS:
        a, b = (masks_at(done.store, done.study.tickets[n, seed].level.masks) for n in MODELS)
        pairs.append(type(a)(renamed(a, "decoder", "generator")).jaccard(b))
    assert found[MODELS].whole[0] == pytest.approx(sum(pairs) / 2)
    assert "stages.0.conv.weight" in found[MODELS].layers


def test_results_survive_json_and_are_judged(done):
    results = done.found.results
    again = TransferResults.from_json(json.loads(json.dumps(results.to_json())))
    assert replace(again, recipe=results.recipe) == results
    judged = {(j.source, j.target): j for j in done.found.judged}
    assert len(judged) == 8
    for (source, target), one in judged.items():
        assert not one.higher_is_better
        if source == target:
            assert one.against_ticket is None
        else:
            ours, own = (results.cell(s, target).values for s in (source, target))
            gap = sum(ours[s] - own[s] for s in SEEDS) / len(SEEDS)
            assert one.against_ticket.difference == pytest.approx(gap)


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


def test_killed_in_a_cell_it_ends_as_if_nothing_had_happened(done, tmp_path):
    store = Store(tmp_path)
    with pytest.raises(Killed):
        run_transfer(done.study, store, HERE, watcher=Killer())
    (record,) = recorded(store)
    assert (record.state, record.matrix) == ("running", done.study)
    assert [j.key for j in record.jobs] == [j.key for j in done.study.jobs]
    partly = collect_transfer(record.matrix, store)
    assert 0 < sum(len(c.runs) for c in partly.cells) < len(done.study.cells)
    rest = run_transfer(record.matrix, store, HERE)
    assert 0 < rest.outcome.done < len(graph(done.study.goals))
    assert (rest.results.cells, rest.judged) == (done.found.results.cells, done.found.judged)
    ours, theirs = tiny.files_of(tmp_path, *NAMES), tiny.files_of(done.store.root, *NAMES)
    assert ours.items() <= theirs.items()


def test_ids_tell_studies_apart(done, tmp_path):
    ids = {
        transfer_id(between_models(recipe(**fields), MODELS, carry))
        for fields, carry in (
            ({}, "mask"),
            ({}, "mask+start"),
            ({"model": "dcgan"}, "mask"),  # it is not used
            ({"sparsity": 0.5}, "mask"),
            ({"task": "generation/parity"}, "mask"),
        )
    }
    assert len(ids) == 4
    assert transfer_id(done.study) in ids
    note_transfer(Store(tmp_path), done.study, "done")
    assert recorded(Store(tmp_path))[0].matrix.axis == "model"


FLAGS = (
    *("--task", "generation/digits", "--sparsity", 0.5, "--finder.rate", 0.5, "--workers", 0),
    *("--training.iterations", 4, "--training.evaluate-every", 4, "--seeds", 0, 1),
)


def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTH_ZOO_STORE", "store")
    asked = ("transfer", *FLAGS, "--backbones", *MODELS, "--carry", "mask+start")
    answer = tiny.cli(capsys, *asked, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["run"].startswith("models-on-generation-digits-")
    assert len(answer.json["judged"]) == 8
    again = tiny.cli(capsys, *asked)
    assert "0 jobs run in 0:00" in again.out
    for words in ("mask from", "nelbo", "cfd", "own ticket", "in each model on generation/digits"):
        assert words in again.out
    masks = tiny.cli(capsys, *asked[:-2])
    assert "lth-zoo: note: The network that makes images is not drawn" in masks.err
    assert "8 jobs run" in masks.out  # a carry and a training, of two cells and two seeds
    (row,) = tiny.cli(capsys, "status", answer.json["run"], "--json").json
    assert (row["state"], row["done"]) == ("done", row["jobs"])
    assert "--carry mask+start" in row["resume"]
    assert tiny.cli(capsys, "report", answer.json["run"], "--out", "report").code == 0
    assert len({*(tmp_path / "report").glob("*.png")}) == 3
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for words in (
        "Transfer against the model's own ticket",
        "| mask from | in | less dense |",
        "| model | metric |",
        "each model's on the start it was found from",
        "| random | dcgan-8x0.1 |",
    ):
        assert words in text, words
    assert "same-task" not in text.replace("transfer-same-task.png", "")
    assert "Chen et al. 2020" not in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("vae-8x0.1",), "models are ['vae-8x0.1']; give at least two"),
        (
            ("vae-8x0.1", "dcgan-16x0.1"),
            "fit dcgan-16x0.1: latent 8 in the ticket, 16 in the model",
        ),
        (("vae-8x0.1", "resnet-gan-8x0.1"), "a ticket of vae-8x0.1 does not fit resnet-gan-8x0.1"),
        (("vae-8x0.1", "lenet-300-100"), "'lenet-300-100' makes none: choose one of the family"),
        (("vae-8x0.1", "dcgn"), "unknown model 'dcgn'; did you mean 'dcgan'"),
        ((*MODELS, "--carry", "mask+state"), "unknown carry between models 'mask+state'"),
        ((*MODELS, "--only", "encoder"), "only is 'encoder'; from model to model go tickets of"),
        ((*MODELS, "--no-prune-last"), "the search would prune stages.1.conv.weight of dcgan"),
        ((*MODELS, "--sparsity", 0), "sparsity is 0: there is no ticket"),
        ((*MODELS, "--finder.rewind", "none"), "the cells of a target must have one start"),
        ((*MODELS, "--from", "generation/digits"), "--from has no meaning here: --backbones"),
    ],
)
def test_bad_input_is_one_line_before_any_work(capsys, tmp_path, flags, said):
    asked = (*FLAGS, "--backbones", *flags, "--store", tmp_path / "store")
    answer = tiny.cli(capsys, "transfer", *asked)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_bad_input_from_python():
    with pytest.raises(BadInput, match="'gan-imp' is for models with a generator"):
        between_models(recipe(finder=GanIMP()), MODELS)
    with pytest.raises(BadInput, match=r"carry 'mask\+start' is between models"):
        transfer_matrix(recipe(), ["generation/digits", "generation/parity"], carry="mask+start")
    with pytest.raises(BadInput, match="backbones have no sources, targets or carry"):
        lz.transfer(backbones=MODELS, task="generation/digits", sources=["digits"])


def own_gan(signature):
    """A model of one's own: a GAN whose generator is DCGAN's."""
    return adapter_of("dcgan-8x0.1").build("dcgan-8x0.1", signature)


def test_models_of_ones_own_take_part(done, tmp_path):
    mine = "test_transfer_generative:own_gan"
    study = between_models(recipe(seeds=(0,)), ("vae-8x0.1", mine), "mask+start")
    assert study.footing.parts == {"vae-8x0.1": "decoder", mine: "generator"}
    one = cell(study, "vae-8x0.1", mine)
    assert not run([one.masks], done.store, HERE).failed
    assert set(masks_at(done.store, one.masks)) == {f"generator.{n}" for n in study.footing.roles}


def test_from_python(done):
    plain = recipe()
    found = lz.transfer(
        backbones=MODELS,
        task="generation/digits",
        carry="mask+start",
        sparsity=0.75,
        seeds=SEEDS,
        finder=plain.finder,
        training=plain.training,
        store=done.store.root,
    )
    assert found.outcome.done == 0
    assert found.results.cells == done.found.results.cells


# -- from task to task -----------------------------------------------------------------------

TASKS = ("generation/digits", "generation/parity")


def test_from_data_set_to_data_set(tmp_path):
    one = recipe(model="dcgan-8x0.1", finder=IMP(rate=0.75), seeds=(0,))
    matrix, _ = transfer_matrix(one, (*TASKS, *FREE), TASKS, "mask+state")
    store = Store(tmp_path)
    found = run_transfer(matrix, store, HERE)
    assert found.outcome.failed == {}
    assert found.results.notes == ()  # one theta_0, and whole tickets: no head is left out
    judges = {j.config["task"] for j in matrix.jobs if j.config["model"] == "judge"}
    assert judges == {"digits", "parity"}
    for source, target in itertools.permutations(TASKS):
        goal = cell(matrix, source, target).goal
        assert goal.inputs["judge-0"].config["task"] == target.removeprefix("generation/")
        masks = masks_at(store, goal.inputs["masks"])
        assert masks == masks_at(store, matrix.tickets[source, 0].level.masks)
        assert {n.partition(".")[0] for n in masks} == {"generator", "discriminator"}
        trained = state_at(store, matrix.tickets[source, 0].goal)
        came = state_at(store, goal.inputs["start"])
        assert all(came[name].equal(trained[name]) for name in trained)
    for target in found.results.targets:
        assert (target.headline, target.higher_is_better) == ("cfd", False)
        (value,) = target.dense.values.values()
        assert target.margin == pytest.approx(target.margin_share * value)


def test_images_of_another_size_are_refused_before_any_work(capsys, tmp_path):
    asked = ("--model", "dcgan-8x0.1", *FLAGS[2:], "--store", tmp_path / "store")
    tasks = ("--from", "generation/digits", "generation/parity", "--to", "generation/wide")
    answer = tiny.cli(capsys, "transfer", *asked, *tasks, "generation/parity")
    assert answer.code == 2
    assert "masks of generation/digits do not fit dcgan-8x0.1 on generation/wide" in answer.err
    assert "an image is 1x8x8 there, 1x12x12 here" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "store").exists()
