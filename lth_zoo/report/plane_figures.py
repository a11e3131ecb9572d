"""The figures of both sparsities: what still matches dense, with its front; and a heat map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lth_zoo.trials.results import DENSE, TICKET

from . import panels, series
from .figures import WIDTH, Picture
from .heatmap import Square, margins, picture_of
from .panels import percent
from .plane import Plane, Spot, front, rule_words
from .style import Look, Theme, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Points between the lanes of arms that keep as much as each other.
LANE = 6.5
Tracks = Sequence[tuple[str, Sequence[Spot]]]


def pareto_picture(
    found: Sequence[Sequence[Spot]], arms: Sequence[str], several: bool = False
) -> Picture | None:
    """Return the plane with every arm's levels and the front; None where one axis is not pruned.

    ``found`` are the spots of each recipe, ``arms`` all those of the report.
    """
    every = [spot for spots in found for spot in spots]
    if len({s.pair[0] for s in every}) < 2 or len({s.pair[1] for s in every}) < 2:
        return None
    tracks = _distinct(
        (arm, [spot for spot in spots if spot.arm == arm])
        for spots in found
        for arm in dict.fromkeys(spot.arm for spot in spots)
    )
    caption = (
        f"Each mark is an arm at a level; filled: {rule_words(every)}; hollow: not. Sparser is "
        "further up (weights) and further right (edges); the diamond is dense. Arms that keep as "
        "many of both run side by side, the ticket in its place."
    )
    caption += (
        " Line and shade: the front, and all that is denser." if front(every) else " None matches."
    )
    caption += " A line joins the levels of one recipe." * several

    def draw(figure: Figure, theme: Theme) -> None:
        figure.set_size_inches(WIDTH, 6.0)
        axes = figure.subplots()
        _both_axes(axes, every)
        _front(axes, front(every), theme)
        _tracks(axes, tracks, looks(arms, theme), theme)
        axes.plot([100], [100], marker="D", color=theme.ink, linestyle="none", label=DENSE)
        panels.legend(figure, axes)

    return picture_of("pareto", "Which sparsities still match dense", caption, draw)


def _distinct(tracks: Iterable[tuple[str, list[Spot]]]) -> Tracks:
    """Return the tracks, each once: recipes of one plane share runs."""
    return list(
        {(arm, tuple(s.pair for s in spots)): (arm, spots) for arm, spots in tracks}.values()
    )


def _both_axes(axes: Axes, found: Sequence[Spot]) -> None:
    panels.sparsity_axis(axes, [_at(1.0), *(_at(spot.edges) for spot in found)], "edges", 12)
    # The other axis takes the same steps, standing.
    _upward(axes.yaxis, [spot.weights for spot in found])
    axes.set_ylabel("percent of prunable weights remaining (log scale)")


def _at(density: float) -> series.Point:
    return series.Point(0, density, 0.0, 0.0, ())


def _upward(axis: Axis, densities: Sequence[float]) -> None:
    """Make the upright axis what :func:`panels.sparsity_axis` makes the lying one."""
    from matplotlib.ticker import FixedLocator, NullLocator

    found = sorted({1.0, *densities}, reverse=True)
    pad = max((1.0 / found[-1]) ** 0.03, 1.03)
    axis.axes.set_yscale("log")
    axis.axes.set_ylim(100 * pad, 100 * found[-1] / pad)
    ticks = panels.spaced_ticks(found, 14)
    axis.set_major_locator(FixedLocator([100 * t for t in ticks]))
    axis.set_minor_locator(NullLocator())
    axis.set_ticklabels([percent(t) for t in ticks])


def _tracks(axes: Axes, tracks: Tracks, look: Mapping[str, Look], theme: Theme) -> None:
    from matplotlib.transforms import ScaledTranslation

    named: set[str] = set()
    for (arm, spots), lane in reversed(list(zip(tracks, _lanes(tracks), strict=True))):
        # Lanes lie across the diagonal on which both sparsities grow.
        shift = LANE * lane / math.sqrt(2) / 72
        place = axes.transData + ScaledTranslation(shift, -shift, axes.figure.dpi_scale_trans)
        colour, marker = look[arm].colour, look[arm].marker
        x, y = [100 * s.edges for s in spots], [100 * s.weights for s in spots]
        style: dict[str, Any] = {"color": colour, "transform": place, "clip_on": False}
        axes.plot(x, y, linewidth=0.8, alpha=0.5, zorder=3, **style)
        for filled in sorted({spot.matches for spot in spots}):
            here = [i for i, spot in enumerate(spots) if spot.matches == filled]
            face = colour if filled else theme.paper
            axes.plot(
                *([x[i] for i in here], [y[i] for i in here]),
                linestyle="none",
                marker=marker,
                markersize=6 if arm == TICKET else 5,
                markerfacecolor=face,
                zorder=5 if arm == TICKET else 4,
                **style,
            )
        if arm not in named:
            axes.plot([], [], color=colour, marker=marker, label=arm)
        named.add(arm)


def _lanes(tracks: Tracks) -> list[int]:
    """Return the lane of each track: 0 for the ticket and for whoever is alone, then both sides."""
    taken: dict[tuple[tuple[float, float], ...], int] = {}
    order = sorted(range(len(tracks)), key=lambda i: (tracks[i][0] != TICKET, i))
    lanes = [0] * len(tracks)
    for i in order:
        key = tuple(spot.pair for spot in tracks[i][1])
        count = taken.get(key, 0)
        taken[key] = count + 1
        lanes[i] = (count + 1) // 2 * (1 if count % 2 else -1)
    return lanes


def _front(axes: Axes, pairs: Sequence[tuple[float, float]], theme: Theme) -> None:
    """Draw the front as stairs from the sparsest in weights to the sparsest in edges."""
    if not pairs:
        return
    x, y = [100.0], [100 * pairs[0][0]]
    for (weights, edges), after in zip(pairs, [*pairs[1:], (1.0, 1.0)], strict=True):
        x += [100 * edges, 100 * edges]
        y += [100 * weights, 100 * after[0]]
    axes.fill([*x, 100.0], [*y, 100.0], color=theme.muted, alpha=0.12, linewidth=0, zorder=1)
    axes.plot(x, y, color=theme.ink, linewidth=1.3, linestyle=(0, (4, 2)), zorder=2)


def plane_pictures(plane: Plane, arms: Sequence[str]) -> list[Picture]:
    """Return the heat map of a plane, and its front over all recipes."""
    grid = [[_square(plane, weights, edges) for edges in plane.edges] for weights in plane.weights]
    first = plane.results[0]
    caption = (
        f"Test {first.headline}, mean ± one sample standard deviation, and the number of seeds. "
        "Colour: the difference from dense in margins, blue is better, logarithmic beyond one "
        f"margin of {first.margin:.4g}. ✓: {rule_words(plane.every)}. Where all of one is kept, "
        "the ticket's other half is undone."
    )

    def draw(figure: Figure, theme: Theme) -> None:
        rows = [f"{percent(weights)} %" for weights in plane.weights]
        columns = [f"{percent(edges)} %" for edges in plane.edges]
        axes = margins(figure, theme, grid, rows, columns)
        axes.set_ylabel("weights remaining")
        axes.set_xlabel("edges remaining")
        axes.xaxis.set_label_position("top")

    title = f"Test {first.headline} over both sparsities"
    heat = picture_of("plane", title, caption, draw)
    front_of_all = pareto_picture(plane.spots, arms, several=True)
    return [heat, *([front_of_all] if front_of_all else [])]


def _square(plane: Plane, weights: float, edges: float) -> Square:
    """Return what stands at a pair: mean, sd and n, and the difference from dense in margins."""
    results = plane.results[0]
    digits = max(1, series.decimals(results) - 1)
    spot = plane.cells.get((weights, edges))
    dense = series.dense_point(results) if weights == edges == 1.0 else None
    found = spot or dense
    if found is None:
        return "not run", None, False
    mark = " ✓" if spot and spot.matches else ""
    spread = f"± {found.sd:.{digits}f}" if found.n > 1 else ""
    lines = [f"{found.mean:.{digits}f}{mark}", spread, f"n={found.n}"]
    if spot is None:
        return "\n".join(filter(None, ["dense", *lines[:2]])), 0.0, True
    sign = 1 if results.higher_is_better else -1
    value = None if spot.difference is None else sign * spot.difference / results.margin
    return "\n".join(filter(None, lines)), value, False
