"""A graph as tensors: its prunable edges, and what is left of it under a mask.

Edges are *data* entries of :class:`~lth_zoo.masks.Masks`: no tensor of the model, outside the
weights' counts, and applied by leaving the pruned columns of ``edge_index`` out, which is exact
for every layer. Self-loops are no edges here: layers that want them add their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .errors import BadInput

#: One bit an undirected edge, both directions tied: the default.
EDGES = "graph/edges"
#: One bit a direction, as the published code of UGS has it.
ARCS = "graph/arcs"


@dataclass(frozen=True)
class View:
    """What a model is shown of a graph for one batch, and which rows it is asked about.

    ``x`` is (nodes, features), ``edge_index`` (2, columns) int64, ``rows`` the nodes whose
    answers count. ``columns`` maps ``edge_index`` to the columns of the task's graph where the
    view is a sample of it, None where it is the whole.
    """

    x: Tensor
    edge_index: Tensor
    rows: Tensor
    columns: Tensor | None = None


@dataclass(frozen=True)
class Graph:
    """Nodes with features and directed columns; an undirected edge is two of them.

    ``x`` is (nodes, features) float32; ``edge_index`` is (2, columns) int64, sorted by source and
    target, without loops and duplicates. Make one with :meth:`of`.
    """

    x: Tensor
    edge_index: Tensor

    @classmethod
    def of(cls, x: Tensor, edge_index: Tensor) -> Graph:
        """Return the graph of raw columns: loops dropped, duplicates merged, sorted.

        Raises:
            BadInput: an index is out of range, or a feature is not finite.
        """
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise BadInput(f"edge_index has shape {tuple(edge_index.shape)}; it must be (2, edges)")
        if not torch.isfinite(x).all():
            rows = (~torch.isfinite(x)).any(1).nonzero().flatten().tolist()
            raise BadInput(f"features of {len(rows)} nodes are not finite; the first is {rows[0]}")
        nodes = len(x)
        if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < nodes:
            odd = edge_index[(edge_index < 0) | (edge_index >= nodes)][0]
            raise BadInput(f"edge_index names node {int(odd)}; there are nodes 0 to {nodes - 1}")
        source, target = edge_index.long()
        code = (source * nodes + target)[source != target].unique()
        return cls(x.float(), torch.stack([code // max(1, nodes), code % max(1, nodes)]))

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.x)

    @cached_property
    def _paired(self) -> tuple[Tensor, Tensor]:
        low, high = self.edge_index.amin(0), self.edge_index.amax(0)
        code, place = (low * self.nodes + high).unique(return_inverse=True)
        return torch.stack([code // max(1, self.nodes), code % max(1, self.nodes)]), place

    @property
    def pairs(self) -> Tensor:
        """The undirected edges, (2, edges) int64, the lower node first, sorted."""
        return self._paired[0]

    @property
    def edge_of(self) -> Tensor:
        """The undirected edge of each column, (columns,) int64."""
        return self._paired[1]

    @property
    def undirected(self) -> bool:
        """Whether every edge has both its directions."""
        return 2 * self.pairs.shape[1] == self.edge_index.shape[1]

    def elements(self, name: str) -> Tensor:
        """Return the nodes of each element that a mask of that name has a bit for, (2, elements).

        Raises:
            BadInput: no such entry.
        """
        if name not in (EDGES, ARCS):
            raise BadInput(f"a graph has no prunable entry {name!r}; known: {EDGES}, {ARCS}")
        return self.pairs if name == EDGES else self.edge_index

    def columns(self, name: str, values: Tensor) -> Tensor:
        """Return a value of each element as one of each column, differentiable."""
        return values[self.edge_of] if name == EDGES else values

    def restricted(self, masks: Mapping[str, Tensor]) -> Graph:
        """Return the graph on the kept edges; nodes keep their numbers.

        Raises:
            BadInput: a mask is of another graph.
        """
        keep = torch.ones(self.edge_index.shape[1], dtype=torch.bool)
        for name, mask in masks.items():
            count = self.elements(name).shape[1]
            if mask.shape != (count,):
                raise BadInput(
                    f"mask {name!r} is of a graph with {mask.numel():,} edges, not {count:,}"
                )
            keep &= self.columns(name, mask)
        return replace(self, edge_index=self.edge_index[:, keep])

    def fingerprint(self) -> str:
        """Return the sha256 of the number of nodes and the edges; features are not in it."""
        pairs = self.edge_index.contiguous().numpy().astype(np.int64)
        return hashlib.sha256(f"{self.nodes}:".encode() + pairs.tobytes()).hexdigest()
