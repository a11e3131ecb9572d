"""Every registered control on a toy recipe: it destroys its one ingredient and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from contract_table import CONTROLS, row
from toys import HERE, same, tiny_recipe

from lth_zoo import registry
from lth_zoo.allocate import allocate
from lth_zoo.chain import Chain
from lth_zoo.controls import Draft, changed_by
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import Experiment, experiment
from lth_zoo.finders import IMP
from lth_zoo.formats import load_masks, load_snapshot
from lth_zoo.jobs import TICKET, Level, graph
from lth_zoo.masks import Masks
from lth_zoo.rewind import Snapshot
from lth_zoo.session import MASKS, RESULT, STATE
from lth_zoo.store import Store

TRAINING = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9}


@dataclass
class Ran:
    """A finished toy experiment and its store."""

    laid: Experiment
    store: Store

    def levels(self, name: str, seed: int = 0) -> list[Level]:
        return [arm.level for arm in self.laid.arms if (arm.name, arm.seed) == (name, seed)]

    def masks(self, level: Level) -> Masks:
        return load_masks(self.store.entry(level.masks).read(MASKS))

    def start(self, level: Level) -> Snapshot:
        return load_snapshot(self.store.entry(level.start).read(STATE))


def ran_in(folder, rewind="step=2", **values):
    names = tuple(sorted(CONTROLS))
    finder = IMP(rate=0.5, rewind=rewind)
    values = {"controls": names, "sparsity": 0.75, "training": TRAINING} | values
    values = {"model": "toys:blocks"} | values
    laid, store = experiment(tiny_recipe(finder=finder, **values)), Store(folder)
    assert run(laid.goals, store, HERE).failed == {}
    return Ran(laid, store)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return ran_in(tmp_path_factory.mktemp("controls"), seeds=(0, 1))


def pairs(ran, name, seed=0):
    """(ticket, control) at each level."""
    tickets, controls = ran.levels(TICKET, seed), ran.levels(name, seed)
    assert [t.index for t in tickets] == [c.index for c in controls] == [1, 2]
    return list(zip(tickets, controls, strict=True))


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_a_control_keeps_what_its_row_says(ran, name):
    keeps = row("controls", name)
    for ticket, control in pairs(ran, name):
        ours, theirs = ran.masks(ticket), ran.masks(control)
        before, after = ran.start(ticket), ran.start(control)
        assert theirs.kept == ours.kept, "the size is always the ticket's"
        # The first round of iterative pruning is one shot of the trained network.
        first = name == "one-shot-trained" and ticket.index == 1
        assert (theirs == ours) == (first or keeps.startswith("mask"))
        assert (theirs.counts == ours.counts) >= ("layers" in keeps)
        assert same(after.tensors(), before.tensors()) == ("start" in keeps)
        if name == "reinit":
            assert not any(before.state[n].equal(after.state[n]) for n in ours)
        config = {**ticket.train.config, "keep": "metrics"}
        if CHANGES[name] == "init":  # it has seen no training, so it gets a whole one
            config |= {"begin": 0, "fresh_optimizer": True}
        assert control.train.config == config, "trained as the ticket"
        assert "labels" not in control.train.config
        result = ran.store.entry(control.train).json(RESULT)
        assert result["masks"] == {n: list(pair) for n, pair in theirs.counts.items()}
        assert 0 <= result["metrics"]["test"]["accuracy"] <= 100


def test_no_two_controls_are_the_same(ran):
    for index in (0, 1):
        kinds = [n for n, keeps in CONTROLS.items() if not keeps.startswith("mask")]
        digests = {ran.masks(ran.levels(name)[index]).digest() for name in kinds}
        assert len(digests) == len(kinds)


def test_controls_of_two_seeds_and_two_levels_differ(ran):
    for name, keeps in CONTROLS.items():
        (_, one), (_, two) = pairs(ran, name)
        (_, other), _ = pairs(ran, name, seed=1)
        if not keeps.startswith("mask"):
            assert ran.masks(one) != ran.masks(other)
            assert ran.masks(one) != ran.masks(two)
        if "start" not in keeps:
            assert not same(ran.start(one).state, ran.start(other).state)


CHANGES = {name: changed_by(registry.find("controls", name)) for name in sorted(CONTROLS)}


@pytest.mark.parametrize("name", [n for n, what in CHANGES.items() if what != "search"])
def test_a_control_of_one_ticket_draws_by_its_seed(ran, name):
    ticket = ran.levels(TICKET)[0]
    control, state = registry.find("controls", name), ran.start(ticket).state
    draft = Draft(
        ran.masks(ticket),
        state,
        fresh=lambda: {n: t + 1 for n, t in state.items()},
        trained=lambda: {n: t.flip(0) for n, t in state.items()},
        order=lambda: tuple(ran.masks(ticket)),
        initial=lambda: {n: t.flip(-1) for n, t in state.items()},
    )
    before = draft.masks.digest(), {n: t.clone() for n, t in state.items()}
    one, again, other = (control(draft, seed) for seed in (0, 0, 1))
    assert (draft.masks.digest(), draft.state) == (before[0], state)
    assert same(dict(draft.state), before[1]), "the ticket itself stays as it is"
    assert one.masks == again.masks
    assert same(dict(one.state), dict(again.state))
    both = one.masks == other.masks and same(dict(one.state), dict(other.state))
    still = ("reinit", "hybrid", "one-shot", "one-shot-init", "one-shot-trained")
    assert both == (name in still), "drawn elsewhere, or not at all"


def test_all_is_deterministic_in_the_seed(ran, tmp_path):
    again = ran_in(tmp_path, seeds=(1,))
    for name in CONTROLS:
        for ours, theirs in zip(ran.levels(name, 1), again.levels(name, 1), strict=True):
            assert ours.train == theirs.train
            assert ran.masks(ours) == again.masks(theirs)
            assert same(ran.start(ours).tensors(), again.start(theirs).tensors())
            results = [r.store.entry(ours.train).json(RESULT) for r in (ran, again)]
            assert results[0] == results[1]


def test_a_fresh_start_has_no_past(ran):
    for name in ("reinit", "shuffle-weights"):
        for ticket, control in pairs(ran, name):
            assert ran.start(ticket).optimizer
            assert not ran.start(control).optimizer
            assert ran.start(control).iteration == ran.start(ticket).iteration == 2


def test_shuffled_weights_are_the_kept_ones_in_other_places(ran):
    for ticket, control in pairs(ran, "shuffle-weights"):
        before, after = ran.start(ticket).state, ran.start(control).state
        masks = ran.masks(ticket)
        for name, value in before.items():
            mask = masks[name] if name in masks else torch.zeros_like(value, dtype=torch.bool)
            assert after[name][~mask].equal(value[~mask]), "pruned weights and biases stay"
            assert after[name][mask].sort().values.equal(value[mask].sort().values)
            assert (name in masks) != after[name].equal(value)


def test_random_masks_follow_their_rule(ran):
    for ticket, control in pairs(ran, "random-erk"):
        masks, ours = ran.masks(control), ran.masks(ticket)
        shapes = {n: tuple(m.shape) for n, m in masks.items()}
        pools = allocate(shapes, Draft(ours, {}, dict).density, "erk")
        assert {p.names[0]: p.keep for p in pools} == {n: k for n, (k, _) in masks.counts.items()}
    for ticket, control in pairs(ran, "random-global"):
        masks, density = ran.masks(control), ran.masks(ticket).density
        for kept, size in masks.counts.values():  # binomial: within four standard deviations
            assert abs(kept - density * size) < 4 * (density * (1 - density) * size) ** 0.5 + 1
        # Independent of the ticket: the overlap is that of two random sets.
        overlap = (masks & ran.masks(ticket)).kept / masks.size
        assert abs(overlap - density**2) < 0.05


def test_inverted_keeps_the_lowest_scores(ran):
    (ticket, control), (_, second) = pairs(ran, "inverted")
    # At half the density of one and the same dense run the two share nothing.
    (trained,) = {level.masks.inputs["trained"] for level in (ticket, control)}
    final = load_snapshot(ran.store.entry(trained).read(STATE)).state
    kept = torch.cat([final[n][m].abs() for n, m in ran.masks(control).items()])
    removed = torch.cat([final[n][~m].abs() for n, m in ran.masks(control).items()])
    assert kept.max() <= removed.min()
    assert (ran.masks(ticket) & ran.masks(control)).kept == 0
    assert (ran.masks(second) & ran.masks(control)) == ran.masks(second)


def test_random_labels_search_on_wrong_labels_and_train_on_true_ones(ran):
    for ticket, control in pairs(ran, "random-labels"):
        searched = [j for j in graph([control.masks]) if j.kind == "train"]
        assert {job.config.get("labels") for job in searched} == {"random"}
        shared = set(graph([ticket.masks])) & set(graph([control.masks]))
        assert {job.kind for job in shared} == {"init"}
        assert control.start == ticket.start
    dense = searched[-1]
    # The loss on true validation labels shows that nothing was learnt from the wrong ones.
    jobs = ran.levels("dense")[0].train, dense
    true, wrong = (ran.store.entry(j).json(RESULT)["metrics"]["validation"]["loss"] for j in jobs)
    assert true < wrong - 0.03


def test_only_what_a_control_changes_is_stored(ran):
    for name in CONTROLS:
        changes = CHANGES[name]
        for ticket, control in pairs(ran, name):
            made = {"masks": control.masks != ticket.masks, "start": control.start != ticket.start}
            only_masks = changes in ("masks", "search")
            assert tuple(made.values()) == (only_masks, not only_masks)


def test_the_last_level_alone_may_be_controlled(tmp_path):
    laid = experiment(tiny_recipe(controls=("reinit",), controls_at="last", sparsity=0.5))
    indices = [arm.level.index for arm in laid.arms if arm.name == "reinit"]
    assert indices == [max(arm.level.index for arm in laid.arms)] == [4]


def test_blocks_change_places_whole_and_at_least_two_do(ran):
    for ticket, control in pairs(ran, "shuffle-blocks"):
        before, after = ran.start(ticket).state, ran.start(control).state
        places = [f"2.{i}.0." for i in range(4)]
        moved = {
            new: [old for old in places if after[f"{new}weight"].equal(before[f"{old}weight"])]
            for new in places
        }
        assert sorted(old for olds in moved.values() for old in olds) == places
        assert any([new] != old for new, old in moved.items())
        for new, (old,) in moved.items():
            assert after[f"{new}bias"].equal(before[f"{old}bias"])
        rest = set(before) - {n for n in before if n.startswith("2.")}
        assert all(after[n].equal(before[n]) for n in rest)


def test_one_shot_keeps_the_largest_weights_of_the_start(ran):
    for ticket, control in pairs(ran, "one-shot"):
        state, masks = ran.start(ticket).state, ran.masks(control)
        kept = torch.cat([state[n].abs()[m] for n, m in masks.items()])
        pruned = torch.cat([state[n].abs()[~m] for n, m in masks.items()])
        assert masks.kept == ran.masks(ticket).kept
        assert kept.min() >= pruned.max()


def test_one_shot_at_three_points_reads_three_states(ran):
    for ticket, _ in pairs(ran, "one-shot"):
        for name, role in (("one-shot-init", "init"), ("one-shot-trained", "trained")):
            (control,) = (lv for lv in ran.levels(name) if lv.index == ticket.index)
            source = control.masks.inputs[role]
            state = load_snapshot(ran.store.entry(source).read(STATE)).state
            masks = ran.masks(control)
            kept = torch.cat([state[n].abs()[m] for n, m in masks.items()])
            pruned = torch.cat([state[n].abs()[~m] for n, m in masks.items()])
            assert kept.min() >= pruned.max()
    dense = ran.levels("dense")[0]
    assert source == dense.train
    assert source.kind == "train"


def test_smart_ratios_fall_with_depth_whatever_the_names(ran):
    # 0 to 2.3.0 and 4 by name; so are they by place, and so are the largest first.
    for name in ("smart-ratio", "hybrid"):
        for ticket, control in pairs(ran, name):
            counts = ran.masks(control).counts
            shapes = {n: tuple(m.shape) for n, m in ran.masks(control).items()}
            density = Draft(ran.masks(ticket), {}, dict).density
            pools = allocate(shapes, density, "smart-ratio")
            assert {p.names[0]: p.keep for p in pools} == {n: k for n, (k, _) in counts.items()}
            shares = [kept / size for kept, size in counts.values()]
            assert shares[:-1] == sorted(shares[:-1], reverse=True)


def test_the_order_of_layers_is_the_models():
    masks = Masks({name: torch.ones(10, 20) > 0 for name in "abc"})
    masks = Masks({n: m & (torch.arange(20) < 8) for n, m in masks.items()})
    draft = Draft(masks, {}, dict, order=lambda: ("c", "b", "a"))
    kept = {
        n: k
        for n, (k, _) in registry.find("controls", "smart-ratio")(draft, 0).masks.counts.items()
    }
    # 240 stay: 60 of the head a, 180 = s (6 + 2) 200 of c and b.
    assert kept == {"a": 60, "b": 45, "c": 135}


def test_hybrid_keeps_the_largest_trained_weights_of_each_layer(ran):
    for ticket, control in pairs(ran, "hybrid"):
        dense = ran.levels("dense")[0].train
        assert control.masks.inputs["trained"] == dense != ticket.start
        state = load_snapshot(ran.store.entry(dense).read(STATE)).state
        for name, mask in ran.masks(control).items():
            sizes = state[name].abs()
            assert sizes[mask].min() >= sizes[~mask].max()


def test_a_control_of_the_trained_network_needs_one(ran):
    chain = Chain(ran.laid.recipe, 0, "data")
    with pytest.raises(BadInput, match="'hybrid' reads the trained dense network"):
        chain.control("hybrid", ran.levels(TICKET)[0], "masks")
