"""Tables of what else was measured of generative models, and whether their judges agree."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from lth_zoo.trials.results import DENSE, Results, Run, mean_sd

from . import series
from .panels import percent
from .tables import NONE, Table, number

#: Fewer further metrics than this need no table.
LEAST = 3
#: Fewer runs than this have no rank correlation.
FEW = 3
#: Metric -> what it is called here, where the word means something else too or is from a paper,
#: and which way it is better.
NAMES = {
    "cfd": ("cfd", "lower"),
    "kid": ("kernel distance (Bińkowski et al. 2018)", "lower"),
    "precision": ("precision (Kynkäänniemi et al. 2019)", "higher"),
    "recall": ("recall (Kynkäänniemi et al. 2019)", "higher"),
    "density": ("density (Naeem et al. 2020)", "higher"),
    "coverage": ("coverage (Naeem et al. 2020)", "higher"),
    "entropy": ("entropy of the classes (nats)", "higher"),
    "memorised": ("memorised share (Alaa et al. 2022)", "lower"),
    "reconstruction": ("reconstruction (nats)", "lower"),
    "kl": ("kl (nats)", ""),
    "iwae": ("importance-weighted bound (Burda et al. 2016)", "lower"),
    "mse": ("squared error", "lower"),
    "accuracy": ("accuracy of a judge", "higher"),
}


def generative(results: Results) -> bool:
    """Say whether the models make images: they left some, or are measured against real ones."""
    return any(run.pictures for run in results.runs) or series.floor(results) is not None


def measures_table(results: Results) -> Table:
    """Return every other test metric of dense and of each arm at the last level, mean ± sd.

    No rows where the models make no images, or where little else was measured.
    """
    levels = series.pruned_levels(results)
    last = levels[-1] if levels else 0
    arms = [DENSE, *(a for a in results.arms() if a != DENSE)]
    at = {arm: results.select(arm, 0 if arm == DENSE else last) for arm in arms}
    at = {arm: runs for arm, runs in at.items() if runs}
    names = _further(results, [run for runs in at.values() for run in runs])
    few = len(names) < LEAST or not generative(results)
    rows = [] if few else [(*named(name), *_cells(name, list(at.values()))) for name in names]
    left = percent(1 - results.select("ticket", last)[0].sparsity) if last else "100"
    counts = series.seeds_phrase(len(runs) for runs in at.values())
    note = f"Mean ± one sample standard deviation over {counts}; {left} % of the weights remain."
    title = f"Other test metrics at level {last}"
    columns, words = ("metric", "better", *at), frozenset({0, 1})
    return Table("measures", title, columns, tuple(rows), note, words)


def _further(results: Results, runs: Sequence[Run]) -> list[str]:
    """Return the test metrics besides the headline, its floor and the loss.

    In the order they were written, but all that is of one distance together.
    """
    shown = {results.headline, f"{results.headline}_floor", "loss"}
    known = list(dict.fromkeys(name for run in runs for name in run.metrics.get("test", {})))
    names = [name for name in known if name not in shown]
    return sorted(names, key=lambda n: known.index(b if (b := parts(n)[0]) in known else n))


def parts(metric: str) -> tuple[str, str]:
    """Return what a metric is of, and the end that says of whom.

    >>> parts("cfd_floor"), parts("cfd_1"), parts("active_units")
    (('cfd', 'floor'), ('cfd', '1'), ('active_units', ''))
    """
    base, _, end = metric.rpartition("_")
    return (base, end) if base and (end == "floor" or end.isdigit()) else (metric, "")


def named(metric: str) -> tuple[str, str]:
    """Return what a metric is called in a table, and which way it is better.

    >>> named("density"), named("cfd_1"), named("active_units")
    (('density (Naeem et al. 2020)', 'higher'), ('cfd by judge 1', 'lower'), ('active units', '—'))
    """
    base, end = parts(metric)
    if end == "floor":
        return f"{base}, real against real", NONE
    name, better = NAMES.get(base, (metric.replace("_", " "), ""))
    return f"{base} by judge {end}" if end else name, better or NONE


def _cells(name: str, arms: Sequence[Sequence[Run]]) -> list[str]:
    """Return mean ± sd of each arm, all with as many decimals as the largest has in 3 digits."""
    found = [mean_sd(v for run in runs if math.isfinite(v := _value(run, name))) for runs in arms]
    largest = max((abs(mean) for mean, _, n in found if n), default=0.0)
    digits = min(max(2 - math.floor(math.log10(largest)), 0), 5) if largest else 0
    return [
        f"{number(mean, digits)}{f' ± {number(sd, digits)}' * (n > 1)}" if n else NONE
        for mean, sd, n in found
    ]


def _value(run: Run, name: str) -> float:
    return run.metrics.get("test", {}).get(name, math.nan)


# -- judges ------------------------------------------------------------------------------------


def agreement_table(results: Results) -> Table:
    """Return the rank correlation of one distance by several judges, over all runs.

    ``cfd``, ``cfd_1`` and ``cfd_2`` are one distance by three classifiers. No rows where there is
    one judge, too few runs, or where the models make no images.
    """
    rows = []
    runs = [run for run in results.runs if not run.error]
    for names in _judged(runs) if generative(results) else []:
        for a, b in itertools.combinations(names, 2):
            pairs = [(_value(run, a), _value(run, b)) for run in runs]
            pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
            if len(pairs) >= FEW:
                rows.append((_by(a), _by(b), _spearman(pairs), str(len(pairs))))
    note = (
        "Spearman's rank correlation over all runs of the recipe, of the same distance by "
        "classifiers that differ in their seed. 1: they put the runs into one order."
    )
    columns, words = ("distance", "and", "rank correlation", "runs"), frozenset({0, 1})
    return Table("agreement", "Do the judges agree?", columns, tuple(rows), note, words)


def _judged(runs: Sequence[Run]) -> list[list[str]]:
    """Return the metrics that are one distance by several judges: the first, then by number."""
    known = dict.fromkeys(name for run in runs for name in run.metrics.get("test", {}))
    groups = {n: [n, *(m for m in known if re.fullmatch(rf"{re.escape(n)}_\d+", m))] for n in known}
    return [names for names in groups.values() if len(names) > 1]


def _by(metric: str) -> str:
    base, judge = parts(metric)
    return f"{base} by judge {judge or 0}"


def _spearman(pairs: Sequence[tuple[float, float]]) -> str:
    from scipy.stats import spearmanr

    if any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return NONE
    return number(float(spearmanr(*zip(*pairs, strict=True)).statistic), 3)
