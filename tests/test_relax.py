"""Scores beside weights: hard masks in the forward pass, the gradient straight through them."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hf_models import tiny_model
from torch import nn
from torch.nn import functional as F
from toys import Blobs, cross_entropy, mlp, same

from lth_zoo.allocate import Pool
from lth_zoo.errors import BadInput, Diverged
from lth_zoo.masks import Masks
from lth_zoo.recipe import Training
from lth_zoo.relax import THRESHOLD, ScoredModel, Soft, TopK, cubic, start_scores, top_of
from lth_zoo.rewind import clone_state
from lth_zoo.select import select
from lth_zoo.train import Loop

NAMES = ("0.weight", "2.weight")  # 8 x 6 and 3 x 8
HALF = [Pool(NAMES, 36)]
INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 1, 2, 0, 1])


def drawn(seed=0):
    rng = torch.Generator().manual_seed(seed)
    model = mlp()
    return {n: torch.randn(model.get_parameter(n).shape, generator=rng) for n in NAMES}


def scored(relaxation=None, live=(), scores=None):
    return ScoredModel(mlp(), scores or drawn(), relaxation or TopK(HALF), live)


def by_hand(masks):
    """The same network with masked weights, as leaves that want a gradient."""
    plain = mlp()
    leaves = {n: (plain.get_parameter(n).detach() * masks[n]).requires_grad_() for n in NAMES}
    hidden = torch.tanh(F.linear(INPUTS, leaves[NAMES[0]], plain[0].bias))
    return leaves, F.linear(hidden, leaves[NAMES[1]], plain[2].bias)


@pytest.mark.parametrize("relaxation", [TopK(HALF), Soft(0.4, 0.0)], ids=["top-k", "soft"])
def test_it_answers_as_the_masked_model_does(relaxation):
    model, plain = scored(relaxation), mlp()
    masks = Masks(model.masks())
    assert 0 < masks.kept < masks.size
    masks.apply_(plain)
    assert model(INPUTS).equal(plain(INPUTS))
    assert not model(INPUTS).equal(mlp()(INPUTS))


@pytest.mark.parametrize("relaxation", [TopK(HALF), Soft(0.4, 0.0)], ids=["top-k", "soft"])
def test_gradients_are_those_of_the_effective_weights(relaxation):
    """dL/dS = dL/dW' * W for every weight, pruned ones too; dL/dW = dL/dW' * M."""
    model = scored(relaxation, live=(*NAMES, "0.bias"))
    masks = model.masks()
    F.cross_entropy(model(INPUTS), LABELS).backward()
    leaves, logits = by_hand(masks)
    F.cross_entropy(logits, LABELS).backward()
    for name, score in model.by_name().items():
        weight = model.inner.get_parameter(name)
        assert score.grad.equal(leaves[name].grad * weight.detach())
        assert weight.grad.equal(leaves[name].grad * masks[name])
        assert score.grad[~masks[name]].any()
    assert model.inner.get_parameter("0.bias").grad is not None
    assert model.inner.get_parameter("2.bias").grad is None


def test_the_gradient_of_a_score_is_what_a_nudge_of_the_mask_does():
    model = scored().double()
    loss = F.cross_entropy(model(INPUTS.double()), LABELS)
    loss.backward()
    masks = {n: m.double() for n, m in model.masks().items()}
    weights = {n: model.inner.get_parameter(n).detach() for n in NAMES}
    for name, at in ((NAMES[0], (2, 3)), (NAMES[0], (7, 0)), (NAMES[1], (1, 5))):
        values = []
        for step in (1e-6, -1e-6):
            nudged = {n: m.clone() for n, m in masks.items()}
            nudged[name][at] += step
            given = {n: weights[n] * nudged[n] for n in NAMES}
            logits = torch.func.functional_call(model.inner, given, INPUTS.double())
            values.append(F.cross_entropy(logits, LABELS).item())
        expected = (values[0] - values[1]) / 2e-6
        assert model.by_name()[name].grad[at].item() == pytest.approx(expected, rel=1e-5)


class Wordy(nn.Module):
    """A model that takes a batch by name, as Hugging Face models do, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.first, self.register = nn.Linear(6, 4), nn.BatchNorm1d(4)

    def forward(self, *, points, scale=None):
        found = self.register(self.first(points))
        return {"logits": found if scale is None else found * scale}


def test_batches_by_name_and_buffers():
    inner = Wordy()
    shape = inner.first.weight.shape
    model = ScoredModel(
        inner, {"first.weight": torch.rand(shape)}, TopK([Pool(("first.weight",), 5)])
    )
    assert model.train()(points=INPUTS)["logits"].shape == (5, 4)
    assert inner.register.num_batches_tracked == 1
    batch = {"points": INPUTS, "scale": torch.tensor(2.0)}
    plain = model.eval()(points=INPUTS)["logits"]
    assert model(**batch)["logits"].equal(plain * 2)
    model(**batch)["logits"].sum().backward()
    assert model.scores[0].grad.any()
    assert inner.first.weight.grad is None


class Words(Blobs):
    """Blobs whose batches are dictionaries."""

    def batch(self, split, indices, rng=None):
        points, labels = super().batch(split, indices, rng)
        return {"x": points}, labels

    def evaluate(self, model, split):
        inputs, labels = self.batch(split, torch.arange(self.size(split)))
        with torch.no_grad():
            return {"loss": F.cross_entropy(model(**inputs), labels).item()}


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x)


def named_loss(model, batch, rng):
    return F.cross_entropy(model(**batch[0]), batch[1])


def test_the_loop_trains_scores_and_leaves_the_weights_alone():
    scores = {f"net.{n}": s for n, s in drawn().items()}
    pools = [Pool(tuple(scores), 18)]
    model = ScoredModel(ByName(), scores, TopK(pools))
    before, first = clone_state(model.inner), Masks(model.masks())
    loss = Words().evaluate(model, "train")["loss"]
    training = Training(iterations=60, batch_size=20, learning_rate=0.1, evaluate_every=60)
    loop = Loop(model, Words(named_loss), training, seed=0)
    loop.run()
    assert same(before, clone_state(model.inner))
    assert Words().evaluate(model, "train")["loss"] < loss - 0.1
    masks = Masks(model.masks())
    assert masks.kept == first.kept == 18
    assert masks != first
    assert loop.rows[-1]["validation_loss"] == Words().evaluate(model, "validation")["loss"]


def test_scores_add_up_movement_under_sgd():
    """S = -rate * sum of dL/dW' * W: positive where a weight moves away from zero."""
    model = scored(TopK([Pool(NAMES, 72)]), NAMES, {n: 0 * s for n, s in drawn().items()})
    training = Training(
        iterations=5, batch_size=40, optimizer="sgd", learning_rate=0.05, evaluate_every=9
    )
    expected = {n: torch.zeros_like(s) for n, s in drawn().items()}

    def spied(net, batch, rng):
        loss = cross_entropy(net, batch, rng)
        weights = [net.inner.get_parameter(n) for n in NAMES]
        for name, w, g in zip(
            NAMES, weights, torch.autograd.grad(loss, weights, retain_graph=True), strict=True
        ):
            expected[name] -= 0.05 * g * w.detach()  # all kept: dL/dW is dL/dW'
        return loss

    start = clone_state(model.inner)
    Loop(model, Blobs(spied), training, seed=0).run()
    for name, score in model.by_name().items():
        assert torch.allclose(score, expected[name], rtol=1e-4, atol=1e-8)
        away = (model.inner.get_parameter(name) - start[name]) * start[name]
        large = score.abs() > score.abs().median()
        assert (away.sign() == score.sign())[large].float().mean() > 0.95


def test_a_group_has_its_own_rate():
    """A rate of twice the recipe's is what the recipe at twice its rate does, to the bit."""
    ends = []
    for rate, ratio in ((0.05, 2.0), (0.1, 1.0)):
        model = scored()
        groups = {n: {"rate": ratio, "weight_decay": 0.0} for n in model.score_names()}
        training = Training(iterations=7, batch_size=20, learning_rate=rate, schedule="cosine")
        Loop(model, Blobs(), training, seed=0, groups=groups).run()
        ends.append(clone_state(model))
    assert same(*ends)
    groups = {"scores.0": {"rate": 3.0}}
    loop = Loop(scored(live=NAMES), Blobs(), Training(weight_decay=0.1), seed=0, groups=groups)
    found = [(len(g["params"]), g.get("rate")) for g in loop.parts[0].optimizer.param_groups]
    assert sorted(found, key=str) == [(1, 3.0), (3, None)]


# -- counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 17, 36, 71, 72])
@pytest.mark.parametrize("ties", [False, True])
def test_the_device_way_is_the_exact_way(keep, ties):
    scores = drawn(keep)
    if ties:
        scores = {n: s.round() for n, s in scores.items()}
    pool = Pool(NAMES[::-1], keep)
    found, expected = top_of(scores, pool), select(scores, [pool])
    assert Masks(found) == expected
    assert expected.kept == keep
    assert Masks(TopK([pool]).masks(scores)) == expected


def test_a_soft_mask_is_a_threshold_on_the_sigmoid():
    scores = drawn()
    for threshold in (0.1, 0.5, 0.8):
        for name, mask in Soft(threshold, 0.0).masks(scores).items():
            assert mask.equal(scores[name].sigmoid() > threshold)
    assert all(m.all() for m in Soft(0.0, 0.0).masks({"w": torch.tensor([-90.0, 90])}).values())
    assert Soft(0.5, 0.0).penalty(scores) is None
    mean = torch.stack([s.sigmoid().mean() for s in scores.values()]).mean()
    assert Soft(0.5, 3.0).penalty(scores).item() == pytest.approx(3 * mean.item())
    assert TopK(HALF).penalty(scores) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("relaxation", [TopK(HALF), Soft(0.4, 1.0)], ids=["top-k", "soft"])
def test_scores_that_are_not_finite_never_make_a_mask(relaxation, value):
    model = scored(relaxation)
    with torch.no_grad():
        model.scores[1][0, 0] = value
    with pytest.raises(Diverged, match=r"scores of '2\.weight' are not finite"):
        model(INPUTS)


def test_scores_that_do_not_fit_are_refused():
    for name, shape in (("0.weigth", (8, 6)), ("0.weight", (6, 8))):
        with pytest.raises(BadInput, match=f"scores of '{name}' fit no parameter"):
            ScoredModel(mlp(), {name: torch.zeros(shape)}, TopK([]))


# -- where it starts, and how it goes ---------------------------------------------------------


def test_a_search_starts_from_the_mask_of_the_largest_weights():
    weights = {n: mlp().get_parameter(n).detach() for n in NAMES}
    rng = torch.Generator().manual_seed(0)
    scores = start_scores("magnitude", weights, HALF, rng)
    largest = select({n: w.abs() for n, w in weights.items()}, HALF)
    assert Masks({n: s == 2 * THRESHOLD for n, s in scores.items()}) == largest
    assert all(s.unique().tolist() == pytest.approx([0, 2 * THRESHOLD]) for s in scores.values())
    assert Masks(TopK(HALF).masks(scores)) == largest
    random = start_scores("random", weights, HALF, torch.Generator().manual_seed(0))
    again = start_scores("random", weights, HALF, torch.Generator().manual_seed(0))
    assert same(random, again)
    assert Masks(TopK(HALF).masks(random)).kept == 36
    assert Masks(TopK(HALF).masks(random)) != largest
    zero = start_scores("zero", weights, HALF, rng)
    assert not any(s.any() for s in zero.values())


def test_the_cubic_schedule():
    steps = [cubic(i, 100, 1.0, 0.1, 0.1, 0.2) for i in range(101)]
    assert steps[:11] == [1.0] * 11
    assert steps[80:] == [0.1] * 21
    assert steps[45] == pytest.approx(0.1 + 0.9 * 0.5**3)
    assert all(a >= b for a, b in pairwise(steps))
    assert cubic(0, 10, 0.3, 0.3, 0.0, 0.5) == 0.3
    assert [cubic(i, 4, 0.0, 1.0, 0.5, 0.5) for i in range(5)] == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert [cubic(i, 4, 1.0, 0.5, 0.0, 1.0) for i in (0, 4)] == [0.5, 0.5]


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_hugging_face_model_answers_as_the_masked_one_does(family):
    """With tied embeddings, and (ALBERT) with one matrix that serves every layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = tiny_model(family, "tokens").eval()
    names = [n for n, p in plain.named_parameters() if ".0." in n and p.dim() == 2]
    scores = {n: plain.get_parameter(n).detach() for n in names}
    half = sum(s.numel() for s in scores.values()) // 2
    model = ScoredModel(copy.deepcopy(plain), scores, TopK([Pool(tuple(names), half)])).eval()
    masks = Masks(model.masks())
    assert masks.kept == half
    masks.apply_(plain)
    batch = {"input_ids": torch.arange(6, 20).view(2, 7), "attention_mask": torch.ones(2, 7)}
    answer = model(**batch)
    assert torch.allclose(answer.logits, plain(**batch).logits, atol=1e-6)
    answer.logits.square().sum().backward()
    assert all(s.grad.any() for s in model.scores)
    assert not any(p.requires_grad for p in model.inner.parameters())
