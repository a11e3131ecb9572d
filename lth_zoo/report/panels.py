"""The parts that figures share: arms with their spread, the sparsity axis, legends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from lth_zoo.trials.results import DENSE, TICKET, Results

from . import series
from .series import Point, seeds_phrase
from .style import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Fewer points than this get error bars instead of a band.
BAND_FROM = 3


def percent(density: float) -> str:
    """Return a share as percent in the field's way.

    >>> percent(1.0), percent(0.41), percent(0.0352), percent(0.0012)
    ('100', '41.0', '3.52', '0.12')
    """
    value = 100 * density
    if value >= 99.95:
        return "100"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def draw_dense(axes: Axes, dense: Point | None, look: Mapping[str, Look]) -> None:
    """Draw dense as a level line with one sd around it."""
    if dense:
        colour = look[DENSE].colour
        axes.axhspan(dense.low, dense.high, color=colour, alpha=0.10, linewidth=0)
        axes.axhline(dense.mean, color=colour, linestyle="--", linewidth=1.2, label=DENSE)


def draw_floor(grid: Any, results: Results, colour: str) -> str:
    """Draw the headline of real data where a panel reaches it; return the caption's sentence.

    ``grid`` are panels, (rows, sides); those below the first row show everything, so this too.
    """
    floor = series.floor(results)
    if floor is None:
        return ""
    reached = False
    for axes in grid.flat:
        low, high = axes.get_ylim()
        if axes not in grid[0] or low <= floor <= high:
            reached = True
            axes.axhline(floor, color=colour, linestyle=(0, (1, 3)), linewidth=1.2, zorder=1)
            place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
            axes.text(0.995, floor, "real against real", color=colour, fontsize=8, **place)
    shown = f"{floor:.{series.decimals(results)}f}"
    what = f"the {results.headline} of one sample of real images against another, {shown}"
    return f" Thin dots: {what}." if reached else f" Out of the frame: {what}."


def draw_arms(
    axes: Axes, arms: Mapping[str, Sequence[Point]], dense: Point | None, look: Mapping[str, Look]
) -> None:
    """Draw dense and every arm over sparsity: its mean with one sd around it.

    An arm with few levels has bars, set a little apart so that none hides another.
    """
    draw_dense(axes, dense, look)
    drawn = {arm: list(points) for arm, points in arms.items() if points}
    span = math.log(1 / min(p.density for points in drawn.values() for p in points))
    for i, (arm, points) in reversed(list(enumerate(drawn.items()))):
        if len(points) < BAND_FROM:
            _bars(axes, arm, points, look[arm], math.exp(0.008 * i * span))
        else:
            start = [dense] if dense and arm == TICKET else []  # at 100 % the ticket is dense
            _line(axes, arm, start, points, look[arm])


def _line(axes: Axes, arm: str, start: list[Point], points: list[Point], look: Look) -> None:
    line = [*start, *points]
    x, mean = [100 * p.density for p in line], [p.mean for p in line]
    top, alpha = (4, 0.22) if arm == TICKET else (3, 0.13)
    marks = slice(len(start), None)
    style: dict[str, Any] = {
        "color": look.colour,
        "marker": look.marker,
        "markevery": marks,
        "label": arm,
    }
    axes.plot(x, mean, zorder=top, **style)
    low, high = [p.low for p in line], [p.high for p in line]
    axes.fill_between(x, low, high, color=look.colour, alpha=alpha, linewidth=0, zorder=2)


def _bars(axes: Axes, arm: str, points: list[Point], look: Look, shift: float) -> None:
    x, mean, sd = zip(*((100 * p.density * shift, p.mean, p.sd) for p in points), strict=True)
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "label": arm}
    axes.errorbar(x, mean, sd, linestyle="-" if len(x) > 1 else "none", capsize=3, **style)


def draw_strip(
    axes: Axes, arms: Mapping[str, Sequence[Point]], dense: Point | None, look: Mapping[str, Look]
) -> None:
    """Draw arms of one level side by side: every seed as a dot, mean and one sd as a bar."""
    draw_dense(axes, dense, look)
    columns = {DENSE: dense} if dense else {}
    columns |= {arm: points[0] for arm, points in arms.items() if points}
    for x, (arm, point) in enumerate(columns.items()):
        style: dict[str, Any] = {"color": look[arm].colour, "marker": look[arm].marker or "o"}
        axes.errorbar([x + 0.1], [point.mean], [point.sd], capsize=4, **style)
        dots = [x - 0.1] * point.n
        axes.scatter(dots, point.values, s=12, color=look[arm].colour, alpha=0.5, linewidths=0)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    # Recipes that prune edges too have more arms than names fit side by side.
    fold = any(point.edges < 1 for point in columns.values())
    axes.set_xticks(range(len(columns)), [n.replace("-", "-\n") if fold else n for n in columns])
    axes.grid(False, axis="x")


def draw_seeds(axes: Axes, points: Iterable[Point], look: Look) -> None:
    """Draw each seed's value as a faint dot."""
    dots = [(100 * p.density, value) for p in points for value in p.values]
    if dots:
        x, y = zip(*dots, strict=True)
        axes.scatter(x, y, s=9, color=look.colour, alpha=0.35, linewidths=0, zorder=2.5)


def weights_side(point: Point) -> Point:
    """Return the point as it lies over the weights that remain."""
    return point


def edges_side(point: Point) -> Point:
    """Return the point as it lies over the edges that remain: they take the weights' place."""
    return replace(point, density=point.edges)


#: What an axis may show: how a point lies on it, and what it says.
SIDES = {"prunable weights": weights_side, "edges": edges_side}


def sides_of(arms: Mapping[str, Sequence[Point]]) -> dict[str, dict[str, list[Point]]]:
    """Return the axes that anything is pruned along: what remains -> arm -> its points there.

    An arm that keeps all of something is left out there. Weights alone where nothing is pruned.
    """
    found = {
        what: {
            arm: [side(p) for p in points]
            for arm, points in arms.items()
            if any(side(p).density < 1 for p in points)
        }
        for what, side in SIDES.items()
    }
    shown = {what: here for what, here in found.items() if here}
    return shown or {next(iter(SIDES)): {arm: list(points) for arm, points in arms.items()}}


def sparsity_axis(
    axes: Axes, points: Iterable[Point], what: str = "prunable weights", ticks: int = 16
) -> None:
    """Make x the percent that remains, of weights or edges: logarithmic, dense at the left."""
    from matplotlib.ticker import FixedLocator, NullLocator

    found = sorted({p.density for p in points}, reverse=True)
    high, low = max(found[0], 1.0), found[-1]
    axes.set_xscale("log")
    pad = max((high / low) ** 0.03, 1.03)
    axes.set_xlim(100 * high * pad, 100 * low / pad)
    at = spaced_ticks(found, ticks)
    axes.xaxis.set_major_locator(FixedLocator([100 * t for t in at]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([percent(t) for t in at])
    axes.set_xlabel(f"percent of {what} remaining (log scale)")


def spaced_ticks(densities: Sequence[float], most: int = 16) -> list[float]:
    """Return those of the densities, descending, that stand apart on a log axis.

    Both ends stay.
    """
    if len(densities) < 2:
        return list(densities)
    apart = math.log(densities[0] / densities[-1]) / most
    ticks = [densities[0]]
    for density in densities[1:-1]:
        near_last = math.log(density / densities[-1]) < apart
        if math.log(ticks[-1] / density) >= apart and not near_last:
            ticks.append(density)
    return [*ticks, densities[-1]]


def legend(figure: Figure, *panels: Axes, columns: int = 6) -> None:
    """Put the legend above the panels, dense and ticket first, where it hides nothing."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels, handles = list(found), list(found.values())
    first = {DENSE: 0, TICKET: 1}
    order = sorted(range(len(labels)), key=lambda i: (first.get(labels[i], 2), -i))
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside upper left",
        ncols=min(len(order), columns),
        columnspacing=1.4,
        handlelength=1.8,
    )


def spread_words(shown: Sequence[Point], dense: Point | None) -> str:
    """Return what lines and bands mean, for a caption."""
    seeds = seeds_phrase(p.n for p in shown)
    if max(p.n for p in shown) == 1:
        return "One seed: no spread is known." + (" Dashes: the dense network." if dense else "")
    dashes = " Dashes: the dense network, with the same band." if dense else ""
    return f"Mean over {seeds}; bands or bars: ± one sample standard deviation.{dashes}"


def short_names(names: Sequence[str], most: int = 34) -> list[str]:
    """Return layer names without ``.weight`` and without what all begin with, cut at the front.

    >>> short_names(["bert.layer.0.query.weight", "bert.layer.1.query.weight", "all"])
    ['0.query', '1.query', 'all']
    """
    plain = [name.removesuffix(".weight") for name in names]
    dotted = [name.split(".")[:-1] for name in plain if name != "all"]
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*dotted, strict=False))
    shared = len(list(same)) if len(dotted) > 1 else 0
    ends = [n if n == "all" else ".".join(n.split(".")[shared:]) for n in plain]
    return [n if len(n) <= most else "…" + n[1 - most :] for n in ends]
