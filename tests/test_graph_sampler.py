"""Neighbourhoods, induced subgraphs and unions, against brute force."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_graphs import Mixing
from torch import nn

from lth_zoo.graph import EDGES, Graph
from lth_zoo.protocols import task_of
from lth_zoo.tasks.graph_sampler import Ground, Neighbours, distinct, ranges

NODES = 40
CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn_graph(seed=0, nodes=NODES, columns=200, symmetric=False):
    """A graph whose features are the numbers of its nodes; the last two nodes have no edge."""
    edges = torch.randint(nodes - 2, (2, columns), generator=generator(seed))
    edges = torch.cat([edges, edges.flip(0)], 1) if symmetric else edges
    return Graph.of(torch.arange(nodes, dtype=torch.float32)[:, None], edges)


def ground_of(graph):
    return Ground.of(graph, CPU)


def originals(view):
    """The columns of a view as pairs of node numbers, which are its features."""
    return view.x[:, 0].long()[view.edge_index]


@given(
    st.lists(st.integers(0, 7), max_size=9), st.lists(st.integers(0, 50), min_size=9, max_size=9)
)
def test_ranges_are_those_of_a_loop(counts, starts):
    expected = [s + i for s, count in zip(starts, counts, strict=False) for i in range(count)]
    found = ranges(torch.tensor(starts[: len(counts)]).long(), torch.tensor(counts).long())
    assert found.tolist() == expected


@given(st.integers(0, 2**32), st.integers(1, 6), st.lists(st.integers(0, 9), max_size=8))
def test_distinct_numbers_are_distinct_and_in_range(seed, count, more):
    sizes = torch.tensor([count + m for m in more], dtype=torch.int64)
    found = distinct(sizes, count, generator(seed))
    assert found.shape == (len(more), count)
    assert all(len(set(row)) == count for row in found.tolist())
    assert (found >= 0).all()
    assert (found < sizes[:, None]).all()
    assert found.equal(distinct(sizes, count, generator(seed)))


def test_every_subset_is_equally_likely():
    draws = 20_000
    found = distinct(torch.full((draws,), 6), 3, generator()).sort(1).values
    counts = torch.unique(found, dim=0, return_counts=True)[1]
    assert len(counts) == len(list(combinations(range(6), 3)))
    assert (counts - draws / 20).abs().max() < 5 * (draws / 20) ** 0.5


@pytest.mark.parametrize("fanout", [1, 3, 10, -1])
def test_columns_into_nodes_are_theirs_and_as_many_as_asked_for(fanout):
    graph = drawn_graph()
    lists = Neighbours.of(graph.edge_index, graph.nodes)
    nodes = torch.arange(NODES)
    columns = lists.into(nodes, fanout, generator())
    assert columns.unique().numel() == len(columns)
    degrees = graph.edge_index[1].bincount(minlength=NODES)
    expected = degrees.clamp(max=fanout) if fanout >= 0 else degrees
    assert graph.edge_index[1, columns].bincount(minlength=NODES).equal(expected)


def reached(graph, seeds, hops):
    """Nodes and columns within so many hops against the direction, by a loop over nodes."""
    seen, front, columns = set(seeds), set(seeds), set()
    for _ in range(hops):
        ends = [(c, s) for c, (s, t) in enumerate(graph.edge_index.T.tolist()) if t in front]
        columns |= {c for c, _ in ends}
        front = {s for _, s in ends} - seen
        seen |= front
    return sorted(seen), sorted(columns)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_whole_neighbourhood_is_what_a_loop_reaches(hops, symmetric):
    graph = drawn_graph(symmetric=symmetric, columns=60)
    lists = Neighbours.of(graph.edge_index, graph.nodes)
    seeds = torch.tensor([5, 0, 5, NODES - 1])
    nodes, columns = lists.around(seeds, [-1] * hops, generator())
    assert (nodes.tolist(), columns.tolist()) == reached(graph, seeds.tolist(), hops)


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_is_a_part_that_hangs_on_its_seeds(seed):
    graph = drawn_graph(columns=400)
    lists = Neighbours.of(graph.edge_index, graph.nodes)
    nodes, columns = lists.around(torch.tensor([3, 8]), (4, 2), generator(seed))
    every, _ = reached(graph, [3, 8], 2)
    assert set(nodes.tolist()) <= set(every)
    inside = graph.edge_index[:, columns]
    assert set(inside.flatten().tolist()) == set(nodes.tolist())
    into = inside[1].bincount(minlength=NODES)
    assert into[[3, 8]].tolist() == [4, 4]
    others = torch.tensor([n for n in nodes.tolist() if n not in (3, 8)])
    assert into[others].max() <= 2


def test_a_sample_depends_on_the_set_of_seeds_and_the_generator():
    graph = drawn_graph(columns=400)
    ground = ground_of(graph)
    one, again, other = (
        ground.sampled(torch.tensor([3, 8]), (3, 3), generator(s)) for s in (0, 0, 1)
    )
    turned = ground.sampled(torch.tensor([8, 3, 8]), (3, 3), generator(0))
    for name in ("x", "edge_index", "columns"):
        assert getattr(one, name).equal(getattr(again, name))
        assert getattr(one, name).equal(getattr(turned, name))
    assert one.columns.tolist() != other.columns.tolist()
    assert turned.rows.tolist() == one.rows[[1, 0, 1]].tolist()


def test_a_view_keeps_the_numbers_of_its_columns_and_rows():
    graph = drawn_graph(columns=400)
    view = ground_of(graph).sampled(torch.tensor([9, 4]), (3, 3), generator())
    assert originals(view).equal(graph.edge_index[:, view.columns])
    assert view.x[view.rows, 0].tolist() == [9, 4]
    assert view.columns.equal(view.columns.unique()), "ascending"


def test_a_node_without_edges_is_a_view_of_itself():
    view = ground_of(drawn_graph()).sampled(torch.tensor([NODES - 1]), (3, 3), generator())
    assert view.x.tolist() == [[NODES - 1]]
    assert view.edge_index.shape == (2, 0)
    assert view.rows.tolist() == [0]


def test_what_is_pruned_is_never_drawn():
    task = task_of("digits-knn")
    graph = task.graph()
    keep = torch.rand(graph.pairs.shape[1], generator=generator()) < 0.3
    left = graph.restricted({EDGES: keep})
    pruned = task.on_graph(left)
    kept = set(map(tuple, left.edge_index.T.tolist()))
    seen = set()
    for seed in range(3):
        nodes = torch.arange(30)
        view, _ = pruned.batch("train", nodes, generator(seed))
        edges = left.edge_index[:, view.columns]
        assert left.x[edges].equal(view.x[view.edge_index])
        seen |= set(map(tuple, edges.T.tolist()))
    assert seen
    assert seen <= kept


class GCN(nn.Module):
    """Two layers of PyG's, as everybody has them."""

    def __init__(self, features, classes):
        from torch_geometric.nn import GCNConv

        super().__init__()
        self.first, self.second = GCNConv(features, 8), GCNConv(8, classes)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


@pytest.mark.parametrize(("kind", "hops"), [(Mixing, 2), (GCN, 3)])
def test_whole_neighbourhoods_give_the_answers_of_the_whole_graph(kind, hops):
    task = task_of(f"digits-knn@fanout-{'-'.join(['all'] * hops)}")
    torch.manual_seed(0)
    model = kind(64, 10)
    at = torch.arange(0, 200, 9)
    part, labels = task.batch("train", at, generator())
    whole, same_labels = task.batch("train", at)
    assert len(part.x) < len(whole.x)
    assert labels.equal(same_labels)
    expected = task.answer(model, whole)
    torch.testing.assert_close(task.answer(model, part), expected, rtol=1e-4, atol=1e-4)
    # The degrees of the last hop's nodes are not whole without one hop more.
    short, _ = task_of("digits-knn@fanout-all-all").batch("train", at, generator())
    close = torch.allclose(task.answer(model, short), expected, rtol=1e-4, atol=1e-4)
    assert close is (kind is Mixing)


def test_an_induced_subgraph_is_what_a_loop_keeps():
    graph = drawn_graph(columns=300)
    keep = torch.rand(NODES, generator=generator(3)) < 0.6
    ground = ground_of(graph).induced(keep)
    pairs = graph.edge_index.T.tolist()
    expected = [c for c, (s, t) in enumerate(pairs) if keep[s] and keep[t]]
    view = ground.whole(keep.nonzero().flatten()[[2, 0]])
    assert view.columns.tolist() == expected
    assert originals(view).T.tolist() == [pairs[c] for c in expected]
    assert view.x[:, 0].tolist() == keep.nonzero().flatten().tolist()
    assert view.rows.tolist() == [2, 0]
    sample = ground.sampled(keep.nonzero().flatten()[:2], (2, 2), generator())
    assert originals(sample).equal(graph.edge_index[:, sample.columns])
    assert set(sample.columns.tolist()) <= set(expected)


def test_renumbered_nodes_have_the_renumbered_neighbourhood():
    graph = drawn_graph(columns=100)
    number = torch.randperm(NODES, generator=generator(5))
    other = Graph.of(graph.x[number.argsort()], number[graph.edge_index])
    seeds = torch.tensor([1, 7, 30])
    one = ground_of(graph).sampled(seeds, (-1, -1), generator())
    two = ground_of(other).sampled(number[seeds], (-1, -1), generator())
    assert sorted(originals(one).T.tolist()) == sorted(originals(two).T.tolist())
    assert one.x[one.rows].equal(two.x[two.rows])
