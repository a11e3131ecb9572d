"""Parts of a graph for mini-batches: sampled neighbourhoods, induced subgraphs, unions.

In plain torch, without a loop over nodes, from a given generator alone. PyG's NeighborLoader is
not used where it is installed: it deals its own batches, and its sampler draws from torch's
global state, so that a batch could not be a function of (indices, generator). Whatever is cut
out keeps the numbers of the columns it was cut from; what a mask left out of the graph before
is in no list here and is never drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lth_zoo.graph import Graph, View

#: Share of features that are not 0 below which a CSR matrix is faster (measured: four times at
#: Cora's 1.3 %, slower from about 10 % on).
SPARSE = 0.05


@dataclass(frozen=True)
class Neighbours:
    """The columns of a graph by the node they lead to.

    The columns into node i are ``order[starts[i] : starts[i + 1]]``; ``starts`` is (nodes + 1,),
    ``order`` (columns,) int64. ``edge_index`` is the graph's own.
    """

    starts: Tensor
    order: Tensor
    edge_index: Tensor

    @classmethod
    def of(cls, edge_index: Tensor, nodes: int) -> Neighbours:
        """Return the lists of a graph; memory and time are linear in its columns."""
        import torch

        target = edge_index[1]
        starts = target.new_zeros(nodes + 1)
        torch.cumsum(target.bincount(minlength=nodes), 0, out=starts[1:])
        return cls(starts, target.argsort(stable=True), edge_index)

    def into(self, nodes: Tensor, fanout: int, rng: torch.Generator) -> Tensor:
        """Return the columns into these nodes, of each at most ``fanout`` (-1: all).

        A node with more gets that many different ones, every choice equally likely.
        """
        import torch

        first, count = self.starts[nodes], self.starts[nodes + 1] - self.starts[nodes]
        if fanout < 0:
            return self.order[ranges(first, count)]
        many = count > fanout
        drawn = first[many, None] + distinct(count[many], fanout, rng)
        return self.order[torch.cat([ranges(first[~many], count[~many]), drawn.flatten()])]

    def around(
        self, seeds: Tensor, fanouts: Sequence[int], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return (nodes, columns) of the sampled surroundings of some nodes, both ascending.

        Each hop draws columns into the nodes that the hop before has reached first, as in
        GraphSAGE (Hamilton et al., 2017, section 3.1), but without replacement. ``seeds`` may
        repeat, and their order does not matter.

        Nodes of the last hop come without their own neighbours, so a layer that reads the degree
        of a source (GCN's normalisation) sees it whole only with one hop more than layers.
        """
        import torch

        source = self.edge_index[0]
        seen = torch.zeros(len(self.starts) - 1, dtype=torch.bool)
        reached, columns = seeds.unique(), []
        seen[reached] = True
        for fanout in fanouts:
            columns.append(self.into(reached, fanout, rng))
            reached = source[columns[-1]].unique()
            reached = reached[~seen[reached]]
            seen[reached] = True
        return seen.nonzero().flatten(), torch.cat(columns).sort().values


def distinct(sizes: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Return ``count`` different numbers below each size, (len(sizes), count) int64.

    Every subset is equally likely (R. Floyd's algorithm, in Bentley, Programming Pearls, 1987):
    as many steps as numbers, whatever the sizes, which must be no smaller than ``count``.
    """
    import torch

    picked = sizes.new_empty(len(sizes), count)
    uniform = torch.rand(count, len(sizes), generator=rng, dtype=torch.float64)
    for step in range(count):
        top = sizes - count + step
        pick = (uniform[step] * (top + 1)).long()
        taken = (picked[:, :step] == pick[:, None]).any(1)
        picked[:, step] = torch.where(taken, top, pick)
    return picked


def ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """Return start, start + 1, ... of each range, one after another.

    >>> import torch
    >>> ranges(torch.tensor([5, 0]), torch.tensor([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    import torch

    ends = counts.cumsum(0)
    shift = (starts - (ends - counts)).repeat_interleave(counts)
    return torch.arange(len(shift)) + shift


@dataclass(frozen=True)
class Ground:
    """A graph where batches are made of it: ``x`` and ``edge_index`` are on the task's device.

    ``graph`` is the same on the CPU, where samples are drawn. ``nodes`` are the numbers of its
    nodes in the task's graph, ascending, and ``columns`` those of its columns; None where it is
    the whole of that.
    """

    graph: Graph
    x: Tensor
    edge_index: Tensor
    nodes: Tensor | None = None
    columns: Tensor | None = None

    @classmethod
    def of(cls, graph: Graph, device: torch.device, sparse: bool = False) -> Ground:
        """Return a graph on a device; on the CPU its own tensors, not copies.

        With ``sparse``, features of which few are not 0 become a CSR matrix.
        """
        x = graph.x.to(device)
        if sparse and x.count_nonzero() < SPARSE * x.numel():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
                x = x.to_sparse_csr()
        return cls(graph, x, graph.edge_index.to(device))

    @cached_property
    def neighbours(self) -> Neighbours:
        """The lists that samples are drawn from, made on first use."""
        return Neighbours.of(self.graph.edge_index, self.graph.nodes)

    def whole(self, nodes: Tensor) -> View:
        """Return the view of everything, asked about these nodes of the task's graph."""
        from lth_zoo.graph import View

        columns = None if self.columns is None else self.columns.to(self.x.device)
        return View(self.x, self.edge_index, self._rows(nodes).to(self.x.device), columns)

    def sampled(self, nodes: Tensor, fanouts: Sequence[int], rng: torch.Generator) -> View:
        """Return the view of the sampled surroundings of these nodes of the task's graph.

        Nodes and columns are in the order they have in the graph.
        """
        seeds = self._rows(nodes)
        around, columns = self.neighbours.around(seeds, fanouts, rng)
        return self.cut(around, columns, seeds)

    def cut(self, nodes: Tensor, columns: Tensor, rows: Tensor) -> View:
        """Return the view of some nodes and columns of this graph, asked about ``rows`` of it."""
        import torch

        from lth_zoo.graph import View

        device = self.x.device
        edges = torch.searchsorted(nodes, self.graph.edge_index[:, columns])
        known = columns if self.columns is None else self.columns[columns]
        return View(
            self.graph.x.index_select(0, nodes).to(device),
            edges.to(device),
            torch.searchsorted(nodes, rows).to(device),
            known.to(device),
        )

    def induced(self, keep: Tensor) -> Ground:
        """Return the subgraph of the nodes where ``keep`` is true, (nodes,) bool."""
        import torch

        from lth_zoo.graph import Graph

        nodes = keep.nonzero().flatten()
        columns = keep[self.graph.edge_index].all(0).nonzero().flatten()
        edges = torch.searchsorted(nodes, self.graph.edge_index[:, columns])
        graph = Graph(self.graph.x[nodes], edges)
        return Ground(graph, graph.x.to(self.x.device), edges.to(self.x.device), nodes, columns)

    def _rows(self, nodes: Tensor) -> Tensor:
        import torch

        return nodes if self.nodes is None else torch.searchsorted(self.nodes, nodes)
