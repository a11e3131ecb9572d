"""An amount to pools of weights with one threshold each: who keeps how many, exactly.

Densities are exact fractions, so a level is the same set on every machine. Nothing here needs
torch; :func:`lth_zoo.select.select` then keeps the highest scores of every pool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor, prod
from typing import Literal, TypeVar, get_args

from .errors import BadInput, unknown

#: Scopes whose thresholds are of whole tensors, as learned masks need them.
TensorScope = Literal["global", "layer", "group", "erk", "uniform", "balanced", "smart-ratio"]
#: All that finders offer; :func:`allocate` takes any other N:M too.
Scope = Literal[TensorScope, "row", "1:2", "1:4", "2:4", "4:8"]
#: The scopes that take any density.
SCOPES: tuple[str, ...] = (*get_args(TensorScope), "row")
#: Density of the last layer under ``smart-ratio`` (Su et al. 2020).
LAST = Fraction(3, 10)
K = TypeVar("K")


@dataclass(frozen=True)
class Pool:
    """Tensors that share one threshold, and how many of their weights stay.

    With an ``axis`` it is one tensor whose rows along that dimension have one threshold each
    and keep the same number, give or take one. With a ``block`` (N, M) besides, each M weights
    of a row have one threshold, and keep N.
    """

    names: tuple[str, ...]
    keep: int
    axis: int | None = None
    block: tuple[int, int] | None = None


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


def block_of(scope: str) -> tuple[int, int] | None:
    """Return the N and M of a scope N:M, None for the others.

    >>> block_of("2:4"), block_of("layer")
    ((2, 4), None)

    Raises:
        BadInput: no such scope.
    """
    found = re.fullmatch(r"(\d+):(\d+)", scope)
    if found and 0 < int(found[1]) < int(found[2]):
        return int(found[1]), int(found[2])
    if scope not in SCOPES:
        raise unknown("scope", scope, (*SCOPES, *get_args(Scope)[-4:]))
    return None


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
            ``balanced`` the same number of weights in each tensor, as far as it goes;
            ``smart-ratio`` densities that fall with depth (Su et al. 2020);
            ``row`` as ``layer``, with a threshold for each output (Sun et al. 2023, Wanda);
            ``N:M`` N of each M weights that one output reads in a row.
        overrides: tensors with a density of their own; each is a pool.
        total: if given, overrides are kept but the whole is shifted to hit this density
            exactly: every density d becomes d**t for the one t that does it.
        groups: prunable name -> group, for ``group``; where given, the last one of a group
            ``output`` is the output layer of ``smart-ratio``, else the last tensor is.
        caps: prunable name -> number of candidates, where earlier masks limit them.
        axes: prunable name -> dimension of its outputs, for ``row`` and N:M; 0 where not given.

    Raises:
        BadInput: unknown scope, an override names no prunable tensor, a total that the
            overrides put out of reach, or a density that is not N / M.
    """
    block = block_of(scope)
    _check_block(block, density, total)
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
    lined = shapes if scope == "row" else free if block else ()
    rows = {n: (axes or {}).get(n, 0) for n in lined}
    return [
        Pool(names, counts[names], rows.get(names[0]), block if names[0] in rows else None)
        for names in shares
    ]


def _check_block(block: tuple[int, int] | None, density: Fraction, total: Fraction | None) -> None:
    """Raise if a scope N:M is asked for another density than its own."""
    if block is None:
        return
    n, m = block
    if density != Fraction(n, m) or total is not None:
        wanted = float(density if total is None else total)
        raise BadInput(
            f"scope '{n}:{m}' keeps {n / m:g} of every tensor in one step, not {wanted:g}: give "
            f"sparsity {1 - n / m:g} and no rates or rounds, or choose a scope without ':'"
        )


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
    if scope == "smart-ratio":
        ends = [n for n in shapes if groups.get(n) == "output"] if groups else list(shapes)
        return {(n,): d for n, d in _smart(free, ends[-1] if ends else "", density).items()}
    dense: set[str] = set()
    if scope == "erk":
        raw = {n: Fraction(sum(shapes[n]), prod(shapes[n])) for n in free}
    elif scope == "balanced":
        raw = {n: Fraction(1, free[n]) for n in free}
    elif scope == "uniform":
        raw = dict.fromkeys(free, Fraction(1))
        dense = {name for name in list(shapes)[:1] if name in free}
    else:
        return {(name,): density for name in free}
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


def _smart(free: Mapping[str, int], last: str, density: Fraction) -> dict[str, Fraction]:
    """Return densities proportional to j**2 + j, j the layers from here to the last.

    The ``last`` layer, the output's, has :data:`LAST`, but no more than half of what stays; none
    has where that is not covered. What does not fit into a layer goes to the next one (Su et al.
    2020, arXiv:2009.11094, section 4).
    """
    budget = density * sum(free.values())
    head = min(LAST * free.get(last, 0), budget / 2)
    body = [name for name in free if name != last]
    if not body:
        return dict.fromkeys(free, density)
    raw = {name: Fraction(j * j + j) for j, name in enumerate(reversed(body), 1)}
    scale = (budget - head) / sum(raw[n] * free[n] for n in body)
    counts, over = dict[str, Fraction](), Fraction(0)
    for name in free:
        wanted = over + (head if name == last else scale * raw[name] * free[name])
        counts[name] = min(wanted, Fraction(free[name]))
        over = wanted - counts[name]
    return {name: counts[name] / free[name] for name in free}


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
