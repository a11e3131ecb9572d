"""Models of the user's own: functions by name, and modules reset in place."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lth_zoo.adapters.custom import Custom, reset_in_place
from lth_zoo.errors import BadInput
from lth_zoo.experiment import check
from lth_zoo.protocols import Signature, adapter_of, default_prunable
from lth_zoo.recipe import Recipe
from lth_zoo.seeds import seeded

TINY = Signature((1, 8, 8), 10)


def build(name: str, signature: Signature) -> nn.Module:
    with seeded(0, "init"):
        return adapter_of(name).build(name, signature)


USER = """
import torch
from torch import nn
from torch.nn import functional as F

def plain():
    return nn.Linear(64, 10)

def sized(signature):
    return nn.Linear(signature.input[0], signature.output)

def optional(width=3):
    return nn.Linear(width, 10)

def checkpoint():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 2)

def needs(depth, width):
    return nn.Linear(depth, width)

def wrong():
    return {"a": 1}

model = nn.Linear(2, 2)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 2)
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("my_models", None)


@pytest.mark.parametrize(
    ("function", "inputs"), [("plain", 64), ("sized", 7), ("optional", 3), ("Net", 5)]
)
def test_functions_of_the_users_own(user, function, inputs):
    name = f"my_models:{function}"
    path = list(sys.path)
    model = build(name, Signature((7,), 2))
    assert next(iter(model.parameters())).shape[1] == inputs
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_models:wrong", "returned a dict; expected an nn.Module"),
        ("my_models:model", "is a Linear; expected a function"),
        ("my_models:needs", "needs the arguments depth, width"),
        ("my_models:plian", "did you mean 'plain'"),
        ("no_such_module:f", "cannot import 'no_such_module:f'"),
    ],
)
def test_bad_functions_are_named(user, name, message):
    with pytest.raises(BadInput, match=message):
        build(name, TINY)


@pytest.mark.parametrize("name", ["a:b:c", ":b", "a:", "a b:c", "C:\\model", "hub/x"])
def test_other_names_are_nobodys_function(name):
    assert not Custom().owns(name)


@pytest.mark.parametrize("function", ["plain", "checkpoint"])
def test_reset_of_a_users_function_draws_anew(user, function):
    name, signature = f"my_models:{function}", Signature((4,), 2)
    model = build(name, signature)
    start = model.weight.clone()
    drawn = []
    for seed in (1, 1, 2):
        with seeded(seed, "init"):
            Custom().reset(model, name, signature)
        drawn.append(model.weight.detach().clone())
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(start)
    assert not drawn[0].equal(drawn[2])


class Stubborn(nn.Module):
    """A weight that nothing draws anew, beside a layer that can."""

    def __init__(self) -> None:
        super().__init__()
        self.easy = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.token = nn.Parameter(torch.full((3,), 7.0))


def test_reset_in_place_draws_parameters_and_statistics():
    model = Stubborn()
    before = model.easy[0].weight.clone()
    model.easy[1].running_mean.fill_(5)
    with seeded(0, "init"):
        reset_in_place(model, default_prunable(model))
    assert not model.easy[0].weight.equal(before)
    assert not model.easy[1].running_mean.any()
    assert model.token.equal(torch.full((3,), 7.0))


def test_reset_in_place_names_the_tensor_and_changes_nothing():
    model = Stubborn()
    model.easy[1].running_mean.fill_(5)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BadInput, match="'token' anew: Stubborn has neither"):
        reset_in_place(model, ["easy.0.weight", "token"])
    assert all(before[key].equal(value) for key, value in model.state_dict().items())


def test_reset_in_place_of_a_hugging_face_model():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(**sizes, num_hidden_layers=1, vocab_size=50, initializer_range=0.5)
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():  # as from_pretrained leaves them
        parameter._is_hf_initialized = True
    query = model.bert.encoder.layer[0].attention.self.query
    before = query.weight.clone()
    with seeded(0, "init"):
        reset_in_place(model, default_prunable(model))
    assert not query.weight.equal(before)
    assert query.weight.std().item() == pytest.approx(0.5, rel=0.1)  # its own rule, not torch's
    assert not query.bias.any()
    assert not any(p.isnan().any() for p in model.parameters())
    assert query.weight._is_hf_initialized


def test_the_code_of_a_model_is_in_the_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = "return nn.Sequential(nn.Flatten(), nn.Linear(64, 10){})"
    code = f"from torch import nn\ndef net():\n    {body}\n"
    Path("keyed_nets.py").write_text(code.format(""))
    recipe = Recipe(model="keyed_nets:net", seeds=(0,), controls=())
    first = check(recipe)
    assert check(recipe) == first
    Path("keyed_nets.py").write_text(code.format(", nn.Identity()"))
    sys.modules.pop("keyed_nets")
    importlib.invalidate_caches()
    assert check(recipe) != first
