"""The figures of a report: accuracy, early stop, density by layer, and training curves."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lth_zoo.trials.results import DENSE, TICKET, Results, Run

from . import panels, series
from .amounts import left_words
from .panels import percent
from .series import Point
from .style import DARK, LIGHT, Look, Theme, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
WIDTH = 8.4


@dataclass(frozen=True)
class Picture:
    """One figure as PNG, on light and on dark paper, with what a caption has to say."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes


#: Draws into an empty figure and returns the caption; "" where there is nothing to draw.
Drawing = Callable[["Figure", Results, Mapping[str, Look]], str]


def pictures(results: Results, arms: Iterable[str] = ()) -> list[Picture]:
    """Draw every figure for which the results hold numbers.

    ``arms`` are all the arms of a report, so that one arm has one colour in all of it.
    """
    arms = [*arms, *results.arms()]
    drawings: dict[str, tuple[str, Drawing]] = {
        "accuracy": (f"Test {results.headline} against sparsity", draw_accuracy),
        "early-stop": ("Early-stop iteration against sparsity", draw_early_stop),
        "density": ("Density by layer", draw_density),
        "training": (f"Validation {results.headline} along training", draw_training),
    }
    found = []
    for name, (title, draw) in drawings.items():
        caption, light = _render(draw, results, arms, LIGHT)
        if caption:
            dark = _render(draw, results, arms, DARK)[1]
            found.append(Picture(name, title, caption, light, dark))
    return found


def _render(
    draw: Drawing, results: Results, arms: Sequence[str], theme: Theme
) -> tuple[str, bytes]:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(theme.rc()):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        caption = draw(figure, results, looks(arms, theme))
        if not caption:
            return "", b""
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return caption, out.getvalue()


def draw_accuracy(figure: Figure, results: Results, look: Mapping[str, Look]) -> str:
    """Draw the headline test metric of every arm against the share of weights remaining.

    The frame is chosen around the dense network, so that Occam's hill shows; where arms
    collapse out of it, or real data is far, a second panel has the full range.
    """
    arms = _arms(results)
    dense = series.dense_point(results)
    if not any(arms.values()):
        return ""
    shown = [p for found in arms.values() for p in found] + ([dense] if dense else [])
    frame = _frame(results, shown, dense)
    collapsed, real = bool(frame and frame[2]), series.floor(results)
    far = bool(frame and real is not None and not frame[0] <= real <= frame[1])
    cut = collapsed or far
    figure.set_size_inches(WIDTH, 6.4 if cut else 4.6)
    grid, dots = _sided(figure, results, arms, dense, look, cut)
    for side in range(grid.shape[1]):
        margin = _margin_line(grid[0, side], results, dense, look)
    grid[0, 0].set_ylabel(f"test {results.headline}")
    if frame:
        grid[0, 0].set_ylim(*frame[:2])
    if cut:
        grid[1, 0].set_ylabel("full range")
    floor = panels.draw_floor(grid, results, look[DENSE].colour)
    better = "Higher" if results.higher_is_better else "Lower"
    return (
        f"{panels.spread_words(shown, dense)}{dots}{margin}{floor}"
        + (
            " Arms that collapse leave the upper frame; the lower panel has all of them."
            * collapsed
        )
        + f" {better} is better."
    )


def draw_early_stop(figure: Figure, results: Results, look: Mapping[str, Look]) -> str:
    """Draw the iteration of minimum validation loss of every arm against sparsity."""
    value = series.early_stop
    arms = _arms(results, value)
    dense = series.dense_point(results, value)
    if not any(arms.values()):
        return ""
    shown = [p for found in arms.values() for p in found] + ([dense] if dense else [])
    grid, dots = _sided(figure, results, arms, dense, look)
    grid[0, 0].set_ylim(bottom=0)
    grid[0, 0].set_ylabel("iteration of minimum validation loss")
    words = panels.spread_words(shown, dense)
    return f"How fast each arm learns: lower is faster. {words}{dots}"


def draw_density(figure: Figure, results: Results, look: Mapping[str, Look]) -> str:
    """Draw the ticket's density in each layer, a heat map over levels (bars for one level)."""
    levels = series.pruned_levels(results)
    columns = {level: d for level in levels if (d := series.layer_densities(results, level))}
    if not columns:
        return ""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    names = [*(n for n in names if n != "all"), "all"]
    figure.set_size_inches(WIDTH, min(1.5 + 0.3 * len(names), 11))
    axes = figure.subplots()
    axes.grid(False)
    if len(columns) == 1:
        _density_bars(axes, names, next(iter(columns.values())), look[TICKET].colour)
    else:
        _density_map(figure, axes, names, columns)
        if results.prunes_edges:
            _edges_below(axes, results, list(columns))
    axes.set_yticks(range(len(names)), panels.short_names(names))
    if len(names) > 40:
        axes.tick_params(axis="y", labelsize=6)
    counts = seeds_of(results, levels)
    return f"Share of each layer's weights that the ticket keeps; mean over {counts}."


def seeds_of(results: Results, levels: Iterable[int]) -> str:
    """Return how many seeds' tickets finished at these levels, in words."""
    return series.seeds_phrase(len(results.select(TICKET, level)) for level in levels)


def draw_training(figure: Figure, results: Results, look: Mapping[str, Look]) -> str:
    """Draw the validation metric along training: dense, ticket and re-init at three levels."""
    arms = [TICKET, *filter(None, [series.reinit_arm(results)])]
    levels = [
        level
        for level in series.pruned_levels(results)
        if series.training_curve(results, TICKET, level)[0]
    ]
    if not levels:
        return ""
    picked = sorted({levels[len(levels) // 3], levels[2 * len(levels) // 3], levels[-1]})
    figure.set_size_inches(WIDTH, 3.6)
    rows = figure.subplots(1, len(picked), sharey=True, squeeze=False)[0]
    shown: list[Point] = []
    for axes, level in zip(rows, picked, strict=True):
        for arm, at in [(DENSE, 0), *((arm, level) for arm in arms)]:
            shown += _curve(axes, results, arm, at, look[arm])
        at_level = next(p for p in series.points(results, TICKET) if p.level == level)
        axes.set_title(f"level {level}:{left_words(at_level, results.prunes_edges)}")
        axes.set_xlabel("iteration")
    _, mean, sd = series.training_curve(results, DENSE, 0)
    end = Point(0, 1.0, mean[-1], sd[-1], ()) if mean else None
    frame = series.window(shown, end, 10 * results.margin, results.higher_is_better)
    if frame:
        rows[0].set_ylim(*frame[:2])
    rows[0].set_ylabel(f"validation {results.headline}")
    panels.legend(figure, rows[0])
    cut = " The frame leaves out the start of training." * bool(frame and frame[2])
    bands = "; bands: ± one sample standard deviation" if any(p.sd for p in shown) else ""
    return f"Mean over {seeds_of(results, picked)}{bands}.{cut}"


def _curve(axes: Axes, results: Results, arm: str, level: int, look: Look) -> list[Point]:
    """Draw one arm's mean and band along training; return its points."""
    at, mean, sd = series.training_curve(results, arm, level)
    if not at:
        return []
    style = "--" if arm == DENSE else "-"
    axes.plot(at, mean, color=look.colour, linestyle=style, label=arm)
    low = [m - s for m, s in zip(mean, sd, strict=True)]
    high = [m + s for m, s in zip(mean, sd, strict=True)]
    axes.fill_between(at, low, high, color=look.colour, alpha=0.15, linewidth=0)
    return [Point(level, 1.0, m, s, (m,)) for m, s in zip(mean, sd, strict=True)]


def _arms(results: Results, value: Callable[[Run], float] | None = None) -> dict[str, list[Point]]:
    """Return every arm but dense, where a log axis can show it."""
    found = {arm: series.points(results, arm, value) for arm in results.arms() if arm != DENSE}
    return {arm: [p for p in points if p.density > 0] for arm, points in found.items()}


def _one_level(arms: Mapping[str, Sequence[Point]]) -> bool:
    return len({p.level for points in arms.values() for p in points}) == 1


def _sided(
    figure: Figure,
    results: Results,
    arms: Mapping[str, Sequence[Point]],
    dense: Point | None,
    look: Mapping[str, Look],
    cut: bool = False,
) -> tuple[Any, str]:
    """Draw arms over weight sparsity and, where edges are pruned too, over graph sparsity.

    Returns the panels, (rows, sides), a second row where the first is ``cut``; and the caption's
    words on the dots.
    """
    flat = _one_level(arms) or not results.prunes_edges
    sides = {next(iter(panels.SIDES)): arms} if flat else panels.sides_of(arms)
    grid = figure.subplots(
        *(2 if cut else 1, len(sides)),
        sharex="col",
        sharey="row",
        squeeze=False,
        height_ratios=(2.6, 1) if cut else None,
    )
    dots = ""
    for column, (what, here) in zip(grid.T, sides.items(), strict=True):
        for axes in column:
            dots = _draw(axes, here, dense, look) or dots
        if not _one_level(arms):
            shown = [p for points in here.values() for p in points] + ([dense] if dense else [])
            panels.sparsity_axis(column[-1], shown, what, 16 // len(sides))
    if not _one_level(arms):
        panels.legend(figure, *grid[0])
    if len(sides) > 1:
        dots += " An arm that keeps every weight, or every edge, is not drawn along that axis."
    return grid, dots


def _draw(
    axes: Axes, arms: Mapping[str, Sequence[Point]], dense: Point | None, look: Mapping[str, Look]
) -> str:
    """Draw arms over sparsity, or side by side for one level; return what the dots are."""
    if _one_level(arms):
        panels.draw_strip(axes, arms, dense, look)
        return " Dots: single seeds."
    panels.draw_arms(axes, arms, dense, look)
    panels.draw_seeds(axes, arms.get(TICKET, []), look[TICKET])
    several = any(p.n > 1 for p in arms.get(TICKET, []))
    return " Faint dots: single seeds of the ticket." if several else ""


def _frame(
    results: Results, shown: Sequence[Point], dense: Point | None
) -> tuple[float, float, bool] | None:
    """Return y-limits that show one to five margins of loss, more if the best ticket is worse."""
    best = series.best_ticket(results)
    if dense:
        worse = -1.1 * results.margin if results.higher_is_better else 1.1 * results.margin
        shown = [*shown, replace(dense, mean=dense.mean + worse, sd=0.0)]
    gap = abs(best.mean - dense.mean) + best.sd if best and dense else 0.0
    reach = max(5 * results.margin, gap)
    found, floor = (
        series.window(shown, dense, reach, results.higher_is_better),
        series.floor(results),
    )
    return found and (*series.stretched(found[:2], floor), found[2])


def _margin_line(
    axes: Axes, results: Results, dense: Point | None, look: Mapping[str, Look]
) -> str:
    """Draw where a loss of the margin ends; return the caption's sentence."""
    if dense is None or results.margin <= 0:
        return ""
    sign = -1 if results.higher_is_better else 1
    axes.axhline(
        dense.mean + sign * results.margin, color=look[DENSE].colour, linestyle=":", linewidth=1
    )
    return (
        f" Dotted: the dense mean {'less' if sign < 0 else 'plus'} the margin "
        f"{series.margin_said(results.margin, results.margin_share)}."
    )


def _edges_below(axes: Axes, results: Results, levels: Sequence[int]) -> None:
    """Write what remains of the edges below what remains of the weights."""
    found = {point.level: point for point in series.points(results, TICKET)}
    left = [f"{percent(found[n].density)}\n{percent(found[n].edges)}" for n in levels]
    axes.set_xticks(range(len(levels)), left)
    axes.set_xlabel("percent remaining: of all prunable weights, and below of the edges")


def _density_bars(axes: Axes, names: list[str], column: Mapping[str, float], colour: str) -> None:
    values = [100 * column.get(name, 0.0) for name in names]
    bars = axes.barh(range(len(names)), values, color=colour, height=0.65)
    axes.bar_label(bars, [percent(v / 100) for v in values], padding=3, fontsize=9)
    axes.set_xlim(0, 1.1 * max(values))
    axes.invert_yaxis()
    axes.set_xlabel("percent of the layer's weights remaining")


def _density_map(
    figure: Figure, axes: Axes, names: list[str], columns: Mapping[int, Mapping[str, float]]
) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullLocator

    grid = np.array([[100 * columns[c].get(n, np.nan) for c in columns] for n in names])
    positive = grid[grid > 0]
    least = float(min(positive.min(initial=50.0), 50.0))
    norm = LogNorm(vmin=least, vmax=100.0)
    image = axes.imshow(np.maximum(grid, least), norm=norm, cmap="cividis", aspect="auto")
    axes.axhline(len(names) - 1.5, color=axes.get_facecolor(), linewidth=3)
    if grid.size <= 240:
        for (y, x), value in np.ndenumerate(grid):
            dark = norm(max(value, least)) < 0.55
            ink = "white" if dark else "black"
            axes.text(x, y, percent(value / 100), ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(columns)), [percent(c["all"]) for c in columns.values()])
    if len(columns) > 12:
        axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("percent of all prunable weights remaining")
    bar = figure.colorbar(image, ax=axes, pad=0.01, label="% of the layer")
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    ticks = [t for t in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1) if t >= least]
    bar.ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
