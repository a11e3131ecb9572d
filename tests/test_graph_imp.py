"""Edges and weights pruned side by side: schedules, counts, what trains on what, controls."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from contract_table import GRAPH_CONTROLS
from toys import HERE

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP
from lth_zoo.finders.graph_imp import GraphIMP, densities
from lth_zoo.formats import load_masks, load_snapshot
from lth_zoo.jobs import TICKET
from lth_zoo.kinds import restricted
from lth_zoo.masks import Masks
from lth_zoo.recipe import Recipe, Training
from lth_zoo.session import MASKS, RESULT, STATE, cached_task
from lth_zoo.store import Store
from lth_zoo.trials.collect import collect

EDGES, ARCS, PAIRS = "graph/edges", "graph/arcs", 78
CONTROLS = tuple(sorted(GRAPH_CONTROLS))


def recipe(**fields):
    training = Training(iterations=4, batch_size=100, learning_rate=0.01, evaluate_every=4)
    plain = {
        "model": "gcn-8",
        "task": "karate",
        "finder": GraphIMP(rate=0.4, edge_rate=0.2),
        "training": training,
        "sparsity": 0.64,
        "graph_sparsity": 0.3,
        "seeds": (0, 1),
        "controls": CONTROLS,
    }
    return Recipe(**plain | fields)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    laid, store = experiment(recipe()), Store(tmp_path_factory.mktemp("graph"))
    assert run(laid.goals, store, HERE).failed == {}

    def arm(name, level, seed=0):
        (found,) = [a for a in laid.arms if (a.name, a.level.index, a.seed) == (name, level, seed)]
        return found.level

    def masks(level):
        return load_masks(store.entry(level.masks).read(MASKS))

    return SimpleNamespace(laid=laid, store=store, arm=arm, masks=masks)


# -- the schedule ----------------------------------------------------------------------------


def levels_of(**fields):
    asked = experiment(recipe(controls=(), seeds=(0,), **fields))
    jobs = [arm.level.masks for arm in asked.arms if arm.name == TICKET]
    return [(j.config["density"], j.config["edges"]["density"]) for j in jobs]


def test_each_half_stops_at_its_own_target():
    assert levels_of() == [("3/5", "4/5"), ("9/25", "7/10")]
    assert levels_of(graph_sparsity=0.0) == [("3/5", "1"), ("9/25", "1")]
    assert levels_of(sparsity=0.0) == [("1", "4/5"), ("1", "7/10")]
    assert levels_of(sparsity=0.4) == [("3/5", "4/5"), ("3/5", "7/10")]
    finder = GraphIMP(rate=0.4, edge_rate=0.2, levels=1)
    assert levels_of(finder=finder) == [("3/5", "4/5")]
    assert levels_of(sparsity=0.0, graph_sparsity=0.0) == []


def test_twenty_rounds_of_ugs():
    weights = densities(0.2, Fraction("0.0116"))
    edges = densities(0.05, Fraction("0.3585"))
    assert len(weights) == len(edges) == 20
    assert float(weights[9]) == pytest.approx(0.107, abs=1e-3)
    assert float(edges[9]) == pytest.approx(0.599, abs=1e-3)


# -- what it makes ---------------------------------------------------------------------------


def test_counts_are_exact_and_levels_nested(ran):
    for seed in (0, 1):
        first, second = (ran.masks(ran.arm(TICKET, level, seed)) for level in (1, 2))
        assert [m[EDGES].sum() for m in (first, second)] == [62, 55]  # of 78: 62.4, 54.6
        assert [m.kept for m in (first, second)] == [182, 109]  # of 34*8 + 8*4 = 304
        assert first.size == 304
        for name in first:
            assert not (second[name] & ~first[name]).any()


def test_a_training_sees_the_kept_edges_alone_and_its_ticket_says_so(ran):
    level = ran.arm(TICKET, 2)
    masks = ran.masks(level)
    task = cached_task("karate", None, "gcn-8")
    left = restricted(task, masks)
    assert left.graph().edge_index.shape == (2, 110)
    assert task.graph().edge_index.shape == (2, 156)
    assert restricted(task, masks.weights) is task
    view, _ = left.batch("train", torch.arange(4))
    assert view.edge_index.shape == (2, 110)
    result = ran.store.entry(level.train).json(RESULT)
    assert result["masks"][EDGES] == [55, 78]


def test_both_directions_of_an_edge_go_together_unless_asked_otherwise(ran, tmp_path):
    finder = GraphIMP(rate=0.4, edge_rate=0.2, tie_directions=False, edges="random")
    one = experiment(recipe(finder=finder, controls=(), seeds=(0,)))
    store = Store(tmp_path)
    assert run(one.goals, store, HERE).failed == {}
    (last,) = one.tickets()
    masks = load_masks(store.entry(last.level.masks).read(MASKS))
    assert masks[ARCS].shape == (156,)
    assert masks[ARCS].sum() == 109  # 0.7 of 156
    graph = restricted(cached_task("karate", None, "gcn-8"), masks).graph()
    assert not graph.undirected


def test_edges_do_not_depend_on_the_training(ran):
    other = replace(recipe().training, learning_rate=0.1)
    jobs = [
        next(a.level.masks for a in experiment(recipe(training=t)).arms if a.name == TICKET)
        for t in (recipe().training, other)
    ]
    assert jobs[0].key != jobs[1].key
    assert jobs[0].config["edges"] == jobs[1].config["edges"]


# -- controls --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_destroys_one_half(ran, name):
    # The first weights of random-edges are the ticket's: both are of the dense training.
    for level in (1, 2)[name == "random-edges" :]:
        ticket, control = ran.arm(TICKET, level), ran.arm(name, level)
        ours, theirs = ran.masks(ticket), ran.masks(control)
        halves = {"edges": ours.data == theirs.data, "weights": ours.weights == theirs.weights}
        assert [half for half, same in halves.items() if same] == [
            half for half in halves if half == GRAPH_CONTROLS[name]
        ]
        for entry, count in theirs.counts.items():
            assert count == ours.counts[entry] or name == "random-edges"  # other layer counts
        assert theirs.kept in (ours.kept, 0)
        assert control.train.config | {"keep": ""} == ticket.train.config | {"keep": ""}
        starts = [load_snapshot(ran.store.entry(a.start).read(STATE)) for a in (ticket, control)]
        assert starts[0].state.keys() == starts[1].state.keys()
        assert all(v.equal(starts[1].state[n]) for n, v in starts[0].state.items()), "paired"


def test_random_halves_are_nested_and_differ_by_seed(ran):
    for name in ("random-graph", "random-edges"):
        one, two = (ran.masks(ran.arm(name, level)) for level in (1, 2))
        assert not (two[EDGES] & ~one[EDGES]).any()
        assert one[EDGES].tolist() != ran.masks(ran.arm(name, 1, seed=1))[EDGES].tolist()
        for entry in one.weights:
            assert not (two[entry] & ~one[entry]).any()


def test_random_edges_is_the_whole_search_on_random_edges(ran):
    finder = GraphIMP(rate=0.4, edge_rate=0.2, edges="random")
    same = experiment(recipe(finder=finder, controls=()))
    keys = {a.level.masks.key for a in same.arms if a.name == TICKET}
    assert keys == {a.level.masks.key for a in ran.laid.arms if a.name == "random-edges"}


def test_other_controls_leave_the_edges(ran):
    names = ("shuffle", "random-global", "random-erk", "random-layer", "one-shot", "reinit")
    more = experiment(recipe(controls=names))
    assert run(more.goals, ran.store, HERE).failed == {}
    ours = ran.masks(ran.arm(TICKET, 2))
    for name in names:
        (level,) = [a.level for a in more.arms if (a.name, a.level.index, a.seed) == (name, 2, 0)]
        theirs = ran.masks(level)
        assert theirs.data == ours.data
        assert theirs.kept == ours.kept


# -- results and refusals --------------------------------------------------------------------


def test_results_have_two_axes(ran):
    found = collect(ran.laid, ran.store)
    (ticket,) = [r for r in found.runs if (r.arm, r.level, r.seed) == (TICKET, 2, 0)]
    assert ticket.edges == (55, 78)
    assert ticket.graph_sparsity == pytest.approx(1 - 55 / 78)
    assert set(ticket.layers) == {"convs.0.lin.weight", "convs.1.lin.weight"}
    assert (ticket.kept, ticket.prunable) == (109, 304)
    (alone,) = [r for r in found.runs if (r.arm, r.level, r.seed) == ("graph-only", 2, 0)]
    assert (alone.kept, alone.prunable, alone.edges) == (304, 304, (55, 78))
    (dense,) = [r for r in found.runs if (r.arm, r.seed) == ("dense", 0)]
    assert dense.edges is None
    assert dense.graph_sparsity == 0


def test_bad_input():
    with pytest.raises(BadInput, match=r"graph_sparsity is 1\.0; it must be at least 0"):
        recipe(graph_sparsity=1.0)
    with pytest.raises(BadInput, match=r"finder\.edge_rate is 0; it must be between 0 and 1"):
        GraphIMP(edge_rate=0)
    with pytest.raises(BadInput, match="finder 'imp' prunes no edges; leave it at 0, or choose"):
        experiment(recipe(finder=IMP(), controls=()))
    with pytest.raises(BadInput, match="control 'graph-only' is about a graph's edges"):
        experiment(recipe(finder=IMP(), graph_sparsity=0.0, controls=("graph-only",)))
    with pytest.raises(BadInput, match="finder 'graph-imp' prunes a graph, and task 'digits'"):
        experiment(recipe(model="lenet-300-100", task="digits", controls=()))
    task = cached_task("digits", None, "lenet-300-100")
    with pytest.raises(BadInput, match="task 'digits' has no graph"):
        restricted(task, Masks({EDGES: torch.ones(3, dtype=torch.bool)}))
