"""Node classification: the label of each node of one graph, from features and edges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.protocols import SPLITS, Signature, Split
from lth_zoo.tasks.graph_data import Nodes, Raw, nodes_of
from lth_zoo.tasks.graph_sampler import Ground
from lth_zoo.tasks.graph_task import GraphTask, accuracy_of, check_split

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lth_zoo.graph import Graph, View


class NodeClassification(GraphTask):
    """Nodes to one of ``classes`` labels, by cross-entropy; accuracy over the nodes of a split.

    Subclasses write :meth:`read`. A batch is (View, labels int64). The whole train part, or any
    part without an ``rng``, is asked of the whole graph; a smaller batch sees the neighbours
    drawn at each hop (``fanouts``). Suffixes of the name: ``@random-3`` is the random split of
    seed 3 (20 nodes a class train, 30 validation, the others test); ``@fanout-15-10-5`` draws
    other neighbourhoods; with ``@inductive`` train batches see only the graph induced by the
    nodes that are in neither validation nor test, and those two are measured on the whole.
    """

    margin: ClassVar[float]
    suffixes: ClassVar[Sequence[str]] = ("seed", "inductive", "fanouts")
    #: Neighbours of a node drawn at each hop; None asks every batch of the whole graph.
    fanouts: ClassVar[tuple[int, ...] | None] = (10, 10)
    #: Whether every edge gets its other direction.
    symmetric: ClassVar[bool] = True

    def read(self) -> Raw:
        """Return the data as it stands in its files.

        Raises:
            DataError: the data is missing or damaged.
        """
        raise NotImplementedError

    @cached_property
    def nodes(self) -> Nodes:
        """The graph with labels and splits, read on the first use.

        Raises:
            DataError: missing, damaged, or nothing to learn and test on.
        """
        return nodes_of(self.read(), self.variant.seed, self.symmetric)

    def full_graph(self) -> Graph:
        """Return the graph as it was read, on the CPU.

        Raises:
            DataError: the data is missing or damaged.
        """
        return self.nodes.graph

    @property
    def signature(self) -> Signature:
        """Number of features, and of classes, as found in the data, which it loads."""
        return Signature((self.nodes.graph.x.shape[1],), self.nodes.classes, "nodes")

    def described(self) -> str:
        """Return the digest of the data, and how batches are drawn."""
        return repr((self.nodes.digest, self.variant.inductive, self._fanouts))

    def size(self, split: Split) -> int:
        """Return the number of nodes of a split."""
        check_split(split)
        return len(self.nodes.splits[split])

    def labels(self, split: Split) -> Tensor:
        """Return the labels of a split, (n,) int64, on the CPU."""
        check_split(split)
        return self.nodes.labels[self.nodes.splits[split]]

    def batch(
        self, split: Split, indices: Tensor, rng: torch.Generator | None = None
    ) -> tuple[View, Tensor]:
        """Return (view, labels) of the nodes at the indices; ``rng`` draws their neighbours."""
        check_split(split)
        nodes = self.nodes.splits[split][indices.cpu()]
        labels = self.nodes.labels[nodes].to(self.device)
        ground = self._induced if split == "train" and self.variant.inductive else self.ground
        if rng is None or self._fanouts is None or len(indices) >= self.size(split):
            return ground.whole(nodes), labels
        return ground.sampled(nodes, self._fanouts, rng), labels

    def measured(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """Return ``accuracy`` in percent."""
        return {"accuracy": accuracy_of(answers, targets)}

    @property
    def _fanouts(self) -> tuple[int, ...] | None:
        return self.variant.fanouts or self.fanouts

    @property
    def _induced(self) -> Ground:
        """The ground of train batches that have not seen the nodes of the other parts."""
        import torch

        key = ("induced", self.device)
        if key not in self._grounds:
            seen = torch.ones(self.graph().nodes, dtype=torch.bool)
            for split in SPLITS[1:]:
                seen[self.nodes.splits[split]] = False
            self._grounds[key] = self.ground.induced(seen)
        return self._grounds[key]
