"""Planted tickets: tasks with a known answer, networks that hide it, what masks find of it."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from toys import HERE, tiny_recipe

import lth_zoo as lz
from lth_zoo import registry
from lth_zoo.adapters.planted import PLANTS, parse
from lth_zoo.adapters.planting import Pieces, matched, plant, target
from lth_zoo.errors import BadInput
from lth_zoo.finders import IMP
from lth_zoo.formats import load_masks
from lth_zoo.masks import Masks
from lth_zoo.parse import load
from lth_zoo.protocols import Yardstick, adapter_of, task_of
from lth_zoo.recipe import Recipe, Training
from lth_zoo.seeds import generator, seeded
from lth_zoo.session import MASKS
from lth_zoo.store import Store
from lth_zoo.studies.planted import Planted, planted_recipe, reached
from lth_zoo.studies.run import run_study
from lth_zoo.tasks.planted import unexplained
from lth_zoo.ticket import Ticket
from lth_zoo.trials.recovery import (
    planted_density,
    planted_in,
    planted_sparsity,
    recovery,
    recovery_of,
)

CASES = [
    ("planted-circle-20x3", 10, 10),
    ("planted-circle-40x4", 12, 8),
    ("planted-circle", 14, 6),
    ("planted-helix-30x3", 30, 0),
    ("planted-helix-50x6", 30, 0),
    ("planted-relu-2x2", 0, 0),
    ("planted-relu", 0, 0),
]


def task_for(name):
    base, *_ = parse(name)
    return task_of(base.replace("-", "/"))


def drawn(name, seed=0):
    """A network, its planted masks, and its task."""
    task, adapter = task_for(name), adapter_of(name)
    with seeded(seed, "init"):
        model = adapter.build(name, task.signature)
    return model, adapter.planted(model.state_dict()), task


# -- the tasks ----------------------------------------------------------------------------------


def test_the_rings_are_by_squared_radius_and_one_training_label_in_a_hundred_is_wrong():
    task = task_of("planted/circle")
    wrong = {}
    for split, (points, rings) in task.splits.items():
        assert points.abs().max() <= 1
        squares = points.double().square().sum(1)
        truth = sum((squares > bound).long() for bound in (0.2, 0.5, 0.7))
        wrong[split] = (rings != truth).sum().item()
        assert ((rings - truth).abs() <= 1).all(), "a flipped label is the neighbour's"
    assert wrong["validation"] == wrong["test"] == 0
    assert 60 < wrong["train"] < 100
    # Only exact arithmetic is in it, so this is the same everywhere, and for ever.
    assert task.fingerprint().startswith("530aa366ad2eb543")


def test_values_are_those_of_the_function_with_noise_in_training():
    for name in ("planted/relu", "planted/helix"):
        task = task_of(name)
        for split, (points, values) in task.splits.items():
            off = values.double().reshape(len(points), -1) - torch.from_numpy(
                task.function(points[:, 0].double().numpy())
            )
            spread = off.std().item()
            assert (0.0095 < spread < 0.0105) if split == "train" else spread < 1e-6
    x = np.array([-1.0, 0.0, 1.0])
    # At y = 2 pi, 5 pi, 8 pi.
    expected = [[0.25, 0, 0.25], [-0.625, 0, 0.625], [1, 0, 1]]
    assert np.allclose(task_of("planted/helix").function(x), expected)


def test_error_is_a_share_of_the_variance_at_the_best_scale():
    truth = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    assert unexplained(7 * truth[:, None], truth) == 0
    assert unexplained(-truth[:, None], truth) == 100, "no scale below 0"
    assert unexplained(0 * truth[:, None], truth) == 100
    # (1, -1, 1, 0): best scale 1, which leaves 1 of 4.
    assert unexplained(torch.tensor([[1.0], [-1], [1], [0]]).double(), truth) == 25
    raised = truth + 1  # mean 1, variance as before: 0 leaves 4 + 4 of 4
    assert unexplained(0 * truth[:, None], raised) == 200


# -- the targets --------------------------------------------------------------------------------


def test_two_pieces_of_a_square_by_hand():
    # Knots 0, 1, 2: slopes 1 and 3. relu(z - 1) = relu(1 - z) + z - 1, so
    # 1 z + 2 relu(z - 1) = 3 z + 2 relu(1 - z) - 2.
    pieces = Pieces.of(lambda z: z.square()[:, None], 2.0, 2)
    assert pieces.signs.tolist() == [1, -1]
    assert pieces.biases.tolist() == [0, 1]
    assert pieces.weights.tolist() == [[3], [2]]
    assert pieces.constant.tolist() == [-2]


def test_a_straight_line_is_one_unit():
    pieces = Pieces.of(lambda z: 0.5 + 2 * z[:, None] / 3, 2.0, 7)
    assert pieces.weights.count_nonzero() == 1


@pytest.mark.parametrize(("name", "first", "second"), CASES)
def test_how_many_weights_a_plant_has(name, first, second):
    base, _, depth = parse(name)
    found = [int(layer.weight.count_nonzero()) for layer in target(base, depth)]
    if base == "planted-relu":
        assert found == [1] * depth
    elif base == "planted-helix":
        # Two curves with a weight a knot, a line with one.
        assert found == [1, 30, 61, *[3] * (depth - 3)]
    else:
        # The first axis is one unit once it is folded, the second always the sum of two.
        folds = [12, 9, 9][: depth - 3]
        squares = first * (1 if depth > 3 else 2) + 2 * second
        assert found == [4, *folds, squares, 4 * (first + second)]


# -- planting -----------------------------------------------------------------------------------


def test_a_neuron_replaces_the_free_one_that_is_most_like_it():
    # Bias first. The goal (0, 1, 2): the second has another sign, the third the best angle.
    there = torch.tensor([[0.0, 2, 1], [0, -1, 9], [0, 1.5, 3], [0, 1, 1]]).double()
    goal = torch.tensor([[0.0, 1, 2]]).double()
    taken, scales = matched(goal.repeat(2, 1), there)
    # (1.5, 3) is 1.5 times the goal; then (1, 1): cosine 3 / sqrt 10, projection 3 / 5.
    assert taken.tolist() == [2, 3]
    assert scales.tolist() == pytest.approx([1.5, 0.6])


def test_where_nothing_points_its_way_the_copy_has_the_length_of_what_it_replaces():
    taken, scales = matched(torch.tensor([[0.0, 2]]).double(), torch.tensor([[0.6, -0.8]]).double())
    assert (taken.tolist(), scales.tolist()) == ([0], pytest.approx([0.5]))


def test_the_next_layer_divides_by_the_scale():
    layers = [torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]
    for layer, weight in zip(layers, (0.5, 3.0), strict=True):
        layer.register_buffer("planted", torch.zeros(1, 1, dtype=torch.bool))
        torch.nn.init.constant_(layer.weight, weight)
        torch.nn.init.constant_(layer.bias, 0.25)
    plant(layers, target("planted-relu", 2))
    # The first is 0.5 already; the second is 1 / 0.5 = 2 times the output's scale 3 / 2.
    assert [layer.weight.item() for layer in layers] == [0.5, 3.0]
    assert [layer.bias.item() for layer in layers] == [0, 0]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", [name for name, *_ in CASES])
def test_the_planted_weights_alone_solve_the_task_untrained(name, seed):
    model, masks, task = drawn(name, seed)
    dense = task.evaluate(model, "test")
    with torch.no_grad():
        for entry, mask in masks.items():
            model.get_parameter(entry).mul_(mask)
    alone = task.evaluate(model, "test")
    if "circle" in name:
        assert alone["accuracy"] >= 99.5 > 70 > dense["accuracy"]
    else:
        assert alone["error"] <= 0.1 < 10 < dense["error"]


@pytest.mark.parametrize("base", PLANTS)
def test_planted_weights_hide_among_weights_of_their_size(base):
    model, masks, _ = drawn(base)
    ratios = []
    for entry, mask in masks.items():
        weight = model.get_parameter(entry).detach()
        typical = (2 / weight.shape[1]) ** 0.5
        ratios += (weight[mask].abs() / typical).tolist()
        if mask.numel() > 1000:
            assert weight[~mask].std().item() == pytest.approx(typical, rel=0.05)
    assert 0.3 < np.sqrt(np.mean(np.square(ratios))) < 2
    assert max(ratios) < 7, "steep lines of the rings in the last layer"


def test_a_plant_is_where_its_seed_puts_it():
    (_, first, _), (_, other, _) = drawn("planted-circle"), drawn("planted-circle", 1)
    assert first == drawn("planted-circle")[1]
    assert first != other
    assert first.kept == other.kept
    assert planted_density("planted-circle", "planted/circle") == Fraction(first.kept, first.size)


# -- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("planted-circle-19x5", "width of at least 20.*planted-circle-20x5"),
        ("planted-circle-100x2", "depth of at least 3.*planted-circle-100x3"),
        ("planted-helix-10x1", "as in planted-helix-30x3"),
        ("planted-relu-5x1", "as in planted-relu-5x2"),
        ("planted-sphere", "model 'planted-sphere'.*planted-"),
    ],
)
def test_a_size_that_cannot_hold_its_plant_is_refused(name, advice):
    with pytest.raises(BadInput, match=advice):
        lz.find(name, "planted/circle", store="never")


def test_a_plant_fits_its_own_task_only(tmp_path):
    with pytest.raises(BadInput, match=r"task 'planted/helix'.*give --task planted/helix"):
        lz.find("planted-helix", "planted/circle", store=tmp_path / "none")
    with pytest.raises(BadInput, match="nothing is planted in model 'lenet-5'"):
        planted_in("lenet-5", {})


# -- recovery -----------------------------------------------------------------------------------


def bits(text):
    return torch.tensor([digit == "1" for digit in text])


def test_recovery_by_hand():
    truth = Masks({"a": bits("1100"), "b": bits("10000000")})
    found = recovery(Masks({"a": bits("1010"), "b": bits("11110000")}), truth)
    assert (found.planted, found.kept, found.found) == (3, 6, 2)
    assert found.recall == 2 / 3
    assert found.precision == 2 / 6
    # By chance 2 planted x 2/4 and 1 x 4/8.
    assert [layer.by_chance for layer in found.layers] == [1, 0.5]
    assert found.chance_recall == 1.5 / 3
    assert found.chance_precision == 1.5 / 6
    said = json.loads(json.dumps(found.to_json()))
    assert said["recall"] == 2 / 3
    assert [layer["found"] for layer in said["layers"]] == [1, 1]
    assert recovery(truth, truth).recall == recovery(truth, truth).precision == 1
    # A tensor that no mask covers is dense.
    assert recovery(Masks({"b": bits("00000000")}), truth).found == 2
    assert recovery(Masks({"a": bits("0000"), "b": bits("00000000")}), truth).precision == 0
    with pytest.raises(BadInput, match="'a' has shape"):
        recovery(Masks({"a": bits("11")}), truth)


def test_random_masks_find_what_chance_says():
    _, truth, _ = drawn("planted-circle-20x3")
    rng = generator(0, "noise")
    found = []
    for _ in range(200):
        masks = Masks({n: torch.rand(m.shape, generator=rng) < 0.3 for n, m in truth.items()})
        found.append(recovery(masks, truth))
    recall = sum(one.recall for one in found) / len(found)
    assert recall == pytest.approx(0.3, abs=0.02)
    assert sum(one.chance_recall for one in found) / len(found) == pytest.approx(recall, abs=0.02)


# -- through the engine ---------------------------------------------------------------------------


def test_a_ticket_at_the_planted_density_knows_where_the_plant_was(tmp_path):
    name, task = "planted-circle-20x3", "planted/circle"
    ticket = lz.find(
        name,
        task,
        finder=IMP(rate=0.8),
        sparsity=planted_sparsity(name, task),
        training=Training(iterations=4, evaluate_every=2, average=0.9),
        controls=("reinit", "random-labels"),
        store=tmp_path / "store",
    )
    _, truth, _ = drawn(name)
    assert ticket.masks.kept == truth.kept
    found = recovery_of(ticket)
    assert found == recovery(ticket.masks, truth)
    ticket.save_pretrained(tmp_path / "ticket")
    back = Ticket.from_pretrained(tmp_path / "ticket")
    assert recovery_of(back) == found
    model = back.materialize()
    assert adapter_of(name).planted(model.state_dict()) == truth
    assert not any(n.endswith("planted") for n, _ in model.named_parameters())


def test_a_network_of_another_family_learns_the_tasks_too(tmp_path):
    training = Training(iterations=100, evaluate_every=100, learning_rate=3e-3)
    for task in ("planted/circle", "planted/helix", "planted/relu"):
        ticket = lz.find(
            *("lenet-300-100x0.2", task),
            **{"sparsity": 0.5, "training": training, "finder": IMP(rate=0.5)},
            store=tmp_path,
        )
        metrics = ticket.meta["metrics"]["test"]
        assert metrics["accuracy"] > 50 if "circle" in task else metrics["error"] < 100
        with pytest.raises(BadInput, match="nothing is planted"):
            recovery_of(ticket)


# -- the study ------------------------------------------------------------------------------------


def test_the_study_finds_the_whole_plant_where_it_is_planted_and_says_who_matches(tmp_path):
    recipe = tiny_recipe(model="planted-relu-5x2", seeds=(0, 1))
    study = Planted(tasks=("relu",), finders=("imp", "one-shot"), rounds=2)
    found = run_study(study, recipe, Store(tmp_path), HERE)
    rows = {row["finder"]: row for row in found.answer.data["rows"]}
    assert list(rows) == ["dense", "planted, untrained", "planted", "imp", "one-shot"]
    assert max(rows["planted, untrained"]["values"].values()) < 1e-6
    assert rows["planted"]["recall"] == rows["planted"]["precision"] == [1, 1]
    assert {row["kept"] for row in rows.values() if "kept" in row} == {2}
    truth = {
        (p.of["finder"], p.of["seed"]): load_masks(Store(tmp_path).entry(p.job).read(MASKS))
        for p in found.probes
        if p.of.get("what") in ("plant", "masks")
    }
    for seed in (0, 1):
        by_hand = recovery(truth["imp", seed], truth["planted", seed])
        assert rows["imp"]["recall"][seed] == by_hand.recall
        assert rows["imp"]["chance_recall"][seed] == by_hand.chance_recall
    # Two levels, exactly: 10 weights, then 4 or 5, then 2.
    levels = {arm.level.index for arm in study.fitting(recipe, "relu", None)[0]["imp"].arms}
    assert levels == {0, 1, 2}
    assert found.answer.findings[0].startswith("relu, 2 weights: ")


def test_matching_is_within_the_margin_in_the_metrics_own_direction():
    accuracy, error = Yardstick("accuracy", True, 1.0), Yardstick("error", False, 1.0)
    assert reached({0: 98.0, 1: 96.0}, {0: 98.0, 1: 98.0}, accuracy)
    assert not reached({0: 96.9}, {0: 98.0}, accuracy)
    assert reached({0: 1.5}, {0: 0.5}, error)
    assert not reached({0: 1.6}, {0: 0.5}, error)
    assert reached({0: 0.0}, {0: 5.0}, error)
    assert not reached({}, {0: 5.0}, error)


def test_by_default_every_finder_that_fits_is_asked_and_the_others_say_why():
    fitting, why = Planted().fitting(load("planted"), "circle", None)
    assert {"imp", "lrr", "one-shot", "mask-training", "movement"} <= fitting.keys()
    assert {"ugs", "gan-imp", "moment-matching"} <= why.keys()
    assert fitting.keys() | why.keys() == set(registry.names("finders"))
    assert "prunes a graph" in why["ugs"]
    assert {one.recipe.sparsity for one in fitting.values()} == {load("planted").sparsity}
    assert max(arm.level.index for arm in fitting["imp"].arms) == 10


def test_what_the_study_cannot_ask_is_said_before_anything_runs():
    with pytest.raises(BadInput, match=r"planted task 'sphere'.*circle"):
        Planted(tasks=("sphere",))
    with pytest.raises(BadInput, match="finder 'impp'"):
        Planted(finders=("impp",))
    with pytest.raises(BadInput, match="at least one"):
        Planted(rounds=0)
    with pytest.raises(BadInput, match=r"finder 'ugs' does not fit: .*prunes a graph"):
        Planted(finders=("imp", "ugs")).lay_out(load("planted"), None)
    with pytest.raises(BadInput, match="no finder fits task planted/helix"):
        Planted(finders=("grasp",)).lay_out(load("planted"), None)
    recipe = planted_recipe(Recipe(model="planted-circle-40x4"), "helix")
    assert (recipe.model, recipe.task) == ("planted-helix-40x4", "planted/helix")
    assert planted_recipe(Recipe(model="planted-relu"), "circle").model == "planted-circle"
    with pytest.raises(BadInput, match=r"of lth-zoo study planted.*not lenet-300-100"):
        planted_recipe(Recipe(), "circle")
