"""Controls start from a network that is whole, and train no less than the ticket did."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
import tiny
from torch import nn
from toys import HERE, tiny_recipe

from lth_zoo.allocate import allocate
from lth_zoo.carry import in_step
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, LRR, RST, SET, DeepR, EarlyBird, FineTune, Gradual, OneShot
from lth_zoo.formats import load_masks
from lth_zoo.jobs import DENSE, TICKET, graph, iterations_of
from lth_zoo.rewind import Snapshot
from lth_zoo.session import MASKS, read_state
from lth_zoo.store import Store

GO_ON = {
    "lrr": LRR(rate=0.4),
    "fine-tune": FineTune(rate=0.4),
    "imp none": IMP(rate=0.4, rewind="none"),
    "set": SET(every="2"),
    "rst": RST(),
}
CONTROLS = ("shuffle", "random-erk", "random-labels", "one-shot")


def levels(finder, name, **values):
    """The levels of an arm of a tiny recipe, by index."""
    controls = () if name in (DENSE, TICKET) else (name,)
    arms = experiment(tiny_recipe(finder=finder, controls=controls, **values)).arms
    return {arm.level.index: arm.level for arm in arms if arm.name == name}


@pytest.mark.parametrize("finder", GO_ON.values(), ids=GO_ON)
def test_no_control_starts_from_weights_that_are_0_outside_the_ticket(finder, tmp_path):
    recipe = tiny_recipe(finder=finder, controls=CONTROLS, sparsity=0.8)
    laid, store = experiment(recipe), Store(tmp_path)
    last = {arm.name: arm.level for arm in laid.arms}
    needed = [job for name in CONTROLS for job in (last[name].masks, last[name].start)]
    assert not run(needed, store, HERE).failed
    for name in CONTROLS:
        masks = load_masks(store.entry(last[name].masks).read(MASKS))
        state = read_state(store.entry(last[name].start)).state
        zeros = sum(int((state[n][m] == 0).sum()) for n, m in masks.items())
        assert zeros == 0, name
        assert masks.kept == masks.size // 5


@pytest.mark.parametrize("finder", [LRR(rate=0.4), FineTune(rate=0.4)], ids=["lrr", "fine-tune"])
def test_another_mask_is_put_on_the_trained_dense_network_and_retrained_alike(finder):
    own = levels(finder, TICKET, sparsity=0.8)
    dense = levels(finder, DENSE, sparsity=0.8)[0]
    for index, level in levels(finder, "shuffle", sparsity=0.8).items():
        assert level.start == dense.train
        config, ticket = dict(level.train.config), dict(own[index].train.config)
        assert config.pop("keep") == "metrics"
        ticket.pop("keep")
        assert config == ticket
    # The ticket's own weights, in other places: its mask is its own, and nothing is 0.
    for index, level in levels(finder, "shuffle-weights", sparsity=0.8).items():
        assert level.start.inputs["start"] == own[index].start


@pytest.mark.parametrize(
    ("finder", "whole"),
    [
        (SET(every="2", iterations=30), 30),
        (Gradual(iterations=8), 8),
        (DeepR(rewind="none=5"), 17),
        (RST(), None),
    ],
)
def test_a_control_of_a_search_under_masks_trains_as_long_as_search_and_ticket(finder, whole):
    ticket = list(levels(finder, TICKET, sparsity=0.6).values())[-1]
    control = list(levels(finder, "shuffle", sparsity=0.6).values())[-1]
    total = sum(iterations_of(j) for j in (ticket.start, ticket.train))
    assert whole in (None, total)
    assert iterations_of(control.train) == control.train.config["training"]["iterations"] == total
    assert control.start.kind == "init"


@pytest.mark.parametrize("rewind", ["none", "none=5", "learning-rate"])
def test_a_re_initialised_network_gets_one_whole_training(rewind):
    level = levels(IMP(rate=0.4, rewind=rewind), "reinit", sparsity=0.6)[1]
    assert (level.train.config["begin"], level.train.config["end"]) == (0, 12)


def test_a_stretched_schedule_has_its_milestones_and_warm_up_at_the_same_shares():
    training = {"iterations": 12, "schedule": "step", "milestones": (6, 9), "warmup": 2}
    made = levels(SET(every="2", iterations=24), "shuffle", sparsity=0.6, training=training)[1]
    asked = made.train.config["training"]
    assert (asked["milestones"], asked["warmup"]) in (([12, 18], 4), ((12, 18), 4))


@pytest.mark.parametrize("model", ["vae-8x0.1", "bert-mini"])
def test_what_is_given_to_all_is_in_no_equal_compute(model):
    fields = {"model": model, "task": "generation/digits" if "vae" in model else "pydocs/topic"}
    fields |= {} if "vae" in model else {"max_length": 16}
    names = ("equal-compute",)
    recipe = tiny_recipe(finder=OneShot(), controls=names, sparsity=0.5, **fields)
    (level,) = (a.level for a in experiment(recipe).arms if a.name == "equal-compute")
    assert sum(map(iterations_of, graph([level.train]))) > 2 * recipe.training.iterations
    assert iterations_of(level.train) == 2 * recipe.training.iterations


@pytest.mark.parametrize("finder", [EarlyBird(rewind="none", every="2", window=2)])
def test_an_early_bird_that_trains_on_goes_on_from_where_the_search_stopped(finder):
    level = levels(finder, TICKET, sparsity=0.5)[1]
    assert (level.train.config["begin"], level.train.config["end"]) == (None, 12)


def test_a_ticket_that_is_the_last_state_of_its_search_has_no_best_look():
    with pytest.raises(BadInput, match=r"training\.result is 'best', and this ticket is the last"):
        levels(SET(every="2"), TICKET, sparsity=0.5, training={"result": "best"})
    assert levels(SET(every="2", rewind="init"), TICKET, training={"result": "best"}, sparsity=0.5)


class Twice(nn.Module):
    """A matrix under two names."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))
        self.c.weight = self.b.weight


def test_every_name_of_a_shared_tensor_gets_what_one_of_them_got():
    model = Twice()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    after = before | {"b.weight": -before["b.weight"], "a.weight": before["a.weight"] + 1}
    state = in_step(model, before, after)
    assert state["c.weight"].equal(after["b.weight"])
    assert state["a.weight"].equal(after["a.weight"])
    model.load_state_dict(state)
    assert model.b.weight.equal(-before["b.weight"])
    other = in_step(model, before, before | {"c.weight": -before["c.weight"]})
    assert other["b.weight"].equal(-before["b.weight"])


def test_a_new_head_has_no_average_of_the_old_one(tmp_path):
    recipe = tiny_recipe(
        head="carry",
        finder=IMP(rate=0.5, rewind="step=4"),
        sparsity=0.5,
        training={"average": 0.9},
    )
    (ticket,) = experiment(recipe).tickets()
    graft = ticket.level.start
    assert graft.kind == "graft"
    store = Store(tmp_path)
    assert not run([graft], store, HERE).failed
    snapshot: Snapshot = read_state(store.entry(graft))
    assert "fc3.weight" in snapshot.state
    assert snapshot.average
    assert not [n for n in snapshot.average if n.startswith("fc3")]


def test_uniform_densities_that_would_turn_on_the_way_are_refused():
    deep = {"model": "lenet-300-100", "sparsity": 0.9}
    for finder in (IMP(rate=0.5, scope="uniform"), Gradual(scope="uniform", every="1")):
        with pytest.raises(BadInput, match="keeps the first layer dense, 19,200 weights"):
            experiment(tiny_recipe(finder=finder, **deep))
    assert experiment(tiny_recipe(finder=OneShot(scope="uniform"), **deep))
    assert experiment(
        tiny_recipe(finder=IMP(rate=0.1, scope="uniform"), **deep | {"sparsity": 0.3})
    )


def test_a_plan_of_a_gan_needs_no_judge(capsys, tmp_path):
    flags = ("--model", "dcgan-8x0.1", "--task", "generation/digits", "--sparsity", 0.5)
    answer = tiny.cli(capsys, "plan", *flags, "--store", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["seconds"] > 0


def test_smart_ratios_know_the_output_layer():
    shapes = {"a": (10, 10), "b": (10, 10), "c": (10, 10)}
    roles = {"a": "hidden", "b": "hidden", "c": "hidden"}

    def counts(groups):
        pools = allocate(shapes, Fraction(1, 5), "smart-ratio", groups=groups)
        return {p.names[0]: p.keep for p in pools}

    assert counts(None)["c"] == counts(roles | {"c": "output"})["c"] == 30
    without = counts(roles)
    assert without["c"] < 10, "the last of the others is none, and the deeper the fewer"
    assert all(a > b for a, b in pairwise(without.values()))
    assert sum(without.values()) == 60
