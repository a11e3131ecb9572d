"""Dot charts that several pages share: named rows, a mean with its spread for each series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .figures import WIDTH, Picture
from .heatmap import picture_of
from .style import Look, Theme, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Dots:
    """One panel: series -> row -> (mean, sd); ``lines`` are drawn across all rows, with their sd.

    ``ticks`` are what chance gives: series -> row -> value, a small upright stroke. ``apart`` sets
    the series of a row side by side; where each row is of one series they stand on its line.
    """

    across: str
    series: Mapping[str, Mapping[str, tuple[float, float]]]
    lines: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ticks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    title: str = ""
    apart: bool = True


def dots_picture(
    name: str,
    title: str,
    caption: str,
    panels: Sequence[Dots],
    rows: Sequence[str],
    arms: Sequence[str] = (),
) -> Picture:
    """Return panels side by side over the same rows, the first row on top.

    ``arms`` are the labels in the order of their colours; those of the panels by default.
    """
    labels = [*arms, *(label for p in panels for label in (*p.lines, *p.series))]
    height = max(len(panel.series) if panel.apart else 1 for panel in panels)

    def draw(figure: Figure, theme: Theme) -> None:
        figure.set_size_inches(WIDTH, 1.4 + (0.14 + 0.13 * height) * len(rows))
        look = looks(labels, theme)
        drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(drawn, panels, strict=True):
            _panel(axes, panel, rows, look, theme)
        found = [axes.get_legend_handles_labels() for axes in drawn]
        handles = {n: h for hs, names in found for h, n in zip(hs, names, strict=True)}
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=9
        )

    return picture_of(name, title, caption, draw)


def _panel(
    axes: Axes, panel: Dots, rows: Sequence[str], look: Mapping[str, Look], theme: Theme
) -> None:
    for label, (mean, sd) in panel.lines.items():
        axes.axvline(mean, color=look[label].colour, ls="--", lw=1.2, label=label)
        axes.axvspan(mean - sd, mean + sd, color=look[label].colour, alpha=0.12, lw=0)
    step = 0.6 / max(1, len(panel.series)) if panel.apart else 0.0
    strokes: list[tuple[float, float]] = []
    for index, (label, values) in enumerate(panel.series.items()):
        shift = (index - (len(panel.series) - 1) / 2) * step
        places = {row: rows.index(row) + shift for row in values}
        means, sds = [mean for mean, _ in values.values()], [sd for _, sd in values.values()]
        style: dict[str, Any] = {"color": look[label].colour, "marker": look[label].marker or "o"}
        axes.errorbar(
            means, list(places.values()), xerr=sds, ls="none", ms=5, lw=1.2, label=label, **style
        )
        chance = panel.ticks.get(label, {})
        strokes += [(value, places[row]) for row, value in chance.items() if row in places]
    if strokes:
        x, y = zip(*strokes, strict=True)
        axes.plot(x, y, ls="none", marker="|", ms=8, color=theme.muted, label="by chance")
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.set_xlabel(panel.across)
    axes.set_title(panel.title)
