"""Two arms of seeds compared by one-sided t tests: the arithmetic under every verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

from .power import power_paired, power_welch

#: A spread below this share of the values is rounding noise.
_NOISE = 1e-12
#: A value this large comes from a diverged run.
_HUGE = 1e100
#: Up to this many relabellings a rank test is exact.
_PERMUTATIONS = 20_000


@dataclass(frozen=True)
class Comparison:
    """Arm a minus arm b: the difference of the means in the metric's own unit, and its tests.

    ``n`` counts the finite runs used of each arm, ``sds`` is the sd of each (Welch) or of the
    differences (paired). ``interval`` is two-sided at 1 - alpha. ``p_worse`` and ``p_better``
    are one-sided p-values for a being worse or better than b, in the metric's direction.
    With fewer than two runs nothing is known: None, and every p is 1.
    """

    test: str
    n: tuple[int, int]
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_worse: float = 1.0
    p_better: float = 1.0
    se: float | None = None
    df: float | None = None
    sds: tuple[float, ...] = ()
    higher_is_better: bool = field(default=True, repr=False)

    def p_gain_above(self, bound: float) -> float:
        """Return the one-sided p against "a is better than b by ``bound`` at most".

        With ``bound`` = -margin this is the test that a is not inferior to b.
        """
        return self._upper_tail(1.0 if self.higher_is_better else -1.0, bound)

    def p_gain_below(self, bound: float) -> float:
        """Return the one-sided p against "a is better than b by ``bound`` at least"."""
        return self._upper_tail(-1.0 if self.higher_is_better else 1.0, -bound)

    def _upper_tail(self, sign: float, bound: float) -> float:
        """P of sign * difference > bound; a difference without spread decides by itself."""
        from scipy.special import stdtr

        if self.difference is None or self.se is None:
            return 1.0
        excess = sign * self.difference - bound
        if self.se == 0:
            return 0.0 if excess > 0 else 1.0
        return float(stdtr(self.df, -excess / self.se))

    def power(self, margin: float, alpha: float, n: int | None = None) -> float | None:
        """Return the non-inferiority test's power with these sds, at these n or at ``n``."""
        if self.se is None:
            return None
        if self.test == "paired":
            return power_paired(margin, self.sds[0], n or self.n[0], alpha)
        ns = (n, n) if n else self.n
        return power_welch(margin, (self.sds[0], self.sds[1]), ns, alpha)


def compare(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    paired: bool = True,
    alpha: float = 0.05,
    higher_is_better: bool = True,
) -> Comparison:
    """Compare two arms, given as seed -> value, by a paired t test or by Welch's.

    Paired uses the seeds both arms have. Values that are not finite (diverged runs) are left
    out of the difference and its t tests; ``p_worse`` and ``p_better`` then come from a
    Mann-Whitney test over all runs that ranks the diverged ones last.
    """
    x, y = finite(a), finite(b)
    if paired:
        x, y = {s: v for s, v in x.items() if s in y}, {s: v for s, v in y.items() if s in x}
    known = _estimate(x, y, paired)
    result = Comparison(
        "paired" if paired else "welch",
        (len(x), len(y)),
        higher_is_better=higher_is_better,
        **known,
    )
    if result.se is not None:
        result = replace(
            result,
            interval=_interval(result, alpha),
            p_worse=result.p_gain_below(0.0),
            p_better=result.p_gain_above(0.0),
        )
    if not all(map(usable, [*a.values(), *b.values()])):
        worse, better = _rank_tests(a, b, 1.0 if higher_is_better else -1.0)
        result = replace(result, p_worse=worse, p_better=better)
    return result


def usable(value: float) -> bool:
    """Say whether a run's value is a number a mean may contain: finite, and below 1e100."""
    return abs(value) < _HUGE


def finite(values: Mapping[int, float]) -> dict[int, float]:
    """Return the runs that did not diverge, by seed."""
    return {s: float(values[s]) for s in sorted(values) if usable(values[s])}


def _estimate(x: Mapping[int, float], y: Mapping[int, float], paired: bool) -> dict[str, Any]:
    """Return the difference of the means and, from two runs on, its error and freedom."""
    if not x or not y:
        return {}
    difference = fmean(x.values()) - fmean(y.values())
    samples = [[x[s] - y[s] for s in x]] if paired else [list(x.values()), list(y.values())]
    if min(map(len, samples)) < 2:
        return {"difference": difference}
    scale = max(map(abs, [*x.values(), *y.values()]))
    # Below this a spread is rounding noise of subtraction, not a spread.
    sds = tuple(sd if (sd := stdev(sample)) > _NOISE * scale else 0.0 for sample in samples)
    errors = [sd / len(sample) ** 0.5 for sd, sample in zip(sds, samples, strict=True)]
    se = math.hypot(*errors)
    if se == 0:
        digits = 11 - math.floor(math.log10(scale)) if scale else 0
        return {"difference": round(difference, digits), "se": 0.0, "sds": sds}
    # Welch-Satterthwaite; with the one sample of a paired test it is n - 1.
    shares = [(e / se) ** 4 / (len(sample) - 1) for e, sample in zip(errors, samples, strict=True)]
    return {"difference": difference, "se": se, "df": 1 / sum(shares), "sds": sds}


def _interval(result: Comparison, alpha: float) -> tuple[float, float]:
    """Two-sided interval of a difference with a known standard error."""
    from scipy.special import stdtrit

    assert result.difference is not None
    if not result.se:
        return result.difference, result.difference
    half = result.se * float(stdtrit(result.df, 1 - alpha / 2))
    return result.difference - half, result.difference + half


def _rank_tests(a: Mapping[int, float], b: Mapping[int, float], sign: float) -> tuple[float, float]:
    """One-sided p of a worse and of a better than b by ranks, diverged runs last.

    Exact permutations where there are few: the normal approximation calls three runs that
    all diverged against three good ones p = 0.032, and it is 0.05.
    """
    from scipy import stats

    def ranked(values: Mapping[int, float]) -> list[float]:
        return [sign * v if usable(v) else -math.inf for v in values.values()]

    x, y = ranked(a), ranked(b)
    if min(len(x), len(y)) < 2:
        return 1.0, 1.0
    ranks = stats.rankdata(x + y)
    sides = ranks[: len(x)], ranks[len(x) :]

    def p(alternative: str) -> float:
        if math.comb(len(ranks), len(x)) > _PERMUTATIONS:
            return float(stats.mannwhitneyu(*sides, alternative=alternative).pvalue)
        test = stats.permutation_test(
            sides,
            lambda u, v, axis: u.mean(axis=axis) - v.mean(axis=axis),
            vectorized=True,
            n_resamples=_PERMUTATIONS,
            alternative=alternative,
        )
        return float(test.pvalue)

    return (1.0, 1.0) if len(set(ranks)) == 1 else (p("less"), p("greater"))
