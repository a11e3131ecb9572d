"""The numbers behind figures and tables: means and spreads of arms over seeds."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lth_zoo.trials.results import DENSE, TICKET, Results, Run, mean_sd


@dataclass(frozen=True)
class Point:
    """One arm at one level: density, and mean, sample sd and single values over its seeds.

    ``density`` is the kept share of the weights, ``edges`` that of a graph's edges.
    """

    level: int
    density: float
    mean: float
    sd: float
    values: tuple[float, ...]
    edges: float = 1.0

    @property
    def n(self) -> int:
        """Number of seeds with a finite value."""
        return len(self.values)

    @property
    def low(self) -> float:
        """Mean less one sd."""
        return self.mean - self.sd

    @property
    def high(self) -> float:
        """Mean plus one sd."""
        return self.mean + self.sd


def headline(run: Run, results: Results, split: str = "test") -> float:
    """Return the headline metric of a run; nan where it was not measured or diverged."""
    if "diverged" in run.flags:
        return math.nan
    return run.metrics.get(split, {}).get(results.headline, math.nan)


def points(results: Results, arm: str, value: Callable[[Run], float] | None = None) -> list[Point]:
    """Return an arm level by level; ``value`` of a run is the headline test metric by default.

    Values that are not finite are left out; a level without any is left out.
    """
    measure = value or (lambda run: headline(run, results))
    found = []
    for level in results.levels():
        runs = results.select(arm, level)
        values = [v for v in map(measure, runs) if math.isfinite(v)]
        if values:
            mean, sd, _ = mean_sd(values)
            density = statistics.fmean(run.density for run in runs)
            edges = statistics.fmean(1.0 - run.graph_sparsity for run in runs)
            found.append(Point(level, density, mean, sd, tuple(values), edges))
    return found


def dense_point(results: Results, value: Callable[[Run], float] | None = None) -> Point | None:
    """Return the dense network's point, or None where no dense run finished."""
    return next(iter(points(results, DENSE, value)), None)


def early_stop(run: Run) -> float:
    """Return the iteration of the lowest validation loss; nan where none was recorded."""
    return float(run.early_stop) if run.early_stop > 0 or run.curve else math.nan


def pruned_levels(results: Results) -> list[int]:
    """Return the levels at which a ticket finished, ascending."""
    return [level for level in results.levels() if level and results.select(TICKET, level)]


def controls(results: Results) -> list[str]:
    """Return every arm but dense and the ticket."""
    return [arm for arm in results.arms() if arm not in (DENSE, TICKET)]


def other_sizes(results: Results) -> dict[str, dict[int, int]]:
    """Return arm -> level -> parameters, of dense arms with fewer than the ticket's network."""
    whole = max((run.parameters for run in results.runs), default=0)
    found: dict[str, dict[int, int]] = {}
    for run in results.runs:
        if not run.error and not run.layers and run.parameters < whole:
            found.setdefault(run.arm, {})[run.level] = run.parameters
    return found


def reinit_arm(results: Results) -> str:
    """Return the re-initialisation control; the first control, or "", where there is none."""
    names = controls(results)
    plain = {name: name.lower().replace("-", "").replace("_", "") for name in names}
    return next((n for n in names if plain[n].startswith("reinit")), names[0] if names else "")


def training_curve(
    results: Results, arm: str, level: int
) -> tuple[list[float], list[float], list[float]]:
    """Return iterations, and mean and sd over seeds of the validation headline metric there."""
    rows: defaultdict[float, list[float]] = defaultdict(list)
    for run in results.select(arm, level):
        for row in run.curve:
            value = row.get(f"validation_{results.headline}", math.nan)
            if math.isfinite(value):
                rows[row["iteration"]].append(value)
    at = sorted(rows)
    stats = [mean_sd(rows[i]) for i in at]
    return at, [s[0] for s in stats], [s[1] for s in stats]


def layer_densities(results: Results, level: int) -> dict[str, float]:
    """Return prunable name -> mean density over the seeds' tickets; input first, "all" last."""
    shares: defaultdict[str, list[float]] = defaultdict(list)
    runs = [run for run in results.select(TICKET, level) if run.layers]
    for run in runs:
        for name, (kept, total) in run.layers.items():
            shares[name].append(kept / total if total else 1.0)
        shares[""].append(run.density)
    means = {name: statistics.fmean(values) for name, values in shares.items() if name}
    return {**means, "all": statistics.fmean(shares[""])} if means else {}


def floor(results: Results) -> float | None:
    """Return the mean over runs of ``HEADLINE_floor``, the headline of real data; None without one.

    It is what the metric says of two samples of real images: no model is to be better.
    """
    name = f"{results.headline}_floor"
    values = [run.metrics.get("test", {}).get(name, math.nan) for run in results.runs]
    known = [value for value in values if math.isfinite(value)]
    return statistics.fmean(known) if known else None


def margin_said(margin: float, share: float) -> str:
    """Return a margin in words; ``share`` is what it is of the dense mean, or 0.

    >>> margin_said(0.3, 0), margin_said(0.198765, 0.05)
    ('0.3', '0.1988 (5 % of the dense mean)')
    """
    return f"{margin:.4g}" + (f" ({100 * share:g} % of the dense mean)" if share else "")


def decimals(results: Results) -> int:
    """Return how many decimals show the headline metric: 2, more where the margin is tiny."""
    if results.margin <= 0:
        return 2
    return min(max(2, math.ceil(-math.log10(results.margin)) + 1), 6)


def window(
    shown: Sequence[Point], centre: Point | None, reach: float, higher_is_better: bool
) -> tuple[float, float, bool] | None:
    """Return y-limits around the dense network ``centre``, and whether they cut something off.

    The good side is never cut. The bad side ends ``reach`` (at least 4 sd) from the centre,
    unless the whole of it is hardly wider than that.
    """
    if not shown or centre is None:
        return None
    low, high = min(p.low for p in shown), max(p.high for p in shown)
    reach = max(reach, 4 * centre.sd)
    if higher_is_better:
        limits = (centre.mean - reach, max(high, centre.high))
    else:
        limits = (min(low, centre.low), centre.mean + reach)
    cut = high - low > 1.5 * (limits[1] - limits[0])
    if not cut:
        limits = (low, high)
    pad = 0.05 * (limits[1] - limits[0]) or 0.01 * abs(high) or 1.0
    return limits[0] - pad, limits[1] + pad, cut


def stretched(limits: tuple[float, float], to: float | None) -> tuple[float, float]:
    """Return y-limits that reach a value, unless that would make them much wider."""
    low, high = limits
    if to is None or max(low - to, to - high) > 0.6 * (high - low):
        return limits
    pad = 0.05 * (high - low)
    return min(low, to - pad), max(high, to + pad)


def best_ticket(results: Results) -> Point | None:
    """Return the level at which the ticket's mean is best."""
    tickets = points(results, TICKET)
    pick = max if results.higher_is_better else min
    return pick(tickets, key=lambda p: p.mean) if tickets else None


def seeds_phrase(counts: Iterable[int]) -> str:
    """Return how many seeds a mean has, such as ``5 seeds`` or ``3 to 5 seeds``.

    >>> seeds_phrase([5, 3]), seeds_phrase([1])
    ('3 to 5 seeds', '1 seed')
    """
    found = sorted(set(counts)) or [0]
    if len(found) == 1:
        return f"{found[0]} seed{'' if found[0] == 1 else 's'}"
    return f"{found[0]} to {found[-1]} seeds"
