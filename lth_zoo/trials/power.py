"""How often the non-inferiority test finds a ticket that truly equals dense, and seeds needed.

All powers are for a true gap of zero and normal seeds; they are integrals, not simulations.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Beyond this many seeds an arm the answer is "more than that".
SEEDS_CAP = 200
#: Beyond this many standard errors the margin is certain to be told from zero.
_FAR = 1e6
#: Midpoints of the integral over the two arms' share of the variance (error below 0.001).
_MIDPOINTS = 64


@dataclass(frozen=True)
class PowerRow:
    """Power with ``n`` seeds an arm (or pairs) and a margin of ``margin_in_sd`` seed sds."""

    n: int
    margin_in_sd: float
    power: float


def power_paired(margin: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the one-sided paired t test at a true gap of zero.

    ``sd`` is that of the differences, ``n`` the number of pairs (0 power below two). The
    statistic is a noncentral t with n - 1 degrees of freedom.
    """
    from scipy.special import nctdtr, stdtrit

    if n < 2:
        return 0.0
    if sd == 0:
        return 1.0
    shift = min(margin * n**0.5 / sd, _FAR)
    return float(1 - nctdtr(n - 1, shift, stdtrit(n - 1, 1 - alpha)))


def power_welch(
    margin: float, sds: tuple[float, float], ns: tuple[int, int], alpha: float = 0.05
) -> float:
    """Return the power of the one-sided Welch test at a true gap of zero.

    ``sds`` and ``ns`` are those of the two arms. Welch estimates its degrees of freedom from
    the data, so the usual shortcut (a noncentral t with na + nb - 2) is six points too high
    at n = 3. Given the arms' shares w of the (scaled) variance, Beta distributed, the
    statistic *is* a scaled noncentral t that does not depend on w: the mean over w is exact.
    """
    import numpy as np
    from scipy.special import betaincinv, nctdtr, stdtrit

    if min(ns) < 2:
        return 0.0
    variance = sds[0] ** 2 / ns[0] + sds[1] ** 2 / ns[1]
    if variance == 0:
        return 1.0
    dfs = ns[0] - 1, ns[1] - 1
    w = betaincinv(dfs[0] / 2, dfs[1] / 2, (np.arange(_MIDPOINTS) + 0.5) / _MIDPOINTS)
    # The estimated squared error of each mean, up to a common chi-square factor.
    a = sds[0] ** 2 / variance / ns[0] / dfs[0] * w
    b = sds[1] ** 2 / variance / ns[1] / dfs[1] * (1 - w)
    critical = stdtrit((a + b) ** 2 / (a**2 / dfs[0] + b**2 / dfs[1]), 1 - alpha)
    shift = min(margin / variance**0.5, _FAR)
    scaled = critical * np.sqrt(sum(dfs) * (a + b))
    return float(np.mean(1 - nctdtr(sum(dfs), shift, scaled)))


def seeds_needed(power_at: Callable[[int], float], target: float = 0.8) -> int | None:
    """Return the fewest seeds an arm with that power; None means more than ``SEEDS_CAP``.

    >>> seeds_needed(lambda n: power_paired(2.0, 2.0, n))
    8
    """
    sizes = range(2, SEEDS_CAP + 1)
    found = bisect_left(sizes, target, key=power_at)
    return sizes[found] if found < len(sizes) else None


def power_table(
    n_values: Sequence[int] = (3, 5, 10, 20),
    margins_in_sd: Sequence[float] = (0.5, 1, 1.5, 2, 3),
    *,
    paired: bool = False,
    alpha: float = 0.05,
) -> list[PowerRow]:
    """Return the power for each number of seeds and margin.

    The margin is in units of one arm's seed sd (Welch, both alike), or of the sd of the
    differences (``paired``).
    """

    def power(n: int, margin: float) -> float:
        if paired:
            return power_paired(margin, 1.0, n, alpha)
        return power_welch(margin, (1.0, 1.0), (n, n), alpha)

    return [PowerRow(n, float(m), power(n, m)) for n in n_values for m in margins_in_sd]
