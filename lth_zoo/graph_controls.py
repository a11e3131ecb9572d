"""Controls of tickets that prune a graph as well: which of the two halves does what.

Fully random pruning dies of its random *weights*, so that any method looks good beside it; the
control that shows what the choice of edges is worth has random edges and searched weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .allocate import Pool
from .chain import Chain
from .controls import Draft, changes
from .masks import Masks
from .seeds import generator
from .select import select

if TYPE_CHECKING:
    import torch


@changes("search", graph=True)
def random_edges(chain: Chain) -> Chain:
    """Search the weights by magnitude on random edges, as many a level as the ticket has."""
    return chain.corrupted(edges="random")


@changes("masks", graph=True)
def random_graph(draft: Draft, seed: int) -> Draft:
    """Keep random edges and random weights, with the ticket's counts in every tensor.

    One draw a seed: the masks of a sparser level lie within those of a denser one.
    """
    masks = {
        name: _nested(name, mask, generator(seed, "prune", "random-graph", name))
        for name, mask in draft.masks.items()
    }
    return replace(draft, masks=Masks(masks))


@changes("masks", graph=True)
def graph_only(draft: Draft, seed: int) -> Draft:  # noqa: ARG001 - nothing is drawn
    """Keep the ticket's edges, and every weight."""
    return replace(draft, masks=draft.masks.data)


@changes("masks", graph=True)
def weights_only(draft: Draft, seed: int) -> Draft:  # noqa: ARG001 - nothing is drawn
    """Keep the ticket's weights, and every edge."""
    return replace(draft, masks=draft.masks.weights)


def _nested(name: str, mask: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    import torch

    scores = torch.rand(mask.shape, generator=rng, dtype=torch.float64)
    return select({name: scores}, [Pool((name,), int(mask.sum()))])[name]
