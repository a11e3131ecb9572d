"""Line charts that several pages share: means with their spread over one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .figures import WIDTH, Picture
from .heatmap import picture_of
from .style import Look, Theme, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """One line: points are (x, mean, sd); without an x to share it is drawn across the chart."""

    label: str
    points: tuple[tuple[float, float, float], ...]
    level: bool = False


@dataclass(frozen=True)
class Chart:
    """One panel: what is on the axes, and the lines; ``log`` is of the axes named: "x", "xy"."""

    across: str
    up: str
    lines: tuple[Line, ...]
    title: str = ""
    log: str = ""
    ticks: tuple[float, ...] = ()


def chart_picture(
    name: str, title: str, caption: str, charts: Sequence[Chart], arms: Sequence[str] = ()
) -> Picture:
    """Return panels side by side, each line with a band of one standard deviation.

    ``arms`` are the labels in the order of their colours; those of the lines by default.
    """
    labels = [*arms, *(line.label for chart in charts for line in chart.lines)]

    def draw(figure: Figure, theme: Theme) -> None:
        figure.set_size_inches(WIDTH, 3.6)
        if not charts:  # every measurement failed
            figure.text(0.5, 0.5, "nothing was measured", ha="center")
            return
        look = looks(labels, theme)
        panels = figure.subplots(1, len(charts), squeeze=False)[0]
        for panel, chart in zip(panels, charts, strict=True):
            _panel(panel, chart, look)
        drawn = [panel.get_legend_handles_labels() for panel in figure.axes]
        handles = {name: h for hs, names in drawn for h, name in zip(hs, names, strict=True)}
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=9
        )

    return picture_of(name, title, caption, draw)


def _panel(panel: Axes, chart: Chart, look: dict[str, Look]) -> None:
    for line in chart.lines:
        style = look[line.label]
        if line.level:
            ((_, mean, sd),) = line.points
            panel.axhline(mean, color=style.colour, ls="--", label=line.label)
            panel.axhspan(mean - sd, mean + sd, color=style.colour, alpha=0.12, lw=0)
            continue
        xs, means, sds = zip(*line.points, strict=True)
        panel.plot(xs, means, color=style.colour, marker=style.marker, label=line.label)
        low, high = ([m + s * sd for m, sd in zip(means, sds, strict=True)] for s in (-1, 1))
        panel.fill_between(xs, low, high, color=style.colour, alpha=0.18, lw=0)
    panel.set_xlabel(chart.across)
    panel.set_ylabel(chart.up)
    panel.set_title(chart.title)
    if "x" in chart.log:
        panel.set_xscale("log")
    if "y" in chart.log:
        panel.set_yscale("log")
    if chart.ticks:
        panel.set_xticks(chart.ticks, [f"{tick:g}" for tick in chart.ticks])
        panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
