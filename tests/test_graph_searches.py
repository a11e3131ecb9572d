"""What FastGLT, ICPG and dual graph tickets share: counts, resuming, controls, refusals."""

from __future__ import annotations

from itertools import pairwise

import pytest
import tiny_gates
from interrupted import check_ends_alike
from test_ugs import done, gates_of, masks_of
from tiny_gates import TinyGCN, TinyGraph, recipe, small_graph
from toys import HERE, pruned_are_zero, same

from lth_zoo import kinds
from lth_zoo.chain import Chain
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import ICPG, DualGraph, FastGLT, GraphIMP
from lth_zoo.graph import ARCS, EDGES
from lth_zoo.session import RESULT, Session, read_state
from lth_zoo.store import Store

SEARCHES = {
    "fast-glt": FastGLT(every=2),
    "fast-arcs": FastGLT(every=3, tie_directions=False, scope="layer", rewind="step=2"),
    "icpg": ICPG(rate=0.3, edge_rate=0.1, width=4),
    "dual-graph": DualGraph(),
}
EACH = pytest.mark.parametrize("name", SEARCHES)


@pytest.fixture(autouse=True)
def known():
    with tiny_gates.registered():
        yield


def level_of(finder, **fields):
    """The first pruned level of a search, nothing run."""
    asked = recipe(finder, **fields)
    return next(lv for lv in finder.search(Chain(asked, 0, "data")) if lv.index)


# -- what they share -------------------------------------------------------------------------


@EACH
def test_a_batch_that_shows_a_part_of_the_graph_is_refused_before_anything_runs(name):
    with pytest.raises(BadInput, match=r"Raise training\.batch_size"):
        experiment(recipe(SEARCHES[name], training={"batch_size": 5}))


@EACH
def test_counts_are_exact_and_the_ticket_is_trained_on_the_kept_edges(name, tmp_path):
    store, levels = done(recipe(SEARCHES[name]), tmp_path)
    entry = ARCS if name == "fast-arcs" else EDGES
    edges = {"fast-arcs": [213], "icpg": [120, 108, 106]}.get(name, [106])
    weights = [1624, 1160, 1160] if name == "icpg" else [1160]
    found = [masks_of(store, level.masks) for level in levels]
    assert [m.counts[entry] for m in found] == [
        (kept, small_graph().elements(entry).shape[1]) for kept in edges
    ]
    assert [m.kept for m in found] == weights
    for wide, narrow in pairwise(found):
        assert (narrow & wide) == narrow
    for level, masks in zip(levels, found, strict=True):
        said = gates_of(store, level.masks)
        assert {n: tuple(c) for n, c in said["masks"].items()} == masks.counts
        assert (said["kept"], said["prunable"]) == (masks.kept, 2320)
        state = read_state(store.entry(level.train)).state
        model = TinyGCN()
        model.load_state_dict(state)
        assert pruned_are_zero(model, masks.weights)
        task = kinds.restricted(TinyGraph(), masks)
        assert store.entry(level.train).json(RESULT)["metrics"]["test"] == task.evaluate(
            model, "test"
        )


@EACH
def test_the_same_search_twice_is_the_same(name, tmp_path):
    stores = [done(recipe(SEARCHES[name]), tmp_path / part) for part in "ab"]
    (first, levels), (second, _) = stores
    for level in levels:
        for file in first.entry(level.masks).manifest["files"]:
            ours, theirs = (s.entry(level.masks).read(file) for s in (first, second))
            assert ours == theirs


@pytest.mark.parametrize("average", [None, 0.9])
@EACH
def test_interrupted_anywhere_it_ends_the_same(name, average, tmp_path, monkeypatch):
    training = {"average": average} if average else {}
    asked = recipe(SEARCHES[name], training=training)
    whole, levels = done(asked, tmp_path / "whole")
    search = levels[min(1, len(levels) - 1)].masks
    check_ends_alike(search, whole, Store(tmp_path / "store"), {2, 5, 8}, monkeypatch)


@EACH
def test_random_edges_is_magnitude_pruning_on_random_edges(name, tmp_path):
    finder = SEARCHES[name]
    laid = experiment(recipe(finder, controls=("random-edges",)))
    control = [arm.level.masks for arm in laid.arms if arm.name == "random-edges"]
    settings = {"tie_directions": finder.tie_directions, "rewind": finder.rewind}
    rates = {"rate": 0.3, "edge_rate": 0.1} if name == "icpg" else {"rate": 0.5, "edge_rate": 0.2}
    scope = getattr(finder, "scope", "global")
    imp = experiment(recipe(GraphIMP(edges="random", scope=scope, **settings, **rates)))
    assert control == [arm.level.masks for arm in imp.arms if arm.level.masks]


@EACH
def test_samples_of_a_graph_and_models_without_gates_are_refused(name, tmp_path):
    for fields, message in (
        ({"training": {"batch_size": 5}}, "Raise training.batch_size"),
        ({"model": tiny_gates.BLIND}, "takes no edge_weight"),
    ):
        search = level_of(SEARCHES[name], **fields).masks
        store = Store(tmp_path)
        assert run(search.inputs.values(), store, HERE).failed == {}
        with store.claim(search), pytest.raises(BadInput, match=message):
            kinds.execute(Session(search, store, HERE))


@EACH
def test_corrupted_searches(name, tmp_path):
    laid = experiment(recipe(SEARCHES[name], controls=("random-labels",)))
    store = Store(tmp_path)
    assert run(laid.goals, store, HERE).failed == {}
    levels = [arm.level for arm in laid.arms if arm.level.masks]
    ticket, control = levels[0], levels[len(levels) // 2]
    assert control.masks.config == {**ticket.masks.config, "labels": "random"}
    states = [read_state(store.entry(lv.masks)).state for lv in (ticket, control)]
    assert not same(*states)
    for other in ("inverted", "random-scores"):
        with pytest.raises(BadInput, match="this finder has none"):
            experiment(recipe(SEARCHES[name], controls=(other,)))


def test_nothing_to_prune_is_no_search():
    for finder in (FastGLT(), ICPG(), DualGraph()):
        asked = recipe(finder, sparsity=0.0, graph_sparsity=0.0)
        assert [lv.index for lv in finder.search(Chain(asked, 0, "data"))] == [0]


def test_one_half_alone(tmp_path):
    for finder in (FastGLT(every=2), DualGraph(), ICPG(levels=1, width=2)):
        for place, fields in enumerate(({"sparsity": 0.0}, {"graph_sparsity": 0.0})):
            store, (level,) = done(
                recipe(finder, **fields), tmp_path / f"{finder}"[:8] / "ab"[place]
            )
            masks = masks_of(store, level.masks)
            assert (masks.kept == 2320) is ("sparsity" in fields)
            assert bool(masks[EDGES].all()) is ("graph_sparsity" in fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FastGLT(every=0), "finder.every is 0; it must be at least 1"),
        (lambda: FastGLT(share=1.5), r"finder.share is 1.5; it must be in \[0, 1\]"),
        (lambda: FastGLT(degree_weight=-1), "finder.degree_weight is -1"),
        (lambda: recipe(FastGLT(edges="gates")), "unknown finder.edges 'gates'"),
        (lambda: ICPG(rate=1), "finder.rate is 1; it must be between 0 and 1"),
        (lambda: ICPG(width=0), "finder.width is 0; it must be at least 1"),
        (lambda: ICPG(scorer_learning_rate=0.0), "finder.scorer_learning_rate is 0.0"),
        (lambda: ICPG(scorer_weight_decay=-1), "finder.scorer_weight_decay is -1"),
        (lambda: DualGraph(growth=0), "finder.growth is 0; it must be above 0"),
        (lambda: DualGraph(iterations=0), "finder.iterations is 0; it must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_the_key_of_a_search_holds_what_it_reads():
    keys = {
        level_of(finder, **fields).masks.key
        for finder, fields in [
            (FastGLT(), {}),
            (FastGLT(every=2), {}),
            (FastGLT(share=0.2), {}),
            (FastGLT(degree_weight=0.5), {}),
            (FastGLT(edges="dspar"), {}),
            (FastGLT(iterations=4), {}),
            (ICPG(), {}),
            (ICPG(width=8), {}),
            (ICPG(scorer_learning_rate=0.1), {}),
            (ICPG(tie_directions=False), {}),
            (DualGraph(), {}),
            (DualGraph(growth=2), {}),
            (DualGraph(gate_learning_rate=0.1), {}),
            (DualGraph(), {"graph_sparsity": 0.3}),
        ]
    }
    assert len(keys) == 14
    short, long = level_of(ICPG(), sparsity=0.5), level_of(ICPG(levels=3), sparsity=0.9)
    assert short.masks.key == long.masks.key
