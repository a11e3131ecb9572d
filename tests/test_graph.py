"""A graph's edges: pairing, masks, scores. Checked against plain Python over every edge."""

from __future__ import annotations

import math

import pytest
import torch

from lth_zoo.edge_scores import EDGE_SCORES, degree, ranks, selected
from lth_zoo.errors import BadInput
from lth_zoo.graph import ARCS, EDGES, Graph
from lth_zoo.masks import Masks
from lth_zoo.seeds import generator


def columns(pairs):
    return torch.tensor(sorted(pairs), dtype=torch.long).T.reshape(2, -1)


def both(pairs):
    pairs = list(pairs)
    return columns({(a, b) for a, b in pairs} | {(b, a) for a, b in pairs})


def random_graph(nodes=30, edges=60, seed=0):
    rng = generator(seed, "data")
    ends = torch.randint(nodes, (2, edges), generator=rng).T.tolist()
    return Graph.of(torch.rand(nodes, 3, generator=rng), both((a, b) for a, b in ends if a != b))


def mask(*bits):
    return torch.tensor(bits, dtype=torch.bool)


# -- the graph ------------------------------------------------------------------------------


def test_loops_and_duplicates_are_dropped_and_columns_sorted():
    raw = torch.tensor([[2, 0, 1, 0, 1, 1], [0, 2, 1, 2, 0, 0]])
    graph = Graph.of(torch.zeros(3, 1), raw)
    assert graph.edge_index.tolist() == [[0, 1, 2], [2, 0, 0]]
    assert graph.pairs.tolist() == [[0, 0], [1, 2]]
    assert graph.edge_of.tolist() == [1, 0, 1]
    assert not graph.undirected
    assert Graph.of(graph.x, both([(0, 1), (0, 2)])).undirected


def test_no_edges_and_no_nodes():
    for nodes in (0, 4):
        graph = Graph.of(torch.zeros(nodes, 2), torch.zeros(2, 0, dtype=torch.long))
        assert graph.pairs.shape == graph.edge_index.shape == (2, 0)
        assert graph.undirected
        assert graph.restricted(Masks({EDGES: mask()})).edge_index.shape == (2, 0)


def test_bad_input():
    x = torch.zeros(3, 2)
    with pytest.raises(BadInput, match="edge_index names node 3; there are nodes 0 to 2"):
        Graph.of(x, torch.tensor([[0], [3]]))
    with pytest.raises(BadInput, match="names node -1"):
        Graph.of(x, torch.tensor([[-1], [1]]))
    with pytest.raises(BadInput, match=r"shape \(3, 2\); it must be \(2, edges\)"):
        Graph.of(x, torch.zeros(3, 2, dtype=torch.long))
    x[1, 0] = math.nan
    with pytest.raises(BadInput, match="features of 1 nodes are not finite; the first is 1"):
        Graph.of(x, both([(0, 1)]))
    graph = Graph.of(torch.zeros(3, 2), both([(0, 1), (1, 2)]))
    with pytest.raises(BadInput, match="is of a graph with 3 edges, not 2"):
        graph.restricted(Masks({EDGES: mask(1, 1, 0)}))
    with pytest.raises(BadInput, match="no prunable entry 'graph/nodes'"):
        graph.elements("graph/nodes")


def test_a_pair_takes_both_its_columns_and_an_arc_one():
    graph = Graph.of(torch.zeros(3, 2), both([(0, 1), (0, 2), (1, 2)]))
    tied = graph.restricted(Masks({EDGES: mask(1, 0, 1)}))
    assert tied.edge_index.T.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert tied.nodes == 3
    arcs = torch.ones(6, dtype=torch.bool)
    arcs[graph.edge_index.T.tolist().index([2, 0])] = False
    single = graph.restricted(Masks({ARCS: arcs}))
    assert [2, 0] not in single.edge_index.T.tolist()
    assert [0, 2] in single.edge_index.T.tolist()
    assert not single.undirected


def test_values_of_elements_reach_their_columns_with_gradients():
    graph = random_graph()
    values = torch.rand(graph.pairs.shape[1], requires_grad=True)
    spread = graph.columns(EDGES, values)
    for column, value in zip(graph.edge_index.T.tolist(), spread.tolist(), strict=True):
        place = graph.pairs.T.tolist().index(sorted(column))
        assert value == values[place].item()
    spread.sum().backward()
    assert (values.grad == 2).all()


def test_the_fingerprint_is_of_nodes_and_edges():
    graph = random_graph()
    assert graph.fingerprint() == random_graph().fingerprint()
    assert graph.fingerprint() != random_graph(seed=1).fingerprint()
    fewer = graph.restricted(Masks({EDGES: torch.arange(graph.pairs.shape[1]) > 0}))
    assert graph.fingerprint() != fewer.fingerprint()
    assert Graph(graph.x + 1, graph.edge_index).fingerprint() == graph.fingerprint()


# -- scores ----------------------------------------------------------------------------------


def test_the_degree_score_by_hand():
    graph = random_graph()
    near = {v: [b for a, b in graph.edge_index.T.tolist() if a == v] for v in range(graph.nodes)}

    def q(v):
        return sum(len(near[u]) ** -0.5 for u in near[v]) / len(near[v])

    found = degree(graph, graph.pairs, generator(0, "prune"))
    for (i, j), value in zip(graph.pairs.T.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(q(i) / len(near[i]) * q(j) / len(near[j]))


def test_an_edge_between_hubs_goes_before_one_between_leaves():
    star = [(0, i) for i in range(2, 7)] + [(1, i) for i in range(7, 12)]
    graph = Graph.of(torch.zeros(14, 1), both([*star, (0, 1), (12, 13)]))
    found = selected(graph, EDGES, "degree", "1/2", generator(0, "prune"))
    kept = {tuple(p) for p in graph.pairs.T[found[EDGES]].tolist()}
    assert (0, 1) not in kept
    assert (12, 13) in kept


@pytest.mark.parametrize("score", sorted(EDGE_SCORES))
@pytest.mark.parametrize("entry", [EDGES, ARCS])
def test_counts_are_exact_and_levels_are_nested(score, entry):
    graph, within = random_graph(), None
    size = graph.elements(entry).shape[1]
    for density in ("19/20", "1/2", "1/7", "0"):
        found = selected(graph, entry, score, density, generator(3, "prune"), within)
        assert list(found) == [entry]
        assert found[entry].sum() == math.floor(eval(density) * size + 0.5)
        again = selected(graph, entry, score, density, generator(3, "prune"))
        assert found == again, "the candidates of before hold all that is best now"
        within = found
    with pytest.raises(BadInput, match="cannot keep"):
        selected(graph, entry, score, "1/2", generator(3, "prune"), within)


def test_a_score_is_known():
    with pytest.raises(BadInput, match="degree"):
        selected(random_graph(), EDGES, "degrees", "1/2", generator(0, "prune"))


def test_ties_fall_to_chance_not_to_the_number_of_a_node():
    ring = Graph.of(torch.zeros(100, 1), both([(i, (i + 1) % 100) for i in range(100)]))
    kept = [selected(ring, EDGES, "degree", "1/2", generator(s, "prune"))[EDGES] for s in range(40)]
    share = torch.stack(kept).float().mean(0)
    assert kept[0].tolist() != kept[1].tolist()
    assert abs(share[:50].mean() - share[50:].mean()) < 0.1


def test_ranks_order_as_the_values_do():
    values = torch.tensor([3.0, 1.0, 2.0, 1.0])
    found = ranks(values, generator(0, "prune")).tolist()
    assert sorted(found) == [0, 1, 2, 3]
    assert found[0] == 3
    assert found[2] == 2


def test_dspar_prefers_edges_of_lowly_connected_nodes():
    star = [(0, i) for i in range(1, 20)]
    graph = Graph.of(torch.zeros(22, 1), both([*star, (20, 21)]))
    place = graph.pairs.T.tolist().index([20, 21])
    kept = [
        selected(graph, EDGES, "dspar", "1/4", generator(s, "prune"))[EDGES] for s in range(200)
    ]
    share = torch.stack(kept).float().mean(0)
    others = [i for i in range(len(share)) if i != place]
    assert share[place] > 1.3 * share[others].mean()
