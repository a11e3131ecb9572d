"""Early-bird channels: which go, when the search stops, and a training without them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import toy_units
from torch import nn
from toys import HERE, same, tiny_recipe

from lth_zoo import kinds
from lth_zoo.compact import left_of, lines_of
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import ChannelEarlyBird
from lth_zoo.formats import load_masks, load_snapshot
from lth_zoo.jobs import graph, iterations_of
from lth_zoo.protocols import Signature, adapter_of
from lth_zoo.prunable import Part, Units
from lth_zoo.searches.channels import Pull, fewest_removed, scaled
from lth_zoo.searches.structured import name_of
from lth_zoo.seeds import seeded
from lth_zoo.session import LOG, MASKS, RESULT, STATE, Session
from lth_zoo.store import CHECKPOINT, Store

TRAINING = {"iterations": 40, "evaluate_every": 20, "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def toys():
    with toy_units.registered():
        yield


# -- which go --------------------------------------------------------------------------------

#: Three channels with 2 inputs, then two channels, then 4 outputs.
SHAPES = {"a": (3, 2), "b": (2, 3), "c": (4, 2)}
CHAIN = [
    Units("a", "channel", 0, 3, (Part("a", 0), Part("b", 1))),
    Units("b", "channel", 1, 2, (Part("b", 0), Part("c", 1))),
]


def kept(scores, density):
    found = fewest_removed([torch.tensor(s) for s in scores], CHAIN, SHAPES, density)
    return [found[name_of(unit)].int().tolist() for unit in CHAIN]


def test_as_few_channels_go_as_reach_the_density():
    scores = [0.1, 0.9, 0.3], [0.2, 0.8]
    assert kept(scores, "1") == [[1, 1, 1], [1, 1]]
    # Of 20 weights the first channel of a has 2 + 2, the first of b then 2 + 4.
    assert kept(scores, "19/20") == [[0, 1, 1], [1, 1]]
    assert kept(scores, "16/20") == [[0, 1, 1], [1, 1]]
    assert kept(scores, "15/20") == [[0, 1, 1], [0, 1]]
    assert kept(scores, "10/20") == [[0, 1, 1], [0, 1]]
    assert kept(scores, "9/20") == [[0, 1, 0], [0, 1]]
    assert kept(scores, "7/20") == [[0, 1, 0], [0, 1]]
    with pytest.raises(BadInput, match=r"sparsity 0.7 is out of reach: with one channel left in "):
        kept(scores, "6/20")


def test_every_layer_keeps_its_best_channel_and_ties_the_first():
    assert kept(([0.1, 0.2, 0.3], [0.8, 0.9]), "12/20") == [[0, 0, 1], [1, 1]]
    assert kept(([0.1, 0.2, 0.3], [0.8, 0.9]), "7/20") == [[0, 0, 1], [0, 1]]
    assert kept(([0.5, 0.5, 0.5], [0.5, 0.5]), "7/20") == [[1, 0, 0], [1, 0]]


def test_networks_that_do_not_compete_lose_the_same_share():
    apart = [replace(unit, role=unit.layer) for unit in CHAIN]
    scores = [torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.8, 0.9])]
    found = {}
    for density in ("19/20", "15/20", "7/20"):
        masks = fewest_removed(scores, apart, SHAPES, density)
        found[density] = [masks[f"{u.role}:{u.layer}"].int().tolist() for u in apart]
    # 4 of 5 channels are 2.4 of 3 and 1.6 of 2; 3 of 5 are 1.8 of 3 and 1.2 of 2.
    assert found["19/20"] == [[0, 1, 1], [1, 1]]
    assert found["15/20"] == [[0, 1, 1], [0, 1]]
    assert found["7/20"] == [[0, 0, 1], [0, 1]]
    adapter, signature = adapter_of("dcgan-8x0.1"), Signature((1, 16, 16), 256, "images")
    model = adapter.build("dcgan-8x0.1", signature)
    units, covered = adapter.units(model), adapter.prunable(model)
    roles = {unit.layer: unit.role for unit in scaled(units, covered, "group")}
    assert roles == {layer: layer.partition(".")[0] for layer in roles}
    assert {unit.role for unit in scaled(units, covered)} == {"channel"}


def test_weights_of_what_stays_are_counted_over_all_axes():
    stay = [torch.tensor([True, False, True]), torch.tensor([False, True])]
    lines = lines_of(CHAIN, stay, SHAPES)
    assert {n: {a: t.int().tolist() for a, t in axes.items()} for n, axes in lines.items()} == {
        "a": {0: [1, 0, 1]},
        "b": {1: [1, 0, 1], 0: [0, 1]},
        "c": {1: [0, 1]},
    }
    assert left_of(lines, SHAPES) == 2 * 2 + 1 * 2 + 4 * 1
    assert left_of(lines, {"c": (4, 2), "free": (3, 5)}) == 4 + 15


def test_scales_are_pulled_and_the_rest_is_not():
    with seeded(0, "init"):
        adapter = adapter_of(toy_units.NORMED)
        model = adapter.build(toy_units.NORMED, Signature((1, 8, 8), 10))
    units = scaled(adapter.units(model), adapter.prunable(model))
    assert [unit.scale for unit in units] == ["2.weight", "5.weight"]
    for name, parameter in model.named_parameters():
        if name != "5.weight":  # that of another objective
            parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        model[2].weight[:3] = torch.tensor([-0.5, 0.0, 0.5])

    class AnyLoop:
        pass

    loop = AnyLoop()
    loop.model = model
    Pull(units, 0.25).on_gradients(loop)
    assert model[2].weight.grad[:3].tolist() == [-0.25, 0.0, 0.25]
    assert model[5].weight.grad is None
    others = [p.grad for n, p in model.named_parameters() if n not in ("2.weight", "5.weight")]
    assert not any(grad.any() for grad in others)


# -- the search ------------------------------------------------------------------------------


def search(finder, **fields):
    plain = {"model": toy_units.NORMED, "sparsity": 0.5}
    fields = plain | fields | {"training": TRAINING | fields.get("training", {})}
    laid = experiment(tiny_recipe(finder=finder, **fields))
    return laid, {arm.name: arm.level for arm in laid.arms}


def ran(folder, finder, **fields):
    laid, levels = search(finder, **fields)
    store = Store(folder)
    assert run(laid.goals, store, HERE).failed == {}
    return store, levels


def searched(store, level):
    return store.entry(level.masks).json(RESULT)


def result(store, level):
    return store.entry(level.train).json(RESULT)


def state(store, job):
    return load_snapshot(store.entry(job).read(STATE))


def curve(store, job):
    return [json.loads(line) for line in store.entry(job).read(LOG).splitlines()]


def test_settled_channels_end_the_search_and_the_ticket_goes_on_from_there(tmp_path):
    store, levels = ran(tmp_path, ChannelEarlyBird(every="2", window=3))
    level = levels["ticket"]
    found = searched(store, level)
    assert found["settled"]
    assert found["iterations"] == 6, "the window is full, and scales move slowly"
    assert found["distances"][-1] < 0.1
    assert found["units"]["linear"] == {"1": [14, 30], "4": [10, 10]}
    drawn = state(store, level.masks)
    assert drawn.iteration == 6
    scale = drawn.state["2.weight"].abs()
    rows = load_masks(store.entry(level.masks).read(MASKS))["1.weight"].any(1)
    assert scale[rows].min() >= scale[~rows].max()
    trained = result(store, level)
    assert trained["iterations"] == 34
    assert trained["compact"] == {"parameters": 1218, "dense_parameters": 2450}
    assert trained["parameters"] == 2450
    assert [row["iteration"] for row in curve(store, level.train)] == [20, 40]


def test_a_pull_makes_scales_small(tmp_path):
    sums = []
    for strength in (0.0, 0.1):
        store, levels = ran(tmp_path, ChannelEarlyBird(every="4", window=9, strength=strength))
        found = state(store, levels["ticket"].masks)
        assert found.iteration == 20, "at the latest after half of the training"
        assert not searched(store, levels["ticket"])["settled"]
        sums.append(found.state["2.weight"].abs().sum().item())
    assert sums[1] < 0.9 * sums[0]


def test_what_survivors_get_back():
    for rewind, begin, start, fresh in (
        ("none", None, "channels", True),
        ("init", 0, "init", True),
        ("step=5", 5, "train", False),
        ("none=7", 40, "channels", True),
    ):
        _, levels = search(ChannelEarlyBird(rewind=rewind))
        level = levels["ticket"]
        config = level.train.config
        assert (config["begin"], level.start.kind) == (begin, start)
        assert config["end"] == (47 if rewind == "none=7" else 40)
        assert config["fresh_optimizer"] is fresh
        assert config["compact"] is True
        assert iterations_of(level.train) == {"step=5": 35, "none=7": 7}.get(rewind, 40)
        assert not any("compact" in job.config for job in graph([level.masks, level.start]))
        assert "compact" not in levels["dense"].train.config
    _, levels = search(ChannelEarlyBird(shrink=False))
    assert "compact" not in levels["ticket"].train.config
    assert levels["ticket"].train.config["begin"] is None


# -- training the smaller network --------------------------------------------------------------


@pytest.mark.parametrize("rewind", ["none", "step=5"])
@pytest.mark.parametrize("average", [None, 0.9])
def test_a_shrunk_ticket_is_the_masked_one(tmp_path, rewind, average):
    training = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.02, "average": average}
    found = []
    for shrink in (True, False):
        finder = ChannelEarlyBird(every="2", window=2, rewind=rewind, shrink=shrink)
        found.append(ran(tmp_path, finder, training=training))
    (store, ours), (_, theirs) = ((s, levels["ticket"]) for s, levels in found)
    assert ours.masks == theirs.masks
    one, other = result(store, ours), result(store, theirs)
    assert "compact" not in other
    assert {k: one[k] for k in ("masks", "parameters", "iterations", "flags")} == {
        k: other[k] for k in ("masks", "parameters", "iterations", "flags")
    }
    for split in ("validation", "test"):
        assert one["metrics"][split] == pytest.approx(other["metrics"][split], abs=0.5)
        assert one["metrics"][split]["loss"] == pytest.approx(other["metrics"][split]["loss"], 1e-3)
    shrunk, masked = state(store, ours.train).state, state(store, theirs.train).state
    assert {n: t.shape for n, t in shrunk.items()} == {n: t.shape for n, t in masked.items()}
    for name, mask in load_masks(store.entry(ours.masks).read(MASKS)).items():
        assert not shrunk[name][~mask].any()
        assert torch.allclose(shrunk[name], masked[name], rtol=0, atol=1e-4), name


def test_a_small_resnet_keeps_its_stream(tmp_path):
    finder = ChannelEarlyBird(every="1", window=2, latest="2")
    store, levels = ran(
        tmp_path, finder, model="resnet-20x0.25", training={"iterations": 3, "evaluate_every": 3}
    )
    masks = load_masks(store.entry(levels["ticket"].masks).read(MASKS))
    assert masks.density <= 0.5
    whole = [n for n, m in masks.items() if m.all()]
    outside = {"conv.weight", "fc.weight", *(n for n in masks if "shortcut" in n)}
    assert outside <= set(whole)
    channels = searched(store, levels["ticket"])["units"]["conv"]
    assert all(1 <= left <= of for left, of in channels.values())
    # Without the last that went it was more: no channel has more than 2 x 9 x 16 weights.
    assert masks.kept > 0.5 * masks.size - 2 * 9 * 16
    compact = result(store, levels["ticket"])["compact"]
    assert compact["parameters"] < 0.56 * compact["dense_parameters"]


class Killed(Exception):
    """The process died."""


def test_a_killed_training_of_the_smaller_network_ends_as_if_nothing_had_happened(
    tmp_path, monkeypatch
):
    finder = ChannelEarlyBird(every="1", window=3)
    training = {"optimizer": "adam", "average": 0.9}
    store, levels = ran(tmp_path / "a", finder, training=training)
    job, other = levels["ticket"].train, Store(tmp_path / "b")
    assert run(job.inputs.values(), other, HERE).failed == {}
    for at in (5, 23, 40):

        def dies(self, loop, at=at):
            self.session.checkpoint(loop.snapshot())
            if loop.iteration == at:
                raise Killed

        monkeypatch.setattr(kinds.Watch, "on_iteration", dies)
        with other.claim(job), pytest.raises(Killed):
            kinds.execute(Session(job, other, HERE))
        monkeypatch.undo()
        raw = (other.folder(job) / CHECKPOINT).read_bytes()[64:]
        assert load_snapshot(raw, "checkpoint").state["1.weight"].shape == (14, 64)
    assert run([job], other, HERE).failed == {}
    assert other.entry(job).json(RESULT) == store.entry(job).json(RESULT)
    assert curve(other, job) == curve(store, job)
    assert same(state(other, job).tensors(), state(store, job).tensors())


# -- controls --------------------------------------------------------------------------------


def test_controls_shrink_as_far_as_their_masks_allow(tmp_path):
    names = ("reinit", "shuffle", "random-scores", "inverted")
    finder = ChannelEarlyBird(every="2", window=2)
    store, levels = ran(tmp_path, finder, controls=names)
    found = {name: result(store, levels[name]) for name in ("ticket", *names)}
    sizes = {name: one["compact"]["parameters"] for name, one in found.items()}
    assert sizes["reinit"] == sizes["ticket"] == 1218
    assert sizes["shuffle"] == 2450, "single weights are no whole channels"
    assert sizes["random-scores"] < 2450
    assert sizes["inverted"] < 2450
    assert all(one["compact"]["dense_parameters"] == 2450 for one in found.values())
    # What was drawn anew is trained from the beginning, the rest from where the search stopped.
    iterations = {name: one["iterations"] for name, one in found.items()}
    assert iterations == dict.fromkeys(("ticket", *names), 36) | {"reinit": 40}
    bad = searched(store, levels["inverted"])["units"]["linear"]
    assert bad["4"][0] == 1, "the largest scales go"
    assert searched(store, levels["random-scores"])["distances"] == [0.0]
    drawn = {
        name: load_masks(store.entry(levels[name].masks).read(MASKS))["1.weight"].any(1)
        for name in ("ticket", "random-scores", "inverted")
    }
    assert not drawn["ticket"].equal(drawn["random-scores"])


# -- bad input -------------------------------------------------------------------------------


def test_bad_input(tmp_path):
    for values, message in (
        ({"window": 1}, "finder.window is 1; it must be at least 2"),
        ({"threshold": 0.0}, "finder.threshold is 0.0"),
        ({"strength": -1.0}, "finder.strength is -1.0; it must be at least 0"),
    ):
        with pytest.raises(BadInput, match=message):
            ChannelEarlyBird(**values)
    for finder, fields, message in (
        ({"every": "50"}, {}, r"finder\.every is '50'"),
        ({"latest": "0"}, {}, r"finder\.latest is '0'"),
        ({"rewind": "step=30"}, {}, "'50%' is iteration 20, and with rewind 'step=30' the search"),
        ({}, {"sparsity": 0.99}, "sparsity 0.99 is out of reach: with one channel left in each of"),
        ({}, {"model": "lenet-300-100x0.1"}, "this model are not known; vgg-11, resnet-20, dcgan"),
        ({}, {"model": toy_units.MODEL}, "no channel can be removed by its norm's scale"),
        ({}, {"exclude": ("4",)}, "those of this model lie in layers that the recipe does not"),
    ):
        with pytest.raises(BadInput, match=message):  # before anything is trained
            search(ChannelEarlyBird(**finder), **fields)


def test_a_norm_without_scales_has_no_channels():
    class Flat(toy_units.ToyNorms):
        def units(self, model):
            return [Units("1", "channel", 0, 30, (Part("1.weight", 0), Part("4.weight", 1)))]

    model = nn.Linear(1, 1)
    with pytest.raises(BadInput, match="are not known"):
        scaled(Flat().units(model), ["1.weight", "4.weight"])
