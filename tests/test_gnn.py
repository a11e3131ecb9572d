"""Graph networks by name, what is prunable of them and of the user's own, and who takes gates."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from test_gnn_layers import close, graph_of, half, outcome
from torch import nn
from torch.nn import functional as F
from torch_geometric import nn as pyg
from torch_geometric.nn import models

from lth_zoo.adapters.custom import reset_in_place
from lth_zoo.adapters.gnn import GNN, parse
from lth_zoo.edge_sums import edge_sum
from lth_zoo.errors import BadInput
from lth_zoo.graph_models import check_gates, check_layers, takes_gates
from lth_zoo.masks import Masks
from lth_zoo.protocols import Signature, adapter_of
from lth_zoo.prunable import count_macs, default_prunable, head_of
from lth_zoo.seeds import seeded

FEATURES, CLASSES = 6, 3
SIGNATURE = Signature((FEATURES,), CLASSES, "nodes")
NAMES = ["gcn-8", "gcn-bare-8", "gin-8", "gin-linear-8", "gat-2x4", "sage-8", "gcnii-8x4"]
NAMES += ["resgcn-3x8"]


def built(name, signature=SIGNATURE, seed=0):
    with seeded(seed, "init"):
        return adapter_of(name).build(name, signature)


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("gcn", {"width": 16, "layers": 2}),
        ("gcn-bare", {"width": 512, "layers": 2}),
        ("gcn-bare-64x3", {"width": 64, "layers": 3}),
        ("gin-512x3", {"width": 512, "layers": 3}),
        ("gin-linear-512", {"width": 512, "layers": 2}),
        ("gat", {"heads": 8, "width": 8, "layers": 2}),
        ("gat-2x16x3", {"heads": 2, "width": 16, "layers": 3}),
        ("gcnii-32", {"width": 32, "layers": 16}),
        ("resgcn-28", {"layers": 28, "width": 128}),
        ("resgcn-7x32", {"layers": 7, "width": 32}),
    ],
)
def test_a_name_says_the_sizes(name, sizes):
    assert parse(name)[1] == sizes
    assert type(adapter_of(name)) is GNN


@pytest.mark.parametrize(
    "name", ["gcn-", "gcn-0", "gcn-064", "gcn-64x", "gcn-8x2x2", "gat-8", "resgcn", "gcn64", "Gcn"]
)
def test_other_names_are_no_graph_network(name):
    assert not GNN().owns(name)
    with pytest.raises(BadInput, match="unknown model"):
        parse(name)


def test_every_listed_name_is_built():
    for name in GNN.models:
        model = built(name)
        assert model(**GNN().example(SIGNATURE)).shape == (4, CLASSES)


def test_a_bare_gcn_has_no_biases_and_sees_every_feature():
    graph, bare = graph_of(False, features=40), "gcn-bare-8"
    signature = Signature((40,), CLASSES, "nodes")
    assert not [n for n, _ in built(bare, signature).named_parameters() if n.endswith("bias")]
    for name, seen in ((bare, True), ("gcn-8", False)):
        model = built(name, signature).train()
        given = []
        model.convs[0].lin.register_forward_pre_hook(lambda _, args, to=given: to.append(args[0]))
        model.convs[1].lin.register_forward_pre_hook(lambda _, args, to=given: to.append(args[0]))
        model(graph.x, graph.edge_index)
        assert given[0].equal(graph.x) is seen
        assert (given[1] == 0).float().mean() > 0.6, "half of what the ReLU left is dropped"


def test_a_task_without_a_graph_is_refused():
    with pytest.raises(BadInput, match=r"'gcn' reads a graph, and the task has none.*\(1, 8, 8\)"):
        built("gcn", Signature((1, 8, 8), 10))


# -- what is prunable -------------------------------------------------------------------------

F_, C = 1433, 7
CORA = Signature((F_,), C, "nodes")


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("gcn-512", {"convs.0.lin": F_ * 512, "convs.1.lin": 512 * C}),
        (
            "gin-64",
            {
                "convs.0.lin": F_ * 64,
                "convs.0.rest.1": 64 * 64,
                "convs.1.lin": 64 * 64,
                "convs.1.rest.1": 64 * C,
            },
        ),
        ("gin-linear-512", {"convs.0.lin": F_ * 512, "convs.1.lin": 512 * C}),
        ("gat", {"convs.0.lin": F_ * 64, "convs.1.lin": 64 * C}),
        (
            "sage-64",
            {
                "convs.0.lin_l": F_ * 64,
                "convs.0.lin_r": F_ * 64,
                "convs.1.lin_l": 64 * C,
                "convs.1.lin_r": 64 * C,
            },
        ),
        ("gcnii-64x2", {"first": F_ * 64, "convs.0": 64**2, "convs.1": 64**2, "last": 64 * C}),
        (
            "resgcn-3",
            {
                "first": F_ * 128,
                "conv.lin": 128**2,
                "blocks.0.conv.lin": 128**2,
                "blocks.1.conv.lin": 128**2,
                "last": 128 * C,
            },
        ),
    ],
)
def test_what_is_prunable_of_a_network(name, weights):
    adapter, model = adapter_of(name), built(name, CORA)
    prunable = adapter.prunable(model)
    if name == "resgcn-3":  # built in another order than it is called
        assert {p.layer for p in prunable.values()} == weights.keys()
    else:
        assert [p.layer for p in prunable.values()] == list(weights)
    assert {p.layer: model.get_parameter(n).numel() for n, p in prunable.items()} == weights
    # One example is one node: every weight is used once for it.
    assert adapter.macs(model, adapter.example(CORA)) == {
        n: weights[p.layer] for n, p in prunable.items()
    }
    outputs = [p.layer for p in prunable.values() if p.role == "output"]
    assert outputs == [layer for layer in weights if layer.startswith(("convs.1.", "last"))]


def test_attention_vectors_are_optional():
    model = built("gat-2x4x3")
    optional = GNN().optional(model)
    assert list(optional) == [f"convs.{i}.att_{end}" for i in range(3) for end in ("src", "dst")]
    assert [p.depth for p in optional.values()] == [0, 0, 1, 1, 2, 2]
    assert {p.layer for p in optional.values()} == optional.keys()
    assert GNN().optional(built("gcn")) == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_ticket_lands_on_another_number_of_classes(name):
    adapter, model = adapter_of(name), built(name)
    other = built(name, Signature((FEATURES,), 5, "links"))
    head, ours, theirs = adapter.head(model), model.state_dict(), other.state_dict()
    assert head == adapter.head(other)
    resized = {n for n in ours if ours[n].shape != theirs[n].shape}
    assert resized
    assert resized <= head
    masks = adapter.carry(Masks.ones(model, adapter.prunable(model)), other)
    assert set(masks) == adapter.prunable(model).keys() - head


# -- as a whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
def test_a_network_under_gates_is_the_network_on_what_is_left(name, directed):
    model, graph = built(name).eval(), graph_of(directed)
    keep, columns = half(graph), graph.edge_index
    gates = keep.float().requires_grad_()
    close(outcome(model, graph.x, columns, gates), outcome(model, graph.x, columns[:, keep]))
    ones = torch.ones_like(gates)
    close(outcome(model, graph.x, columns, ones), outcome(model, graph.x, columns))
    answer = model(graph.x, columns, gates).square().sum()
    (slope,) = torch.autograd.grad(answer, gates)
    assert slope.isfinite().all()
    assert slope.any()
    assert takes_gates(model, graph)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_remembers_no_graph(name):
    model, graph = built(name).eval(), graph_of(directed=False)
    keep = half(graph)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    first = model(graph.x, graph.edge_index)
    model(graph.x, graph.edge_index[:, keep])
    assert model(graph.x, graph.edge_index).equal(first)
    assert all(t.equal(before[n]) for n, t in model.state_dict().items())
    assert copy.deepcopy(model)(graph.x, graph.edge_index).equal(first)
    twin = built(name, seed=1)
    twin.load_state_dict(model.state_dict())
    assert twin.eval()(graph.x, graph.edge_index).equal(first)


@pytest.mark.parametrize("name", [*NAMES, "gin-linear-8x1", "sage-8x1"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_features_in_csr_are_the_same_features(name):
    graph, wide = graph_of(directed=True), Signature((FEATURES,), 9, "links")
    model, x = built(name, wide).eval(), graph.x * (graph.x > 0)
    gates = half(graph).float()
    for given in ([], [gates]):
        dense = model(x, graph.edge_index, *given)
        sparse = model(x.to_sparse_csr(), graph.edge_index, *given)
        torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-5)
    model.train()(x.to_sparse_csr(), graph.edge_index, gates).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_network_learns(name):
    model, graph = built(name), graph_of(directed=False)
    labels = (graph.x + edge_sum(graph.x, graph.edge_index))[:, :CLASSES].argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)

    def loss():
        return F.cross_entropy(model(graph.x, graph.edge_index), labels)

    model.eval()
    first = loss().item()
    for _ in range(60):
        model.train()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    model.eval()
    assert loss().item() < 0.9 * first


# -- the user's own ---------------------------------------------------------------------------


class Own(nn.Module):
    """Convolutions of the library and a linear head, written by hand."""

    def __init__(self, conv=pyg.GraphConv):
        super().__init__()
        self.convs = nn.ModuleList([conv(FEATURES, 8), conv(8, 8)])
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x, edge_index, edge_weight=None):
        for conv in self.convs:
            x = conv(x, edge_index, edge_weight).relu()
        return self.head(x)


class Deaf(Own):
    """Accepts edge weights and uses them in the first layer only."""

    def forward(self, x, edge_index, edge_weight=None):
        x = self.convs[0](x, edge_index, edge_weight)
        return self.head(self.convs[1](x, edge_index))


class Plain(nn.Module):
    """Sums by hand, without the library; ``edge_weight`` arrives through keywords."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(FEATURES, CLASSES)

    def forward(self, x, edge_index, **more):
        gates = more.get("edge_weight", torch.ones(edge_index.shape[1]))
        sent = gates[:, None] * self.lin(x)[edge_index[0]]
        return torch.zeros(len(x), CLASSES).index_add(0, edge_index[1], sent)


class Matrices(nn.Module):
    """Layers that hold raw matrices."""

    def __init__(self):
        super().__init__()
        self.first = pyg.Linear(FEATURES, 8)
        self.two = pyg.GCN2Conv(8, 0.1, 0.5, 1, shared_weights=False)
        self.gated = pyg.GatedGraphConv(8, 2)
        self.last = pyg.Linear(8, CLASSES)

    def forward(self, x, edge_index, edge_weight=None):
        first = self.first(x)
        x = self.two(first, first, edge_index, edge_weight)
        return self.last(self.gated(x, edge_index, edge_weight))


SIZES = {"in_channels": FEATURES, "hidden_channels": 8, "num_layers": 2, "out_channels": CLASSES}
OWN = {
    "GCN": (lambda: models.GCN(**SIZES), ["convs.0.lin", "convs.1.lin"], 1),
    "GraphSAGE": (
        lambda: models.GraphSAGE(**SIZES),
        [f"convs.{i}.lin_{side}" for i in range(2) for side in "lr"],
        2,
    ),
    "GAT": (lambda: models.GAT(**SIZES, heads=2, concat=False), ["convs.0.lin", "convs.1.lin"], 1),
    "GIN": (
        lambda: models.GIN(**SIZES),
        [f"convs.{i}.nn.lins.{j}" for i in range(2) for j in range(2)],
        2,
    ),
    "jumping": (lambda: models.GCN(**SIZES, jk="cat"), ["convs.0.lin", "convs.1.lin", "lin"], 1),
    "by hand": (
        Own,
        [*(f"convs.{i}.lin_{end}" for i in range(2) for end in ("rel", "root")), "head"],
        1,
    ),
    "plain": (Plain, ["lin"], 1),
    "matrices": (Matrices, ["first", "two", "two", "gated", "last"], 1),
}


def own(name):
    with seeded(0, "init"):
        return OWN[name][0]()


@pytest.mark.parametrize("name", OWN)
def test_what_is_prunable_of_a_users_model(name):
    _, layers, outputs = OWN[name]
    model, graph = own(name), graph_of(directed=False)
    prunable = default_prunable(model)
    assert [p.layer for p in prunable.values()] == layers
    assert [p.role for p in prunable.values()].count("output") == outputs
    assert all(model.get_parameter(n).dim() >= 2 for n in prunable)
    head = head_of(model, prunable)
    shapes = {n: t.shape for n, t in model.state_dict().items()}
    assert all(n in head for n, shape in shapes.items() if shape and CLASSES in shape)
    macs = count_macs(model, {"x": graph.x, "edge_index": graph.edge_index}, prunable)
    assert macs == {n: model.get_parameter(n).numel() for n in prunable}


@pytest.mark.parametrize("name", OWN)
def test_a_users_model_is_drawn_anew(name):
    model = own(name)
    before = {n: model.get_parameter(n).detach().clone() for n in default_prunable(model)}
    with seeded(1, "init"):
        reset_in_place(model, before)
    assert not any(model.get_parameter(n).equal(t) for n, t in before.items())
    assert not any(p.isnan().any() for p in model.parameters())


def test_a_lazy_layer_is_refused_by_name():
    lazy = models.GCN(-1, 8, 2, CLASSES)
    with pytest.raises(BadInput, match=r"'convs.0.lin.weight' has no size before its first call"):
        default_prunable(lazy)


def test_without_the_library_a_linear_layer_is_found():
    code = (
        "import sys, torch; from lth_zoo.prunable import default_prunable\n"
        "assert list(default_prunable(torch.nn.Linear(2, 3))) == ['weight']\n"
        "from lth_zoo.graph_models import takes_gates\n"
        "assert not takes_gates(torch.nn.Linear(2, 3))\n"
        "assert 'torch_geometric' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- gates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GCN", "jumping", "by hand", "plain", "matrices"])
def test_models_that_take_gates(name):
    model, graph = own(name).train(), graph_of(directed=False)
    random = torch.get_rng_state()
    assert takes_gates(model)
    check_gates(model, graph)
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.get_rng_state().equal(random)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: models.GraphSAGE(**SIZES), r"'convs.0' \(SAGEConv\) takes no edge weights"),
        (lambda: models.GAT(**SIZES), r"'convs.0' \(GATConv\) takes no edge weights"),
        (lambda: models.GIN(**SIZES), r"'convs.0' \(GINConv\) takes no edge weights"),
        (lambda: Own(lambda i, o: pyg.GraphConv(i, o, aggr="mean")), "takes the mean of its"),
        (lambda: Own(lambda i, o: pyg.GCNConv(i, o, add_self_loops=False)), "divides by 0 once"),
        (lambda: Own(pyg.TAGConv), "divides by 0 once"),
        (lambda: Own(lambda i, o: pyg.GCNConv(i, o, improved=True)), "gives its self-loops 2"),
        (lambda: nn.Linear(2, 2), "the forward of Linear takes no edge_weight"),
    ],
)
def test_a_layer_without_gates_is_named_with_the_ways_out(model, message):
    model = model()
    assert not takes_gates(model)
    with pytest.raises(BadInput, match=f"{message}.*a finder that needs no gates"):
        check_gates(model)


class Thresholded(Plain):
    """No slope: a gate is open or closed."""

    def forward(self, x, edge_index, edge_weight=None):
        more = {} if edge_weight is None else {"edge_weight": (edge_weight > 0.5).float()}
        return super().forward(x, edge_index, **more)


class Strict(Plain):
    """Says that it takes any keyword, and does not."""

    def forward(self, x, edge_index, **more):
        if more:
            raise TypeError("nothing more")
        return super().forward(x, edge_index)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Deaf, "Deaf answers otherwise for an edge_weight of 0 than for no edge"),
        (Thresholded, "no finite gradient reaches the edge_weight of Thresholded"),
        (Strict, r"Strict cannot be called with edge_weight \(TypeError: nothing more\)"),
    ],
)
def test_a_model_that_only_seems_to_take_gates_is_found_out_on_a_graph(model, message):
    model, graph = model(), graph_of(directed=False)
    assert takes_gates(model)
    with pytest.raises(BadInput, match=message):
        check_gates(model, graph)


@pytest.mark.parametrize("layer", [pyg.GCNConv, pyg.SGConv])
def test_a_cached_graph_is_forgotten(layer):
    model, graph = Own(lambda i, o: layer(i, o, cached=True)), graph_of(directed=False)
    with torch.no_grad():
        whole = model(graph.x, graph.edge_index)
        part = graph.edge_index[:, half(graph)]
        assert model(graph.x, part).equal(whole), "the library's cache brings pruned edges back"
        check_layers(model)
        assert not model(graph.x, part).equal(whole)
        torch.testing.assert_close(model(graph.x, graph.edge_index), whole)
    check_gates(model, graph)
