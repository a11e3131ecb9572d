"""Finders that learn an edge mask: exact, nested, resumable to the bit, and true to their modes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import tiny_gates
import torch
from interrupted import check_ends_alike
from tiny_gates import recipe, small_graph
from toys import HERE, pruned_are_zero, same, tiny_recipe

from lth_zoo import kinds
from lth_zoo.chain import Chain
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import UGS, WDGLT, GraphEarlyBird, GraphIMP
from lth_zoo.formats import load_masks
from lth_zoo.graph import ARCS, EDGES
from lth_zoo.jobs import graph
from lth_zoo.protocols import adapter_of
from lth_zoo.searches.gate_search import check_search
from lth_zoo.session import LOG, MASKS, RESULT, STATE, Session, read_state
from lth_zoo.store import Store

#: 0.7 and 0.9 of what is left, then the targets of 0.5 and 0.8.
RATES = {"rate": 0.3, "edge_rate": 0.1}
SEARCHES = {
    "safe": UGS(**RATES),
    "faithful": UGS(mode="faithful", **RATES),
    "wd-glt": WDGLT(nodes=10, **RATES),
    "early-bird": GraphEarlyBird(every="2", threshold=0.2),
}
EACH = pytest.mark.parametrize("name", SEARCHES)


@pytest.fixture(autouse=True)
def known():
    with tiny_gates.registered():
        yield


def done(asked, folder):
    """Run a recipe; return the store and the pruned levels of its ticket."""
    store, laid = Store(folder), experiment(asked)
    assert run(laid.goals, store, HERE).failed == {}
    return store, [arm.level for arm in laid.arms if arm.name == "ticket"]


def masks_of(store, job):
    return load_masks(store.entry(job).read(MASKS))


def gates_of(store, job):
    return store.entry(job).json(RESULT)


@EACH
def test_levels_are_exact_and_nested_and_hardened(name, tmp_path):
    store, levels = done(recipe(SEARCHES[name]), tmp_path)
    entry = ARCS if name == "faithful" else EDGES
    total = small_graph().elements(entry).shape[1]
    expected = {EDGES: [120, 108, 106], ARCS: [239, 215, 213]}[entry]
    weights = [1624, 1160, 1160]
    if name == "early-bird":
        expected, weights = expected[-1:], weights[-1:]
    found = [masks_of(store, level.masks) for level in levels]
    assert [masks.counts[entry] for masks in found] == [(kept, total) for kept in expected]
    assert [masks.kept for masks in found] == weights
    for wide, narrow in pairwise(found):
        assert (narrow & wide) == narrow
    for level, masks in zip(levels, found, strict=True):
        said = gates_of(store, level.masks)
        assert {n: tuple(c) for n, c in said["masks"].items()} == masks.counts
        assert (said["kept"], said["prunable"]) == (masks.kept, 2320)
        assert set(said["metrics"]) == {"validation"}
        # The ticket is trained on the kept edges alone, its pruned weights exactly 0.
        task = kinds.restricted(tiny_gates.TinyGraph(), masks)
        view, _ = task.batch("train", torch.arange(15))
        assert view.edge_index.shape[1] == int(small_graph().columns(entry, masks[entry]).sum())
        model = adapter_of(tiny_gates.MODEL).build(tiny_gates.MODEL, task.signature)
        model.load_state_dict(read_state(store.entry(level.train)).state)
        assert pruned_are_zero(model, masks.weights)
        result = store.entry(level.train).json(RESULT)
        assert result["metrics"]["test"] == task.evaluate(model, "test")


@EACH
def test_the_same_search_twice_is_the_same(name, tmp_path):
    stores = [done(recipe(SEARCHES[name]), tmp_path / part) for part in "ab"]
    (first, levels), (second, _) = stores
    for level in levels:
        for file in (MASKS, STATE, RESULT, LOG):
            ours, theirs = (s.entry(level.masks).read(file) for s in (first, second))
            assert ours == theirs


@EACH
def test_interrupted_anywhere_it_ends_with_the_same_masks(name, tmp_path, monkeypatch):
    training = {"average": 0.9} if name == "wd-glt" else {}
    training |= {"learning_rate": 0.1, "iterations": 16} if name == "faithful" else {}
    asked = recipe(SEARCHES[name], training=training)
    whole, levels = done(asked, tmp_path / "whole")
    search = levels[min(1, len(levels) - 1)].masks
    said = gates_of(whole, search)
    assert (said["diverged"] is not None) is (name == "faithful")
    assert said["iterations"] >= 8
    check_ends_alike(search, whole, Store(tmp_path / "store"), {2, 5, 6, 8}, monkeypatch)


# -- modes -----------------------------------------------------------------------------------


def test_faithful_uses_the_best_masks_from_before_the_loss_is_nan(tmp_path, capsys):
    asked = recipe(UGS(mode="faithful", levels=1), training={"learning_rate": 0.2})
    store, (level,) = done(asked, tmp_path)
    said = gates_of(store, level.masks)
    assert 1 <= said["snapshot"] < said["diverged"] == said["iterations"] <= 8
    assert "diverged" not in store.entry(level.train).json(RESULT)["flags"]
    warned = capsys.readouterr().err
    assert "(0.2) a step, and its 8 iterations reach past the 5 after which" in warned
    assert f"not finite at iteration {said['diverged']}" in warned
    assert f"those of iteration {said['snapshot']}" in warned
    # A search that ends at the snapshot keeps the same.
    short = UGS(mode="faithful", levels=1, iterations=said["snapshot"])
    other, (end,) = done(recipe(short, training={"learning_rate": 0.2}), tmp_path)
    assert gates_of(other, end.masks)["diverged"] is None
    assert masks_of(other, end.masks) == masks_of(store, level.masks)


def test_faithful_is_one_optimiser_and_safe_has_a_rate_of_its_own(tmp_path):
    def config(finder):
        (level,) = [lv for lv in finder.search(Chain(recipe(finder), 0, "data")) if lv.index]
        return level.masks.config

    faithful, safe = config(UGS(mode="faithful", levels=1)), config(UGS(levels=1))
    assert faithful["edges"] == {"strength": 0.01, "rate": None, "bounds": None}
    assert (faithful["noise"], faithful["earliest"], faithful["entry"]) == (1e-5, 1, ARCS)
    assert safe["edges"] == {"strength": 1e-5, "rate": 0.004, "bounds": [0.0, None]}
    assert (safe["noise"], safe["earliest"], safe["entry"]) == (0.0, 4, EDGES)
    long = recipe(UGS(levels=1), training={"iterations": 1000})
    (level,) = [lv for lv in long.finder.search(Chain(long, 0, "data")) if lv.index]
    assert level.masks.config["end"] == 249
    assert level.train.config["end"] == 1000


def test_safe_ends_before_all_masks_are_zero_and_keeps_a_late_state(tmp_path):
    finder = UGS(levels=1, mask_learning_rate=0.1, earliest=7, strength_edges=10.0)
    store, (level,) = done(recipe(finder, training={"iterations": 40}), tmp_path)
    said = gates_of(store, level.masks)
    assert said["iterations"] == 9
    assert 7 <= said["snapshot"] <= 9
    assert said["diverged"] is None


def test_the_early_bird_stops_where_both_masks_have_settled(tmp_path):
    finder = GraphEarlyBird(every="2", window=3, threshold=0.25)
    store, (level,) = done(recipe(finder, training={"iterations": 60}), tmp_path)
    said = gates_of(store, level.masks)
    *before, last = said["distances"]
    assert said["settled"]
    assert 6 <= said["iterations"] < 60
    assert last < 0.25 <= min(before, default=0.25)
    assert len(said["distances"]) == said["iterations"] // 2 - 2
    # Survivors train on from where the search stopped.
    state = read_state(store.entry(level.masks)).state
    assert level.start == level.masks
    assert not same(state, read_state(store.entry(level.masks.inputs["start"])).state)
    masks = masks_of(store, level.masks)
    kept = torch.cat([state[n].abs()[m] for n, m in masks.weights.items()])
    pruned = torch.cat([state[n].abs()[~m] for n, m in masks.weights.items()])
    assert kept.min() >= pruned.max()
    _, (again,) = done(recipe(GraphEarlyBird(rewind="init")), tmp_path)
    assert again.start.kind == "init"


# -- where a search starts, and its controls --------------------------------------------------


@pytest.mark.parametrize(
    ("rewind", "starts"),
    [
        ("init", ["init", "init", "init"]),
        ("step=3", ["train", "train", "train"]),
        ("fresh", ["init", "init", "init"]),
        ("none=4", ["init", "train", "train"]),
    ],
)
def test_a_search_starts_from_what_the_survivors_have(rewind, starts):
    asked = recipe(UGS(rewind=rewind, **RATES))
    levels = list(asked.finder.search(Chain(asked, 0, "data")))
    searches = [level.masks for level in levels[1:]]
    assert [job.inputs["start"].kind for job in searches] == starts
    for before, job in pairwise(levels):
        after = before.train if rewind == "none=4" and before.index else before.start
        assert job.masks.inputs["start"] == after
        assert job.masks.inputs.get("within") == before.masks


@pytest.mark.parametrize("name", ["safe", "faithful", "wd-glt"])
def test_random_edges_is_magnitude_pruning_on_random_edges(name):
    def jobs(finder, **fields):
        laid = experiment(recipe(finder, **fields))
        return [arm.level.masks.key for arm in laid.arms if arm.name in ("random-edges", "ticket")]

    finder = SEARCHES[name]
    control = jobs(finder, controls=("random-edges",))[3:]
    imp = GraphIMP(edges="random", tie_directions=name != "faithful", **RATES)
    assert control == jobs(imp)


def test_random_edges_of_the_early_bird_are_one_step(tmp_path):
    laid = experiment(recipe(SEARCHES["early-bird"], controls=("random-edges",)))
    ticket, control = (arm.level for arm in laid.arms if arm.level.masks)
    assert control.masks.kind == "prune"
    assert control.masks.config["edges"]["score"] == "random"
    store = Store(tmp_path)
    assert run(laid.goals, store, HERE).failed == {}
    for level in (ticket, control):
        assert masks_of(store, level.masks).data.counts == {EDGES: (106, 133)}


def test_random_labels_corrupt_the_search_and_inverting_is_refused(tmp_path):
    asked = recipe(UGS(levels=1), controls=("random-labels",))
    laid, store = experiment(asked), Store(tmp_path)
    assert run(laid.goals, store, HERE).failed == {}
    ticket, control = (arm.level for arm in laid.arms if arm.level.masks)
    assert control.masks.config == {**ticket.masks.config, "labels": "random"}
    assert masks_of(store, ticket.masks) != masks_of(store, control.masks)
    for control in ("inverted", "random-scores"):
        with pytest.raises(BadInput, match="this finder has none"):
            experiment(recipe(UGS(), controls=(control,)))


def test_the_key_of_a_search_holds_what_it_reads():
    def key(finder, **fields):
        asked = recipe(finder, **fields)
        levels = [lv for lv in finder.search(Chain(asked, 0, "data")) if lv.index]
        return levels[0].masks.key

    plain = key(UGS(**RATES))
    assert plain == key(UGS(levels=2, **RATES)) == key(UGS(**RATES), graph_sparsity=0.5)
    assert plain == key(UGS(mask_learning_rate=0.004, earliest=4, **RATES))
    others = [
        key(UGS(rate=0.3, edge_rate=0.2)),
        key(UGS(mode="faithful", **RATES)),
        key(UGS(strength_edges=0.0, **RATES)),
        key(UGS(iterations=6, **RATES)),
        key(UGS(tie_directions=False, **RATES)),
        key(WDGLT(**RATES)),
        key(WDGLT(nodes=10, **RATES)),
        key(GraphEarlyBird()),
        key(UGS(**RATES), training={"weight_decay": 1e-4}),
    ]
    assert len({plain, *others}) == 10


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UGS(rate=0), "finder.rate is 0; it must be between 0 and 1"),
        (lambda: UGS(levels=0), "finder.levels is 0; it must be at least 1"),
        (lambda: UGS(strength_edges=-1), "finder.strength_edges is -1; it must be at least 0"),
        (lambda: UGS(mask_learning_rate=2), "mask_learning_rate is 2; it must be between 0 and 1"),
        (
            lambda: UGS(mode="faithful", mask_learning_rate=0.01),
            "mode 'faithful' has one learning rate",
        ),
        (lambda: UGS(mode="faithful", earliest=3), "finder.earliest is 3, but mode 'faithful'"),
        (lambda: recipe(UGS(mode="strict")), "unknown finder.mode 'strict'"),
        (lambda: WDGLT(rounds=0), "finder.rounds is 0"),
        (lambda: WDGLT(epsilon=0), "finder.epsilon is 0; it must be above 0"),
        (lambda: WDGLT(strength=-0.1), "finder.strength is -0.1"),
        (lambda: GraphEarlyBird(window=1), "finder.window is 1; it must be at least 2"),
        (lambda: GraphEarlyBird(threshold=0), "finder.threshold is 0"),
        (lambda: GraphEarlyBird(gate_learning_rate=0), "gate_learning_rate is 0"),
        (lambda: experiment(recipe(GraphEarlyBird(every="70"))), r"finder\.every is '70'"),
        (
            lambda: experiment(recipe(UGS(iterations=250))),
            r"iterations is 250; .* after 1 / 0.004: it must be at most 249",
        ),
        (lambda: experiment(recipe(UGS(earliest=9))), "earliest is 9; the search has 8 iterations"),
        (lambda: experiment(tiny_recipe(finder=UGS())), "'ugs' prunes a graph, and task 'digits'"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"training": {"batch_size": 5}}, r"266 columns .* Raise training.batch_size"),
        ({"model": tiny_gates.BLIND}, "takes no edge"),
    ],
)
def test_what_has_no_gates_is_said(fields, message, tmp_path):
    asked, task = recipe(UGS(levels=1), **fields), tiny_gates.TinyGraph()
    levels = asked.finder.search(Chain(asked, 0, "data"))
    search = next(level.masks for level in levels if level.masks)
    model = adapter_of(asked.model).build(asked.model, task.signature)
    with pytest.raises(BadInput, match=message):
        check_search(search.config, task, model)
    store = Store(tmp_path)
    assert run(search.inputs.values(), store, HERE).failed == {}
    with store.claim(search), pytest.raises(BadInput, match=message):
        kinds.execute(Session(search, store, HERE))


def test_what_has_gates_passes():
    for finder in SEARCHES.values():
        asked, task = recipe(finder), tiny_gates.TinyGraph()
        model = adapter_of(asked.model).build(asked.model, task.signature)
        for level in finder.search(Chain(asked, 0, "data")):
            if level.masks:
                check_search(level.masks.config, task, model)


def test_nothing_to_prune_is_no_search():
    for finder in (UGS(), WDGLT(), GraphEarlyBird()):
        asked = recipe(finder, sparsity=0.0, graph_sparsity=0.0)
        assert [lv.index for lv in finder.search(Chain(asked, 0, "data"))] == [0]
    edges = recipe(UGS(**RATES), sparsity=0.0)
    levels = list(edges.finder.search(Chain(edges, 0, "data")))
    assert {lv.masks.config["density"] for lv in levels if lv.masks} == {"1"}
    assert not [j for j in graph([levels[-1].train]) if j.kind == "prune"]
