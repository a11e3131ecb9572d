"""Scores and an amount to masks: exact counts, whatever the ties.

An amount is first shared out over *pools* (one threshold each) by :func:`allocate`, then
:func:`select` keeps the highest scores of every pool. Densities are exact fractions, so a
level is the same set on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor, prod
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from .errors import BadInput, unknown
from .masks import Masks

Scope = Literal["global", "layer", "group", "erk", "uniform", "row"]
K = TypeVar("K")
Array = np.ndarray[Any, Any]
SCOPES: tuple[str, ...] = get_args(Scope)


@dataclass(frozen=True)
class Pool:
    """Tensors that share one threshold, and how many of their weights stay.

    With an ``axis`` it is one tensor whose rows along that dimension have one threshold each
    and keep the same number, give or take one.
    """

    names: tuple[str, ...]
    keep: int
    axis: int | None = None


def round_half_up(value: Fraction) -> int:
    """Return floor(value + 1/2): keep = floor(density x n + 1/2), in exact arithmetic."""
    return floor(value + Fraction(1, 2))


def exact(density: float | str | Fraction) -> Fraction:
    """Return a density as the fraction it is written as (0.1 is one tenth).

    Raises:
        BadInput: not a number in [0, 1].
    """
    value = density if isinstance(density, Fraction) else Fraction(str(density))
    if not 0 <= value <= 1:
        raise BadInput(f"density {density} is outside [0, 1]")
    return value


def allocate(
    shapes: Mapping[str, tuple[int, ...]],
    density: Fraction,
    scope: str = "global",
    overrides: Mapping[str, Fraction] | None = None,
    total: Fraction | None = None,
    groups: Mapping[str, str] | None = None,
    caps: Mapping[str, int] | None = None,
    axes: Mapping[str, int] | None = None,
) -> list[Pool]:
    """Share the kept weights out over pools.

    Args:
        shapes: prunable name -> tensor shape, from the input to the output.
        density: kept share of each pool (``global``: of all).
        scope: ``global`` one pool; ``group`` one a group; ``layer`` the same density in each
            tensor; ``uniform`` the same, with the first tensor dense; ``erk`` densities by the
            Erdos-Renyi-kernel rule, proportional to (sum of dimensions) / (product of them);
            ``row`` as ``layer``, with a threshold for each output (Sun et al. 2023, Wanda).
        overrides: tensors with a density of their own; each is a pool.
        total: if given, overrides are kept but the whole is shifted to hit this density
            exactly: every density d becomes d**t for the one t that does it.
        groups: prunable name -> group, for ``group``.
        caps: prunable name -> number of candidates, where earlier masks limit them.
        axes: prunable name -> dimension of its outputs, for ``row``; 0 where not given.

    Raises:
        BadInput: unknown scope, an override names no prunable tensor, or a total that the
            overrides put out of reach.
    """
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    overrides = dict(overrides or {})
    for name in overrides:
        if name not in shapes:
            raise unknown("prunable tensor", name, shapes)
    free = {name: prod(shape) for name, shape in shapes.items() if name not in overrides}
    sizes: dict[tuple[str, ...], int] = {(name,): prod(shapes[name]) for name in overrides}
    shares: dict[tuple[str, ...], Fraction] = {(n,): d for n, d in overrides.items()}
    for names, share in _shares(free, shapes, density, scope, groups or {}).items():
        sizes[names], shares[names] = sum(free[n] for n in names), share
    if total is not None:
        shares = _shift(shares, sizes, total)
    budget = round_half_up(sum((shares[k] * sizes[k] for k in shares), Fraction(0)))
    room = {k: sum(caps[n] for n in k) for k in shares} if caps else sizes
    counts = largest_remainder({k: shares[k] * sizes[k] for k in shares}, budget, room)
    rows = {n: (axes or {}).get(n, 0) for n in shapes} if scope == "row" else {}
    return [Pool(names, counts[names], rows.get(names[0])) for names in shares]


def _shares(
    free: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    density: Fraction,
    scope: str,
    groups: Mapping[str, str],
) -> dict[tuple[str, ...], Fraction]:
    if not free:
        return {}
    if scope == "global":
        return {tuple(free): density}
    if scope == "group":
        members: dict[str, list[str]] = {}
        for name in free:
            members.setdefault(groups.get(name, ""), []).append(name)
        return {tuple(names): density for names in members.values()}
    if scope in ("layer", "row"):
        return {(name,): density for name in free}
    raw = {n: Fraction(sum(shapes[n]), prod(shapes[n])) for n in free}
    dense: set[str] = set()
    if scope == "uniform":
        raw = {n: Fraction(1) for n in free}
        dense = {name for name in list(shapes)[:1] if name in free}
    return {(n,): d for n, d in _scaled(free, raw, density, dense).items()}


def _scaled(
    free: Mapping[str, int], raw: Mapping[str, Fraction], density: Fraction, dense: set[str]
) -> dict[str, Fraction]:
    """Scale raw densities to the budget; a tensor that would pass 1 is dense (RigL, app. A)."""
    budget = density * sum(free.values())
    while True:
        left = budget - sum(free[n] for n in dense)
        spread = [n for n in free if n not in dense]
        mass = sum((raw[n] * free[n] for n in spread), Fraction(0))
        if left < 0:  # even the dense ones alone are too many: share evenly
            return dict.fromkeys(free, density)
        scale = left / mass if mass else Fraction(0)
        over = {n for n in spread if raw[n] * scale > 1}
        if not over:
            return {n: Fraction(1) if n in dense else raw[n] * scale for n in free}
        dense = dense | over


def _shift(
    shares: Mapping[tuple[str, ...], Fraction],
    sizes: Mapping[tuple[str, ...], int],
    total: Fraction,
) -> dict[tuple[str, ...], Fraction]:
    """Raise every density to one power, found by bisection, so that the whole hits ``total``.

    Raises:
        BadInput: densities of 0 and 1 stay as they are and put the total out of reach.
    """
    whole = sum(sizes.values())
    moving = [k for k, d in shares.items() if 0 < d < 1]
    least = Fraction(sum(sizes[k] for k, d in shares.items() if d == 1), whole)
    most = least + Fraction(sum(sizes[k] for k in moving), whole)
    if not least <= total <= most:
        raise BadInput(
            f"a density of {float(total):g} over all is out of reach: what is fixed at 0 or 1 "
            f"leaves it between {float(least):g} and {float(most):g}"
        )
    if not moving:
        return dict(shares)

    def kept(power: float) -> float:
        return sum(float(d) ** power * sizes[k] for k, d in shares.items())

    goal, low, high = float(total) * whole, 0.0, 64.0
    while kept(high) > goal and high < 1e9:
        high *= 2
    for _ in range(100):
        power = (low + high) / 2
        low, high = (power, high) if kept(power) > goal else (low, power)
    shifted = {k: Fraction(float(d) ** power).limit_denominator(10**12) for k, d in shares.items()}
    exact_kept = sum((shifted[k] * sizes[k] for k in shares), Fraction(0))
    largest = max(moving, key=lambda k: (shifted[k] < 1, sizes[k]))
    rest = (total * whole - exact_kept) / sizes[largest]
    shifted[largest] = min(Fraction(1), max(Fraction(0), shifted[largest] + rest))
    return shifted


def largest_remainder(
    quotas: Mapping[K, Fraction], budget: int, caps: Mapping[K, int]
) -> dict[K, int]:
    """Round quotas to whole numbers that add up to ``budget``; ties go to the first."""
    counts = {k: min(floor(q), caps[k]) for k, q in quotas.items()}
    order = sorted(quotas, key=lambda k: floor(quotas[k]) - quotas[k])
    while (short := budget - sum(counts.values())) > 0:
        open_ = [k for k in order if counts[k] < caps[k]][:short]
        if not open_:
            raise BadInput(f"{budget} weights cannot be kept of {sum(caps.values())}")
        for k in open_:
            counts[k] += 1
    return counts


def select(
    scores: Mapping[str, Tensor], pools: Iterable[Pool], within: Masks | None = None
) -> Masks:
    """Keep the highest scores of every pool.

    Ties keep the lowest (sorted name, flat index). ``within`` limits the candidates to the
    kept weights of earlier masks; without it, pruned weights may come back.

    Raises:
        BadInput: a score is not finite, or a pool has fewer candidates than it must keep.
    """
    masks: dict[str, Tensor] = {}
    for pool in pools:
        names = sorted(pool.names)
        flat = [_flat(scores[n], n) for n in names]
        allowed = [within[n].reshape(-1) if within is not None else None for n in names]
        if pool.axis is not None and scores[names[0]].dim() > 1:
            masks[names[0]] = _top_rows(flat[0], allowed[0], scores[names[0]].shape, pool)
            continue
        for name, kept in zip(names, _top(flat, allowed, pool.keep), strict=True):
            masks[name] = kept.reshape(scores[name].shape)
    return Masks(masks)


def _flat(score: Tensor, name: str) -> Tensor:
    flat = score.detach().cpu().reshape(-1)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    # One pass: a NaN anywhere makes both ends NaN, an infinity is an end.
    if flat.numel() and not all(torch.isfinite(end) for end in flat.aminmax()):
        raise BadInput(f"score of {name!r} is not finite everywhere")
    return flat


def _top(flat: list[Tensor], allowed: list[Tensor | None], keep: int) -> list[Tensor]:
    """Return the masks of the ``keep`` highest scores over several flat tensors."""
    pairs = list(zip(flat, allowed, strict=True))
    limit = sum(_count(a) if a is not None else f.numel() for f, a in pairs)
    if keep > limit:
        raise BadInput(f"cannot keep {keep:,} of {limit:,} candidates")
    if keep == limit:
        return [
            a.clone() if a is not None else torch.ones(f.shape, dtype=torch.bool) for f, a in pairs
        ]
    if keep == 0:
        return [torch.zeros(f.shape, dtype=torch.bool) for f in flat]
    threshold = kth_largest(flat, allowed, keep)
    kept = [_where(np.greater, f, threshold, a) for f, a in pairs]
    ties = keep - sum(map(_count, kept))
    for (f, a), k in zip(pairs, kept, strict=True):
        if not ties:
            break
        places = torch.nonzero(_where(np.equal, f, threshold, a)).reshape(-1)[:ties]
        k[places] = True
        ties -= len(places)
    return kept


def _top_rows(flat: Tensor, allowed: Tensor | None, shape: torch.Size, pool: Pool) -> Tensor:
    """Return the mask of the highest scores of every row along the pool's axis."""
    assert pool.axis is not None
    rows = flat.reshape(shape).movedim(pool.axis, 0)
    lines = rows.reshape(len(rows), -1) + 0.0  # + 0: a negative zero ties with a positive one
    room = dict.fromkeys(range(len(lines)), lines.shape[1])
    if allowed is not None:
        free = allowed.reshape(shape).movedim(pool.axis, 0).reshape(lines.shape)
        lines = lines.masked_fill(~free, -torch.inf)
        room = dict(enumerate(free.sum(1).tolist()))
    if pool.keep > sum(room.values()):
        raise BadInput(f"cannot keep {pool.keep:,} of {sum(room.values()):,} candidates")
    share = Fraction(pool.keep, len(lines))
    counts = largest_remainder(dict.fromkeys(room, share), pool.keep, room)
    keep, values = np.array(list(counts.values()))[:, None], lines.numpy()
    place = np.clip(values.shape[1] - keep, 0, values.shape[1] - 1)
    threshold = np.take_along_axis(np.sort(values, axis=1), place, axis=1)
    above, ties = values > threshold, values == threshold
    ties &= ties.cumsum(1) <= keep - above.sum(1, keepdims=True)
    kept = torch.from_numpy((above | ties) & (keep > 0))
    return kept.reshape(rows.shape).movedim(0, pool.axis).contiguous()


def _count(mask: Tensor) -> int:
    return int(np.count_nonzero(mask.numpy()))


def _where(compare: np.ufunc, flat: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """Return which candidates compare so; numpy does it 3 times faster than torch on a CPU."""
    found = torch.from_numpy(compare(flat.numpy(), value.numpy()))
    return found if allowed is None else found.bitwise_and_(allowed)


#: Elements looked at at once: stays in the cache, so that nothing model-sized is built.
CHUNK = 1 << 17


def kth_largest(flat: list[Tensor], allowed: list[Tensor | None], k: int) -> Tensor:
    """Return the k-th largest candidate, exactly, without one big copy or sort.

    A strided sample brackets the answer; one pass counts what lies above the bracket and
    gathers what lies inside, where numpy finds it. A bracket that misses is widened to the
    side it missed, so the answer never depends on the sample.
    """
    chunks = [
        (f[i : i + CHUNK].numpy(), None if a is None else a[i : i + CHUNK].numpy())
        for f, a in zip(flat, allowed, strict=True)
        for i in range(0, f.numel(), CHUNK)
    ]
    low, high = _bracket(chunks, k)
    while True:
        above, inside = 0, []
        for f, a in chunks:
            ge, gt = f >= low, f > high
            if a is not None:
                ge &= a
                gt &= a
            above += int(np.count_nonzero(gt))
            inside.append(f[ge ^ gt])
        middle = np.concatenate(inside)
        if above >= k:
            low, high = high, np.inf
        elif above + len(middle) < k:
            low, high = -np.inf, low
        else:
            place = len(middle) - (k - above)
            return torch.tensor(np.partition(middle, place)[place])


def _bracket(chunks: list[tuple[Array, Array | None]], k: int) -> tuple[float, float]:
    """Return two scores that the k-th largest most likely lies between, or infinities."""
    total = sum(len(f) for f, _ in chunks)
    stride = max(1, total // 200_000)
    picked = [f[::stride] if a is None else f[::stride][a[::stride]] for f, a in chunks]
    ordered = np.sort(np.concatenate(picked))[::-1]
    if len(ordered) < 1000:  # small pools: everything is inside
        return -np.inf, np.inf
    count = sum(len(f) if a is None else np.count_nonzero(a) for f, a in chunks)
    place = (k / count) * len(ordered)
    slack = 6 * len(ordered) ** 0.5 / 2 + 1
    first, last = int(place - slack), int(place + slack)
    return (
        ordered[last] if last < len(ordered) - 1 else -np.inf,
        ordered[first] if first > 0 else np.inf,
    )
