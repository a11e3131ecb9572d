"""Graph classification: the label of each graph of a set, held as one graph in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.errors import DataError
from lth_zoo.protocols import SPLITS, Signature, Split
from lth_zoo.tasks.graph_data import Raw, digest_of, graph_of
from lth_zoo.tasks.graph_files import RawSet, tu_set
from lth_zoo.tasks.graph_sampler import ranges
from lth_zoo.tasks.graph_task import GraphTask, accuracy_of, check_split
from lth_zoo.tasks.images import stratified

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from lth_zoo.graph import Graph, View

#: Degrees told apart where nodes have no features of their own; higher ones count as this.
DEGREES = 100


@dataclass(frozen=True)
class GraphSet:
    """Graphs side by side: the nodes of graph i are ``starts[i]`` to ``starts[i + 1]``.

    ``labels`` is (graphs,) int64; ``splits`` are the graphs of each part.
    """

    graph: Graph
    starts: Tensor
    labels: Tensor
    splits: dict[Split, Tensor]


class GraphClassification(GraphTask):
    """Graphs to one of their classes, by cross-entropy over the mean of the nodes' answers.

    Subclasses write :meth:`read`. All graphs are one whose edges may be pruned. A batch is (View,
    labels int64): the chosen graphs side by side, in that order; ``view.rows`` are the first
    nodes of each. The split has the classes in proportion, that of seed 0 unless ``@random-3``
    asks for another. Nothing is drawn when a batch is made.
    """

    suffixes: ClassVar[Sequence[str]] = ("seed",)
    augment = False
    #: Tenths of the graphs in validation and in test.
    tenths: ClassVar[tuple[int, int]] = (1, 1)

    def read(self) -> RawSet:
        """Return the graphs as they stand in their files.

        Raises:
            DataError: the data is missing or damaged.
        """
        raise NotImplementedError

    @cached_property
    def graphs(self) -> GraphSet:
        """The graphs with labels and splits, read on the first use.

        Raises:
            DataError: missing, damaged, or nothing to learn and test on.
        """
        return set_of(self.read(), self.tenths, self.variant.seed or 0)

    def full_graph(self) -> Graph:
        """Return all graphs as one, on the CPU."""
        return self.graphs.graph

    @property
    def signature(self) -> Signature:
        """Number of features, and of classes, as found in the data, which it loads."""
        classes = int(self.graphs.labels.max()) + 1
        return Signature((self.graphs.graph.x.shape[1],), classes, "graphs")

    def described(self) -> str:
        """Return the digest of features, edges, labels and splits."""
        held = self.graphs
        parts = [held.graph.x, held.starts, held.labels, *(held.splits[s] for s in SPLITS)]
        return digest_of(held.graph.fingerprint(), *parts)

    def size(self, split: Split) -> int:
        """Return the number of graphs of a split."""
        check_split(split)
        return len(self.graphs.splits[split])

    def batch(
        self,
        split: Split,
        indices: Tensor,
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> tuple[View, Tensor]:
        """Return (view, labels) of the graphs at the indices, side by side."""
        import torch

        from lth_zoo.graph import View

        check_split(split)
        chosen, starts = self.graphs.splits[split][indices.cpu()], self.graphs.starts
        edges = self.ground.graph.edge_index
        bounds = torch.searchsorted(edges[0].contiguous(), starts)  # columns are sorted by source
        first, count = starts[chosen], starts[chosen + 1] - starts[chosen]
        width = bounds[chosen + 1] - bounds[chosen]
        nodes, columns = ranges(first, count), ranges(bounds[chosen], width)
        place = count.cumsum(0) - count
        shifted = edges[:, columns] + (place - first).repeat_interleave(width)
        x = self.ground.x.index_select(0, nodes.to(self.device))
        there = [part.to(self.device) for part in (shifted, place, columns)]
        return View(x, *there), self.graphs.labels[chosen].to(self.device)

    def answer(self, model: nn.Module, view: View) -> Tensor:
        """Return the mean of the answers for the nodes of each graph, (graphs, classes)."""
        import torch

        answers: Tensor = model(view.x, view.edge_index)
        ends = torch.cat([view.rows[1:], view.rows.new_tensor([len(view.x)])])
        counts = ends - view.rows
        owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        sums = answers.new_zeros(len(counts), answers.shape[1]).index_add(0, owner, answers)
        return sums / counts[:, None]

    def measured(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """Return ``accuracy`` in percent."""
        return {"accuracy": accuracy_of(answers, targets)}


class TU(GraphClassification):
    """A set of TU Dortmund from its text files, ``tu/MUTAG``: 80 % train, 10 %, 10 %.

    Features are the labels of the nodes, else their attributes, else their degrees. Published
    figures spread by 3 to 6 points over folds (K. Xu et al., How Powerful are Graph Neural
    Networks?, 2019, table 1); the margin is three.
    """

    margin: ClassVar[float] = 3.0
    source: ClassVar[str] = "C. Morris et al., TUDataset, 2020 (graphlearning.io)"

    def read(self) -> RawSet:
        """Return the graphs of the files.

        Raises:
            DataError: a file is missing or damaged.
        """
        return tu_set(self.variant.base.removeprefix("tu/"), self.data)


class Motifs(GraphClassification):
    """500 drawn graphs: does a random tree have a ring of five nodes hung on it, or not?

    Half of the rings have a chord (a house). The others got a path of five nodes instead, and
    edges between any nodes until there are as many as with a ring; so counting does not tell.
    Features are degrees. 300 train, 100 validation and 100 test graphs; a point is one graph.
    """

    margin: ClassVar[float] = 3.0
    source: ClassVar[str] = "drawn here, after BA-2motifs of D. Luo et al., PGExplainer, 2020"
    tenths: ClassVar[tuple[int, int]] = (2, 2)

    def read(self) -> RawSet:
        """Return the graphs, which are always the same."""
        return motifs(500)


def set_of(raw: RawSet, tenths: tuple[int, int], seed: int) -> GraphSet:
    """Return read graphs, checked, in order, and split with the classes in proportion.

    Raises:
        DataError: an edge joins two graphs, a graph has no node, or there are too few graphs.
    """
    import torch

    count, nodes = len(raw.labels), len(raw.owner)
    sizes = raw.owner.bincount(minlength=count) if nodes and raw.owner.min() >= 0 else raw.owner
    if len(sizes) != count or not count or not sizes.all():
        raise DataError(f"{raw.source}: {count} labels; expected one for each graph with nodes")
    order = raw.owner.argsort(stable=True)
    x = raw.x if raw.x is not None else torch.zeros(nodes, 0)
    if len(x) != nodes:
        raise DataError(f"{raw.source}: features of {len(x)} nodes; expected {nodes}")
    place = torch.empty_like(order)
    place[order] = torch.arange(nodes)
    _check_edges(raw)
    labels = raw.labels
    graph = graph_of(
        Raw(x[order], place[raw.edge_index], labels, raw.source, weighted=raw.weighted)
    )
    if raw.x is None:
        graph = type(graph)(degrees(graph), graph.edge_index)
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    held = [part * count // 10 for part in tenths]
    if not all(held):
        raise DataError(f"{raw.source}: {count} graphs; expected 10 or more")
    parts = stratified(labels.numpy(), (count - sum(held), *held), seed)
    splits = {s: torch.from_numpy(part) for s, part in zip(SPLITS, parts, strict=True)}
    return GraphSet(graph, starts, labels, splits)


def _check_edges(raw: RawSet) -> None:
    edges, nodes = raw.edge_index, len(raw.owner)
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < nodes:
        raise DataError(f"{raw.source}: an edge names a node that is not among the {nodes}")
    if not raw.owner[edges[0]].equal(raw.owner[edges[1]]):
        raise DataError(f"{raw.source}: an edge joins nodes of two graphs")


def degrees(graph: Graph) -> Tensor:
    """Return each node's number of edges, one-hot; more than 100 count as 100."""
    from torch.nn import functional as F

    return F.one_hot(graph.edge_index[0].bincount(minlength=graph.nodes).clamp(max=DEGREES)).float()


def motifs(count: int, seed: int = 0) -> RawSet:
    """Return so many drawn graphs, label 1 for a planted ring; no library version changes them."""
    import numpy as np
    import torch

    stream = np.random.PCG64(seed)
    drawn = [_motif(bool(i % 2), i // 2 % 2, stream) for i in range(count)]
    sizes = torch.tensor([size for size, _ in drawn])
    shift = sizes.cumsum(0) - sizes
    edges = torch.cat([torch.tensor(e).T + s for (_, e), s in zip(drawn, shift, strict=True)], 1)
    owner = torch.arange(count).repeat_interleave(sizes)
    return RawSet(None, edges, owner, torch.arange(count) % 2, "motifs")


def _motif(ring: bool, chords: int, stream: np.random.PCG64) -> tuple[int, list[tuple[int, int]]]:
    """Return the nodes and edges of a tree of 12 to 18 nodes with five more: a ring or a path."""

    def below(bound: int) -> int:
        return int(stream.random_raw()) % bound

    tree = 12 + below(7)
    size = tree + 5
    edges = {(below(node), node) for node in range(1, tree)} | {(below(tree), tree)}
    edges |= {(node, node + 1) for node in range(tree, size - 1)}
    if ring:
        edges |= {(tree, size - 1)} | ({(tree + 1, size - 1)} if chords else set())
    while len(edges) < size + chords:
        a, b = sorted((below(size), below(size)))
        edges |= {(a, b)} if a != b else set()
    return size, sorted(edges)
