"""The dense control of the ticket's size: named by a width, trained whole, shown with its own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import toy_units
from toys import HERE, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, MaskTraining, Movement, OneShot, Structured
from lth_zoo.jobs import DENSE, TICKET
from lth_zoo.protocols import Signature, adapter_of
from lth_zoo.report.costs import counts_table
from lth_zoo.report.samples import _lines
from lth_zoo.seeds import seeded
from lth_zoo.session import RESULT
from lth_zoo.store import Store
from lth_zoo.trials.collect import collect
from lth_zoo.trials.results import Results
from lth_zoo.trials.verdict import judge_levels
from lth_zoo.widths import parameters_of

GREY, COLOUR = Signature((1, 8, 8), 10), Signature((3, 32, 32), 10)
IMAGES = Signature((1, 8, 8), 64, "images")
FIELDS = {"finder": IMP(rate=0.5), "sparsity": 0.75, "controls": ("equal-size", "shuffle")}
MODEL = "lenet-300-100x0.1"


def built(name, signature):
    with seeded(0, "init"):
        return adapter_of(name).build(name, signature)


# -- names by size --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("lenet-300-100", GREY),
        ("lenet-300-100x0.5", GREY),
        ("resnet-20x2", COLOUR),
        ("dcgan", IMAGES),
        ("dcgan-8x0.5", IMAGES),
        ("sngan-16x0.1", IMAGES),
        ("vae", IMAGES),
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.07])
def test_the_widest_that_is_not_above(name, signature, share):
    asked = int(share * parameters_of(built(name, signature)))
    adapter = adapter_of(name)
    found = adapter.sized(name, signature, asked)
    assert adapter.owns(found)
    assert parameters_of(built(found, signature)) <= asked
    if share == 1:
        assert found == name, "one name for one network"
        return
    whole, _, width = found.rpartition("x")
    assert name.startswith(whole)
    wider = f"{whole}x{float(width) + 0.01:.2f}".rstrip("0")
    assert parameters_of(built(wider, signature)) > asked


def test_parts_may_be_all_that_counts():
    whole = built("dcgan", IMAGES)
    makes = parameters_of(whole, ["generator"])
    assert makes == parameters_of(whole.generator) < parameters_of(whole)
    found = adapter_of("dcgan").sized("dcgan", IMAGES, makes // 2, ("generator",))
    assert 0.45 * makes < parameters_of(built(found, IMAGES).generator) <= makes // 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lenet-300-100", "so small: 'lenet-300-100x0.01' has 219 parameters, and 9 were asked"),
        ("toys:custom", "'toys:custom' comes in one width.* models of cnn and generative can"),
    ],
)
def test_what_is_in_no_width_is_refused(name, words):
    with pytest.raises(BadInput, match=words):
        adapter_of(name).sized(name, GREY, 9)


# -- as an arm ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def laid():
    return experiment(tiny_recipe(**FIELDS, seeds=(0, 1)))


@pytest.fixture(scope="module")
def store(laid, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("equal-size"))
    assert run(laid.goals, store, HERE).failed == {}
    return store


@pytest.fixture(scope="module")
def results(laid, store):
    return collect(laid, store)


def arms(laid, name):
    return [arm for arm in laid.arms if arm.name == name]


def test_it_is_dense_whole_and_paired(laid):
    dense = {arm.seed: arm.goal for arm in arms(laid, DENSE)}
    assert [arm.level.index for arm in arms(laid, "equal-size")] == [1, 2, 1, 2]
    for arm in arms(laid, "equal-size"):
        goal, whole = arm.goal, dense[arm.seed]
        assert arm.level.masks is None
        assert set(goal.inputs) == {"start"}
        start = goal.inputs["start"]
        assert start.kind == "init"
        assert start.config["model"] == goal.config["model"] != MODEL
        assert start.config["seed"] == goal.config["seed"] == arm.seed
        same = {"model": MODEL, "keep": "weights"}
        assert {**goal.config, **same} == whole.config, "trained as dense, on the same batches"


def test_it_has_as_many_parameters_as_the_ticket(laid, store, results):
    others = parameters_of(built(MODEL, GREY)) - 2320
    for arm in arms(laid, "equal-size"):
        kept = {1: 1160, 2: 580}[arm.level.index]
        own = store.entry(arm.goal).json(RESULT)["parameters"]
        assert own == parameters_of(built(arm.goal.config["model"], GREY))
        assert 0.6 * (kept + others) < own <= kept + others
        (found,) = (r for r in results.select("equal-size", arm.level.index) if r.seed == arm.seed)
        assert found.parameters == own
        assert found.layers == {}
        assert (found.kept, found.prunable) == (kept, 2320), "it stands where its ticket does"
        assert set(found.metrics) == {"validation", "test"}


def test_dense_still_keeps_everything(results):
    assert {(r.kept, r.prunable) for r in results.select(DENSE, 0)} == {(2320, 2320)}


def test_tables_show_its_own_size_and_verdicts_count_it(results):
    table = counts_table(results)
    place = table.columns.index("all of equal-size")
    sizes = {r.level: f"{r.parameters:,}" for r in results.runs if r.arm == "equal-size"}
    assert {int(row[0]): row[place] for row in table.rows} == sizes
    assert len(set(sizes.values())) == 2
    for level in judge_levels(results):
        assert [control.name for control in level.verdict.controls] == ["equal-size", "shuffle"]
    plain = counts_table(replace(results, runs=[r for r in results.runs if r.arm != "equal-size"]))
    assert "all of equal-size" not in plain.columns
    (narrow,) = (r for r in results.select("equal-size", 1) if r.seed == 0)
    assert _lines(results, narrow)[0] == f"dense, {narrow.parameters:,} parameters"
    assert _lines(results, results.select(TICKET, 1)[0])[0] == "sparsity 50.0 %"
    back = Results.from_json(json.loads(json.dumps(results.to_json())))
    assert counts_table(back) == table


def test_a_failed_ticket_leaves_it_a_place(laid, store):
    (lost,) = (a.goal for a in arms(laid, TICKET) if (a.seed, a.level.index) == (0, 2))
    place = store.folder(lost)
    hidden = place.rename(place.with_name("hidden"))
    try:
        found = collect(laid, store, {lost.key: "diverged: the loss is nan"})
    finally:
        hidden.rename(place)
    assert {r.kept for r in found.select("equal-size", 2)} == {580}


def test_what_only_covers_is_what_counts():
    recipe = tiny_recipe(finder=OneShot(), sparsity=0.5, controls=("equal-size",), only=("fc1",))
    (arm,) = arms(experiment(recipe), "equal-size")
    left = parameters_of(built(MODEL, GREY), ["fc1"]) - 960
    assert arm.goal.config["model"] == adapter_of(MODEL).sized(MODEL, GREY, left, ["fc1"])
    assert 0.9 * left < parameters_of(built(arm.goal.config["model"], GREY), ["fc1"]) <= left


@pytest.mark.parametrize(
    ("finder", "kept"),
    [(OneShot(scope="erk"), 232), (MaskTraining(), 232), (Movement(soft=True), 232)],
)
def test_any_finder_of_exact_counts_will_do(finder, kept):
    laid = experiment(tiny_recipe(finder=finder, sparsity=0.9, controls=("equal-size",)))
    (arm,) = arms(laid, "equal-size")
    others = parameters_of(built(MODEL, GREY)) - 2320
    assert parameters_of(built(arm.goal.config["model"], GREY)) <= kept + others


def test_sizes_that_a_search_decides_are_refused():
    recipe = {"model": toy_units.MODEL, "controls": ("equal-size",), "sparsity": 0.5}
    with (
        toy_units.registered(),
        pytest.raises(BadInput, match="'structured', as it is set"),
    ):
        experiment(tiny_recipe(finder=Structured(), **recipe))
    with pytest.raises(BadInput, match="'toys:custom' comes in one width"):
        experiment(tiny_recipe(model="toys:custom", finder=OneShot(), controls=("equal-size",)))
