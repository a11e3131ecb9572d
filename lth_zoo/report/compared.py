"""The figure of finders side by side: what a ticket is worth over what its search costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from .figures import WIDTH, Picture
from .heatmap import picture_of
from .style import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cost_picture(
    rows: Sequence[Mapping[str, Any]], dense: Mapping[int, float], headline: str
) -> Picture:
    """Return one panel a sparsity: a bar a finder, best first, with its search cost beside it.

    ``rows`` are those of :class:`lth_zoo.studies.compare.Compare`.
    """
    asked = list(dict.fromkeys(row["asked"] for row in rows))
    most = max(sum(row["asked"] == one for row in rows) for one in asked)

    def draw(figure: Figure, theme: Theme) -> None:
        figure.set_size_inches(WIDTH, (1.1 + 0.24 * most) * len(asked))
        panels = figure.subplots(len(asked), 2, squeeze=False, sharey="row", width_ratios=(3, 2))
        for (left, right), sparsity in zip(panels, asked, strict=True):
            here = [row for row in rows if row["asked"] == sparsity][::-1]
            names = [row["finder"] for row in here]
            values = [list(row["values"].values()) for row in here]
            means = [fmean(v) for v in values]
            spread = [stdev(v) if len(v) > 1 else 0.0 for v in values]
            left.errorbar(*(means, names), xerr=spread, fmt="o", color=theme.ticket, elinewidth=1.2)
            for value in [fmean(dense.values())] if dense else []:
                left.axvline(value, color=theme.ink, ls="--", lw=1)
                left.annotate("dense", (value, 1), xycoords=("data", "axes fraction"), fontsize=8)
            left.set_xlabel(f"test {headline}")
            left.set_title(f"{100 * sparsity:g} % sparse")
            costs = [row["search"] / row["dense_seconds"] for row in here]
            right.barh(names, costs, color=theme.muted, height=0.55)
            right.set_xlabel("search, in dense runs")
            right.set_xscale("symlog", linthresh=1.0)
            right.xaxis.set_major_formatter("{x:g}")
            right.tick_params(labelleft=False)
            right.grid(visible=False, axis="y")

    caption = (
        "Left: mean and one standard deviation over seeds. Right: what finding one ticket takes "
        "before its own training, by measured time."
    )
    return picture_of("finders", f"Test {headline} of every finder, and its cost", caption, draw)
