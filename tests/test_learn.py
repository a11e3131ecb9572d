"""Searches that learn their mask: exact, resumable, and on weights that stay where they were."""

from __future__ import annotations

import pytest
from cases import Game
from interrupted import check_ends_alike
from loops import TASK
from torch import nn
from toys import HERE, mlp, same, tiny_recipe

from lth_zoo import registry
from lth_zoo.chain import Chain
from lth_zoo.coverage import pools_of
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import MaskTraining, Movement
from lth_zoo.formats import load_masks
from lth_zoo.protocols import adapter_of, default_prunable
from lth_zoo.recipe import Recipe
from lth_zoo.relax import start_scores
from lth_zoo.searches.learn import one_loss, scored
from lth_zoo.seeds import generator, seeded
from lth_zoo.select import select
from lth_zoo.session import LOG, MASKS, RESULT, read_state
from lth_zoo.store import Store
from lth_zoo.tasks.embedded import Digits

SEARCHES = {
    "mask-training": MaskTraining(initial_density=0.8, learning_rate=0.01),
    "movement": Movement(),
    "soft": Movement(soft=True, score_learning_rate=0.3),
}


def done(recipe, folder):
    """Run a recipe; return the store and the job that learned its masks."""
    store, laid = Store(folder), experiment(recipe)
    assert run(laid.goals, store, HERE).failed == {}
    (search,) = (job for job in laid.jobs if job.kind == "learn" and "labels" not in job.config)
    return store, search


def masks_of(store, job):
    return load_masks(store.entry(job).read(MASKS))


def state_of(store, job):
    return read_state(store.entry(job)).state


def asked(search):
    """The start's prunable weights, and how many of them the search was to keep."""
    with seeded(0, "init"):
        model = adapter_of("lenet-300-100x0.1").build("lenet-300-100x0.1", Digits("d").signature)
    covered = default_prunable(model)
    pools = pools_of(search.config, model, covered)
    return {n: model.get_parameter(n).detach() for n in covered}, pools


def test_mask_training_leaves_every_weight_where_it_was(tmp_path):
    store, search = done(tiny_recipe(finder=SEARCHES["mask-training"]), tmp_path)
    start = search.inputs["start"]
    assert start.kind == "init"
    assert same(state_of(store, search), state_of(store, start))
    first = start_scores("magnitude", *asked(search), generator(0, "prune"))
    assert masks_of(store, search) != select(first, asked(search)[1])


def test_movement_trains_the_weights_too_and_they_can_be_kept(tmp_path):
    recipe = tiny_recipe(finder=Movement(rewind="none=4"), sparsity=0.5)
    store, search = done(recipe, tmp_path)
    moved, start = state_of(store, search), state_of(store, search.inputs["start"])
    assert moved.keys() == start.keys()
    assert not any(moved[n].equal(start[n]) for n in start)
    level = experiment(recipe).tickets()[0].level
    assert level.start == level.masks == search
    assert level.train.config["begin"] == 12
    assert level.train.config["end"] == 16


@pytest.mark.parametrize("name", SEARCHES)
def test_what_a_search_says(name, tmp_path):
    store, search = done(tiny_recipe(finder=SEARCHES[name], sparsity=0.7), tmp_path)
    entry = store.entry(search)
    said, masks = entry.json(RESULT), masks_of(store, search)
    assert said["kept"] == masks.kept == 696
    assert said["prunable"] == masks.size == 2320
    assert {n: tuple(c) for n, c in said["masks"].items()} == masks.counts
    assert said["iterations"] == 12
    assert set(said["metrics"]) == {"validation"}
    assert (said["relaxed"] == 696) is (name != "soft")
    assert len(entry.read(LOG).splitlines()) == 2


def test_a_scope_shares_the_weights_out(tmp_path):
    finder = MaskTraining(scope="layer")
    store, search = done(tiny_recipe(finder=finder, sparsity=0.8), tmp_path)
    kept = {n: k for n, (k, _) in masks_of(store, search).counts.items()}
    assert kept == {"fc1.weight": 384, "fc2.weight": 60, "fc3.weight": 20}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("average", [None, 0.9])
def test_interrupted_anywhere_it_ends_with_the_same_masks(name, average, tmp_path, monkeypatch):
    recipe = tiny_recipe(finder=SEARCHES[name], training={"average": average})
    whole, search = done(recipe, tmp_path / "whole")
    check_ends_alike(search, whole, Store(tmp_path / "store"), {3, 7, 11}, monkeypatch)


@pytest.mark.parametrize("finder", [MaskTraining(), Movement()], ids=["mask-training", "movement"])
def test_a_learned_mask_beats_a_random_one_at_high_sparsity(finder, tmp_path):
    recipe = tiny_recipe(
        model="lenet-300-100x0.3",
        finder=finder,
        sparsity=0.93,
        controls=("random-layer",),
        training={"iterations": 150, "batch_size": 60, "evaluate_every": 150},
    )
    store, laid = Store(tmp_path), experiment(recipe)
    assert run(laid.goals, store, HERE).failed == {}
    accuracy = {
        arm.name: store.entry(arm.goal).json(RESULT)["metrics"]["validation"]["accuracy"]
        for arm in laid.arms
    }
    assert accuracy["ticket"] > accuracy["random-layer"] + 15
    (search,) = (job for job in laid.jobs if job.kind == "learn")
    found = store.entry(search).json(RESULT)["metrics"]["validation"]["accuracy"]
    assert found > 40, "frozen at their random start, ten classes: a chance of 10 %"


def test_a_head_that_no_mask_covers_is_trained_beside_the_scores(tmp_path):
    for head, changed in (("trained", {"fc3.weight", "fc3.bias"}), ("frozen", set())):
        recipe = tiny_recipe(finder=MaskTraining(head=head), prune_last=False)
        store, search = done(recipe, tmp_path / head)
        after, before = state_of(store, search), state_of(store, search.inputs["start"])
        assert {n for n in after if not after[n].equal(before[n])} == changed


class Tied(nn.Module):
    """A language model in small: the output matrix is the embedding."""

    def __init__(self):
        super().__init__()
        self.words, self.body = nn.Embedding(5, 4), nn.Linear(4, 4)
        self.out = nn.Linear(4, 5)
        self.out.weight = self.words.weight


def test_a_tied_output_matrix_is_the_starts_and_stays():
    recipe = tiny_recipe(finder=MaskTraining())
    (search,) = [lv.masks for lv in recipe.finder.search(Chain(recipe, 0, "data")) if lv.masks]
    covered = {"body.weight": default_prunable(Tied())["body.weight"]}
    head = frozenset({"out.weight", "out.bias"})
    for live, free in (("head", {"inner.out.bias"}), ("none", set())):
        model = scored({**search.config, "live": live}, Tied(), covered, head)
        learns = {n for n, p in model.named_parameters() if p.requires_grad}
        assert learns == {"scores.0"} | free


def test_a_penalty_makes_a_soft_mask_sparser(tmp_path):
    kept = {}
    for penalty in (0.0, 300.0):
        finder = Movement(soft=True, score_learning_rate=0.5, penalty=penalty)
        store, search = done(tiny_recipe(finder=finder), tmp_path)
        kept[penalty] = store.entry(search).json(RESULT)["relaxed"]
    assert kept[300.0] < kept[0.0] < 2320


def test_random_labels_corrupt_the_search_and_inverting_is_refused(tmp_path):
    recipe = tiny_recipe(finder=Movement(), controls=("random-labels",))
    store, search = done(recipe, tmp_path)
    (other,) = (j for j in experiment(recipe).jobs if j.kind == "learn" and j != search)
    assert other.config == {**search.config, "labels": "random"}
    assert masks_of(store, other).kept == masks_of(store, search).kept
    assert masks_of(store, other) != masks_of(store, search)
    with pytest.raises(BadInput, match="this finder has none"):
        experiment(tiny_recipe(finder=Movement(), controls=("inverted",)))


class Parity(Digits):
    """Digits, odd or even: another task, whose head has another shape."""

    classes = 2

    def read(self):
        parts = super().read()
        return {n: type(p)(p.pixels, p.labels % 2) for n, p in parts.items()}


@pytest.fixture
def parity():
    registry.register("tasks", "parity", Parity)
    yield "parity"
    registry.unregister("tasks", "parity")


def test_a_mask_is_learned_on_another_task_and_brought_here(parity, tmp_path):
    recipe = tiny_recipe(
        finder=MaskTraining(on=parity, learning_rate=0.02), prune_last=False, sparsity=0.5
    )
    store, search = done(recipe, tmp_path)
    assert search.config["task"] == parity
    level = experiment(recipe).tickets()[0].level
    assert level.masks.kind == "carry"
    assert level.train.config["task"] == "digits"
    assert masks_of(store, level.masks) == masks_of(store, search)
    assert masks_of(store, search).kept == 1110
    assert state_of(store, search)["fc3.weight"].shape[0] == 2
    here = experiment(Recipe.from_dict(recipe.to_dict() | {"finder": {"name": "mask-training"}}))
    assert masks_of(store, search) != masks_of(*done(here.recipe, tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskTraining(learning_rate=0), "learning_rate is 0; it must be above 0"),
        (lambda: MaskTraining(initial_density=1.5), "initial_density is 1.5"),
        (lambda: MaskTraining(iterations=0), "iterations is 0; it must be at least 1"),
        (lambda: MaskTraining(cool_down=2), "cool_down is 2; it must be between 0 and 1"),
        (lambda: MaskTraining(on="digit"), "unknown task 'digit'; did you mean 'digits'"),
        (lambda: MaskTraining(on="mnist", rewind="none"), "these are of another task"),
        (lambda: Movement(warm_up=0.6, cool_down=0.6), "more than the whole search"),
        (lambda: Movement(score_learning_rate=-1), "score_learning_rate is -1"),
        (lambda: Movement(threshold=0.0), "threshold is 0.0; it must be between 0 and 1"),
        (lambda: Movement(penalty=-1.0), "penalty is -1.0; it must be at least 0"),
        (lambda: tiny_recipe(finder=Movement(scope="layers")), "unknown finder.scope"),
        (
            lambda: experiment(tiny_recipe(finder=MaskTraining(initial_density=0.05))),
            "below the target density 0.1",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_a_task_of_several_losses_is_refused():
    one_loss(TASK, mlp())
    with pytest.raises(BadInput, match="task 'blobs' has judge, maker"):
        one_loss(Game(), mlp())


def test_the_key_of_a_search_holds_what_it_reads():
    def key(finder, **values):
        recipe = tiny_recipe(finder=finder, **values)
        (job,) = [lv.masks for lv in finder.search(Chain(recipe, 0, "data")) if lv.masks]
        return job.key

    plain = key(Movement())
    assert plain == key(Movement(threshold=0.3, penalty=1.0)) == key(Movement(rewind="none"))
    others = [
        key(Movement(soft=True)),
        key(Movement(warm_up=0.2)),
        key(Movement(), sparsity=0.8),
        key(Movement(iterations=13)),
        key(Movement(), training={"batch_size": 16}),
    ]
    assert len({plain, *others}) == 6
