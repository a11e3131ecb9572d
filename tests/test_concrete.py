"""Concrete ticket search: its equations by hand, its density, and what its masks are worth."""

from __future__ import annotations

import math

import pytest
import torch
from interrupted import check_ends_alike
from torch import nn
from toys import HERE, Blobs, mlp, same, tiny_recipe

from lth_zoo.allocate import Pool
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import CTS
from lth_zoo.formats import load_masks
from lth_zoo.protocols import adapter_of, default_prunable, task_of
from lth_zoo.recipe import Training
from lth_zoo.rewind import Snapshot, clone_state
from lth_zoo.searches.concrete import (
    Concrete,
    Frozen,
    GradBalance,
    compared,
    divergence,
    gate,
    norm,
)
from lth_zoo.seeds import seeded
from lth_zoo.session import MASKS, RESULT, read_state
from lth_zoo.store import Store
from lth_zoo.train import Loop

NAMES = ("0.weight", "2.weight")  # 8 x 6 and 3 x 8
INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))


def done(recipe, folder):
    """Run a recipe; return the store and the job that learned its masks."""
    store, laid = Store(folder), experiment(recipe)
    assert run(laid.goals, store, HERE).failed == {}
    (search,) = (j for j in laid.jobs if j.kind == "concrete" and "labels" not in j.config)
    return store, search


def masks_of(store, job):
    return load_masks(store.entry(job).read(MASKS))


def accuracies(store, laid, split="validation"):
    read = {arm.name: store.entry(arm.goal).json(RESULT)["metrics"][split] for arm in laid.arms}
    return {name: metrics["accuracy"] for name, metrics in read.items()}


# -- equations -----------------------------------------------------------------------------------


def test_a_gate_multiplies_the_odds():
    """Odds of a gate: exp(alpha) x (u / (1 - u)) ^ (1 / temperature); 4 ^ 1.5 = 8."""
    found = gate(
        torch.tensor([0.0, math.log(3), math.log(3)]), torch.tensor([0.8, 0.8, 0.5]), 2 / 3
    )
    assert found.tolist() == pytest.approx([8 / 9, 24 / 25, 3 / 4])
    ends = gate(torch.zeros(2, requires_grad=True), torch.tensor([0.0, 1 - 2**-24]), 2 / 3)
    assert ends.tolist() == pytest.approx([0, 1])
    ends.sum().backward()


def test_divergences_by_hand():
    """Sparse (1/2, 1/2), dense (1/4, 3/4): ln(4/3) / 2, and ln(27/16) / 4; and a row of 0."""
    sparse = torch.tensor([[0.0, 0.0], [2.0, 5.0]])
    dense = torch.tensor([[0.0, math.log(3)], [3.0, 6.0]])
    assert divergence("rkl", sparse, dense).item() == pytest.approx(math.log(4 / 3) / 4)
    assert divergence("fkl", sparse, dense).item() == pytest.approx(math.log(27 / 16) / 8)


def test_the_gradient_of_a_logit_is_that_of_its_gate():
    """dL/d alpha = dL/dW' x W x z (1 - z)."""
    alphas = {n: torch.randn(mlp().get_parameter(n).shape) for n in NAMES}
    model = Frozen(mlp(), alphas, Concrete([Pool(NAMES, 9)], 0.5))
    torch.manual_seed(1)
    model(INPUTS).square().sum().backward()
    torch.manual_seed(1)
    gates = {n: gate(alphas[n], torch.rand(alphas[n].shape), 0.5) for n in NAMES}
    plain = mlp()
    with torch.no_grad():
        for name in NAMES:
            plain.get_parameter(name).mul_(gates[name])
    plain(INPUTS).square().sum().backward()
    for name, score in model.by_name().items():
        slope = gates[name] * (1 - gates[name]) * mlp().get_parameter(name).detach()
        torch.testing.assert_close(score.grad, plain.get_parameter(name).grad * slope)
    assert all(p.grad is None for p in model.inner.parameters())


def pulled(balance, *gradient):
    """Two alphas of 0, S = 1, whose slopes are 1/4 over the target; return what they get."""
    alphas = [nn.Parameter(torch.zeros(1)) for _ in gradient]
    for alpha, slope in zip(alphas, gradient, strict=True):
        alpha.grad = torch.tensor([slope])
    balance.pull(alphas)
    return [alpha.grad.item() for alpha in alphas]


def test_the_pull_has_the_norm_of_the_gradient_and_is_averaged():
    """Target 1/2: slopes (1/2, 1/2) of norm 1/sqrt 2. (3, 4) has norm 5: strength 5 sqrt 2."""
    balance = GradBalance(1, 0.5, 0.99)
    assert pulled(balance, 3.0, 4.0) == pytest.approx([3 + 2.5 * 2**0.5, 4 + 2.5 * 2**0.5])
    assert balance.strength == pytest.approx(5 * 2**0.5)
    pulled(balance, 0.6, 0.8)
    assert balance.strength == pytest.approx((0.99 * 5 + 0.01) * 2**0.5)
    balance.slack = 1.1  # from here on S = 1 is below the target
    assert pulled(balance, 3.0, 4.0) > [3.0, 4.0]
    assert balance.strength == pytest.approx(0.99 * (0.99 * 5 + 0.01) * 2**0.5)
    assert balance.expected == {"min": 1.0, "max": 1.0, "end": 1.0}


def test_below_its_budget_it_does_not_pull():
    balance = GradBalance(1, 1.1, 0.99)
    assert pulled(balance, 3.0, 4.0) == [3.0, 4.0]
    assert balance.strength == 0


def test_a_norm_overflows_only_where_an_entry_does():
    assert norm([torch.tensor([3e30]), torch.tensor([-4e30])]) == pytest.approx(5e30)
    assert norm([torch.zeros(3)]) == norm([]) == 0


# -- in the loop ---------------------------------------------------------------------------------


class Answering(Blobs):
    """The blobs, saying what is answered; notes whether a batch was augmented."""

    def answers(self, model, batch, rng=None):
        return model(batch[0])


def test_the_inner_model_is_as_in_an_evaluation_and_stays_as_it_was():
    inner = mlp(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU())
    before = clone_state(inner)
    alphas = {"0.weight": torch.zeros(8, 6)}
    model = Frozen(inner, alphas, Concrete([Pool(("0.weight",), 24)], 2 / 3))
    task = Answering(noise=1.0)
    training = Training(iterations=4, batch_size=8, evaluate_every=2, learning_rate=0.1)
    Loop(model, compared(task, "rkl"), training, seed=0, hooks=[GradBalance(24, 1.1, 0.99)]).run()
    assert same(clone_state(inner), before)
    assert not model.scores[0].equal(alphas["0.weight"])
    assert task.seen == [], "no batch is augmented"
    assert isinstance(model.relaxation, Concrete), "looks at the exact count are over"


def test_looks_are_at_the_exact_count():
    rng = torch.Generator().manual_seed(0)
    inner, alphas = mlp(), {"0.weight": torch.randn(8, 6, generator=rng)}
    model = Frozen(inner, alphas, Concrete([Pool(("0.weight",), 24)], 2 / 3))
    found = compared(Answering(), "rkl").evaluate(model, "validation")
    with torch.no_grad():
        inner[0].weight.mul_(model.masks()["0.weight"])
    assert int(model.masks()["0.weight"].sum()) == 24
    assert found == Answering().evaluate(inner, "validation")


# -- as a finder ---------------------------------------------------------------------------------


def test_it_searches_the_rewind_point_and_trains_on_from_there(tmp_path):
    recipe = tiny_recipe(finder=CTS(rewind="25%"))
    store, search = done(recipe, tmp_path)
    level = experiment(recipe).tickets()[0].level
    assert level.start == search.inputs["start"]
    assert (level.start.kind, level.start.config["end"]) == ("train", 3)
    assert (level.train.config["begin"], level.train.config["end"]) == (3, 12)
    assert level.train.config["fresh_optimizer"] is False
    assert search.config["end"] == 6
    assert search.config["training"]["milestones"] == (5,)
    assert same(read_state(store.entry(search)).state, read_state(store.entry(level.start)).state)


def test_its_density_stays_near_the_one_asked_for_and_it_beats_its_shuffle(tmp_path):
    recipe = tiny_recipe(
        model="lenet-300-100",
        finder=CTS(length="100%"),
        sparsity=0.95,
        controls=("shuffle",),
        training={"iterations": 250, "batch_size": 60, "evaluate_every": 250},
    )
    store, search = done(recipe, tmp_path)
    said = store.entry(search).json(RESULT)
    assert 0.85 < said["expected"]["end"] < 1.15
    assert 0.5 < said["expected"]["min"] <= 1 <= said["expected"]["max"] < 1.5
    assert said["kept"] == masks_of(store, search).kept == round(0.05 * said["prunable"])
    assert 0 < said["relaxed"] != said["kept"]
    found = accuracies(store, experiment(recipe))
    assert found["ticket"] > found["shuffle"] + 4


@pytest.mark.parametrize("objective", ["rkl", "ce"])
def test_interrupted_anywhere_it_ends_with_the_same_masks(objective, tmp_path, monkeypatch):
    # A high start: the pull is at work from the first step on.
    finder = CTS(objective=objective, length="100%", slack=0.5)
    recipe = tiny_recipe(finder=finder)
    whole, search = done(recipe, tmp_path / "whole")
    check_ends_alike(search, whole, Store(tmp_path / "store"), {3, 7, 11}, monkeypatch)


def test_a_checkpoint_holds_the_strength():
    balance, snapshot = GradBalance(1, 0.5, 0.9), Snapshot({})
    pulled(balance, 3.0, 4.0)
    balance.on_snapshot(None, snapshot)
    other = GradBalance(1, 0.5, 0.9)
    other.restore(snapshot)
    assert (other.strength, other.expected) == (balance.strength, balance.expected)
    assert snapshot.extra == {}


def test_random_labels_reach_the_loss_and_the_rewind_point(tmp_path):
    for finder in (CTS(objective="ce", rewind="init"), CTS(rewind="50%", length="100%")):
        recipe = tiny_recipe(finder=finder, controls=("random-labels",))
        store, search = done(recipe, tmp_path / finder.objective)
        jobs = experiment(recipe).jobs
        (other,) = (j for j in jobs if j.kind == "concrete" and j != search)
        assert masks_of(store, other) != masks_of(store, search)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "gcn-4", "task": "karate"},
        {"model": "resnet-20x0.25"},
    ],
    ids=lambda fields: fields["model"],
)
def test_it_searches_other_families(fields, tmp_path):
    size = {"batch_size": 16, "iterations": 4, "evaluate_every": 4}
    recipe = tiny_recipe(finder=CTS(rewind="50%"), sparsity=0.5, training=size, **fields)
    laid, store = experiment(recipe), Store(tmp_path)
    (search,) = (job for job in laid.jobs if job.kind == "concrete")
    assert run([search], store, HERE).failed == {}
    masks = masks_of(store, search)
    assert masks.kept == round(0.5 * masks.size)
    assert store.entry(search).json(RESULT)["expected"]["end"] != 1


@pytest.mark.parametrize("name", ["vae-4x0.1", "dcgan-4x0.1"])
def test_images_are_compared_by_squared_error(name):
    """Of a generator those of the same codes; a decoder's, of the mean of a posterior."""
    fields = {"model": name, "task": "generation/digits", "sparsity": 0.5}
    only = ("generator",) if name.startswith("dcgan") else ()
    assert experiment(tiny_recipe(finder=CTS(), only=only, **fields)).jobs
    task = task_of("generation/digits")
    with seeded(0, "init"):
        inner = adapter_of(name).build(name, task.signature)
    (first, *_, last) = [n for n in default_prunable(inner) if not n.startswith("discr")]
    alphas = {n: torch.full(inner.get_parameter(n).shape, 30.0) for n in (first, last)}
    model = Frozen(inner, alphas, Concrete([], 2 / 3)).train()
    (one,) = compared(task, "rkl").objectives(model)
    batch = task.batch("train", torch.arange(4))
    assert one.loss(model, batch, torch.Generator()).item() == 0, "every gate is open"
    with torch.no_grad():
        for score in model.scores:
            score.zero_()
    loss = one.loss(model, batch, torch.Generator())
    loss.backward()
    assert 0 < loss.item() < 1
    assert all(score.grad.any() for score in model.scores)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CTS(learning_rate=0), "learning_rate is 0; it must be above 0"),
        (lambda: CTS(temperature=-1), "temperature is -1; it must be above 0"),
        (lambda: CTS(slack=0), "slack is 0; it must be above 0"),
        (lambda: CTS(smoothing=1), "smoothing is 1; it must be at least 0, below 1"),
        (lambda: tiny_recipe(finder=CTS(objective="kl")), "did you mean '[rf]kl'"),
        (lambda: experiment(tiny_recipe(finder=CTS(length="two"))), "finder.length is 'two'"),
        (
            lambda: experiment(tiny_recipe(finder=CTS(), controls=("inverted",))),
            "this finder has none",
        ),
        (
            lambda: experiment(
                tiny_recipe(finder=CTS(), model="dcgan-4x0.1", task="generation/digits")
            ),
            "does not depend on 'discriminator.*prune the other parts alone",
        ),
        (
            lambda: experiment(
                tiny_recipe(
                    finder=CTS(objective="ce"), model="dcgan-4x0.1", task="generation/digits"
                )
            ),
            "one loss over the whole model",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_the_loss_of_a_task_is_what_ce_minimises():
    inner = mlp()
    model = Frozen(inner, {"0.weight": torch.zeros(8, 6)}, Concrete([Pool(("0.weight",), 9)], 1.0))
    (one,) = compared(Blobs(), "ce").objectives(model)
    batch, rng = Blobs().batch("train", torch.arange(8)), torch.Generator()
    torch.manual_seed(0)
    found = one.loss(model, batch, rng)
    torch.manual_seed(0)
    wanted = nn.functional.cross_entropy(model(batch[0]), batch[1])
    assert found.equal(wanted)
