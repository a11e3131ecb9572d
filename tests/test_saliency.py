"""SNIP, GraSP and SynFlow: by hand, and what they leave behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from toys import HERE, Blobs, cross_entropy, mlp, same, some_masks, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import FORCE, SNIP, GraSP, OneShot, SynFlow
from lth_zoo.formats import load_masks
from lth_zoo.masks import Masks
from lth_zoo.pruning import Batches, ByClass, fed
from lth_zoo.saliency import grasp, snip, synflow
from lth_zoo.scores import ScoreContext
from lth_zoo.session import MASKS
from lth_zoo.store import Store
from lth_zoo.tasks.embedded import Digits


def context(model, batches=(), loss=None, masks=None, seed=0, **fields):
    names = [n for n, p in model.named_parameters() if p.dim() > 1]
    masks = masks or Masks.ones(model, names)
    rng = torch.Generator().manual_seed(seed)
    return ScoreContext(model, masks, {}, rng, batches, loss, **fields)


def chain_of(*weights):
    """Linear layers with those weights, no biases, nothing between."""
    layers = []
    for values in weights:
        weight = torch.tensor(values)
        layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
        layers[-1].weight.data = weight
    return nn.Sequential(*layers)


# -- snip ---------------------------------------------------------------------------------------


def test_snip_adds_the_examples_up_before_the_absolute_value():
    # The slopes of the sum of the outputs are 1 - 1 = 0 and 2 + 3 = 5; the second batch is unread.
    model = chain_of([[4.0, -2.0]])
    batches = [torch.tensor([[1.0, 2.0], [-1.0, 3.0]]), torch.ones(1, 2)]
    found = snip(context(model, batches, lambda m, x: m(x).sum()))
    assert found["0.weight"].tolist() == [[0.0, 10.0]]


def test_snip_sees_the_masked_network_and_scores_what_is_pruned():
    # y = 3 (2 a + 5 b) with b pruned: at a = b = 1, dy/da = 3, dy/db = 3, dy/d3 = 2.
    model = chain_of([[2.0, 5.0]], [[3.0]])
    masks = Masks({"0.weight": torch.tensor([[True, False]]), "1.weight": torch.tensor([[True]])})
    found = snip(context(model, [torch.ones(1, 2)], lambda m, x: m(x).sum(), masks))
    assert found["0.weight"].tolist() == [[6.0, 15.0]]
    assert found["1.weight"].tolist() == [[6.0]]
    assert model[0].weight.tolist() == [[2.0, 5.0]]


# -- grasp --------------------------------------------------------------------------------------


def squared(model, batch):
    return 0.5 * (model(batch) - 1).square().sum()


def test_grasp_by_hand():
    # L = (w.x - 1)^2 / 2 at x = (1, 2), w = (2, 1): the error is 3, g = 3 x = (3, 6),
    # H = x x' and H g = x (x.g) = 15 x = (15, 30); w (H g) = (30, 30).
    x, model = torch.tensor([[1.0, 2.0]]), chain_of([[2.0, 1.0]])
    assert grasp(context(model, [x], squared))["0.weight"].tolist() == [[30.0, 30.0]]
    # Of the other sign where the weight goes against the flow: w = (2, -1), the error is -1,
    # g = (-1, -2), H g = -5 x = (-5, -10).
    model = chain_of([[2.0, -1.0]])
    assert grasp(context(model, [x], squared))["0.weight"].tolist() == [[-10.0, 10.0]]


def test_what_grasp_scores_lowest_leaves_the_most_gradient():
    # |g|^2 is 5 here; without the first weight, error -3, it is 45; without the second, 1, it is 5.
    x, model = torch.tensor([[1.0, 2.0]]), chain_of([[2.0, -1.0]])
    flows = []
    for gone in (0, 1):
        cut = copy.deepcopy(model)
        cut[0].weight.data[0, gone] = 0
        slope = torch.autograd.grad(squared(cut, x), cut[0].weight)[0]
        flows.append(slope.square().sum().item())
    assert flows == [45.0, 5.0]
    scores = grasp(context(model, [x], squared))["0.weight"][0]
    assert scores.argmin() == 0, "the first is the one to go"


def test_parts_are_summed():
    # The loss is a sum: g and H of two halves are those of the whole.
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    model = chain_of([[0.5, -1.0, 2.0, 0.25]])
    whole = grasp(context(model, [x], squared))
    halves = grasp(context(model, list(x.chunk(2)), squared, count=2))
    torch.testing.assert_close(whole, halves)
    third = grasp(context(model, [x[:3], x[3:]], squared))
    assert not torch.allclose(third["0.weight"], whole["0.weight"]), "one batch where count is 1"


def test_a_straight_loss_has_no_curvature():
    with pytest.raises(BadInput, match="the loss is straight"):
        grasp(context(chain_of([[1.0, 2.0]]), [torch.ones(1, 2)], lambda m, x: m(x).sum()))


# -- synflow ------------------------------------------------------------------------------------


def test_synflow_by_hand():
    # R = 1'|W2||W1|1 = (3)(1 + 2) + (1)(4 + 0): a weight's score is the flow of its paths.
    model = chain_of([[1.0, -2.0], [4.0, 0.0]], [[-3.0, 1.0]])
    found = synflow(context(model, example=torch.zeros(1, 2)))
    assert found["0.weight"].tolist() == [[3.0, 6.0], [4.0, 0.0]]
    assert found["1.weight"].tolist() == [[9.0, 4.0]]
    assert found["0.weight"].dtype == torch.float64
    assert found["0.weight"].sum() == found["1.weight"].sum(), "what flows in flows out"


def test_synflow_of_what_is_left():
    model = chain_of([[1.0, -2.0], [4.0, 0.0]], [[-3.0, 1.0]])
    masks = Masks(
        {"0.weight": torch.tensor([[True, False], [True, True]]), "1.weight": torch.ones(1, 2) > 0}
    )
    found = synflow(context(model, masks=masks, example=torch.zeros(1, 2)))
    assert found["0.weight"].tolist() == [[3.0, 0.0], [4.0, 0.0]]
    assert found["1.weight"].tolist() == [[3.0, 4.0]]


def test_synflow_does_not_overflow_and_does_not_read_statistics_of_a_batch():
    layers = [layer for _ in range(40) for layer in (nn.Linear(64, 64), nn.BatchNorm1d(64))]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        model[0].weight.mul_(100)
        for layer in layers[::2]:
            layer.weight.mul_(10)
        layers[1].running_mean.fill_(-5.0)
    found = synflow(context(model, example=torch.zeros(1, 64)))
    most = max(value.max().item() for value in found.values())
    assert 1e39 < most < float("inf"), "past what float32 holds"
    # Made positive, the running mean would change what flows.
    with torch.no_grad():
        layers[1].running_mean.fill_(5.0)
    other = synflow(context(model, example=torch.zeros(1, 64)))
    assert not same(found, other)


class Words(nn.Module):
    """Reads tokens."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(4, 3), nn.Linear(3, 2)

    def forward(self, input_ids):
        return self.out(self.words(input_ids))


def test_synflow_on_tokens_is_refused():
    example = {"input_ids": torch.zeros(1, 5, dtype=torch.int64)}
    with pytest.raises(BadInput, match="this one reads tokens"):
        synflow(context(Words(), example=example))


# -- all three ----------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [snip, grasp, synflow])
def test_a_model_is_left_as_it_was(score):
    model = mlp(nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
    model[1].eval()  # a norm that someone froze
    before = copy.deepcopy(model.state_dict())
    task, random = Blobs(), torch.get_rng_state()
    data = {
        "batches": [task.batch("train", torch.arange(20))],
        "loss": lambda m, batch: cross_entropy(m, batch, None),
        "example": torch.zeros(1, 6),
        "masks": some_masks(model),
    }
    one, again, other = (score(context(model, seed=s, **data)) for s in (0, 0, 1))
    assert same(one, again), "dropout is drawn by the context's generator"
    assert same(one, other) == (score is synflow)
    assert same(model.state_dict(), before), "signs, statistics and counts are as they were"
    assert [m.training for m in model] == [True, False, True, True, True]
    assert torch.get_rng_state().equal(random)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("score", [snip, grasp, synflow])
def test_a_weight_without_a_slope_is_named(score):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x):
            return self.used(x)

    data = {"batches": [torch.ones(3, 2)], "loss": squared, "example": torch.zeros(1, 2)}
    with pytest.raises(BadInput, match=r"has none at 'idle.weight': exclude its layer"):
        score(context(Idle(), **data))
    frozen = Idle().requires_grad_(False)
    with pytest.raises(BadInput, match=r"has none at 'idle.weight'"):
        score(context(frozen, **data))


@pytest.mark.parametrize("score", [snip, grasp])
def test_without_data_there_is_no_score(score):
    with pytest.raises(BadInput, match="reads training batches, and there are none"):
        score(context(mlp(), (), None))


# -- what they are fed --------------------------------------------------------------------------


def test_so_many_examples_of_each_class():
    task = Digits("digits")
    for parts in (1, 2):
        labels = [batch[1] for batch in ByClass(task, 0, 10, parts)]
        assert [len(some) for some in labels] == [100 // parts] * parts
        assert all(some.bincount().tolist() == [10 // parts] * 10 for some in labels)
    one, again, other = (next(iter(ByClass(task, seed, 3, 1))) for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)
    # Fewer than asked for: all there are.
    (few,) = ByClass(Blobs(), 0, 1000, 1)
    assert few[1].bincount().tolist() == [14, 13, 13]


def test_answers_are_divided_by_the_temperature():
    task, model = Digits("digits"), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    config = {"seed": 0, "reads": {"per_class": 2, "parts": 1, "temperature": 4.0}}
    found = fed(config, task, model)
    (batch,) = found["batches"]
    logits = model(batch[0])
    expected = nn.functional.cross_entropy(logits / 4, batch[1])
    assert found["loss"](model, batch).equal(expected)
    assert found["count"] == 1


def test_each_round_reads_the_next_batch_of_endless_epochs():
    task = Blobs()  # 40 examples: 5 batches of 8
    first, *_ = Batches(task, 0, 8)
    seen = [next(iter(Batches(task, 0, 8, number)))[1] for number in range(6)]
    assert seen[0].equal(first[1])
    assert torch.cat(seen[:5]).bincount().tolist() == [14, 13, 13]
    inputs = [next(iter(Batches(task, 0, 8, number)))[0] for number in (0, 5, 6)]
    assert not inputs[0].equal(inputs[1])
    assert not inputs[1].equal(inputs[2])


# -- refused before the run ---------------------------------------------------------------------

GAN = {"model": "dcgan-8x0.05", "task": "generation/digits"}
TEXT = {"model": "bert-mini", "task": "pydocs/topic"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"finder": SynFlow(), **TEXT}, "this one reads tokens"),
        (
            {"finder": GraSP(), **GAN},
            "has discriminator, generator",
        ),
        ({"finder": GraSP(), **GAN, "model": "vae-8x0.1"}, "has no classes"),
        ({"finder": SNIP(), **GAN}, "of one loss"),
        (
            {"finder": SynFlow(), **GAN},
            "they are 0 at every weight",
        ),
        ({"finder": FORCE(scope="2:4"), "sparsity": 0.5}, "nothing to do in 60 rounds"),
        ({"finder": SNIP(scope="layer"), "sparsity": 0.999}, "leaves layer 'fc2' without a weight"),
        ({"finder": OneShot(scope="balanced"), "sparsity": 0.9995}, "without a weight"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(values, message):
    with pytest.raises(BadInput, match=message):
        experiment(tiny_recipe(**values))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SNIP(examples=0), "finder.examples is 0; it must be at least 1"),
        (lambda: FORCE(rounds=0), "finder.rounds is 0"),
        (lambda: SynFlow(rounds=-1), "finder.rounds is -1"),
        (lambda: GraSP(samples_per_class=0), "finder.samples_per_class is 0"),
        (lambda: GraSP(parts=0), "finder.parts is 0"),
        (lambda: GraSP(temperature=0.0), "finder.temperature is 0.0; it must be above 0"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(BadInput, match=message):
        make()


# -- whole searches -----------------------------------------------------------------------------


def masks_of(store, laid):
    jobs = {arm.name: arm.level.masks for arm in laid.arms if arm.level.masks}
    assert run(jobs.values(), store, HERE).failed == {}
    return {name: load_masks(store.entry(job).read(MASKS)) for name, job in jobs.items()}


@pytest.mark.parametrize("finder", [SNIP(), GraSP(parts=2)], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("model", [TEXT, {"model": "gcn-4", "task": "karate"}], ids=str)
def test_texts_and_graphs(model, finder, tmp_path):
    recipe = tiny_recipe(finder=finder, sparsity=0.5, **model)
    laid, store = experiment(recipe), Store(tmp_path)
    assert laid.tickets()[0].level.masks.config["score"] in ("snip", "grasp")
    if model is not TEXT:
        assert masks_of(store, laid)["ticket"].density == pytest.approx(0.5, abs=0.01)


def test_synflow_on_a_graph_has_ones_at_every_node_of_a_ring(tmp_path):
    laid = experiment(tiny_recipe(finder=SynFlow(rounds=3), model="gcn-4", task="karate"))
    assert masks_of(Store(tmp_path), laid)["ticket"].density == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("model", ["resnet-20x0.25", "conv-2x0.1"])
@pytest.mark.parametrize(
    "finder", [SNIP(), FORCE(rounds=3), GraSP(), SynFlow(rounds=5)], ids=lambda f: type(f).__name__
)
def test_a_convolutional_network(model, finder, tmp_path):
    controls = ("inverted", "random-scores", "random-labels")
    recipe = tiny_recipe(model=model, finder=finder, controls=controls, sparsity=0.8)
    found = masks_of(Store(tmp_path), experiment(recipe))
    assert len({masks.kept for masks in found.values()}) == 1
    dataless = isinstance(finder, SynFlow)
    assert (found["ticket"] == found["random-labels"]) == dataless
    assert found["ticket"] != found["inverted"]
    assert found["ticket"] != found["random-scores"]


def test_one_batch_of_a_hundred_is_what_one_shot_reads_too():
    def masks(finder):
        return experiment(tiny_recipe(finder=finder)).tickets()[0].level.masks

    assert masks(SNIP()) == masks(OneShot(score="snip", after="start")) == masks(FORCE(rounds=1))
    assert masks(SNIP()) != masks(SNIP(examples=128))
    assert masks(GraSP()) != masks(GraSP(parts=2))
