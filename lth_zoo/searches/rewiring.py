"""Which connections go and which come in their place: rules that keep every count exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import cos, pi

import torch
from torch import Tensor

from ..allocate import Pool
from ..masks import Masks
from ..select import select


def share_at(first: float, iteration: int, length: int) -> float:
    """Return what share of the kept goes in a swap: first / 2 (1 + cos(pi t / T)), 0 at the end.

    >>> [round(share_at(0.3, t, 8), 3) for t in (0, 4, 8)]
    [0.3, 0.15, 0.0]
    """
    return first / 2 * (1 + cos(pi * iteration / length))


def swapped(
    masks: Masks, pool: Pool, count: int, keep: Mapping[str, Tensor], regain: Mapping[str, Tensor]
) -> Masks:
    """Return masks whose ``count`` lowest of the kept went, and as many of the rest came back.

    ``keep`` ranks what is kept and ``regain`` what may come back, that which has just gone
    among it: then it stays as it was.
    """
    return regained(weakened(masks, pool, count, keep), pool, count, regain)


def weakened(masks: Masks, pool: Pool, count: int, keep: Mapping[str, Tensor]) -> Masks:
    """Return the masks of a pool less the ``count`` lowest of the kept."""
    return select(keep, [Pool(pool.names, pool.keep - count)], masks)


def regained(staying: Masks, pool: Pool, count: int, regain: Mapping[str, Tensor]) -> Masks:
    """Return the masks of a pool with the ``count`` highest of the pruned."""
    return staying | select(regain, [Pool(pool.names, count)], ~staying)


def part_of(masks: Masks, pool: Pool) -> Masks:
    """Return the masks of a pool's tensors."""
    return Masks({name: masks[name] for name in pool.names})


def filled(masks: Masks, pools: Iterable[Pool], rng: torch.Generator) -> Masks:
    """Return masks in which every pool has its count: what lacks comes back at random.

    Each pruned weight of a pool is as likely as any other to be drawn.
    """
    found = dict(masks)
    for pool in pools:
        names = sorted(pool.names)
        flat = torch.cat([masks[n].reshape(-1) for n in names])
        missing = pool.keep - int(flat.sum())
        if missing > 0:
            free = (~flat).nonzero().reshape(-1)
            flat[free[torch.randperm(len(free), generator=rng)[:missing]]] = True
            parts = flat.split([masks[n].numel() for n in names])
            found |= {n: part.view(masks[n].shape) for n, part in zip(names, parts, strict=True)}
    return Masks(found)


def away_from_zero(weights: Mapping[str, Tensor], masks: Masks, share: float) -> Masks:
    """Return masks without that share of the kept nearest 0, the two signs apart (SET).

    Of each tensor's n positive weights the floor(share x n) smallest go, of its negative ones
    likewise, and those that are exactly 0: no gradient ever reached them.
    """
    found = {}
    for name, mask in masks.items():
        weight = weights[name].detach().cpu()
        stays = torch.zeros_like(mask)
        for side in (mask & (weight > 0), mask & (weight < 0)):
            count = int(side.sum())
            pool = Pool((name,), count - int(share * count))
            stays |= select({name: weight.abs()}, [pool], Masks({name: side}))[name]
        found[name] = stays
    return Masks(found)


def dormant_floor(density: float, rate: float, l1: float, noise: float) -> float:
    """Return how far a dormant connection may walk below 0 (soft DEEP R, Bellec et al. 2018).

    theta_min = -(1 - p) / (p beta), with p the density, beta = l1 / T and the temperature
    T = rate noise^2 / 2: without a loss the share p of all connections would be active.

    >>> round(dormant_floor(0.1, rate=0.5, l1=1e-5, noise=1e-5), 9)  # -9 x 2.5e-6
    -2.25e-05
    """
    return -(1 - density) / density * rate * noise**2 / (2 * l1)
