"""The figure of planted tickets: what each finder kept of them, beside chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from .figures import WIDTH, Picture
from .heatmap import picture_of
from .style import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Found:
    """A finder on a task: shares of the plant by seed, by it and by chance; whether it matches."""

    task: str
    finder: str
    recall: Sequence[float]
    chance: Sequence[float]
    reached: bool


def recovery_picture(found: Sequence[Found]) -> Picture:
    """Return a panel a task: each finder's kept share of the plant, seed by seed, and chance."""
    tasks = list(dict.fromkeys(one.task for one in found))
    finders = list(dict.fromkeys(one.finder for one in found))

    def draw(figure: Figure, theme: Theme) -> None:
        figure.set_size_inches(WIDTH, 1.4 + 0.24 * max(4, len(finders)))
        panels = figure.subplots(1, max(1, len(tasks)), squeeze=False, sharey=True)[0]
        colours = {True: theme.ticket, False: theme.controls[0]}
        labels = {True: "matches the dense network", False: "does not match it"}
        handles = {}
        for panel, task in zip(panels, tasks, strict=False):
            for one in (one for one in found if one.task == task):
                row, colour = finders.index(one.finder), colours[one.reached]
                shares = [100 * share for share in one.recall]
                dots = panel.scatter(shares, [row] * len(shares), color=colour, s=18, zorder=3)
                by_chance = panel.scatter(
                    *(100 * fmean(one.chance), row), marker="|", color=theme.muted, s=70, zorder=2
                )
                handles[labels[one.reached]], handles["by chance"] = dots, by_chance
            panel.set_title(task)
            panel.set_xlim(-4, 104)
            panel.set_xlabel("planted weights kept, %")
        panels[0].set_yticks(range(len(finders)), finders)
        panels[0].set_ylim(len(finders) - 0.5, -0.5)
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize=9
        )

    caption = (
        "A dot a seed, at the planted density. By chance: the mean of random masks of the same "
        "layer densities."
    )
    return picture_of("planted", "What finders keep of a planted ticket", caption, draw)
