"""Gates on edges: 0 is the same as a deleted column, 1 as no gate, and every slope is finite."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch_geometric import nn as pyg

from lth_zoo.adapters import gnn_layers
from lth_zoo.graph import Graph
from lth_zoo.seeds import generator, seeded

NODES, FEATURES = 20, 6


class Initial(nn.Module):
    """GCNII's convolution, whose first answer is its input."""

    def __init__(self, **settings):
        super().__init__()
        self.conv = pyg.GCN2Conv(FEATURES, 0.1, 0.5, 1, **settings)

    def forward(self, x, edge_index, edge_weight=None):
        return self.conv(x, x, edge_index, edge_weight)


LAYERS = {
    "gcn": partial(pyg.GCNConv, FEATURES, 4),
    "gcn summed": partial(pyg.GCNConv, FEATURES, 4, normalize=False),
    "graph": partial(pyg.GraphConv, FEATURES, 4),
    "gcn2": Initial,
    "gcn2 two matrices": partial(Initial, shared_weights=False),
    "gin narrow": partial(gnn_layers.GIN, FEATURES, 4, hidden=3),
    "gin wide": partial(gnn_layers.GIN, FEATURES, 9, learn_eps=True),
    "sage narrow": partial(gnn_layers.SAGE, FEATURES, 4),
    "sage wide": partial(gnn_layers.SAGE, FEATURES, 9),
    "gat": partial(gnn_layers.GAT, FEATURES, 3, 2),
    "gat mean": partial(gnn_layers.GAT, FEATURES, 3, 2, concat=False),
    "gen": partial(gnn_layers.GEN, FEATURES, 4),
}
OURS = [name for name in LAYERS if not name.startswith(("gcn", "graph"))]


def layer_of(name):
    with seeded(0, "init"):
        return LAYERS[name]()


def graph_of(directed, seed=0, features=FEATURES):
    """A random graph whose last three nodes have no edge."""
    rng = generator(seed, "data")
    edges = torch.randint(0, NODES - 3, (2, 60), generator=rng)
    edges = edges if directed else torch.cat([edges, edges.flip(0)], 1)
    graph = Graph.of(torch.randn(NODES, features, generator=rng), edges)
    assert graph.undirected is not directed
    return graph


def half(graph, seed=1):
    """Half of the columns, none of node 0's own."""
    keep = torch.rand(graph.edge_index.shape[1], generator=generator(seed, "data")) < 0.5
    return keep & (graph.edge_index[1] != 0)


def outcome(layer, x, edge_index, gates=None):
    """A layer's answer and every gradient that it gives its parameters and its input."""
    x = x.clone().requires_grad_()
    answer = layer(x, edge_index, gates)
    rng = generator(2, "data")
    toward = torch.randn(answer.shape, generator=rng).to(x.dtype)
    return [answer, *torch.autograd.grad((answer * toward).sum(), [x, *layer.parameters()])]


def close(one, other, tolerance=1e-5):
    assert all(a.isfinite().all() for a in one)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_closed_gate_is_a_deleted_column(name, directed):
    layer = layer_of(name)
    for seed in range(3):
        graph = graph_of(directed, seed)
        keep, columns = half(graph, seed), graph.edge_index
        gates = keep.float().requires_grad_()
        close(outcome(layer, graph.x, columns, gates), outcome(layer, graph.x, columns[:, keep]))
        ones, none = torch.ones_like(gates), torch.zeros_like(gates)
        close(outcome(layer, graph.x, columns, ones), outcome(layer, graph.x, columns))
        close(outcome(layer, graph.x, columns, none), outcome(layer, graph.x, columns[:, :0]))


@pytest.mark.parametrize("name", LAYERS)
def test_the_slope_of_a_gate_is_that_of_finite_differences(name):
    layer, graph = layer_of(name).double(), graph_of(directed=True)
    x, columns = graph.x.double(), graph.edge_index
    rng = generator(3, "data")
    gates = 0.2 + torch.rand(columns.shape[1], generator=rng, dtype=torch.float64)
    torch.autograd.gradcheck(lambda g: layer(x, columns, g), gates.clone().requires_grad_())
    # At 0 only from above; a mean jumps where a node's only gate opens, so others are open.
    degree = torch.bincount(columns[1])[columns[1]]
    at = (degree > 1).nonzero().flatten()[:4]
    toward = torch.randn(layer(x, columns).shape, generator=rng, dtype=torch.float64)
    for column in at:
        shut = gates.clone()
        shut[column] = 0
        low, high = shut.clone().requires_grad_(), shut.clone()
        high[column] = 1e-7
        value = (layer(x, columns, low) * toward).sum()
        (slope,) = torch.autograd.grad(value, low)
        measured = ((layer(x, columns, high) * toward).sum() - value) / 1e-7
        assert slope[column].item() == pytest.approx(measured.item(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("value", [0.0, 1e-38, 1e-12, 1.0])
def test_equal_gates_of_any_size_give_finite_slopes(name, value):
    layer, graph = layer_of(name), graph_of(directed=False)
    for scale in (1.0, 1e3):
        gates = torch.full((graph.edge_index.shape[1],), value, requires_grad=True)
        answer = layer(scale * graph.x, graph.edge_index, gates)
        answer.sum().backward()
        assert answer.isfinite().all()
        assert gates.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_a_closed_column_far_above_the_open_ones_leaves_no_trace():
    target = torch.tensor([0, 0, 0, 1])
    scores = torch.tensor([[500.0], [1.0], [1.0], [-500.0]], requires_grad=True)
    gates = torch.tensor([0.0, 1.0, 3.0, 0.0], requires_grad=True)
    shares = gnn_layers.gated_softmax(scores, gates, target, 3)
    torch.testing.assert_close(shares[:, 0], torch.tensor([0.0, 0.25, 0.75, 0.0]))
    shares[1:].square().sum().backward()
    assert scores.grad.isfinite().all()
    assert gates.grad.isfinite().all()
    # A gate that is nearly closed still decides where its score is far above.
    nearly = torch.tensor([1e-5, 1.0, 1.0, 0.0])
    assert gnn_layers.gated_softmax(scores, nearly, target, 3)[0] == 1


@pytest.mark.parametrize("p", [0.1, 0.5, 0.6])
def test_dropping_is_unbiased_fair_and_a_function_of_the_seed(p):
    x = torch.ones(999, 501, requires_grad=True)
    with seeded(0, "dropout"):
        first, second = (gnn_layers.dropped(x, p, True) for _ in range(2))
    with seeded(0, "dropout"):
        assert gnn_layers.dropped(x, p, True).equal(first)
    assert first.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    assert first.mean().item() == pytest.approx(1, abs=0.01)
    kept = [t > 0 for t in (first, second)]
    assert all(k.float().mean().item() == pytest.approx(1 - p, abs=0.005) for k in kept)
    both = (kept[0] & kept[1]).float().mean().item()
    assert both == pytest.approx((1 - p) ** 2, abs=0.005)
    (slope,) = torch.autograd.grad(first.sum(), x)
    assert slope.equal(first)
    assert gnn_layers.dropped(x, p, False).equal(x)


def test_a_mean_of_nothing_is_zero():
    x, nowhere = torch.ones(3, 2), torch.zeros(2, 0, dtype=torch.long)
    assert not gnn_layers.gathered_mean(x, nowhere, None).any()
    columns = torch.tensor([[0, 1], [2, 2]])
    mean = gnn_layers.gathered_mean(x * torch.tensor([[1.0], [5], [0]]), columns, None)
    assert mean.tolist() == [[0, 0], [0, 0], [3, 3]]
    weighted = gnn_layers.gathered_mean(x.cumsum(0), columns, torch.tensor([3.0, 1.0]))
    assert weighted[2].tolist() == [1.25, 1.25]


def twins(name):
    """A layer of ours and the library's with the same parameters."""
    ours = layer_of(name)
    if name.startswith("gin"):
        narrow = name == "gin narrow"
        more = [nn.ReLU(), pyg.Linear(3, 4)] if narrow else []
        theirs = pyg.GINConv(
            nn.Sequential(pyg.Linear(FEATURES, 3 if narrow else 9), *more), train_eps=not narrow
        )
        names = {"nn.0.weight": "lin.weight", "nn.0.bias": "bias"}
        names |= {f"nn.2.{k}": f"rest.1.{k}" for k in ("weight", "bias")}
    elif name.startswith("sage"):
        theirs = pyg.SAGEConv(FEATURES, 4 if name == "sage narrow" else 9)
        names = {"lin_l.bias": "lin_r.bias"}
    elif name == "gen":
        kinds = {"t": 0.1, "learn": False, "semi_grad": True}
        theirs = pyg.GENConv(FEATURES, FEATURES, aggr_kwargs=kinds, num_layers=1, bias=True)
        ours = gnn_layers.GEN(FEATURES, FEATURES)
        names = {f"mlp.0.{k}": f"lin.{k}" for k in ("weight", "bias")}
    else:
        theirs, names = pyg.GATConv(FEATURES, 3, 2, concat=name == "gat"), {}
    state = ours.state_dict()
    theirs.load_state_dict({n: state[names.get(n, n)] for n in theirs.state_dict()})
    return ours, theirs


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
def test_without_gates_a_layer_is_the_library_s(name, directed):
    graph = graph_of(directed)
    ours, theirs = twins(name)
    expected = theirs(graph.x, graph.edge_index)
    # SAGEConv has its bias with the neighbours; ours, with the node, is the same sum.
    torch.testing.assert_close(ours(graph.x, graph.edge_index), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_a_layer_is_drawn_as_the_library_draws_its_own(name):
    with seeded(1, "init"):
        ours, theirs = twins(name)
    drawn = []
    for layer in (ours, theirs):
        with seeded(2, "init"):
            layer.reset_parameters()
        drawn.append([p.detach().clone() for p in layer.parameters()])
    if name.startswith("gat"):
        assert all(any(a.equal(b) for b in drawn[1]) for a in drawn[0])
    else:
        bounds = [max(t.abs().max().item() for t in tensors) for tensors in drawn]
        assert bounds == pytest.approx([bounds[0]] * 2, rel=0.1)
