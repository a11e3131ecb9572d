"""Which edges go: every number of the kept graph by hand, and what the store's masks make of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lth_zoo.errors import DataError
from lth_zoo.trials import collect as collecting
from lth_zoo.trials.kept_graph import (
    Kept,
    agreement,
    components,
    degrees,
    described,
    histogram,
    homophily,
    portrait,
    products,
)

#: Two triangles of one label each, a bridge between them, and a tail to a node without a label;
#: node 7 is alone.
PAIRS = np.array([[0, 0, 1, 2, 3, 3, 4, 5], [1, 2, 2, 3, 4, 5, 5, 6]])
LABELS = np.array([0, 0, 0, 1, 1, 1, -1, 1])
#: The bridge and the tail go.
KEPT = np.array([True, True, True, False, True, True, True, False])


def test_degrees_count_both_ends():
    assert degrees(PAIRS, 8).tolist() == [2, 2, 3, 3, 2, 3, 1, 0]
    assert degrees(PAIRS, 8, KEPT).tolist() == [2, 2, 2, 2, 2, 2, 0, 0]
    assert degrees(PAIRS[:, :0], 3).tolist() == [0, 0, 0]


def test_homophily_counts_edges_with_both_labels():
    assert homophily(PAIRS, LABELS) == pytest.approx(6 / 7)
    assert homophily(PAIRS, LABELS, KEPT) == 1.0
    assert homophily(PAIRS, LABELS, ~KEPT) == 0.0
    assert homophily(PAIRS, None) is None
    assert homophily(PAIRS, np.full(8, -1)) is None
    assert homophily(PAIRS[:, :0], LABELS) is None


def test_components_and_isolated_nodes():
    assert components(PAIRS, 8) == 1
    assert components(PAIRS, 8, KEPT) == 2
    assert components(PAIRS, 8, np.zeros(8, dtype=bool)) == 0
    # A column of a directed graph joins its ends, whichever way it points.
    assert components(PAIRS[::-1], 8, KEPT) == 2
    found = described(PAIRS, KEPT, 8, LABELS)
    assert (found["kept"], found["removed"], found["isolated"]) == (6, 2, 2)
    assert found["degrees"] == [0, 1.5, 2, 2, 2]
    assert described(PAIRS, ~KEPT, 8)["homophily_kept"] is None


def test_removed_edges_by_label_agreement():
    assert agreement(PAIRS, KEPT, LABELS) == [
        {"between": "same label", "edges": 6, "removed": 0},
        {"between": "different labels", "edges": 1, "removed": 1},
        {"between": "a label unknown", "edges": 1, "removed": 1},
    ]
    assert agreement(PAIRS, KEPT, None) == []


def test_removed_edges_by_degree_product():
    found = products(PAIRS, KEPT, 8, bins=4)
    assert sum(group["edges"] for group in found) == 8
    assert sum(group["removed"] for group in found) == 2
    assert [(g["low"], g["high"]) for g in found] == sorted((g["low"], g["high"]) for g in found)
    assert found[0] == {"low": 3, "high": 4, "edges": 2, "removed": 1}
    # Products that are all the same are one bin; no edges are none.
    ring = np.array([[0, 1, 2, 0], [1, 2, 3, 3]])
    assert products(ring, np.ones(4, dtype=bool), 4) == [
        {"low": 4, "high": 4, "edges": 4, "removed": 0}
    ]
    assert products(PAIRS[:, :0], KEPT[:0], 8) == []


def test_a_histogram_of_degrees_has_every_node_once():
    rng = np.random.default_rng(0)
    before = rng.integers(0, 300, 1000)
    after = before // 3
    found = histogram(before, after)
    assert [g["low"] for g in found] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert sum(g["before"] for g in found) == sum(g["after"] for g in found) == 1000
    assert found[3]["before"] == int(((before >= 4) & (before <= 7)).sum())


def masks(arm: str, levels: int = 3, entry: str = "graph/edges") -> list[Kept]:
    order = np.random.default_rng(len(arm)).permutation(8)
    return [Kept(arm, level, 0, entry, order >= level) for level in range(1, levels + 1)]


def test_a_portrait_is_plain_data_and_small_graphs_are_in_it():
    found = portrait(PAIRS, 8, [*masks("ticket"), *masks("random-edges")], LABELS)
    assert json.loads(json.dumps(found)) == found
    assert [(row["arm"], row["level"], row["kept"]) for row in found["rows"]] == [
        (arm, level, 8 - level) for arm in ("ticket", "random-edges") for level in (1, 2, 3)
    ]
    assert (found["nodes"], found["labelled"], found["whole"]["kept"]) == (8, 7, 8)
    assert (found["removed"]["arm"], found["removed"]["level"]) == ("ticket", 3)
    drawing = found["drawing"]
    assert drawing["pairs"] == PAIRS.tolist()
    assert sum(drawing["kept"]) == 5
    assert drawing["labels"] == LABELS.tolist()


def test_a_portrait_of_a_large_graph_is_cheap_and_holds_no_edges(monkeypatch):
    monkeypatch.setattr("lth_zoo.trials.kept_graph._WORK", 30)
    monkeypatch.setattr("lth_zoo.trials.kept_graph.DRAWN_NODES", 7)
    found = portrait(PAIRS, 8, [*masks("ticket"), *masks("random-edges")])
    assert [(r["arm"], r["level"]) for r in found["rows"]] == [("ticket", 3), ("random-edges", 3)]
    assert "drawing" not in found
    assert found["labelled"] == 0


# -- out of the store ----------------------------------------------------------------------

FIELDS = {
    "model": "gcn-16",
    "task": "karate",
    "sparsity": 0.36,
    "graph_sparsity": 0.19,
    "seeds": (3, 4),
    "controls": ("random-edges", "graph-only", "weights-only", "reinit"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    import tiny

    from lth_zoo.finders.graph_imp import GraphIMP
    from lth_zoo.recipe import Training

    FIELDS["finder"] = GraphIMP(edge_rate=0.1)
    FIELDS["training"] = Training(iterations=3, evaluate_every=3, batch_size=100)
    root = tmp_path_factory.mktemp("kept") / "store"
    assert tiny.run_tiny(root, **FIELDS).failed == {}
    return root


def collected(store: Path):
    import tiny

    from lth_zoo.experiment import experiment
    from lth_zoo.store import Store

    return collecting.collect(experiment(tiny.recipe(**FIELDS)), Store(store))


def test_the_stores_masks_are_described_once_an_arm_that_differs(store):
    from lth_zoo.trials.results import Results

    results = collected(store)
    found = results.graph
    assert results.prunes_edges
    assert (found["entry"], found["seed"], found["nodes"]) == ("graph/edges", 3, 34)
    # reinit and graph-only keep the ticket's edges, weights-only all of them.
    rows = {(row["arm"], row["level"]): row["kept"] for row in found["rows"]}
    assert rows == {
        (arm, level): kept
        for arm in ("ticket", "random-edges")
        for level, kept in ((1, 70), (2, 63))
    }
    assert found["labelled"] == 34
    assert sum(found["drawing"]["kept"]) == 63
    by = {(r.arm, r.level): r for r in results.runs if r.seed == 3}
    assert by["graph-only", 2].edges == (63, 78)
    assert by["graph-only", 2].sparsity == 0.0
    assert by["weights-only", 2].edges is None
    assert by["ticket", 2].graph_sparsity == pytest.approx(1 - 63 / 78)
    assert Results.from_json(json.loads(json.dumps(results.to_json()))).graph == found


def test_a_graph_that_is_not_at_hand_is_a_warning_not_an_error(store, monkeypatch, capsys):
    def gone(*_: object) -> None:
        raise DataError("karate is not at hand")

    monkeypatch.setattr(collecting, "task_for", gone)
    results = collected(store)
    assert results.graph is None
    assert results.prunes_edges
    assert "warning: nothing is said of the kept graph: karate is not" in capsys.readouterr().err
    assert "graph" not in results.to_json()


def test_a_large_graph_is_not_looked_at(store, monkeypatch):
    monkeypatch.setattr(collecting, "MOST_EDGES", 77)
    assert collected(store).graph is None


def test_labels_are_those_of_the_splits_where_a_task_holds_no_others():
    from lth_zoo.protocols import task_of

    task = task_of("karate")
    whole = collecting.labels_of(task, 34)
    assert (whole >= 0).all()

    class Plain:
        """The task as the contract has it: nothing but batches."""

        labelled, signature = True, task.signature
        size, batch = task.size, task.batch

    shown = collecting.labels_of(Plain(), 34)
    known = torch.cat([task.nodes.splits[s] for s in ("train", "validation", "test")]).numpy()
    assert (shown[known] == whole[known]).all()
    Plain.labelled = False
    assert collecting.labels_of(Plain(), 34) is None
