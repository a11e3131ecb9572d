"""Relaxed masks of frozen weights, by numbers worked out on paper."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from lth_zoo.allocate import Pool
from lth_zoo.errors import BadInput, Diverged
from lth_zoo.protocols import default_prunable
from lth_zoo.relax import ScoredModel
from lth_zoo.searches.supermask_search import Fixed, Own, _broken, rounds_of
from lth_zoo.searches.supermasks import Bernoulli, Gem, Popup, Relaxed, Supermask
from lth_zoo.seeds import generator, seeded
from lth_zoo.strong import LAWS, binary, finish, lay

WEIGHTS = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
SCORES = torch.tensor([[0.3, -0.9], [0.5, -0.2]])
PULL = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])


def after(relaxation, scores=SCORES, training=True):
    """The effective weights, and the gradient of the scores where that of the weights is PULL."""
    leaf = scores.clone().requires_grad_()
    found = relaxation.effective({"w": WEIGHTS}, {"w": leaf}, training)["w"]
    if not training:
        return found, None
    found.backward(PULL)
    return found.detach(), leaf.grad


def two(kind, *args):
    return kind([Pool(("w",), 2)], *args)


def test_edge_popup_keeps_the_largest_sizes_and_pushes_the_size():
    found, gradient = after(two(Popup))
    assert found.tolist() == [[0, -2], [3, 0]]
    # PULL * W, and the other way where the score is negative: its size is what is to grow.
    assert gradient.tolist() == [[1, 20], [300, 4000]]
    assert after(two(Popup), training=False)[0].equal(found)
    assert two(Popup).count({"w": SCORES}) == 2


def test_binary_weights_have_the_mean_size_of_what_is_kept():
    kept = torch.tensor([[True, False], [True, False]])
    assert binary(WEIGHTS, kept).tolist() == [[2, -2], [2, -2]]
    found, gradient = after(two(Popup, "binary"))
    assert found.tolist() == [[0, -2.5], [2.5, 0]]
    assert gradient.tolist() == [[1, 20], [300, 4000]], "as of edge-popup: times |W|, not alpha"


def test_a_rescaled_layer_is_as_large_as_the_whole():
    found, gradient = after(two(Supermask, "rescaled"))
    assert found.tolist() == [[2, 0], [6, 0]]
    assert gradient.tolist() == [[2, -40], [600, -8000]]


def test_coins_have_the_chance_of_the_sigmoid_and_it_gets_the_gradient():
    scores = torch.tensor([[0.0, 0.0], [99.0, -99.0]])
    with seeded(0, "noise"):
        found, gradient = after(two(Bernoulli), scores)
    assert found[1].tolist() == [3, 0]
    assert gradient.tolist() == [[0.25, -5.0], [0, 0]], "a quarter of PULL * W, whatever the toss"
    assert two(Bernoulli).count({"w": scores}) == 2
    many = {"w": torch.full((10000,), 1.0986123)}  # ln 3: three of four
    assert two(Bernoulli).count(many) == 7500
    with seeded(0, "noise"):
        assert Bernoulli([]).gates(many)["w"].mean().item() == pytest.approx(0.75, abs=0.02)
        assert Bernoulli([]).own(many)["w"].mean().item() == pytest.approx(0.75, abs=0.02)
    assert after(two(Bernoulli), training=False)[0].tolist() == [[1, 0], [3, 0]], "exact to look at"


def test_gates_are_open_by_half_and_their_number_is_that_of_the_normal_law():
    found = Relaxed([], 2.0)
    scores = {"a": torch.zeros(3, requires_grad=True), "b": torch.tensor([0.5, -0.5, -1.0])}
    assert found.own(scores)["a"].tolist() == [0.5] * 3
    assert found.own(scores)["b"].tolist() == [1, 0, 0]
    assert found.count(scores) == 1
    # Phi(1) = 0.841345 three times, Phi(2) = 0.977250, Phi(0) = 0.5, Phi(-1) = 0.158655: over 6.
    assert found.penalty(scores).item() == pytest.approx(2 * 4.159940 / 6, rel=1e-5)
    found.penalty(scores).backward()
    # 2 / 6 * phi(1) / 0.5
    assert scores["a"].grad.tolist() == pytest.approx([0.24197072 * 2 / 3] * 3)
    with seeded(0, "noise"):
        gates = found.gates({"a": torch.zeros(20000)})["a"]
    assert gates.mean().item() == pytest.approx(0.5, abs=0.01)
    # Noise of a half reaches either bound beyond one deviation: Phi(-1) at each end.
    assert (gates == 0).float().mean().item() == pytest.approx(0.1587, abs=0.01)
    assert (gates == 1).float().mean().item() == pytest.approx(0.1587, abs=0.01)


def test_the_gradient_of_a_gate_is_its_own():
    relaxation = two(Relaxed, 0.1)
    with seeded(0, "noise"):
        found, gradient = after(relaxation)
    gates = found / WEIGHTS
    inside = (gates > 0) & (gates < 1)
    assert inside.any()
    assert gradient.equal(torch.where(inside, PULL * WEIGHTS, 0.0))


def test_gem_miner_rounds_clamps_and_buries():
    found = Gem([Pool(("w",), 1)], 0.5)
    scores = found.start({"w": torch.Size((2, 2))}, generator(0, "prune"))
    assert 0 <= scores["w"].min() <= scores["w"].max() < 1
    scores = {"w": torch.tensor([[0.9, 0.4], [0.7, 0.6]])}
    weights, gradient = after(found, scores["w"])
    assert weights.tolist() == [[1, 0], [3, -4]]
    assert gradient.tolist() == (PULL * WEIGHTS).tolist()
    assert found.count(scores) == 3
    # 0.5 * (0.81 + 0.16 + 0.49 + 0.36)
    assert found.penalty(scores).item() == pytest.approx(0.91)
    found.freeze_out(scores, [Pool(("w",), 2)])
    assert found.fixed["alive"]["w"].tolist() == [[True, False], [True, False]]
    scores["w"].copy_(torch.tensor([[0.2, 5.0], [-3.0, 0.9]]))
    found.after_step(scores)
    assert scores["w"].tolist() == torch.tensor([[0.2, 1.0], [0.0, 0.9]]).tolist()
    assert found.count(scores) == 0, "what is dead stays so, however high"
    assert found.masks(scores)["w"].tolist() == [[True, False], [False, False]]


class Even:
    """Ten batches an epoch."""

    def epoch(self, size, rng):
        return torch.arange(10 * size).split(size)


def test_rounds_of_freezing_out():
    """E = 9 epochs and a period of 2: R = 4 rounds, each leaves a half of the half ..."""
    config = {"training": {"batch_size": 3, "accumulation": 1}, "seed": 0, "density": "1/16"}
    found = rounds_of({**config, "end": 99, "period": 2}, Even())
    assert {at: float(Fraction(share)) for at, share in found.items()} == {
        20: 0.5,
        40: 0.25,
        60: 0.125,
        80: 0.0625,
    }
    assert found[80] == "1/16"
    twice = {**config, "training": {"batch_size": 3, "accumulation": 2}}
    assert list(rounds_of({**twice, "end": 49, "period": 2}, Even())) == [10, 20, 30, 40]
    with pytest.raises(BadInput, match=r"3 epochs, and a search of 39 .* 3 of 10: .* least 40,"):
        rounds_of({**config, "end": 39, "period": 3}, Even())
    assert list(rounds_of({**config, "end": 40, "period": 3}, Even())) == [30]


# -- what is fixed beforehand ----------------------------------------------------------------------


def test_frozen_weights_stay_on_their_side():
    shapes = {"a": torch.Size((6, 10)), "b": torch.Size((4, 10))}
    found = Popup([Pool(("b", "a"), 30)])
    # A third of the 30 that are kept and a tenth of the 70 that go.
    assert found.freeze(shapes, 1 / 3, 0.1, generator(0, "prune")) == {"kept": 10, "out": 7}
    scores = found.start(shapes, generator(1, "prune"))
    masks, fixed = found.masks(scores), found.fixed
    assert sum(int(m.sum()) for m in masks.values()) == 30
    for name in shapes:
        assert not (fixed["kept"][name] & fixed["out"][name]).any()
        assert masks[name][fixed["kept"][name]].all()
        assert not masks[name][fixed["out"][name]].any()
    plain = Popup(found.pools).masks(scores)
    assert any(not masks[n].equal(plain[n]) for n in shapes)
    again = Popup(found.pools)
    again.freeze(shapes, 1 / 3, 0.1, generator(0, "prune"))
    assert all(again.fixed["kept"][n].equal(fixed["kept"][n]) for n in shapes)


def test_all_may_be_frozen():
    shapes = {"a": torch.Size((5, 10))}
    found = Popup([Pool(("a",), 20)])
    assert found.freeze(shapes, 1.0, 1.0, generator(0, "prune")) == {"kept": 20, "out": 30}
    scores = found.start(shapes, generator(1, "prune"))
    assert found.masks(scores)["a"].equal(found.fixed["kept"]["a"])


def test_where_scores_start():
    shapes = {"a": torch.Size((40, 25)), "c": torch.Size((20, 4, 3, 3))}
    scores = Popup([]).start(shapes, generator(0, "prune"))
    assert 0.19 < scores["a"].abs().max() <= 0.2, "1 / sqrt(25)"
    assert 0.16 < scores["c"].abs().max() <= 1 / 6, "1 / sqrt(4 * 3 * 3)"
    assert not Bernoulli([]).start(shapes, generator(0, "prune"))["a"].any()
    assert Relaxed([], 1).start(shapes, generator(0, "prune"))["a"].std().item() == pytest.approx(
        0.01, rel=0.1
    )


# -- weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [*LAWS, "init"])
def test_laws_of_frozen_weights(law):
    with seeded(0, "init"):
        model = nn.Sequential(nn.Linear(200, 60), nn.Conv2d(8, 10, 5))
    drawn = {n: model.get_parameter(n).detach().clone() for n in default_prunable(model)}
    lay(model, default_prunable(model), law, 0.25, generator(0, "init"))
    for name, summed in (("0.weight", 200), ("1.weight", 200)):
        weight, first = model.get_parameter(name).detach(), drawn[name]
        sizes = weight.abs().unique()
        assert law == "init" or not weight.equal(first)
        if law == "init":
            assert weight.equal(first)
        elif law == "signed-constant":  # sqrt(2 / (200 / 4))
            assert sizes.tolist() == pytest.approx([0.2])
        elif law == "signed-std":
            assert sizes.tolist() == pytest.approx([first.std().item()])
            assert (weight.sign() == first.sign()).all()
        elif law == "kaiming":
            assert weight.std().item() == pytest.approx(0.2, rel=0.05)
            assert sizes.numel() > 1900
        else:  # sqrt(6 / 200), whatever the density
            assert 0.17 < weight.abs().max() <= (6 / summed) ** 0.5
            assert weight.std().item() == pytest.approx((2 / summed) ** 0.5, rel=0.05)


def test_finishing_is_what_the_search_worked_with():
    masks = {"weight": torch.tensor([[True, False], [True, False]])}
    for how, expected in (
        ("binary", [[2, -2], [2, -2]]),
        ("rescaled", [[2, -4], [6, -8]]),
        ("", WEIGHTS.tolist()),
    ):
        layer = nn.Linear(2, 2)
        with torch.no_grad():
            layer.weight.copy_(WEIGHTS)
        finish(layer, masks, how)
        assert layer.weight.tolist() == expected


# -- in a model --------------------------------------------------------------------------------


def test_training_draws_and_looking_does_not():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(WEIGHTS)
        layer.bias.zero_()
    relaxation = Relaxed([Pool(("weight",), 2)], 0.1)
    model, x = ScoredModel(layer, {"weight": SCORES}, relaxation), torch.eye(2)
    assert not model(x).equal(model(x))
    model.eval()
    assert model(x).tolist() == [[1, 3], [0, 0]]
    model.relaxation = Own(relaxation)
    # Gates of 0.8, 0 (clamped), 1 and 0.3, no draw.
    assert model(x).flatten().tolist() == pytest.approx([0.8, 3.0, 0.0, -1.2])
    model.relaxation = Fixed({"weight": torch.tensor([[False, True], [False, True]])})
    assert model(x).tolist() == [[0, 0], [-2, -4]]
    assert model.relaxation.penalty({}) is None


@pytest.mark.parametrize("kind", [Popup, Bernoulli, Supermask])
def test_scores_that_are_not_finite_make_no_mask(kind):
    with pytest.raises(Diverged, match="scores of 'w' are not finite"):
        two(kind).gates({"w": SCORES / 0})
    with pytest.raises(Diverged):
        two(Relaxed, 0.1).gates({"w": SCORES / 0})


def test_what_breaks_the_premise():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3))
    with torch.no_grad():
        model[0].bias.zero_()
    assert _broken(model) == ()
    with torch.no_grad():
        model[0].bias[1], model[1].weight[0], model[2].bias[2] = 0.1, 0.5, 0.2
    assert _broken(model) == ("0.bias", "1.weight", "2.bias")
