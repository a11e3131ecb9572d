"""Disguised subnetworks: signs move, sizes never do."""

from __future__ import annotations

import pytest
import torch
from interrupted import check_ends_alike
from torch import nn
from toys import HERE, Blobs, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import PeekABoo
from lth_zoo.formats import load_masks
from lth_zoo.masks import Masks
from lth_zoo.recipe import Training
from lth_zoo.session import MASKS, read_state
from lth_zoo.signs import Signs, bop, prox
from lth_zoo.store import Store
from lth_zoo.train import Loop

BOP = {"optimizer": "bop", "gamma": 1e-3, "decay": 0.15, "every": 0.25, "tau": 1e-6}
PROX = BOP | {"optimizer": "prox", "mu": 1e-4, "step": 0.1}
BOTH = pytest.mark.parametrize("optimizer", ["bop", "prox"])


def test_bop_by_hand():
    """Averages 1/4 then 7/16 of a gradient of 1: times 1/2 they pass 1/5 at the second step."""
    weight, average = torch.tensor([0.5, -0.5, 0.0]), torch.zeros(3)
    ones = torch.ones(3)
    assert bop(weight, ones, average, 0.25, 0.2) == 0
    assert average.tolist() == [0.25] * 3
    assert bop(weight, ones, average, 0.25, 0.2) == 1
    assert average.tolist() == [0.4375] * 3
    assert weight.tolist() == [-0.5, -0.5, 0.0]  # the second is on the right side already
    assert bop(weight, ones, average, 0.25, 0.2) == 0


def test_prox_by_hand():
    """Sizes of 1/2: averages of 1/8 (a quarter of 1/2) move the goals by 1/8 / (1/2)."""
    weight, average = torch.tensor([0.5, -0.5]), torch.zeros(2)
    relaxed = torch.tensor([0.1, -0.9])
    flips = prox(weight, torch.ones(2), average, relaxed, 0.25, 0.5, 0.5)
    assert average.tolist() == [0.125, 0.125]
    # Goals are 0.1 - 0.25 and -0.9 - 0.25, the latter clipped at -1; half the way to each.
    assert relaxed.tolist() == pytest.approx([-0.025, -0.95])
    assert (weight.tolist(), flips) == ([-0.5, -0.5], 1)


@pytest.mark.parametrize("config", [BOP, PROX], ids=["bop", "prox"])
def test_a_planted_wrong_sign_is_found_and_no_other_moves(config):
    """Whitened inputs: the slope of every weight but the planted one is 0 at the solution."""
    inputs = 64**0.5 * torch.linalg.qr(torch.randn(64, 6, generator=torch.manual_seed(0)))[0]
    right = torch.tensor([[0.3, -0.2, 0.5, -0.4, 0.1, -0.6]])
    model = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(right)
        model.weight[0, 3] *= -1
    target = inputs @ right.T

    def loss(network, batch, rng):
        return (network(inputs) - target).square().mean()

    class Lines(Blobs):
        def evaluate(self, model, split):
            return {"accuracy": 0.0, "loss": loss(model, None, None).item()}

    training = Training(iterations=200, optimizer="sgd", learning_rate=0.1, evaluate_every=100)
    hook = Signs(config, ["weight"])
    masks = Masks({"weight": torch.ones(1, 6, dtype=torch.bool)})
    loop = Loop(model, Lines(loss), training, seed=0, masks=masks, hooks=[hook])
    loop.run()
    assert model.weight.detach().equal(right)
    assert loop.rows[-1]["sign_flips"] == 0
    assert loop.rows[-1]["validation_loss"] < 1e-10


def test_the_rate_falls_at_quarters(monkeypatch):
    seen = []

    def noted(weight, gradient, average, gamma, tau):
        seen.append(gamma)
        return torch.tensor(0)

    monkeypatch.setattr("lth_zoo.signs.bop", noted)
    model = nn.Linear(6, 3)
    training = Training(iterations=8, batch_size=8)
    Loop(model, Blobs(), training, seed=0, hooks=[Signs(BOP, ["weight"])]).run()
    steps = [1e-3 * 0.15**quarter for quarter in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert seen == pytest.approx(steps)


def done(folder, **values):
    store, laid = Store(folder), experiment(tiny_recipe(**values))
    assert run(laid.goals, store, HERE).failed == {}
    return store, laid.tickets()[0].level, laid


QUICK = {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1}


@BOTH
@pytest.mark.parametrize("model", ["lenet-300-100x0.1", "resnet-20x0.25"])
def test_kept_sizes_are_those_of_the_start_bit_for_bit(tmp_path, optimizer, model):
    finder = PeekABoo(optimizer=optimizer, gamma=0.1, tau=1e-9, mu=1e-7)
    training = {**QUICK, "iterations": 6}
    store, level, _ = done(tmp_path, finder=finder, model=model, training=training)
    masks = load_masks(store.entry(level.masks).read(MASKS))
    start, end = (read_state(store.entry(job)).state for job in (level.start, level.train))
    *inner, head = masks
    flipped = 0
    for name in inner:
        assert end[name].abs().equal(start[name].abs() * masks[name])
        flipped += int((end[name] * start[name] < 0).sum())
    assert 0 < flipped < masks.kept / 2
    assert not (end[head].abs() == start[head].abs())[masks[head]].any(), "the head is trained"
    others = [n for n in start if n not in masks and start[n].is_floating_point()]
    assert all(not end[n].equal(start[n]) for n in others)


def test_the_head_may_have_signs_alone_too(tmp_path):
    store, level, _ = done(tmp_path, finder=PeekABoo(head="signs"), training=QUICK)
    start, end = (read_state(store.entry(job)).state for job in (level.start, level.train))
    for name, mask in load_masks(store.entry(level.masks).read(MASKS)).items():
        assert end[name].abs().equal(start[name].abs() * mask)


def test_controls_learn_signs_too(tmp_path):
    controls = ("reinit", "shuffle", "random-scores", "inverted")
    _, _, laid = done(tmp_path, finder=PeekABoo(), controls=controls)
    signs = [arm.goal.config.get("signs") for arm in laid.arms]
    assert signs[0] is None  # dense
    assert signs[1:] == [signs[1]] * 5
    assert signs[1]["tau"] == 1e-6
    assert "mu" not in signs[1]


@BOTH
@pytest.mark.parametrize("result", ["last", "best"])
def test_interrupted_anywhere_it_ends_the_same(optimizer, result, tmp_path, monkeypatch):
    values = {
        "finder": PeekABoo(optimizer=optimizer, gamma=0.1, tau=1e-9, mu=1e-7),
        "training": {**QUICK, "evaluate_every": 2, "result": result},
    }
    whole, level, _ = done(tmp_path / "whole", **values)
    check_ends_alike(level.train, whole, Store(tmp_path / "store"), {1, 5, 11}, monkeypatch)


@pytest.mark.parametrize(
    ("finder", "training", "message"),
    [
        ({"tau": 0.0}, {}, "finder.tau is 0.0; it must be above 0"),
        ({"gamma": 2.0}, {}, "finder.gamma is 2.0; it must be above 0 and at most 1"),
        ({"rewind": "none"}, {}, "trains no weights to go on from"),
        ({}, {"average": 0.9}, "training.average is 0.9"),
        ({}, {"precision": "fp16"}, "training.precision is 'fp16'"),
    ],
)
def test_what_cannot_be_is_refused(finder, training, message):
    with pytest.raises(BadInput, match=message):
        experiment(tiny_recipe(finder=PeekABoo(**finder), training=training))
