"""Controls that choose other weights, as many as the ticket has: at random, or by their size.

What they keep of each layer is given by a rule and not by a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .controls import Draft, changes
from .seeds import generator

if TYPE_CHECKING:
    from torch import Tensor

    from .masks import Masks


@changes("masks")
def random_global(draft: Draft, seed: int) -> Draft:
    """Keep a random set of the same size over all layers."""
    return _random(draft, seed, "global")


@changes("masks")
def random_erk(draft: Draft, seed: int) -> Draft:
    """Keep a random set of the same size, layer densities by the Erdos-Renyi kernel."""
    return _random(draft, seed, "erk")


@changes("masks")
def smart_ratio(draft: Draft, seed: int) -> Draft:
    """Keep a random set of the same size, layer densities that fall with depth (Su et al. 2020)."""
    return _random(draft, seed, "smart-ratio", draft.order())


@changes("masks", trained=True)
def hybrid(draft: Draft, seed: int) -> Draft:  # noqa: ARG001 - nothing is drawn
    """Keep the largest trained weights, layer densities as in ``smart-ratio`` (Su et al. 2020)."""
    trained = draft.trained()
    scores = {n: trained[n].abs() for n in draft.masks.weights}
    return replace(draft, masks=_selected(draft, scores, "smart-ratio", draft.order()))


@changes("masks")
def one_shot(draft: Draft, seed: int) -> Draft:  # noqa: ARG001 - nothing is drawn
    """Keep the largest weights of the start: no training at all (Chen et al. 2020, theta_0)."""
    return _largest(draft, draft.state)


@changes("masks", initial=True)
def one_shot_init(draft: Draft, seed: int) -> Draft:  # noqa: ARG001 - nothing is drawn
    """Keep the largest weights of theta_0, whatever state the ticket is rewound to."""
    return _largest(draft, draft.initial())


@changes("masks", trained=True)
def one_shot_trained(draft: Draft, seed: int) -> Draft:  # noqa: ARG001 - nothing is drawn
    """Keep the largest weights of the dense network at its end: no rounds, no other score."""
    return _largest(draft, draft.trained())


def _largest(draft: Draft, state: Mapping[str, Tensor]) -> Draft:
    scores = {n: state[n].abs() for n in draft.masks.weights}
    return replace(draft, masks=_selected(draft, scores, "global"))


def _random(draft: Draft, seed: int, scope: str, order: Sequence[str] = ()) -> Draft:
    import torch

    rng = generator(seed, "prune", "random", scope)
    scores = {n: torch.rand(m.shape, generator=rng) for n, m in draft.masks.weights.items()}
    return replace(draft, masks=_selected(draft, scores, scope, order))


def _selected(
    draft: Draft, scores: Mapping[str, Tensor], scope: str, order: Sequence[str] = ()
) -> Masks:
    """Keep as many weights as the ticket does, by other scores; and its edges."""
    from .allocate import allocate
    from .select import select

    masks = draft.masks.weights
    names = [n for n in order if n in masks]
    shapes = {n: tuple(masks[n].shape) for n in [*names, *(n for n in masks if n not in names)]}
    ends = {n: "output" if n == order[-1] else "" for n in shapes} if order else None
    pools = allocate(shapes, draft.density, scope, groups=ends)
    return draft.masks.joined(select(scores, pools))
