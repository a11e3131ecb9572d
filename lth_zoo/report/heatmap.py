"""The figures of a transfer matrix: both differences as heat maps, and the overlap of masks.

Sources and targets are tasks, or backbones: the words for either are in ``transfer_words``.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lth_zoo.trials.cells import Judged, Target, TransferResults

from .figures import DPI, WIDTH, Picture
from .style import DARK, LIGHT, Theme
from .transfer_words import Names, names_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

    from lth_zoo.trials.compare import Comparison

#: The row of the same-task tickets, where a target is no source.
SAME_TASK = "same task"
#: What marks mean beside a target's own ticket: see :func:`marks_said`.
MARKS = {
    "▲": "significantly better than {own}",
    "▼": "significantly worse",
    "≈": "shown to be as good (not worse by the margin)",
    "?": "nothing shown",
}
MATCHES = "✓"
#: Text, the colour's value, and whether the frame is drawn: one square of a heat map.
Square = tuple[str, float | None, bool]
Drawing = Callable[["Figure", Theme], None]


def transfer_pictures(results: TransferResults, judged: Sequence[Judged]) -> list[Picture]:
    """Draw the matrix against dense, against the same-task tickets, and the masks' overlap."""
    rows, columns, names = rows_of(results), list(results.targets), names_of(results)
    cells = {(j.source, j.target): j for j in judged}
    found = []
    for name, other in (("dense", "the dense network"), ("same-task", names.own)):
        grid = [[_square(results, cells, row, t, name) for t in columns] for row in rows]
        if any(value is not None for line in grid for _, value, _ in line):
            drawing = _matrix_drawing(grid, rows, columns, names.row)
            caption = _caption(name, judged, names)
            found.append(
                picture_of(f"transfer-{name}", f"Transfer against {other}", caption, drawing)
            )
    if results.overlaps:
        caption = (
            f"Jaccard index of the masks' {names.overlap}; below it the value of two independent "
            f"random masks with {names.chance}. Colour: where between chance (paper) and identity "
            "(full colour) it lies."
        )
        more = {
            "one-shot": " The masks of one-shot are the first target's.",
            "random": " Each target has its own random mask, so random has no row.",
        }
        if not results.of_backbones:
            caption += "".join(said for name, said in more.items() if name in results.sources)
        drawing = _overlap_drawing(results)
        found.append(picture_of("overlap", "Overlap of the sources' masks", caption, drawing))
    return found


def marks_said(names: Names) -> str:
    """Return what the marks mean, for a caption."""
    return "; ".join(f"{mark} {what.format(own=names.own)}" for mark, what in MARKS.items())


def rows_of(results: TransferResults) -> list[str]:
    """Return the rows of a matrix: the sources, and the same-task tickets that are none."""
    missing = any(target.name not in results.sources for target in results.targets)
    return [*results.sources, *([SAME_TASK] if missing else [])]


def source_at(row: str, target: str) -> str:
    """Return the source that stands in a row, for a target."""
    return target if row == SAME_TASK else row


def marks_of(found: Judged, tested: bool = True) -> str:
    """Return a cell's marks against the same-task ticket; empty where no test was possible."""
    if found.p_differs is None or not tested:
        return ""
    said = ("▲" * found.better) + ("▼" * found.worse) + ("≈" * found.as_good)
    return said or "?"


def decimals_of(target: Target) -> int:
    """Return how many decimals show a target's metric: two figures of its margin."""
    return min(max(1, 1 - math.floor(math.log10(target.margin))), 6) if target.margin > 0 else 2


def _square(
    results: TransferResults,
    cells: Mapping[tuple[str, str], Judged],
    row: str,
    target: Target,
    against: str,
) -> Square:
    source = source_at(row, target.name)
    own = source == target.name
    if row == SAME_TASK and target.name in results.sources:
        return "", None, False
    found = cells[source, target.name]
    digits = decimals_of(target)
    if found.arm.mean is None:
        diverged, errors = found.arm.diverged, results.cell(source, target.name).errors
        return ("diverged" if diverged else "failed" if errors else "not run"), None, own
    if against == "same-task" and own:
        return f"{found.arm.mean:.{digits}f}\n{names_of(results).short}", 0.0, True
    compared = found.against_dense if against == "dense" else found.against_ticket
    if compared is None or compared.difference is None:
        return f"{found.arm.mean:.{digits}f}\nalone", None, own
    mark = (MATCHES if found.matches else "") if against == "dense" else marks_of(found)
    mark += " constant" if results.cell(source, target.name).constant else ""
    sign = 1 if target.higher_is_better else -1
    value = sign * compared.difference / target.margin
    return _text(compared, digits, mark, len(results.recipe["seeds"])), value, own


def _text(found: Comparison, digits: int, mark: str, seeds: int) -> str:
    spread = ""
    if found.interval is not None:
        spread = f"± {(found.interval[1] - found.interval[0]) / 2:.{digits}f}"
    count = f"n={min(found.n)}" if min(found.n) < seeds else ""
    lines = [
        f"{found.difference:+.{digits}f}",
        spread,
        " ".join(filter(None, [mark.strip(), count])),
    ]
    return "\n".join(filter(None, lines))


def _caption(name: str, judged: Sequence[Judged], names: Names) -> str:
    alpha = f"{100 * judged[0].alpha:g} %"
    interval = f"± half the {100 * (1 - judged[0].alpha):g} % interval of the cell alone"
    base = (
        f"Difference of the means, in the metric's own unit, {interval}. Colour: the same in "
        f"margins, blue is better, logarithmic beyond one margin. Framed: {names.own}."
    )
    if all(j.p_matches is None for j in judged):
        return f"{base} Fewer than two seeds: no spread is known, so no cell has a mark."
    if name == "dense":
        said = f"{MATCHES} shown to be no worse than dense by the margin"
    else:
        said = marks_said(names)
    return f"{base} {said}; Holm-corrected over the cells at {alpha}."


def _matrix_drawing(
    grid: Sequence[Sequence[Square]], rows: Sequence[str], columns: Sequence[Target], label: str
) -> Drawing:
    def draw(figure: Figure, theme: Theme) -> None:
        heads = [_column(target) for target in columns]
        axes = margins(figure, theme, grid, [wrapped(row, 22, 2) for row in rows], heads)
        axes.set_ylabel(label)

    return draw


def margins(
    figure: Figure,
    theme: Theme,
    grid: Sequence[Sequence[Square]],
    rows: Sequence[str],
    columns: Sequence[str],
) -> Axes:
    """Draw a heat map of differences in margins, logarithmic beyond one, with its scale."""
    from matplotlib.colors import SymLogNorm

    values = [abs(v) for line in grid for _, v, _ in line if v is not None]
    limit = max([2.0, *values])
    norm = SymLogNorm(linthresh=1.0, linscale=0.7, vmin=-limit, vmax=limit)
    axes = squares(figure, theme, grid, rows, columns, norm)
    powers = [10**p for p in range(1 + int(math.log10(limit)))]
    ticks = [*(-p for p in reversed(powers)), 0, *powers]
    colour_bar(figure, axes, theme, norm, ticks, "margins: worse < 0 < better")
    return axes


def _column(target: Target) -> str:
    known = [v for v in target.dense.values.values() if math.isfinite(v)]
    mean = f"{sum(known) / len(known):.{decimals_of(target)}f}" if known else "—"
    return f"{wrapped(target.name, 14, 3)}\n{wrapped(target.headline, 14, 1)}\ndense {mean}"


def _overlap_drawing(results: TransferResults) -> Drawing:
    names = list(dict.fromkeys(n for found in results.overlaps for n in (found.a, found.b)))
    pairs = {frozenset((found.a, found.b)): found.whole for found in results.overlaps}

    def square(a: str, b: str) -> Square:
        if a == b:
            return "", None, False
        pair = pairs.get(frozenset((a, b)))
        if pair is None:
            return "none", None, False
        jaccard, chance = pair
        above = (jaccard - chance) / (1 - chance) if chance < 1 else 0.0
        return f"{jaccard:.2f}\n({chance:.2f})", above, False

    grid = [[square(a, b) for b in names] for a in names]

    def draw(figure: Figure, theme: Theme) -> None:
        from matplotlib.colors import Normalize

        norm = Normalize(-1.0, 1.0)
        labels = [wrapped(name, 22, 2) for name in names]
        heads = [wrapped(name, 14, 3) for name in names]
        axes = squares(figure, theme, grid, labels, heads, norm)
        colour_bar(figure, axes, theme, norm, [-1, 0, 1], "above chance")

    return draw


def squares(
    figure: Figure,
    theme: Theme,
    grid: Sequence[Sequence[Square]],
    rows: Sequence[str],
    columns: Sequence[str],
    norm: Normalize,
) -> Axes:
    """Draw a heat map with a text in every square; the columns' names stand above."""
    import numpy as np

    lines = max(name.count("\n") for name in columns) + 1
    width = max(WIDTH * 0.6, 2.6 + 1.0 * len(columns))
    figure.set_size_inches(width, 0.7 + 0.17 * lines + 0.58 * len(rows))
    axes = figure.subplots()
    axes.grid(False)
    colours = palette(theme)
    values = np.array([[math.nan if v is None else v for _, v, _ in line] for line in grid])
    axes.imshow(values, norm=norm, cmap=colours, aspect="auto")
    for y, line in enumerate(grid):
        for x, (text, value, framed) in enumerate(line):
            face = colours(norm(value)) if value is not None else None
            ink = theme.muted if face is None else _ink(face)
            axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=7.8)
            if text and value is None and text != "not run":
                _box(axes, x, y, theme.muted, hatch="////", alpha=0.35, linewidth=0)
            if framed:
                _box(axes, x, y, theme.ink, linewidth=1.8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    between = [[i + 0.5 for i in range(n - 1)] for n in (len(columns), len(rows))]
    axes.set_xticks(between[0], minor=True)
    axes.set_yticks(between[1], minor=True)
    axes.grid(True, which="minor", color=theme.paper, linewidth=2)
    axes.set_axisbelow(False)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _box(axes: Axes, x: float, y: float, colour: str, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    place = (x - 0.47, y - 0.46)
    axes.add_patch(Rectangle(place, 0.94, 0.92, fill=False, edgecolor=colour, **style))


def palette(theme: Theme) -> Colormap:
    """Return colours from worse to better over the paper: orange to blue, told apart by all eyes.

    On light and on dark paper alike the middle is the paper itself, a little off it so that
    a square at 0 is seen.
    """
    from matplotlib.colors import LinearSegmentedColormap

    worst, best = theme.controls[0], theme.ticket
    return LinearSegmentedColormap.from_list("worse-better", [worst, theme.grid, best])


def _ink(face: Sequence[float]) -> str:
    """Return black or white, whichever stands out more on a colour (WCAG luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in face[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


def colour_bar(
    figure: Figure, axes: Axes, theme: Theme, norm: Normalize, ticks: Sequence[float], label: str
) -> None:
    """Draw what the colours of a heat map mean."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import NullLocator

    scale = ScalarMappable(norm, palette(theme))
    bar = figure.colorbar(scale, ax=axes, pad=0.015, aspect=25, fraction=0.05)
    bar.set_label(label, fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.set_yticks(ticks, [f"{t:g}" for t in ticks], fontsize=7.5)


def wrapped(name: str, width: int, lines: int) -> str:
    """Return a name on at most so many lines, broken after / : , - where it can be.

    >>> wrapped("text/org/data-set:premise,hypothesis:label", 14, 3)
    'text/org/data-\\nset:premise,\\nhypothesis:…'
    """
    found = [""]
    for part in re.findall(r"[^/:,\-]*[/:,\-]|[^/:,\-]+", name):
        if found[-1] and len(found[-1]) + len(part) > width:
            found.append("")
        found[-1] += part
        while len(found[-1]) > width:
            found[-1:] = [found[-1][:width], found[-1][width:]]
    if len(found) > lines:
        found = [*found[: lines - 1], (found[lines - 1] + "…")[: width - 1].rstrip("…") + "…"]
    return "\n".join(found)


def picture_of(name: str, title: str, caption: str, draw: Drawing) -> Picture:
    """Return a figure drawn on light and on dark paper."""
    return Picture(name, title, caption, _png(draw, LIGHT), _png(draw, DARK))


def _png(draw: Drawing, theme: Theme) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(theme.rc()):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, theme)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
