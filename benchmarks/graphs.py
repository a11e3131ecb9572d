"""Graph tickets: learning an edge mask, training on the kept edges, sampling a masked graph.

Learning: one epoch of UGS's mask phase (GCN of 512, 1,433 features, a soft mask an edge and a
weight, Adam) against the same loss on dense matrices as its published code has it: an N x N mask,
and the normalisation as products with diagonal matrices. Every arm in a process of its own, since
peak memory is compared too: above what the imports take, with large blocks given back to the system
when they are freed (`MALLOC_MMAP_THRESHOLD_=1000000`), so that it is what is held, and not what the
allocator keeps.

Kept edges: an epoch of a GCN on a graph of the size of Amazon Computers, on the whole graph with
PyG alone against our loop on what a mask leaves of it. What is left of an epoch then is mostly
the features' product, so that pruned edges save little more.

Sampling: batches of a graph of 5 million edges with 20 % of its edges pruned against the same
sampler on all of them, a second graph half as large for the memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

import torch
from measure import Row, compared, cpu_seconds, interleaved, peak, resident, speedup
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, CLASSES = 512, 7
#: Nodes, features, undirected edges: Cora, two larger ones, and PubMed.
SIZES = {2708: (1433, 5278), 4500: (1433, 9000), 9000: (1433, 18000), 19717: (500, 44324)}


def drawn(nodes: int, features: int, edges: int) -> Any:
    """Return a random undirected graph with sparse 0/1 features, rows summing to one."""
    from lth_zoo.graph import Graph

    rng = torch.Generator().manual_seed(0)
    x = (torch.rand(nodes, features, generator=rng) < 0.0127).float()
    x /= x.sum(1, keepdim=True).clamp(min=1)
    code = torch.randint(nodes * nodes, (2 * edges,), generator=rng)
    source, target = code // nodes, code % nodes
    low, high = torch.minimum(source, target), torch.maximum(source, target)
    pairs = torch.stack([low, high])[:, low != high].unique(dim=1)
    pairs = pairs[:, torch.randperm(pairs.shape[1], generator=rng)[:edges]]
    return Graph.of(x, torch.cat([pairs, pairs.flip(0)], 1))


# -- learning an edge mask ---------------------------------------------------------------------


class Dense(nn.Module):
    """The published form: every matrix is dense, nodes x nodes."""

    def __init__(self, x: Tensor, edge_index: Tensor) -> None:
        super().__init__()
        nodes, features = x.shape
        adjacency = torch.zeros(nodes, nodes)
        adjacency[edge_index[0], edge_index[1]] = 1
        self.register_buffer("adjacency", adjacency)
        self.register_buffer("loops", torch.eye(nodes))
        self.edges = nn.Parameter(adjacency.clone())
        self.weights = nn.ParameterList(
            [torch.randn(features, WIDTH) / 30, torch.randn(WIDTH, CLASSES) / 30]
        )
        self.masks = nn.ParameterList([torch.ones_like(w) for w in self.weights])

    def forward(self, x: Tensor) -> Tensor:
        """Return (nodes, classes)."""
        adjacency = self.edges * self.adjacency + self.loops
        scale = torch.diag(adjacency.sum(1).pow(-0.5))
        spread = scale @ adjacency @ scale
        first = F.relu(spread @ x @ (self.weights[0] * self.masks[0]))
        return spread @ F.dropout(first, 0.5) @ (self.weights[1] * self.masks[1])


def dense_epochs(graph: Any, count: int) -> list[float]:
    """Return the CPU seconds of each epoch on dense matrices."""
    model, x = Dense(graph.x, graph.edge_index), graph.x
    pulled = [model.edges, *model.masks]
    return epochs(model, lambda: model(x), pulled, x, count)


def gated_epochs(graph: Any, count: int) -> list[float]:
    """Return the CPU seconds of each epoch on the list of edges, as the finder `ugs` has it."""
    from lth_zoo.gates import Gated
    from lth_zoo.graph import EDGES
    from lth_zoo.protocols import Signature, adapter_of
    from lth_zoo.tasks.graph_sampler import Ground

    adapter, x = adapter_of(f"gcn-{WIDTH}"), graph.x
    x = Ground.of(graph, x.device, sparse=adapter.sparse_features).x  # as every task deals them
    inner = adapter.build(f"gcn-{WIDTH}", Signature((x.shape[1],), CLASSES, "nodes"))
    masks = {n: torch.ones_like(inner.get_parameter(n)) for n in adapter.prunable(inner)}
    model = Gated(inner, graph, EDGES, torch.ones(graph.pairs.shape[1]), masks)
    pulled = [model.edges, *model.masks]
    return epochs(model, lambda: model(x, graph.edge_index), pulled, x, count)


def epochs(model: nn.Module, answer: Any, pulled: Any, x: Tensor, count: int) -> list[float]:
    """Train with L1 added to the gradients of the masks; one untimed epoch first if many."""
    labels = torch.arange(len(x)) % CLASSES
    optimizer = torch.optim.Adam(model.parameters(), 0.008, weight_decay=8e-5, fused=True)

    def epoch() -> None:
        loss = F.cross_entropy(answer()[:140], labels[:140])
        loss.backward()
        for mask in pulled:
            mask.grad.add_(mask.detach().sign(), alpha=1e-2)
        optimizer.step()
        optimizer.zero_grad()

    model.train()
    times = [cpu_seconds(epoch) for _ in range(count)]
    return times[1:] if count > 1 else times


ARMS = {"dense": dense_epochs, "gated": gated_epochs}


def alone(arm: str, nodes: int, count: int) -> dict[str, float]:
    """Measure an arm in a process of its own: median seconds of an epoch, megabytes."""
    command = [sys.executable, __file__, arm, str(nodes), str(count)]
    tidy = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    said = subprocess.run(command, env=tidy, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(said.stdout)
    return found


def learning() -> list[Row]:
    """Compare the two at growing sizes; say what the dense one would take for PubMed."""
    rows, dense = [], {}
    for nodes, count in ((2708, 4), (4500, 2), (9000, 1)):
        dense[nodes], ours = alone("dense", nodes, count), alone("gated", nodes, 8)
        other = dense[nodes]
        name = f"mask phase, {nodes:,} nodes, against dense matrices"
        rows.append(speedup(name, ours["seconds"], other["seconds"], "s", target=10))
        target = 10 if nodes == 9000 else None
        rows.append(speedup(f"{name}: memory", ours["mb"], other["mb"], "MB", target=target))
    ours = alone("gated", 19717, 4)
    squared = dense[9000]["mb"] * (19717 / 9000) ** 2
    note = f"extrapolated from 9,000 nodes, dense matrices would take {squared / 1e3:.0f} GB"
    rows.append(Row("mask phase, size of PubMed", ours["seconds"], unit="s", target=1.5, note=note))
    rows.append(Row("mask phase, size of PubMed: memory", ours["mb"], unit="MB", target=1500))
    return rows


# -- training on what is kept ------------------------------------------------------------------


def kept() -> list[Row]:
    """Compare an epoch of our loop on the kept edges with one of plain PyG on all."""
    from torch_geometric.nn import GCNConv

    from lth_zoo.graph import EDGES
    from lth_zoo.protocols import Signature, adapter_of
    from lth_zoo.recipe import Training
    from lth_zoo.tasks.graph_nodes import NodeClassification
    from lth_zoo.train import Loop

    graph = drawn(13752, 767, 245861)
    labels = torch.arange(graph.nodes) % 10
    train = torch.arange(200)

    class Plain(nn.Module):
        """What the tutorials have."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = GCNConv(767, 64), GCNConv(64, 10)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            """Return (nodes, 10)."""
            x = F.relu(self.first(F.dropout(x, 0.5, self.training), edge_index))
            return self.last(F.dropout(x, 0.5, self.training), edge_index)

    class Held(NodeClassification):
        """The drawn graph as a task; nothing to evaluate while it is timed."""

        margin = 1.0

        def read(self) -> Any:
            from lth_zoo.tasks.graph_data import Raw

            parts = {"train": train, "validation": train + 200, "test": train + 400}
            return Raw(graph.x, graph.edge_index, labels, "drawn", parts)

        def evaluate(self, model: nn.Module, split: Any) -> dict[str, float]:  # noqa: ARG002
            return {"accuracy": 0.0, "loss": 0.0}

    steps = 5

    def plain() -> float:
        model = Plain()
        optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)

        def run() -> None:
            for _ in range(steps):
                loss = F.cross_entropy(model(graph.x, graph.edge_index)[train], labels[train])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        return cpu_seconds(run) / steps

    whole = Held("drawn")
    adapter = adapter_of("gcn-64")
    training = Training(
        iterations=steps,
        batch_size=10**6,
        optimizer="adam",
        learning_rate=0.01,
        evaluate_every=steps,
    )

    def ours(share: float) -> Any:
        keep = torch.rand(graph.pairs.shape[1], generator=torch.Generator().manual_seed(1)) >= share
        task = whole.on_graph(whole.graph().restricted({EDGES: keep}))

        def arm() -> float:
            model = adapter.build("gcn-64", Signature((767,), 10, "nodes"))
            loop = Loop(model, task, training, seed=0)
            return cpu_seconds(loop.run) / steps

        return arm

    shares = (0.0, 0.2, 0.5, 0.8)
    arms = {"plain": plain, **{str(s): ours(s) for s in shares}}
    times = interleaved(arms, rounds=7)
    return [
        compared(
            f"an epoch at {share:.0%} of the edges pruned, against plain PyG on all",
            times[str(share)],
            times["plain"],
            target=1.02 if share == 0 else None,
        )
        for share in shares
    ]


# -- sampling a large graph --------------------------------------------------------------------


def sampling() -> list[Row]:
    """Compare batches of a masked graph with those of the whole; and memory with half of it."""
    from lth_zoo.graph import EDGES
    from lth_zoo.tasks.graph_sampler import Ground

    sizes, found = {"half": 2_500_000, "whole": 5_000_000}, {}
    for name, edges in sizes.items():
        before = resident()
        peak()
        found[name] = drawn(edges // 10, 8, edges)
        Ground.of(found[name], torch.device("cpu")).neighbours  # noqa: B018 - made on first use
        found[f"{name} mb"] = peak() - before
        if name == "half":
            del found[name]
    graph = found["whole"]
    keep = torch.rand(graph.pairs.shape[1], generator=torch.Generator().manual_seed(1)) >= 0.2
    pruned = graph.restricted({EDGES: keep})

    def arm(which: Any) -> Any:
        ground = Ground.of(which, torch.device("cpu"))

        def batch() -> float:
            rng = torch.Generator().manual_seed(0)
            nodes = torch.randint(which.nodes, (512,), generator=rng)
            return cpu_seconds(lambda: [ground.sampled(nodes, (10, 10), rng) for _ in range(3)])

        batch()
        return batch

    times = interleaved({"masked": arm(pruned), "whole": arm(graph)}, rounds=9)
    ratio = found["whole mb"] / found["half mb"]
    return [
        compared("3 batches of 512 nodes, masked against unmasked", *times.values(), target=1.1),
        Row(
            "memory, 5 M edges against 2.5 M", found["whole mb"], found["half mb"], "MB", ratio, 2.2
        ),
    ]


def bench() -> list[Row]:
    """Measure all three."""
    return [*learning(), *kept(), *sampling()]


def main() -> None:
    """Measure one arm of :func:`learning`: ``graphs.py ARM NODES EPOCHS``."""
    import torch_geometric.nn  # noqa: F401 - what every arm has loaded

    from lth_zoo import gates  # noqa: F401

    torch.set_num_threads(1)
    arm, nodes, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    before = resident()
    graph = drawn(nodes, *SIZES[nodes])
    peak()  # what drawing took for a moment is not counted, what it left is
    began = time.perf_counter()
    seconds = ARMS[arm](graph, count)
    taken = time.perf_counter() - began
    print(json.dumps({"seconds": median(seconds), "mb": peak() - before, "wall": taken}))


if __name__ == "__main__":
    main()
