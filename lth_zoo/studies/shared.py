"""What several studies need: arms of a searched recipe, and cells of tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from .. import registry
from ..errors import BadInput
from ..experiment import Arm, Experiment, experiment
from ..jobs import TICKET, Job
from ..masks import DATA
from ..protocols import Finder, Yardstick
from ..recipe import Recipe, finder_name
from ..rewind import Rewind
from .base import Measured


def searched(recipe: Recipe, data: Path | None, controls: Sequence[str] = ()) -> Experiment:
    """Return a recipe's dense runs and tickets, with these controls in place of its own.

    Raises:
        BadInput, DataError: see :func:`lth_zoo.experiment.experiment`.
    """
    return experiment(replace(recipe, controls=tuple(controls)), data)


def fitting(
    recipe: Recipe,
    names: Sequence[str],
    data: Path | None,
    made: Callable[[str], Finder] | None = None,
) -> tuple[dict[str, Experiment], dict[str, str]]:
    """Return the search of every finder that suits a recipe, and why the others do not.

    ``names`` are those of finders, all where none is given; the recipe's own keeps its settings,
    ``made`` gives the others theirs (default: their defaults).
    """
    own, found, why = finder_name(recipe.finder), dict[str, Experiment](), dict[str, str]()
    for name in names or registry.names("finders"):
        try:
            finder = made(name) if made else registry.find("finders", name)()
            chosen = recipe.finder if name == own and made is None else finder
            found[name] = searched(replace(recipe, finder=chosen), data)
        except BadInput as error:
            why[name] = str(error)
    return found, why


def tickets_at(one: Experiment, levels: Sequence[int]) -> list[Arm]:
    """Return the tickets of the levels asked for, of every seed; the last level's where none is.

    Raises:
        BadInput: the search has no such level.
    """
    found = [arm for arm in one.arms if arm.name == TICKET]
    known = sorted({arm.level.index for arm in found})
    if not known:
        raise BadInput(f"sparsity is {one.recipe.sparsity}: there is no ticket to look at")
    for level in levels:
        if level not in known:
            raise BadInput(f"level {level} is not searched; levels are {known[0]} to {known[-1]}")
    return [arm for arm in found if arm.level.index in (levels or known[-1:])]


def grouped(
    measured: Iterable[Measured], *by: str
) -> dict[tuple[Any, ...], dict[int, Mapping[str, Any]]]:
    """Return results by the values of these labels, then by seed, in the order they came."""
    found: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    for one in measured:
        found.setdefault(tuple(one.of[name] for name in by), {})[one.of["seed"]] = one.result
    return found


def mean_sd(values: Iterable[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, 0 of a single value, NaN of none."""
    known = list(values)
    if not known:
        return math.nan, math.nan
    return fmean(known), stdev(known) if len(known) > 1 else 0.0


def cell(values: Iterable[float], digits: int = 2) -> str:
    """Return ``98.10 ± 0.07``; without the spread where there is one value.

    >>> cell([1.0, 2.0], 1), cell([1.0], 1), cell([])
    ('1.5 ± 0.7', '1.0', 'nothing')
    """
    known = list(values)
    if not known:
        return "nothing"
    mean, sd = mean_sd(known)
    return f"{mean:.{digits}f} ± {sd:.{digits}f}" if len(known) > 1 else f"{mean:.{digits}f}"


def value_of(one: Measured, by: Yardstick) -> float:
    """Return the headline metric of a training on the test part."""
    return float(one.result["metrics"]["test"][by.headline])


def kept_share(trained: Iterable[Measured], edges: bool = False) -> float | None:
    """Return which share of the weights that masks cover was kept, over these trainings.

    With ``edges`` it is that of the graph's edges; None where no mask covers any.
    """
    counts = [
        pair
        for one in trained
        for name, pair in one.result["masks"].items()
        if name.startswith(DATA) is edges
    ]
    size = sum(of for _, of in counts)
    return sum(kept for kept, _ in counts) / size if size else None


def sparse(trained: Sequence[Measured]) -> str:
    """Return how sparse trainings are, in words: of a graph its edges beside the weights.

    Empty where no mask covers anything.
    """
    shares = kept_share(trained), kept_share(trained, edges=True)
    words = ("{:.2f} % sparse", "{:.2f} % of the edges removed")
    found = [w.format(100 * (1 - s)) for w, s in zip(words, shares, strict=True) if s is not None]
    return ", ".join(found)


def signed(
    difference: float | None, interval: Sequence[float] | None = None, digits: int = 2
) -> str:
    """Return a difference with its interval, empty where there is none.

    >>> signed(1.5, (-0.5, 3.5)), signed(-0.25), signed(None)
    ('+1.50 [-0.50, +3.50]', '-0.25', '')
    """
    if difference is None:
        return ""
    bounds = "" if interval is None else f" [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"
    return f"{difference:+.{digits}f}{bounds}"


def points_of(recipe: Recipe, points: Sequence[str]) -> dict[str, int]:
    """Return rewind rules and the iterations they mean, earliest first: ``init`` is 0.

    Raises:
        BadInput: a rule is none of init, step=K and P%, or not before the end.
    """
    whole, found = recipe.training.iterations, dict[int, str]()
    for point in points:
        rewind = Rewind.parse(point, whole)
        if rewind.kind not in ("init", "step") or rewind.at >= whole:
            raise BadInput(
                f"point {point!r} is no place before the end of the dense run: give init, step=K "
                f"or P%, below {whole} iterations"
            )
        found[rewind.at] = f"step={rewind.at}" if rewind.at else "init"
    if not found:
        raise BadInput("study.points must hold at least one: init, step=K or P%")
    return {rule: at for at, rule in sorted(found.items())}


def reads(train: Job) -> dict[str, Any]:
    """Return what a job of a study's own needs of a training's config to build model and task."""
    names = ("model", "task", "data", "max_length", "data_fraction", "seed")
    return {name: train.config[name] for name in names if name in train.config}


def between(values: tuple[float, float] | None, digits: int = 2) -> str:
    """Return an interval as ``[0.10, 0.30]``, empty where there is none.

    >>> between((-0.1, 2.25), 1), between(None)
    ('[-0.1, 2.2]', '')
    """
    return f"[{values[0]:.{digits}f}, {values[1]:.{digits}f}]" if values else ""


def told(interval: tuple[float, float] | None) -> int:
    """Return the side of 0 that a whole interval is on, -1 or 1; 0 where it says neither.

    >>> told((0.1, 0.5)), told((-0.1, 0.5)), told(None)
    (1, 0, 0)
    """
    return 0 if interval is None else (interval[0] > 0) - (interval[1] < 0)
