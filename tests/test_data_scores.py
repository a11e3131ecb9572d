"""Scores that read data, against what they stand for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import HERE, Blobs, cross_entropy, mlp, same, tiny_recipe

from lth_zoo.data_scores import BATCHES, gradient, input_squares, wanda
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import OneShot
from lth_zoo.formats import load_masks
from lth_zoo.masks import Masks
from lth_zoo.scores import ScoreContext
from lth_zoo.seeds import seeded
from lth_zoo.session import MASKS
from lth_zoo.store import Store


def context(model, batches, loss=lambda model, batch: model(batch).sum()):
    names = [n for n, p in model.named_parameters() if p.dim() > 1]
    rng = torch.Generator().manual_seed(0)
    return ScoreContext(model, Masks.ones(model, names), {}, rng, batches, loss)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1}, {"groups": 2}, {"dilation": 2, "padding": 2, "groups": 4}],
    ids=str,
)
def test_a_convolution_is_the_linear_layer_of_its_patches(options):
    with seeded(0, "init"):
        layer = nn.Conv2d(4, 8, 3, **options)
    x = drawn(2, 4, 7, 6)
    at = {k: v for k, v in options.items() if k != "groups"}
    patches = F.unfold(x.square(), 3, **at).sum((0, 2)).reshape(4, 3, 3)
    width = 4 // layer.groups
    found = input_squares(layer, x).expand_as(layer.weight)
    for channel in range(8):
        group = channel // (8 // layer.groups)
        expected = patches[group * width : (group + 1) * width]
        torch.testing.assert_close(found[channel], expected)


def test_other_convolutions_and_circular_padding():
    x = drawn(2, 1, 5)
    layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
    everything = x.square().sum()
    assert input_squares(layer, x).allclose(everything)
    assert input_squares(nn.Conv3d(1, 2, 1), drawn(1, 1, 2, 2, 2)).shape == (2, 1, 1, 1, 1)


def test_the_other_orientation_of_transformers():
    utils = pytest.importorskip("transformers.pytorch_utils")
    conv = utils.Conv1D(3, 5)  # 5 inputs, 3 outputs: its weight is (5, 3)
    linear = nn.Linear(5, 3)
    linear.load_state_dict({"weight": conv.weight.detach().T, "bias": conv.bias.detach()})
    x = [drawn(4, 5), drawn(4, 5, seed=1)]
    one, other = (wanda(context(nn.Sequential(m), x))["0.weight"] for m in (conv, linear))
    assert one.shape == (5, 3)
    torch.testing.assert_close(one.T, other)


class Reader(nn.Module):
    """Reads vectors of tokens through one layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2, bias=False)

    def forward(self, vectors, attention_mask):
        return self.layer(vectors)


def test_padding_is_not_counted():
    with seeded(0, "init"):
        model = Reader()
    text, blank = drawn(2, 4, 3), 100 * drawn(2, 2, 3, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 2)
    padded = ({"vectors": torch.cat([text, blank], 1), "attention_mask": mask}, None)
    plain = ({"vectors": text, "attention_mask": mask[:, :4]}, None)
    found = [
        wanda(context(model, [batch], lambda network, b: network(**b[0]).sum()))["layer.weight"]
        for batch in (padded, plain)
    ]
    torch.testing.assert_close(*found)
    expected = model.layer.weight.detach().abs() * text.reshape(-1, 3).norm(dim=0)
    torch.testing.assert_close(found[1], expected)


def test_the_gradient_score_is_the_first_order_change_of_the_loss():
    model, task = mlp().double(), Blobs()
    batch = task.batch("train", torch.arange(20))
    batch = batch[0].double(), batch[1]
    found = gradient(context(model, [batch], lambda m, b: cross_entropy(m, b, None)))
    step = 1e-6
    for name, place in (("0.weight", (3, 2)), ("2.weight", (1, 5))):
        weight = model.get_parameter(name)
        value = weight.detach()[place].item()
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] = value * (1 + sign * step)
            losses.append(cross_entropy(model, batch, None).item())
        with torch.no_grad():
            weight[place] = value
        slope = (losses[0] - losses[1]) / (2 * step)
        assert found[name][place].item() == pytest.approx(abs(slope), rel=1e-5)


def test_a_weight_that_the_loss_does_not_reach_scores_zero():
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    found = gradient(context(model, [drawn(3, 2)], lambda m, x: m["used"](x).sum()))
    assert found["used.weight"].all()
    assert not found["idle.weight"].any()


@pytest.mark.parametrize("score", [wanda, gradient])
def test_a_model_is_left_as_it_was(score):
    model = mlp(nn.BatchNorm1d(8), nn.Dropout(0.5))
    model.train()
    model[1].eval()  # a norm that someone froze
    before = copy.deepcopy(model.state_dict())
    x = drawn(9, 6)
    one, again = (score(context(model, [x])) for _ in range(2))
    assert same(one, again), "dropout is off"
    assert same(model.state_dict(), before)
    assert [m.training for m in model] == [True, False, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_no_more_than_the_calibration_batches_are_drawn():
    drawn_of = []

    def batches():
        for place in range(BATCHES + 5):
            drawn_of.append(place)
            yield drawn(2, 6)

    wanda(context(mlp(), batches()))
    assert len(drawn_of) == BATCHES


@pytest.mark.parametrize("score", [wanda, gradient])
def test_without_data_there_is_no_score(score):
    with pytest.raises(BadInput, match="reads training batches, and there are none"):
        score(context(mlp(), (), None))
    with pytest.raises(BadInput, match="reads training batches, and there are none"):
        score(context(mlp(), ()))


def test_layers_that_wanda_cannot_read_are_named():
    words = nn.Sequential(nn.Embedding(4, 3))
    with pytest.raises(BadInput, match="linear and convolution layers, not Embedding"):
        wanda(context(words, [torch.tensor([1, 2])]))
    idle = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    with pytest.raises(BadInput, match=r"saw no input of 'idle.weight'"):
        wanda(context(idle, [drawn(3, 2)], lambda m, x: m["used"](x).sum()))


def test_random_labels_reach_a_score_that_reads_them(tmp_path):
    finder = OneShot(score="gradient", after="start")
    laid = experiment(tiny_recipe(finder=finder, controls=("random-labels",), sparsity=0.5))
    jobs = {arm.name: arm.level.masks for arm in laid.arms if arm.level.masks}
    store = Store(tmp_path)
    assert run(jobs.values(), store, HERE).failed == {}
    masks = {name: load_masks(store.entry(job).read(MASKS)) for name, job in jobs.items()}
    assert masks["ticket"].kept == masks["random-labels"].kept == 1160
    assert masks["ticket"] != masks["random-labels"]
