"""Graph classification: sets as one graph, batches of whole graphs, means over their nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_graphs
import torch
from tiny_graphs import Mixing
from toys import same

from lth_zoo.errors import BadInput, DataError
from lth_zoo.graph import EDGES
from lth_zoo.kinds import with_random_labels
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.tasks.graph_files import tu_set
from lth_zoo.tasks.graph_sets import DEGREES, degrees, motifs, set_of


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def task():
    return task_of("motifs")


@pytest.fixture
def toy(tmp_path):
    tiny_graphs.write_tu(tmp_path)
    return task_of("tu/TOY", tmp_path)


def piece(task, graph):
    """One graph of a task, its features and the columns among its nodes."""
    start, end = task.graphs.starts[graph : graph + 2].tolist()
    columns = task.graph().edge_index
    inside = (columns[0] >= start) & (columns[0] < end)
    return task.graphs.graph.x[start:end], (columns[:, inside] - start).T.tolist()


def test_the_union_is_the_set(toy, tmp_path):
    raw = tu_set("TOY", tmp_path)
    assert len(toy.graphs.labels) == 40
    for graph in range(40):
        x, edges = piece(toy, graph)
        nodes = (raw.owner == graph).nonzero().flatten()
        assert x.equal(raw.x[nodes])
        place = {int(n): i for i, n in enumerate(nodes)}
        theirs = {(place[a], place[b]) for a, b in raw.edge_index.T.tolist() if a in place}
        assert set(map(tuple, edges)) == theirs
        ring = toy.graphs.labels[graph] == 1
        assert len(theirs) == 2 * (len(nodes) - (not ring))
    assert [toy.size(s) for s in SPLITS] == [32, 4, 4]
    for split in SPLITS:
        counts = toy.graphs.labels[toy.graphs.splits[split]].bincount()
        assert counts[0] == counts[1]


def test_a_batch_is_the_chosen_graphs_side_by_side(task):
    at = torch.tensor([5, 0, 5, 17])
    view, labels = task.batch("validation", at, generator())
    chosen = task.graphs.splits["validation"][at]
    assert labels.equal(task.graphs.labels[chosen])
    start = columns = 0
    for place, graph in enumerate(chosen.tolist()):
        x, edges = piece(task, graph)
        inside = ((view.edge_index >= start) & (view.edge_index < start + len(x))).all(0)
        assert view.rows[place] == start
        assert view.x[start : start + len(x)].equal(x)
        assert (view.edge_index[:, inside] - start).T.tolist() == edges
        start, columns = start + len(x), columns + len(edges)
    assert len(view.x) == start
    assert view.edge_index.shape[1] == columns
    assert same(task.batch("validation", at), (view, labels)), "nothing is drawn"


def test_answers_are_means_over_the_nodes_of_each_graph(task):
    torch.manual_seed(0)
    model = Mixing(task.signature.input[0], 2)
    view, _ = task.batch("test", torch.arange(20))
    with torch.no_grad():
        found = task.answer(model, view)
        for place, graph in enumerate(task.graphs.splits["test"][:20].tolist()):
            x, edges = piece(task, graph)
            expected = model(x, torch.tensor(edges).T).mean(0)
            torch.testing.assert_close(found[place], expected)


def test_pruned_edges_are_in_no_batch(task):
    graph = task.graph()
    keep = torch.rand(graph.pairs.shape[1], generator=generator()) < 0.5
    left = graph.restricted({EDGES: keep})
    pruned = task.on_graph(left)
    view, labels = pruned.batch("train", torch.arange(300))
    assert same(labels, task.batch("train", torch.arange(300))[1])
    nodes = torch.cat([torch.arange(*task.graphs.starts[g : g + 2].tolist()) for g in chosen(task)])
    assert nodes[view.edge_index].equal(left.edge_index[:, view.columns])
    assert view.edge_index.shape[1] < task.batch("train", torch.arange(300))[0].edge_index.shape[1]
    empty = task.on_graph(graph.restricted({EDGES: torch.zeros_like(keep)}))
    view, _ = empty.batch("train", torch.arange(3))
    assert view.edge_index.shape == (2, 0)
    assert empty.evaluate(Mixing(task.signature.input[0], 2), "test")["loss"] > 0


def chosen(task):
    return task.graphs.splits["train"].tolist()


def test_motifs_are_planted_and_cannot_be_counted(task):
    held = task.graphs
    assert [task.size(s) for s in SPLITS] == [300, 100, 100]
    assert held.labels.bincount().tolist() == [250, 250]
    owner = torch.arange(500).repeat_interleave(held.starts.diff())
    edges = owner[task.graph().pairs[0]].bincount()
    surplus = edges - held.starts.diff()
    for label in (0, 1):
        assert surplus[held.labels == label].bincount().tolist() == [125, 125], "as many edges"
    sizes = held.starts.diff()
    assert (sizes.min(), sizes.max()) == (17, 23)
    assert same(vars(motifs(20)), vars(motifs(20)))
    # Pinned: no version of a library may draw others.
    assert task.graph().fingerprint()[:16] == "c61aa91858c56de0"


def test_a_ring_of_five_is_in_every_second_motif(task):
    networkx = pytest.importorskip("networkx")
    for graph in range(40):
        _, edges = piece(task, graph)
        drawn = networkx.Graph(edges)
        cycles = [len(c) for c in networkx.minimum_cycle_basis(drawn)]
        if task.graphs.labels[graph] == 1:
            assert sorted(cycles) in ([5], [3, 4])


def test_degrees_are_the_features_of_a_set_without_any(tmp_path):
    tiny_graphs.write_tu(tmp_path, parts=())
    task = task_of("tu/TOY", tmp_path)
    x = task.graphs.graph.x
    assert x.sum(1).equal(torch.ones(len(x)))
    found = task.graph().edge_index[0].bincount(minlength=len(x))
    assert x.argmax(1).equal(found)
    star = torch.stack([torch.zeros(150).long(), torch.arange(1, 151)])
    graph = task.graph().of(torch.zeros(151, 1), torch.cat([star, star.flip(0)], 1))
    assert degrees(graph).shape == (151, DEGREES + 1)
    assert degrees(graph)[0].argmax() == DEGREES


def test_another_seed_is_another_split(tmp_path):
    tiny_graphs.write_tu(tmp_path)
    names = ("tu/TOY", "tu/TOY@random-0", "tu/TOY@random-3")
    one, same_one, other = (task_of(name, tmp_path) for name in names)
    assert same(one.graphs.splits, same_one.graphs.splits)
    assert not same(one.graphs.splits, other.graphs.splits)
    assert one.fingerprint() == same_one.fingerprint() != other.fingerprint()
    with pytest.raises(BadInput, match="suffix @inductive"):
        task_of("tu/TOY@inductive", tmp_path)


def test_permuted_labels_stay_with_the_set(task):
    corrupted = with_random_labels(task, 0)
    at = torch.arange(300)
    (view, labels), (plain, truth) = (t.batch("train", at) for t in (corrupted, task))
    assert same(view, plain)
    assert labels.sort().values.equal(truth.sort().values)
    assert not labels.equal(truth)


def test_edge_labels_are_not_used_and_that_is_said(tmp_path, capsys):
    tiny_graphs.write_tu(tmp_path, parts=("node_labels", "edge_labels"))
    task_of("tu/TOY", tmp_path).graph()
    assert "features of its edges are not used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.zeros(39, dtype=torch.int64)}, "39 labels; expected one for each"),
        ({"labels": torch.zeros(41, dtype=torch.int64)}, "41 labels; expected one for each"),
        ({"x": torch.zeros(3, 2)}, "features of 3 nodes"),
        ({"edge_index": torch.tensor([[0], [10**6]])}, "names a node that is not among"),
        ({"edge_index": torch.tensor([[0], [-1]])}, "names a node that is not among"),
        ({"edge_index": torch.arange(200).reshape(2, -1)}, "joins nodes of two graphs"),
    ],
)
def test_a_set_that_is_none_is_refused(changes, message, tmp_path):
    tiny_graphs.write_tu(tmp_path)
    with pytest.raises(DataError, match=message):
        set_of(replace(tu_set("TOY", tmp_path), **changes), (1, 1), 0)


def test_a_set_too_small_to_split_is_refused(tmp_path):
    tiny_graphs.write_tu(tmp_path, graphs=8)
    with pytest.raises(DataError, match="8 graphs; expected 10 or more"):
        task_of("tu/TOY", tmp_path).graph()
    tiny_graphs.write_tu(tmp_path / "b", graphs=12)
    assert task_of("tu/TOY", tmp_path / "b").size("test") == 1
