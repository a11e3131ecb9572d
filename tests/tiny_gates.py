"""A graph, a task on it and networks with gates, as a family of their own: done in milliseconds.

``tiny-graph``: 48 nodes in 5 groups, 24 features. ``tiny-gcn`` has 24 x 80 + 80 x 5 = 2,320
prunable weights, as many as the other models of the contract table; ``tiny-blind`` takes no gates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from toys import tiny_recipe

from lth_zoo import registry
from lth_zoo.graph import Graph, View
from lth_zoo.protocols import Adapter, Objective, Signature, Task
from lth_zoo.tasks.images import evaluating

TASK, MODEL, BLIND = "tiny-graph", "tiny-gcn", "tiny-blind"
NODES, GROUPS, FEATURES, HIDDEN = 48, 5, 24, 80
SPLITS = {"train": (0, 15), "validation": (15, 30), "test": (30, NODES)}


def small_graph() -> Graph:
    """Five groups of nodes, most edges inside them; features point to the group, with noise."""
    rng = torch.Generator().manual_seed(3)
    group = torch.arange(NODES) % GROUPS
    chance = torch.where(group[:, None] == group, 0.4, 0.05).triu(1)
    drawn = (torch.rand(NODES, NODES, generator=rng) < chance).nonzero().T
    centres = 0.3 * torch.randn(GROUPS, FEATURES, generator=rng)
    x = centres[group] + torch.randn(NODES, FEATURES, generator=rng)
    return Graph.of(x, torch.cat([drawn, drawn.flip(0)], 1))


class TinyGraph(Task):
    """Which group a node is in; a batch of fewer than all train nodes shows half of the columns."""

    margin: ClassVar[float] = 5.0

    def __init__(self, name=TASK, data=None):
        super().__init__(name, data)
        self._graph = small_graph()
        self.labels = torch.arange(NODES) % GROUPS

    @property
    def signature(self):
        return Signature((FEATURES,), GROUPS, "nodes")

    def graph(self):
        return self._graph

    def on_graph(self, graph):
        other = copy.copy(self)
        other._graph = graph
        return other

    def fingerprint(self):
        return small_graph().fingerprint()

    def size(self, split):
        first, last = SPLITS[split]
        return last - first

    def batch(self, split, indices, rng=None):
        rows, graph = indices + SPLITS[split][0], self._graph
        columns = None
        if rng is not None and len(indices) < self.size(split):
            columns = torch.arange(0, graph.edge_index.shape[1], 2)
        shown = graph.edge_index if columns is None else graph.edge_index[:, columns]
        return View(graph.x, shown, rows, columns), self.labels[rows]

    def objectives(self, model):
        def loss(model, batch, rng):
            view, targets = batch
            return F.cross_entropy(model(view.x, view.edge_index)[view.rows], targets)

        return [Objective("cross-entropy", loss)]

    def evaluate(self, model, split):
        view, targets = self.batch(split, torch.arange(self.size(split)))
        with evaluating(model):
            answers = model(view.x, view.edge_index)[view.rows]
        hits = (answers.argmax(1) == targets).double().mean().item()
        return {"accuracy": 100 * hits, "loss": F.cross_entropy(answers, targets).item()}


class TinyGCN(nn.Module):
    """Two layers D^-1/2 (A + I) D^-1/2 X W, D the row sums of the gated A + I; some dropout."""

    def __init__(self, features=FEATURES, classes=GROUPS):
        super().__init__()
        self.first = nn.Linear(features, HIDDEN, bias=False)
        self.second = nn.Linear(HIDDEN, classes, bias=False)

    def forward(self, x, edge_index, edge_weight=None):
        source, target = edge_index
        gates = x.new_ones(len(source)) if edge_weight is None else edge_weight
        scale = x.new_ones(len(x)).index_add(0, target, gates).rsqrt()
        share = scale[source] * gates * scale[target]

        def spread(h):
            sent = torch.zeros_like(h).index_add(0, target, share[:, None] * h[source])
            return sent + scale[:, None] ** 2 * h

        hidden = F.dropout(spread(self.first(x)).relu(), 0.2, self.training)
        return spread(self.second(hidden))


class Blind(TinyGCN):
    """The same network, which takes no gates."""

    def forward(self, x, edge_index):
        return super().forward(x, edge_index)


class TinyFamily(Adapter):
    """The two networks."""

    models = (MODEL, BLIND)

    def build(self, name, signature):
        kind = {MODEL: TinyGCN, BLIND: Blind}[name]
        return kind(*signature.input, signature.output)


@contextmanager
def registered() -> Iterator[None]:
    """Know the family and the task inside."""
    registry.register("adapters", "tiny-gates", TinyFamily)
    registry.register("tasks", TASK, TinyGraph)
    try:
        yield
    finally:
        registry.unregister("adapters", "tiny-gates")
        registry.unregister("tasks", TASK)


#: Fields of a recipe on them.
FIELDS = {"model": MODEL, "task": TASK, "graph_sparsity": 0.2}


def recipe(finder, **fields):
    """Return a recipe that searches on the tiny graph, with the whole of it as one batch."""
    training = {"iterations": 8, "batch_size": 15, "learning_rate": 0.02, "evaluate_every": 4}
    training |= fields.pop("training", {})
    return tiny_recipe(finder=finder, training=training, **{**FIELDS, "sparsity": 0.5, **fields})
