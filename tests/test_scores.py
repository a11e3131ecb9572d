"""Every criterion: by hand on four weights, and one contract for whatever is registered."""

from __future__ import annotations

import copy

import pytest
import torch
from contract_table import row
from torch import nn
from toys import INPUTS, Blobs, cross_entropy, mlp, same, some_masks

from lth_zoo import registry
from lth_zoo.allocate import Pool
from lth_zoo.errors import BadInput
from lth_zoo.masks import Masks
from lth_zoo.scores import ScoreContext, score
from lth_zoo.select import select

INIT = torch.tensor([[1.0, -2.0, 0.5, -4.0]])
FINAL = torch.tensor([[-3.0, -2.5, 0.0, 1.0]])
#: What a trace holds of four weights, by what it adds up.
TRACED = {
    "path": [1.0, 4.0, 2.0, 3.0],
    "sanh": [-1.0, 0.5, -2.0, 0.0],
    "early-1": [0.1, 0.2, 0.3, 0.0],
    "early-2": [0.1, 0.3, 0.2, 0.4],
    "early-5": [0.5, 0.0, 0.2, 0.6],
    "early-10": [0.9, 0.8, 0.0, 0.1],
}
BY_HAND = {
    "magnitude": [3.0, 2.5, 0.0, 1.0],
    "large_final": [3.0, 2.5, 0.0, 1.0],
    "small_final": [-3.0, -2.5, -0.0, -1.0],
    "large_init": [1.0, 2.0, 0.5, 4.0],
    "movement": [4.0, 0.5, 0.5, 5.0],
    "magnitude_increase": [2.0, 0.5, -0.5, -3.0],
    "large_final_same_sign": [-3.0, 2.5, 0.0, -1.0],
    "wanda": [3.0, 5.0, 0.0, 5.0],  # the inputs' norms are 1, 2, 3, 5
    "snip": [3.0, 5.0, 0.0, 4.0],  # of the first batch alone
    "gradient": [3.0, 5.0, 0.0, 7.0],  # the slopes are the inputs: 4 and 3 add up for the last
    "path_length": TRACED["path"],
    "sanh": TRACED["sanh"],
    **{f"early_movement_{p}": TRACED[f"early-{p}"] for p in (1, 2, 5, 10)},
}
KEEPS_TWO = {
    "magnitude": [0, 1],
    "large_final": [0, 1],
    "small_final": [2, 3],
    "large_init": [1, 3],
    "movement": [0, 3],
    "magnitude_increase": [0, 1],
    "large_final_same_sign": [1, 2],
    "wanda": [1, 3],
    "snip": [1, 3],
    "gradient": [1, 3],
    "path_length": [1, 3],
    "sanh": [1, 3],
    "early_movement_1": [1, 2],
    "early_movement_2": [1, 3],
    "early_movement_5": [0, 3],
    "early_movement_10": [0, 1],
}


#: What the linear layer is fed, batch by batch, by the scores that read data.
FED = torch.tensor([[[1.0, 2.0, 3.0, -4.0]], [[0.0, 0.0, 0.0, 3.0]]])


def context(model, states, masks=None, seed=0, batches=(), loss=None):
    masks = masks if masks is not None else some_masks(model)
    rng = torch.Generator().manual_seed(seed)
    return ScoreContext(model, masks, states, rng, batches, loss, example=torch.zeros(1, INPUTS))


def blobs():
    """Batches and the loss of the toy task, and the model's own noise if there is any."""
    task = Blobs()
    batches = [task.batch("train", torch.arange(i, i + 8)) for i in (0, 8)]
    return {"batches": batches, "loss": lambda model, batch: cross_entropy(model, batch, None)}


def four(dtype):
    model = nn.Linear(4, 1, bias=False).to(dtype)
    model.load_state_dict({"weight": FINAL})
    states = {"init": {"weight": INIT.to(dtype)}, "final": {"weight": FINAL.to(dtype)}}
    # Traces are in float32 or better, whatever the weights are.
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    states["trace"] = {f"{k}/weight": torch.tensor([v], dtype=sums) for k, v in TRACED.items()}
    return context(
        model,
        states,
        Masks.ones(model, ["weight"]),
        batches=[(x.to(dtype), None) for x in FED],
        loss=lambda network, batch: network(batch[0]).sum(),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BY_HAND)
def test_four_weights_by_hand(name, dtype):
    found = score(name, four(dtype))["weight"]
    # float32 or better, whatever the weights are; float64 is not rounded.
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.tolist() == torch.tensor([BY_HAND[name]], dtype=found.dtype).tolist()
    kept = select({"weight": found}, [Pool(("weight",), 2)])["weight"]
    assert kept.reshape(-1).nonzero().reshape(-1).tolist() == KEEPS_TWO[name]


def test_differences_are_taken_in_float32():
    # In bfloat16, with 8 bits, the small one would be lost beside 3.
    one, other = (torch.tensor([[v]]).bfloat16() for v in (3.0, 0.0042))
    model = nn.Linear(1, 1, bias=False).bfloat16()
    states = {"init": {"weight": other}, "final": {"weight": one}}
    found = score("movement", context(model, states, Masks.ones(model, ["weight"])))["weight"]
    assert found.item() == 3.0 - other.float().item() != 3.0


class Reads(dict):
    """States that note which of them were looked at."""

    def __init__(self, states):
        super().__init__(states)
        self.seen = set()

    def __getitem__(self, name):
        self.seen.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("name", registry.names("scores"))
def test_the_contract_of_a_score(name):
    model = mlp()
    traced = {f"{what}/{n}": p.abs() for what in TRACED for n, p in model.state_dict().items()}
    ends = {"init": mlp(seed=1).state_dict(), "final": model.state_dict()}
    states = Reads(ends | {"trace": traced})
    before = copy.deepcopy((model.state_dict(), dict(states)))
    data = blobs()
    found = score(name, context(model, states, **data))
    again, other = (score(name, context(model, states, seed=s, **data)) for s in (0, 1))
    masks = some_masks(model)
    assert list(found) == list(masks), "a score answers for every masked tensor"
    for entry, mask in masks.items():
        assert found[entry].shape == mask.shape
        assert found[entry].isfinite().all()
        assert found[entry].dtype in (torch.float32, torch.float64)
        assert not found[entry].requires_grad
    assert same(found, again), "same generator, same score"
    assert same(found, other) == (name != "random")
    assert same((model.state_dict(), dict(states)), before), "a score changes nothing"
    declared = registry.find("scores", name).needs
    assert states.seen == set(declared) == set(row("scores", name))
    elsewhere = ("random", "grasp", "synflow")
    assert name in BY_HAND or name in elsewhere, "add the score to BY_HAND"


def test_random_scores_are_uniform():
    model = nn.Linear(100, 100, bias=False)
    found = score("random", context(model, {}, Masks.ones(model, ["weight"])))["weight"]
    assert found.min() >= 0
    assert found.max() < 1
    assert abs(found.mean() - 0.5) < 0.02
    assert found.unique().numel() > 9900


def test_a_score_that_does_not_exist():
    with pytest.raises(BadInput, match="did you mean 'magnitude'"):
        score("magnitud", four(torch.float32))
