"""What a model costs on a graph, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from test_graph import random_graph

from lth_zoo.graph import EDGES
from lth_zoo.graph_cost import graph_cost
from lth_zoo.masks import Masks
from lth_zoo.protocols import Signature, adapter_of


def costs(name, removed=0.0, weights=1.0, repeats=1):
    graph = random_graph(nodes=40, edges=90)
    adapter = adapter_of(name)
    model = adapter.build(name, Signature((graph.x.shape[1],), 5, "nodes"))
    prunable, pairs = adapter.prunable(model), graph.pairs.shape[1]
    masks = Masks(
        {
            n: torch.arange(m.numel()).reshape(m.shape) < weights * m.numel()
            for n, m in Masks.ones(model, prunable).items()
        }
        | {EDGES: torch.arange(pairs) >= removed * pairs}
    )
    return graph, masks, graph_cost(model, graph, masks, prunable, repeats)


def test_a_gcn_by_hand():
    graph, masks, found = costs("gcn-16", removed=0.5, weights=0.25)
    nodes, columns, features = graph.nodes, graph.edge_index.shape[1], graph.x.shape[1]
    kept = 2 * int(masks[EDGES].sum())
    by_layer = {c.layer: c for c in found.layers}
    assert by_layer["convs.0.lin"].transform == nodes * features * 16
    assert by_layer["convs.1.lin"].transform == nodes * 16 * 5
    assert by_layer["convs.0.lin"].transform_effective == nodes * 12  # 12 of 48 weights
    # A message each column and each node's own loop, as wide as what the layer returns.
    assert by_layer["convs.0"].aggregation == (columns + nodes) * 16
    assert by_layer["convs.1"].aggregation == (columns + nodes) * 5
    assert by_layer["convs.1"].aggregation_effective == (kept + nodes) * 5
    transform = nodes * (features * 16 + 16 * 5)
    assert found.totals()["ugs"] == (transform, nodes * (12 + 20))
    assert found.totals()["all"][0] == transform + (columns + nodes) * 21
    assert found.totals()["gebt"] == (
        transform + columns * features,
        nodes * 32 + kept * features,
    )
    assert found.edge_bytes == (16 * columns, 16 * kept)
    assert found.weight_bytes == 4 * (48 + 80)
    assert found.weight_bytes_kept == 4 * (12 + 20)
    assert found.seconds > 0
    assert found.seconds_kept > 0
    assert found.to_json()["totals"]["ugs"][0] == transform


def test_pruned_edges_do_not_show_in_the_published_count():
    _, _, found = costs("gcn-16", removed=0.9)
    dense, kept = found.totals()["ugs"]
    assert dense == kept
    assert found.totals()["all"][1] < found.totals()["all"][0]


@pytest.mark.parametrize("name", ["gin-8", "gat-2x4", "sage-8", "gcnii-8x3", "resgcn-3x8"])
def test_every_family_has_both_kinds(name):
    _, _, found = costs(name, removed=0.5)
    assert sum(c.transform for c in found.layers) > 0
    layers = [c for c in found.layers if c.aggregation]
    assert layers
    assert all(c.aggregation_effective < c.aggregation for c in layers)
    _, _, whole = costs(name)
    assert whole.totals()["all"][0] == whole.totals()["all"][1]


def test_the_model_is_left_as_it_was():
    graph = random_graph()
    adapter = adapter_of("gcn-16")
    model = adapter.build("gcn-16", Signature((3,), 5, "nodes")).train()
    prunable = adapter.prunable(model)
    graph_cost(model, graph, Masks.ones(model, prunable), prunable, repeats=1)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
