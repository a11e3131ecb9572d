"""Labelled graphs: what a reader returns, what is checked of it, and how nodes are split."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import SPLITS, Split
from lth_zoo.tasks.images import fixed_order

if TYPE_CHECKING:
    from torch import Tensor

    from lth_zoo.graph import Graph

#: Nodes a class in the train and the validation part of a random split (Shchur et al., Pitfalls
#: of Graph Neural Network Evaluation, 2018, section 3); all others are the test part.
PER_CLASS = (20, 30)
#: What may stand behind the name of a task, and how it is spelt.
SUFFIXES = {
    "seed": "@random-SEED",
    "column": "@split-COLUMN",
    "inductive": "@inductive",
    "fanouts": "@fanout-FIRST-SECOND-...",
}
_SUFFIX = re.compile(
    r"random-(?P<seed>\d+)|split-(?P<column>\d+)|(?P<inductive>inductive)"
    r"|fanout-(?P<fanouts>([1-9]\d*|all)(-([1-9]\d*|all))*)"
)


@dataclass(frozen=True)
class Variant:
    """What the suffixes of a task's name ask for.

    ``seed`` draws another random split, ``column`` takes another of several published ones,
    ``fanouts`` are the neighbours drawn at each hop of a mini-batch (-1: every one).
    """

    base: str
    seed: int | None = None
    column: int | None = None
    inductive: bool = False
    fanouts: tuple[int, ...] | None = None


def variant_of(name: str, allowed: Sequence[str] = tuple(SUFFIXES)) -> Variant:
    """Read the suffixes of a task's name; ``allowed`` are those that the task has.

    >>> variant_of("planetoid/cora@random-3@inductive")
    Variant(base='planetoid/cora', seed=3, column=None, inductive=True, fanouts=None)

    Raises:
        BadInput: no such suffix, one that stands there twice, or two that contradict each other.
    """
    base, *suffixes = name.split("@")
    found: dict[str, str] = {}
    for suffix in suffixes:
        match = _SUFFIX.fullmatch(suffix)
        new = {k: v for k, v in match.groupdict().items() if v} if match else {}
        if not new.keys() - found.keys() or not new.keys() <= set(allowed):
            known = ", ".join(SUFFIXES[key] for key in allowed) or "no suffix"
            raise BadInput(f"task {name!r}: suffix @{suffix}; expected, once each: {known}")
        found |= new
    if {"seed", "column"} <= found.keys():
        raise BadInput(f"task {name!r} asks for a random and a published split; expected one")
    hops = found["fanouts"].split("-") if "fanouts" in found else None
    return Variant(
        base,
        seed=int(found["seed"]) if "seed" in found else None,
        column=int(found["column"]) if "column" in found else None,
        inductive="inductive" in found,
        fanouts=tuple(-1 if hop == "all" else int(hop) for hop in hops) if hops else None,
    )


@dataclass(frozen=True)
class Raw:
    """A graph as it stands in its files.

    ``x`` is (nodes, features), ``edge_index`` (2, columns), ``labels`` (nodes,) with -1 for none.
    ``splits`` are the nodes of each published part, None where there is none. ``weighted`` says
    that the edges have weights or features, which no task here reads.
    """

    x: Tensor
    edge_index: Tensor
    labels: Tensor
    source: str
    splits: Mapping[Split, Tensor] | None = None
    weighted: bool = False


@dataclass(frozen=True)
class Nodes:
    """A graph whose nodes have ``labels``, (nodes,) int64, -1 for none; nodes of each split."""

    graph: Graph
    labels: Tensor
    splits: Mapping[Split, Tensor]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1

    @cached_property
    def digest(self) -> str:
        """sha256 over features, edges, labels and splits."""
        parts = [self.graph.x, self.labels, *(self.splits[split] for split in SPLITS)]
        return digest_of(self.graph.fingerprint(), *parts)


def digest_of(text: str, *tensors: Tensor) -> str:
    """Return sha256 over a text and CPU tensors with their shapes."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def nodes_of(raw: Raw, seed: int | None, symmetric: bool = True) -> Nodes:
    """Return a read graph, checked, with its published split or a random one of a seed.

    With ``symmetric`` every edge gets its other direction. A data set without a published split
    has the one of seed 0.

    Raises:
        DataError: not a graph, or not one that can be learned and tested on; naming the source.
    """
    graph = graph_of(raw, symmetric)
    labels = raw.labels.long()
    if labels.dim() != 1 or len(labels) != graph.nodes or not raw.labels.equal(labels):
        raise DataError(
            f"{raw.source}: labels of shape {tuple(raw.labels.shape)}, {raw.labels.dtype}, for "
            f"{graph.nodes} nodes; expected one class number a node"
        )
    if not graph.nodes or labels.max() < 0:
        raise DataError(f"{raw.source}: no node has a label")
    splits = raw.splits
    if seed is not None or splits is None:
        splits = random_split(labels, seed or 0, raw.source)
    _check_splits(labels, splits, raw.source)
    return Nodes(graph, labels, splits)


def graph_of(raw: Raw, symmetric: bool = True) -> Graph:
    """Return the graph of a read data set; says on stderr what of it is not used.

    Raises:
        DataError: an edge names no node, or a feature is not finite; naming the source.
    """
    import torch

    from lth_zoo.graph import Graph

    edges = raw.edge_index
    try:
        if edges.is_floating_point() or raw.x.dim() != 2:
            raise BadInput(f"edge_index is {edges.dtype}, x has shape {tuple(raw.x.shape)}")
        graph = Graph.of(raw.x, torch.cat([edges, edges.flip(0)], 1) if symmetric else edges)
    except BadInput as error:
        raise DataError(f"{raw.source}: {error}") from error
    if raw.weighted:
        say(f"{raw.source}: the weights or features of its edges are not used")
    if not graph.undirected:
        single = 2 * graph.pairs.shape[1] - graph.edge_index.shape[1]
        say(f"{raw.source}: directed; {single:,} edges have one direction only, and keep it")
    return graph


def random_split(labels: Tensor, seed: int, source: str = "") -> dict[Split, Tensor]:
    """Return 20 nodes a class for train, 30 for validation and the other labelled ones for test.

    The same for a seed in every version of the libraries; nodes in ascending order.

    Raises:
        DataError: a class has no more than 50 nodes.
    """
    import numpy as np
    import torch

    known = labels.numpy()
    order = fixed_order(len(known), seed)
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in range(int(known.max()) + 1):
        members = order[known[order] == label]
        if len(members) <= sum(PER_CLASS):
            raise DataError(
                f"{source}: class {label} has {len(members)} nodes; a random split takes "
                f"{PER_CLASS[0]} for train, {PER_CLASS[1]} for validation and needs one more"
            )
        for part, taken in zip(parts, np.split(members, np.cumsum(PER_CLASS)), strict=True):
            part.append(taken)
    joined = (torch.from_numpy(np.sort(np.concatenate(part))) for part in parts)
    return dict(zip(SPLITS, joined, strict=True))


def _check_splits(labels: Tensor, splits: Mapping[Split, Tensor], source: str) -> None:
    """Assert that every part has nodes, all labelled, none twice, and train every class."""
    import torch

    for split in SPLITS:
        nodes = splits[split]
        if not len(nodes):
            raise DataError(f"{source}: the {split} part has no nodes")
        if not 0 <= int(nodes.min()) <= int(nodes.max()) < len(labels):
            odd = nodes[(nodes < 0) | (nodes >= len(labels))][0]
            raise DataError(f"{source}: {split} names node {int(odd)} of {len(labels)}")
        if (labels[nodes] < 0).any():
            raise DataError(f"{source}: {int((labels[nodes] < 0).sum())} {split} nodes: no label")
    found, times = torch.cat([splits[split] for split in SPLITS]).unique(return_counts=True)
    if (times > 1).any():
        raise DataError(f"{source}: node {int(found[times > 1][0])} is in the splits twice")
    present = labels[splits["train"]].bincount(minlength=int(labels.max()) + 1)
    absent = (present == 0).nonzero().flatten().tolist()
    if absent:
        raise DataError(f"{source}: class {absent[0]} has no train node; expected every class")


def row_normalised(x: Tensor) -> Tensor:
    """Return features that sum to one in each row, as ``NormalizeFeatures`` of PyG has it.

    Rows whose sum is below one, such as empty ones, stay as they are.
    """
    x = x - x.min() if x.numel() else x
    return x / x.sum(1, keepdim=True).clamp(min=1)


@lru_cache
def say(text: str) -> None:
    """Print a line on stderr, once a process."""
    print(f"lth-zoo: {text}", file=sys.stderr)
