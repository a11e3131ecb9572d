"""Link prediction: which pairs of nodes are joined, from embeddings of the nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import SPLITS, Signature, Split, task_of
from lth_zoo.tasks.graph_data import Nodes, digest_of
from lth_zoo.tasks.graph_nodes import NodeClassification
from lth_zoo.tasks.graph_task import GraphTask, check_split
from lth_zoo.tasks.images import fixed_order
from lth_zoo.tasks.metrics import constant

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from lth_zoo.graph import Graph, View

#: Shares of the undirected edges held out for validation and test, as PyG's RandomLinkSplit.
HELD_OUT = (0.05, 0.10)
#: Negatives of which Hits@K looks at the K highest, where there are four times as many.
HITS = 50


@dataclass(frozen=True)
class Links:
    """Pairs of nodes to tell apart: joined ones and others, (2, n) int64 each, of each split.

    ``graph`` has the train edges only; ``known`` are the codes of all joined pairs, ascending.
    """

    graph: Graph
    joined: dict[Split, Tensor]
    apart: dict[Split, Tensor]
    known: Tensor


class LinkPrediction(GraphTask):
    """``links/TASK``: the edges of a node task's graph against as many pairs without an edge.

    5 % of the undirected edges are validation and 10 % are test, always the same (a suffix
    ``@random-3`` draws others); the model sees the train edges alone, in training and in every
    evaluation, and these are what may be pruned; a pruned one is still a pair to predict. Pairs
    without an edge are never an edge of any split; those of an evaluation are fixed, and training
    draws new ones for each batch.

    A model returns an embedding of 64 numbers a node; the score of a pair is the inner product,
    and the loss binary cross-entropy. A batch is (View, targets): ``view.rows`` is (2, 2 n), the
    n joined pairs first, and targets are 1 and 0. The margin is one point: GAE on Cora reaches
    an AUC of 91.0 on one split (Kipf and Welling, Variational Graph Auto-Encoders, 2016), whose
    test edges are 527.
    """

    headline: ClassVar[str] = "auc"
    margin: ClassVar[float] = 1.0
    labelled: ClassVar[bool] = False
    loss_name: ClassVar[str] = "binary cross-entropy"
    suffixes: ClassVar[Sequence[str]] = ("seed", "fanouts")
    width: ClassVar[int] = 64

    def __init__(self, name: str, data: Path | None = None) -> None:
        super().__init__(name, data)
        base = task_of(self.variant.base.removeprefix("links/"), data)
        if not isinstance(base, NodeClassification):
            raise BadInput(f"task {name!r}: {base.name!r} is not a task on the nodes of a graph")
        self.base = base

    @cached_property
    def links(self) -> Links:
        """The pairs of each split, made on the first use.

        Raises:
            DataError: the data is missing, or the graph is too small or too dense to split.
        """
        return split_links(self.base.full_graph(), self.variant.seed or 0, self.name)

    @property
    def nodes(self) -> Nodes:
        """The nodes' labels, which are not what is learned here, and the whole graph."""
        return self.base.nodes

    def full_graph(self) -> Graph:
        """Return the graph of the train edges, on the CPU."""
        return self.links.graph

    @property
    def signature(self) -> Signature:
        """Number of features, and of the numbers that describe a node."""
        return Signature((self.links.graph.x.shape[1],), self.width, "links")

    def described(self) -> str:
        """Return the digest of features and pairs, and how batches are drawn."""
        pairs = [
            links[split] for links in (self.links.joined, self.links.apart) for split in SPLITS
        ]
        graph = self.links.graph
        return repr((digest_of(graph.fingerprint(), graph.x, *pairs), self._fanouts))

    def size(self, split: Split) -> int:
        """Return the number of edges of a split."""
        check_split(split)
        return self.links.joined[split].shape[1]

    def batch(
        self, split: Split, indices: Tensor, rng: torch.Generator | None = None
    ) -> tuple[View, Tensor]:
        """Return (view, targets) of the edges at the indices and as many pairs without one.

        ``rng`` draws those pairs, and the surroundings of a batch smaller than the part; without
        it the pairs are the fixed ones at the indices, and the view is of the whole graph.
        """
        import torch

        check_split(split)
        indices = indices.cpu()
        joined = self.links.joined[split][:, indices]
        if rng is None:
            others = self.links.apart[split][:, indices]
        else:
            nodes = self.links.graph.nodes
            draw = partial(_pairs, nodes, rng)
            others = drawn_apart(self.links.known, nodes, len(indices), draw)
        pairs = torch.cat([joined, others], 1)
        targets = (torch.arange(pairs.shape[1]) < len(indices)).long().to(self.device)
        if rng is None or len(indices) >= self.size(split):
            return self.ground.whole(pairs), targets
        return self.ground.sampled(pairs, self._fanouts, rng), targets

    @property
    def _fanouts(self) -> tuple[int, ...]:
        return self.variant.fanouts or self.base.fanouts or (-1, -1)

    def answer(self, model: nn.Module, view: View) -> Tensor:
        """Return the score of each pair of a view, (pairs,)."""
        embedding: Tensor = model(view.x, view.edge_index)
        return embedding[view.rows].prod(0).sum(1)

    def answers(
        self,
        model: nn.Module,
        batch: tuple[View, Tensor],
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the scores of each pair as apart (always 0) and as joined, (pairs, 2)."""
        import torch

        scores = self.answer(model, batch[0])
        return torch.stack([torch.zeros_like(scores), scores], 1)

    def criterion(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of scores."""
        from torch.nn import functional as F

        return F.binary_cross_entropy_with_logits(answers, targets.to(answers.dtype))

    def measured(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """Return ``auc`` and ``hits@K`` in percent.

        K is 50, or a quarter of the validation part where that is less.
        """
        scores, truth = answers.double().cpu().numpy(), targets.cpu().numpy()
        k = max(1, min(HITS, self.size("validation") // 4))
        return {"auc": auc(scores, truth), f"hits@{k}": hits(scores, truth, k)}

    def flags(self, model: nn.Module) -> tuple[str, ...]:
        """Return ``("constant",)`` for a model that gives every pair of validation one score."""
        answers = self.answered(model, "validation")[0]
        return ("constant",) if constant(answers.cpu().numpy()) else ()


def split_links(graph: Graph, seed: int, name: str = "") -> Links:
    """Return the pairs of each split of a graph's undirected edges, the same for a seed always.

    Raises:
        DataError: a part would have no edge, or there are too few pairs without one.
    """
    import torch

    from lth_zoo.graph import EDGES

    pairs, nodes = graph.pairs, graph.nodes
    count = pairs.shape[1]
    sizes = [int(share * count) for share in HELD_OUT]
    free = nodes * (nodes - 1) // 2 - count
    if not all(sizes) or free < sum(sizes):
        raise DataError(
            f"{name}: {count:,} edges and {free:,} pairs without one; expected 20 edges or more, "
            f"of which 15 % are held out, and as many pairs without one"
        )
    order = torch.from_numpy(fixed_order(count, seed))
    parts = order.split([*sizes, count - sum(sizes)])
    places: dict[Split, Tensor]
    places = {"validation": parts[0], "test": parts[1], "train": parts[2].sort().values}
    joined = {split: pairs[:, places[split]] for split in SPLITS}
    kept = torch.zeros(count, dtype=torch.bool)
    kept[places["train"]] = True
    known = pairs[0] * nodes + pairs[1]
    draw = _fixed_pairs(nodes, seed)
    validation, test = drawn_apart(known, nodes, sum(sizes), draw, different=True).split(sizes, 1)
    train = drawn_apart(known, nodes, len(places["train"]), draw)
    apart: dict[Split, Tensor] = {"train": train, "validation": validation, "test": test}
    columns = replace(graph, edge_index=graph.edge_index[:, graph.columns(EDGES, kept)])
    return Links(columns, joined, apart, known)


def drawn_apart(
    known: Tensor, nodes: int, count: int, draw: Callable[[int], Tensor], different: bool = False
) -> Tensor:
    """Return ``count`` pairs of two nodes that are not among the known ones, (2, count).

    ``known`` are the codes low x nodes + high, ascending; ``draw(n)`` gives (2, n) nodes. With
    ``different`` no pair comes twice. There must be enough such pairs.
    """
    import numpy as np
    import torch

    codes = known.new_empty(0)
    while len(codes) < count:
        drawn = draw(2 * (count - len(codes)) + 16)
        low, high = drawn.amin(0), drawn.amax(0)
        new = (low * nodes + high)[low != high]
        place = torch.searchsorted(known, new).clamp(max=len(known) - 1)
        codes = torch.cat([codes, new[known[place] != new]])
        if different:
            first = np.unique(codes.numpy(), return_index=True)[1]
            codes = codes[torch.from_numpy(np.sort(first))]
    codes = codes[:count]
    return torch.stack([codes // nodes, codes % nodes])


def _pairs(nodes: int, rng: torch.Generator, count: int) -> Tensor:
    import torch

    return torch.randint(nodes, (2, count), generator=rng)


def _fixed_pairs(nodes: int, seed: int) -> Callable[[int], Tensor]:
    """Return a source of pairs that no library version changes: see ``fixed_order``."""
    import numpy as np
    import torch

    stream = np.random.PCG64(seed)

    def draw(count: int) -> Tensor:
        drawn = (stream.random_raw(2 * count) % nodes).astype(np.int64)
        return torch.from_numpy(drawn.reshape(2, count))

    return draw


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the ROC curve in percent; 50 for scores that are not finite."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    return 100.0 * float(roc_auc_score(truth, scores)) if np.isfinite(scores).all() else 50.0


def hits(scores: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Return the percentage of joined pairs that score above the k-th highest other (OGB).

    >>> import numpy as np
    >>> hits(np.array([0.9, 0.4, 0.1, 0.5, 0.3]), np.array([1, 1, 1, 0, 0]), k=1)
    33.33333333333333
    """
    import numpy as np

    others = scores[truth == 0]
    bar = np.partition(others, len(others) - k)[len(others) - k]
    return 100.0 * float((scores[truth == 1] > bar).mean())
