"""Which edges go: what masks keep of a graph, as plain numbers.

All functions are pure. ``pairs`` is (2, elements) int, the nodes of what a mask has a bit for
(undirected edges, or directed columns where a mask has one bit a direction); ``kept`` is
(elements,) bool; ``labels`` (nodes,) int, -1 for none. A degree counts the elements at a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Graphs of at most so many nodes are kept whole, to be drawn.
DRAWN_NODES = 400
#: Elements looked at, over all masks; beyond it only each arm's last level is.
_WORK = 10_000_000
#: Shares of the nodes at which the degrees are given.
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class Kept:
    """The edges that one arm keeps at one level: the masks' entry of one seed."""

    arm: str
    level: int
    seed: int
    entry: str
    mask: np.ndarray

    def same(self, other: Kept) -> bool:
        """Say whether the other keeps the same edges."""
        return self.entry == other.entry and np.array_equal(self.mask, other.mask)


def portrait(
    pairs: np.ndarray, nodes: int, found: Sequence[Kept], labels: np.ndarray | None = None
) -> dict[str, Any]:
    """Return everything a report says of the kept graph, as plain data.

    ``whole`` describes the graph before pruning and ``rows`` each mask; ``removed`` says which
    edges the first arm (the ticket) lacks at its last level, and ``drawing`` holds that level's
    edges where the graph is small. The first of ``found`` names arm, seed and entry.
    """
    first = found[0]
    last = [one for one in found if one.arm == first.arm][-1]
    rows = found if len(found) * pairs.shape[1] <= _WORK else _last_levels(found)
    every = np.ones(pairs.shape[1], dtype=bool)
    result: dict[str, Any] = {
        "entry": first.entry,
        "seed": first.seed,
        "nodes": nodes,
        "labelled": int((labels >= 0).sum()) if labels is not None else 0,
        "whole": described(pairs, every, nodes, labels),
        "rows": [
            {"arm": one.arm, "level": one.level, **described(pairs, one.mask, nodes, labels)}
            for one in rows
        ],
        "removed": {
            "arm": last.arm,
            "level": last.level,
            "agreement": agreement(pairs, last.mask, labels),
            "products": products(pairs, last.mask, nodes),
            "degrees": histogram(degrees(pairs, nodes), degrees(pairs, nodes, last.mask)),
        },
    }
    if nodes <= DRAWN_NODES:
        result["drawing"] = {
            "level": last.level,
            "pairs": pairs.tolist(),
            "kept": last.mask.astype(int).tolist(),
            "labels": labels.tolist() if labels is not None else None,
        }
    return result


def _last_levels(found: Sequence[Kept]) -> list[Kept]:
    return list({one.arm: one for one in sorted(found, key=lambda one: one.level)}.values())


def described(
    pairs: np.ndarray, kept: np.ndarray, nodes: int, labels: np.ndarray | None = None
) -> dict[str, Any]:
    """Return counts, homophily of both sides, components, isolated nodes, degree quantiles."""
    left = degrees(pairs, nodes, kept)
    return {
        "kept": int(kept.sum()),
        "removed": int((~kept).sum()),
        "homophily_kept": homophily(pairs, labels, kept),
        "homophily_removed": homophily(pairs, labels, ~kept),
        "components": components(pairs, nodes, kept),
        "isolated": int((left == 0).sum()),
        "degrees": [float(q) for q in np.quantile(left, QUANTILES)] if nodes else [],
    }


def homophily(
    pairs: np.ndarray, labels: np.ndarray | None, chosen: np.ndarray | None = None
) -> float | None:
    """Return the share of edges between two nodes of one label; None where none can be said.

    Only edges with both labels known count; ``chosen`` picks some of the edges.

    >>> homophily(np.array([[0, 1], [1, 2]]), np.array([5, 5, 6]))
    0.5
    """
    if labels is None:
        return None
    low, high = labels[pairs[:, chosen] if chosen is not None else pairs]
    known = (low >= 0) & (high >= 0)
    return float((low == high)[known].mean()) if known.any() else None


def degrees(pairs: np.ndarray, nodes: int, kept: np.ndarray | None = None) -> np.ndarray:
    """Return the number of (kept) elements at each node, (nodes,) int."""
    ends = pairs if kept is None else pairs[:, kept]
    return np.bincount(ends.ravel(), minlength=nodes)


def components(pairs: np.ndarray, nodes: int, kept: np.ndarray | None = None) -> int:
    """Return the number of connected components of two nodes or more; directions do not count."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = pairs if kept is None else pairs[:, kept]
    ones = np.ones(ends.shape[1], dtype=np.int8)
    matrix = coo_array((ones, (ends[0], ends[1])), shape=(nodes, nodes))
    count = connected_components(matrix, directed=False, return_labels=False)
    return int(count) - int((degrees(ends, nodes) == 0).sum())


def agreement(
    pairs: np.ndarray, kept: np.ndarray, labels: np.ndarray | None
) -> list[dict[str, Any]]:
    """Return how many edges there are and how many went, by whether the labels of a pair agree."""
    if labels is None:
        return []
    low, high = labels[pairs]
    known = (low >= 0) & (high >= 0)
    groups = {
        "same label": known & (low == high),
        "different labels": known & (low != high),
        "a label unknown": ~known,
    }
    return [
        {"between": name, "edges": int(of.sum()), "removed": int((of & ~kept).sum())}
        for name, of in groups.items()
        if of.any()
    ]


def products(
    pairs: np.ndarray, kept: np.ndarray, nodes: int, bins: int = 8
) -> list[dict[str, Any]]:
    """Return how many edges there are and how many went, by the product of both ends' degrees.

    The bins hold about as many edges each; edges of one product are in one bin.
    """
    if not pairs.shape[1]:
        return []
    whole = degrees(pairs, nodes)
    product = whole[pairs[0]] * whole[pairs[1]]
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    cuts = np.unique(np.quantile(product, shares, method="lower"))
    place = np.searchsorted(cuts, product)
    found = []
    for index in np.unique(place):
        of = place == index
        low, high = int(product[of].min()), int(product[of].max())
        counts = {"edges": int(of.sum()), "removed": int((of & ~kept).sum())}
        found.append({"low": low, "high": high, **counts})
    return found


def histogram(before: np.ndarray, after: np.ndarray) -> list[dict[str, int]]:
    """Return how many nodes have a degree of 0, 1, 2 to 3, 4 to 7 and so on, before and after.

    >>> histogram(np.array([1, 3]), np.array([0, 3]))[0]
    {'low': 0, 'high': 0, 'before': 0, 'after': 1}
    """
    top = int(before.max(initial=0))
    lows = [0, *(2**k for k in range(top.bit_length()))]
    highs = [0, *(2 * low - 1 for low in lows[1:])]
    return [
        {
            "low": low,
            "high": high,
            "before": int(((before >= low) & (before <= high)).sum()),
            "after": int(((after >= low) & (after <= high)).sum()),
        }
        for low, high in zip(lows, highs, strict=True)
    ]
