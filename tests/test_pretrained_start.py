"""Searches that start from a checkpoint: it is what survivors get back, to the bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hf_models import save_tiny
from safetensors.torch import load_file

from lth_zoo.chain import Chain
from lth_zoo.engines.local import run
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP
from lth_zoo.formats import load_masks
from lth_zoo.given import pretrained_start
from lth_zoo.jobs import TICKET
from lth_zoo.recipe import Recipe, Training
from lth_zoo.session import MASKS, STATE, Execution, read_state
from lth_zoo.store import Store

TRAINING = Training(
    iterations=6, batch_size=8, optimizer="adamw", learning_rate=1e-2, evaluate_every=6
)


def searched(model, store, **fields):
    """Run a search of two levels; return its tickets' levels and the store."""
    finder = IMP(rate=0.4, rewind=fields.pop("rewind", "init"))
    values = {"training": TRAINING, "sparsity": 0.64, "seeds": (0,), "controls": ()} | fields
    recipe = Recipe(model=str(model), finder=finder, max_length=32, **values)
    laid = experiment(recipe)
    assert run(laid.goals, Store(store), Execution()).failed == {}
    return [arm.level for arm in laid.arms if arm.name == TICKET], Store(store), laid


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize("task", ["pydocs/shuffle", "pydocs/mlm"])
@pytest.mark.parametrize("head", ["fresh", "carry", "rewind"])
def test_every_level_starts_from_the_checkpoint_exactly(folder, tmp_path, task, head):
    theta = {n: t.clone() for n, t in load_file(folder / "model.safetensors").items()}
    levels, store, laid = searched(folder, tmp_path, task=task, head=head)
    heads = [laid.arms[0].level.start]
    for level in levels:
        start = read_state(store.entry(level.start)).state
        masks = load_masks(store.entry(level.masks).read(MASKS))
        trained = read_state(store.entry(level.train)).state
        base = [n for n in start if n.startswith("bert.") and n in theta]
        assert len(base) > 30
        assert max((start[n] - theta[n]).abs().max().item() for n in base) == 0
        for name, mask in masks.items():
            assert (start[name] - theta[name])[mask].abs().max() == 0
            assert (trained[name] != start[name])[mask].any()
            assert not trained[name][~mask].any()
        heads.append(level.start)
    drawn = [read_state(store.entry(job)).state for job in heads]
    own = [n for n in drawn[0] if not n.startswith("bert.") and "decoder.weight" not in n]
    weights = [torch.cat([state[n].flatten() for n in own]) for state in drawn]
    alike = [bool((a == b).all()) for a, b in pairwise(weights)]
    assert alike == [head == "rewind"] * 2


def test_a_start_leaves_to_the_checkpoint_what_it_holds(folder, tmp_path):
    levels, store, _ = searched(folder, tmp_path, task="pydocs/order")
    size = (folder / "model.safetensors").stat().st_size
    for level in levels:
        assert len(store.entry(level.start).read(STATE)) < size / 5


def test_a_later_rewind_point_keeps_its_weights_and_gets_a_fresh_head(folder, tmp_path):
    levels, store, laid = searched(folder, tmp_path, task="pydocs/order", rewind="step=2")
    point = laid.arms[0].level.start
    passed = read_state(store.entry(point))
    for level in levels:
        start = read_state(store.entry(level.start))
        assert start.iteration == 2
        same = {n: start.state[n].equal(t) for n, t in passed.state.items()}
        odd = {n for n, equal in same.items() if not equal}
        assert odd == {"classifier.weight", "classifier.bias"}


def test_an_embedded_model_is_pretrained_once_for_every_task_and_seed():
    start = pretrained_start("bert-mini")
    assert start is not None
    assert start.config["task"] == "pydocs/mlm"
    for task, seed in (("pydocs/order", 0), ("pydocs/topic", 3)):
        chain = Chain(Recipe(model="bert-mini", task=task), seed, "data")
        assert chain.initial().inputs["pretrained"] == start
    assert pretrained_start("lenet-300-100") is None
