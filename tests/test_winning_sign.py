"""A winning sign: norms that fade, signs that are brought, and the rounds of the search."""

from __future__ import annotations

import pytest
import torch
from interrupted import check_ends_alike
from torch import nn
from toys import HERE, Blobs, mlp, same, tiny_recipe

from lth_zoo.carry import with_signs
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import AWS
from lth_zoo.formats import load_masks
from lth_zoo.jobs import graph
from lth_zoo.masks import Masks
from lth_zoo.norm_interpolation import faded, interpolated, norms_of
from lth_zoo.recipe import Training
from lth_zoo.rewind import clone_state
from lth_zoo.session import MASKS, RESULT, read_state
from lth_zoo.store import Store
from lth_zoo.train import Loop
from lth_zoo.trials.collect import cost

NORMED = "toys:custom"  # 64 - 12 - LayerNorm - 10


def normed():
    model = mlp(nn.BatchNorm1d(8), nn.ReLU(), nn.LayerNorm(8))
    with torch.no_grad():
        for name, _ in norms_of(model):
            model.get_parameter(name).copy_(torch.arange(8.0) / 4 - 1)
    return model


def batch():
    return Blobs().batch("train", torch.arange(8))


# -- norms ---------------------------------------------------------------------------------------


def test_a_quarter_of_the_way_by_hand():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2, affine=False))
    with torch.no_grad():
        model[1].weight.fill_(3.0)
        model[1].bias.fill_(2.0)
    found = faded(model, 0.25)
    assert {n: t.tolist() for n, t in found.items()} == {
        "1.weight": [2.5, 2.5],  # 1/4 x 1 + 3/4 x 3
        "1.bias": [1.5, 1.5],  # 3/4 x 2
    }


def test_a_loss_is_that_of_the_faded_norms_and_leaves_nothing_behind():
    model, task, rng = normed(), Blobs(), torch.Generator().manual_seed(4)
    share = torch.rand((), generator=torch.Generator().manual_seed(4)).item()
    other, (one,) = normed(), interpolated(task).objectives(model)
    with torch.no_grad():
        for name, neutral in norms_of(other):
            value = other.get_parameter(name)
            value.copy_(share * neutral + (1 - share) * value)
    loss = one.loss(model, batch(), rng)
    wanted = task.objectives(other)[0].loss(other, batch(), rng)
    assert loss.equal(wanted)
    loss.backward()
    wanted.backward()
    norms = dict(norms_of(model))
    for name, parameter in model.named_parameters():
        scale = 1 - share if name in norms else 1
        torch.testing.assert_close(parameter.grad, scale * other.get_parameter(name).grad)
    before = normed().state_dict()
    moved = {n for n, t in model.state_dict().items() if not t.equal(before[n])}
    assert moved == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(other.state_dict()[n].equal(model.state_dict()[n]) for n in moved)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_every_batch_has_its_own_share_and_evaluations_have_none():
    model, task = normed(), interpolated(Blobs())
    (one,) = task.objectives(model)
    model.eval()
    losses = {one.loss(model, batch(), torch.Generator().manual_seed(s)).item() for s in range(5)}
    assert len(losses) == 5
    assert task.evaluate(model, "validation") == Blobs().evaluate(model, "validation")


def test_a_model_without_norms_trains_as_ever():
    training, ends = Training(iterations=5, batch_size=8), []
    for task in (Blobs(), interpolated(Blobs())):
        loop = Loop(mlp(), task, training, seed=0)
        loop.run()
        ends.append(clone_state(loop.model))
    assert same(*ends)


def test_that_nothing_is_interpolated_is_said_once(capsys):
    for _ in range(2):
        experiment(tiny_recipe(finder=AWS(), model="lenet-300-100x0.11"))
    experiment(tiny_recipe(finder=AWS(), model=NORMED))
    experiment(tiny_recipe(finder=AWS(interpolate=False), model="lenet-300-100x0.12"))
    said = "lth-zoo: note: lenet-300-100x0.11 has no batch or layer norm, so nothing is "
    assert capsys.readouterr().err == f"{said}interpolated\n"


# -- signs ---------------------------------------------------------------------------------------


def test_signs_by_hand():
    start = {"w": torch.tensor([1.0, -2.0, 3.0, -4.0]), "other": torch.tensor([-1.0])}
    trained = {"w": torch.tensor([-0.1, 0.2, 0.3, 0.0]), "other": torch.tensor([1.0])}
    masks = Masks({"w": torch.tensor([True, False, True, True])})
    found = with_signs(start, trained, masks, "")
    assert found["w"].tolist() == [-1, -2, 3, -4]
    assert found["other"].tolist() == [-1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A search of two rounds in a network with a norm, and its store."""
    fields = {"training": {"iterations": 20, "learning_rate": 0.05}, "sparsity": 0.75}
    recipe = tiny_recipe(finder=AWS(rate=0.5), model=NORMED, prune_last=False, **fields)
    store, laid = Store(tmp_path_factory.mktemp("aws")), experiment(recipe)
    assert run(laid.goals, store, HERE).failed == {}
    return store, laid.tickets()[0].level


def state_of(store, job):
    return read_state(store.entry(job)).state


def test_a_new_draw_gets_the_signs_and_nothing_else(ran):
    store, level = ran
    found = state_of(store, level.start)
    drawn, trained = (state_of(store, level.start.inputs[role]) for role in ("start", "trained"))
    first = state_of(store, experiment_start(level))
    assert not same(drawn, first), "it is another draw than the search began from"
    (mask,) = load_masks(store.entry(level.masks).read(MASKS)).values()
    assert found.keys() == drawn.keys()
    assert all(found[n].abs().equal(drawn[n].abs()) for n in found)
    weight = found["1.weight"]
    assert weight[mask].sign().equal(trained["1.weight"][mask].sign())
    assert weight[~mask].equal(drawn["1.weight"][~mask])
    assert not weight.equal(drawn["1.weight"])
    for name in ("1.bias", "4.weight", "4.bias"):  # of the masked layer, and the output layer
        assert found[name].sign().equal(trained[name].sign())
    assert found["2.weight"].equal(torch.ones(12))
    assert not trained["2.weight"].equal(torch.ones(12))
    assert level.train.config["begin"] == 0


def experiment_start(level):
    """The initial state that a level's search began from."""
    (job,) = (j for j in graph([level.masks]) if j.kind == "init")
    return job


# -- rounds --------------------------------------------------------------------------------------


def trainings(level):
    """The trainings of a search, first to last."""
    return [job for job in graph([level.start]) if job.kind == "train"]


def test_rounds_train_on_at_a_constant_rate_from_the_weights_as_they_are(ran):
    _, level = ran
    rounds = trainings(level)
    assert [(j.config["begin"], j.config["end"]) for j in rounds] == [(0, 2), (2, 4), (4, 6)]
    assert all(j.config["norms"] == "interpolate" for j in rounds)
    assert [j.inputs["start"] for j in rounds[1:]] == rounds[:2]
    assert rounds[1].inputs["masks"].inputs["trained"] == rounds[0]
    assert level.start.inputs["trained"] == rounds[2]
    assert rounds[2].inputs["masks"] == level.masks
    training = {"schedule": "cosine", "warmup": 3, "result": "best", "iterations": 20}
    laid = experiment(tiny_recipe(finder=AWS(rate=0.5, each="3"), training=training, sparsity=0.75))
    level = laid.tickets()[0].level
    for job, end in zip(trainings(level), (2, 5, 8), strict=True):
        held = {k: job.config["training"].get(k) for k in ("schedule", "warmup", "iterations")}
        assert held == {"schedule": "constant", "warmup": 0, "iterations": end}
        assert job.config["fresh_optimizer"]
        assert "result" not in job.config["training"]
    assert level.train.config["training"]["schedule"] == "cosine"


def test_the_last_round_is_counted_though_only_its_signs_are_used(tmp_path):
    recipe = tiny_recipe(finder=AWS(rate=0.5, each="3"), sparsity=0.75)
    assert cost(experiment(recipe), Store(tmp_path))["search_dense_runs"] == (1 + 3 + 3) / 12


def test_what_may_be_left_out():
    plain = experiment(tiny_recipe(finder=AWS(rate=0.5, interpolate=False), sparsity=0.5))
    assert all("norms" not in job.config for job in plain.jobs)
    bare = experiment(tiny_recipe(finder=AWS(rate=0.5, signs=False), sparsity=0.5))
    start = bare.tickets()[0].level.start
    assert (start.kind, start.config["draw"]) == ("init", 1)
    every = experiment(tiny_recipe(finder=AWS(rate=0.5, tickets="all"), sparsity=0.75))
    last = experiment(tiny_recipe(finder=AWS(rate=0.5), sparsity=0.75))
    assert [arm.level.index for arm in every.arms] == [0, 1, 2]
    assert {job.key for job in last.jobs} < {job.key for job in every.jobs}


def test_controls_of_the_search_and_of_the_ticket(tmp_path):
    names = ("reinit", "shuffle", "inverted", "random-scores", "random-labels")
    recipe = tiny_recipe(finder=AWS(rate=0.5), model=NORMED, sparsity=0.5, controls=names)
    store, laid = Store(tmp_path), experiment(recipe)
    assert run(laid.goals, store, HERE).failed == {}
    losses = {
        arm.name: store.entry(arm.goal).json(RESULT)["metrics"]["test"]["loss"] for arm in laid.arms
    }
    assert len(set(losses.values())) == 7
    corrupted = [job for job in laid.jobs if job.config.get("labels") == "random"]
    assert [job.config["norms"] for job in corrupted] == ["interpolate"]


def test_interrupted_anywhere_a_round_ends_alike(ran, tmp_path, monkeypatch):
    whole, level = ran
    job = trainings(level)[1]
    check_ends_alike(job, whole, Store(tmp_path), {3}, monkeypatch)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AWS(rate=0), "finder.rate is 0; it must be between 0 and 1"),
        (lambda: tiny_recipe(finder=AWS(scope="layers")), "unknown finder.scope"),
        (lambda: experiment(tiny_recipe(finder=AWS(each="0"))), "finder.each is '0'"),
        (lambda: experiment(tiny_recipe(finder=AWS(warm_up="2/1"))), "finder.warm_up is '2/1'"),
        (
            lambda: experiment(
                tiny_recipe(finder=AWS(), model="bert-mini", task="pydocs/topic", max_length=16)
            ),
            "starts from a pre-trained one",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()
