"""Scores of a graph's edges, one number an element, higher = kept.

None of them reads a feature, a label or a weight: which edges go is known before any training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .allocate import Pool, exact, round_half_up
from .errors import unknown
from .graph import Graph
from .masks import Masks
from .select import select


def degree(graph: Graph, elements: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG001
    """Keep edges between nodes of few, little connected neighbours; hub to hub goes first.

    T(i, j) = q(i) / d_i x q(j) / d_j with q(v) = mean over the neighbours u of v of 1 / sqrt(d_u)
    and d the degrees of the whole graph (Seo et al. 2024, TEDDY, section 4.1).
    """
    source, target = graph.edge_index
    degrees = torch.zeros(graph.nodes, dtype=torch.float64)
    degrees.index_add_(0, source, torch.ones(len(source), dtype=torch.float64))
    degrees.clamp_(min=1)  # a node that only receives, in a directed graph
    q = torch.zeros_like(degrees).index_add_(0, source, degrees[target].rsqrt()) / degrees
    share = q / degrees
    return share[elements[0]] * share[elements[1]]


def dspar(graph: Graph, elements: Tensor, rng: torch.Generator) -> Tensor:
    """Draw edges without replacement, with probabilities proportional to 1 / d_i + 1 / d_j.

    The bound of the effective resistance that DSpar samples by (Liu et al. 2023, section 3),
    drawn to an exact count (Efraimidis & Spirakis keys) and without its reweighting of the edges.
    """
    degrees = torch.bincount(graph.edge_index[0], minlength=graph.nodes).double().clamp(min=1)
    chance = degrees[elements[0]].reciprocal() + degrees[elements[1]].reciprocal()
    draw = torch.rand(len(chance), generator=rng, dtype=torch.float64).clamp(min=1e-300)
    return draw.log() / chance


def random(graph: Graph, elements: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG001
    """Keep edges at random; one draw a seed, so that sparser graphs lie within denser ones."""
    return torch.rand(elements.shape[1], generator=rng, dtype=torch.float64)


EDGE_SCORES: dict[str, Callable[[Graph, Tensor, torch.Generator], Tensor]] = {
    "degree": degree,
    "dspar": dspar,
    "random": random,
}


def selected(
    graph: Graph,
    name: str,
    score: str,
    density: object,
    rng: torch.Generator,
    within: Masks | None = None,
) -> Masks:
    """Return the mask of the best edges: exactly ``density`` of all the graph's.

    ``within`` limits the candidates, so that levels are nested.

    Raises:
        BadInput: no such score or entry, or fewer edges are left than are asked for.
    """
    if score not in EDGE_SCORES:
        raise unknown("edge score", score, EDGE_SCORES)
    values = EDGE_SCORES[score](graph, graph.elements(name), rng)
    keep = round_half_up(exact(str(density)) * len(values))
    return select({name: ranks(values, rng)}, [Pool((name,), keep)], within)


def ranks(values: Tensor, rng: torch.Generator) -> Tensor:
    """Return the place of each value from the lowest up, ties in random order, (elements,) float64.

    Many edges have one degree score, and node numbers are no chance order: in the Planetoid sets
    the training nodes come first.
    """
    order = torch.randperm(len(values), generator=rng)
    order = order[values[order].argsort(stable=True)]
    return torch.empty(len(values), dtype=torch.float64).scatter_(
        0, order, torch.arange(len(values), dtype=torch.float64)
    )
