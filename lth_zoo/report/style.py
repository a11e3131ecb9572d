"""One look for every figure: palettes safe for colour-blind eyes, on light and dark paper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lth_zoo.trials.results import DENSE, TICKET


@dataclass(frozen=True)
class Theme:
    """Paper, ink and arm colours (after Okabe and Ito 2008, brighter on dark paper)."""

    paper: str
    ink: str
    muted: str
    grid: str
    ticket: str
    controls: tuple[str, ...]

    def rc(self) -> dict[str, Any]:
        """Return matplotlib settings of this theme."""
        return {
            "figure.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "axes.edgecolor": self.muted,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.7,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "font.size": 10,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "lines.markersize": 4.5,
        }


LIGHT = Theme(
    paper="#ffffff",
    ink="#1c1f23",
    muted="#6b7280",
    grid="#e5e7eb",
    ticket="#0072b2",
    controls=("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f"),
)
DARK = Theme(
    paper="#15181c",
    ink="#e6e8eb",
    muted="#9aa3ad",
    grid="#2b3036",
    ticket="#4db3f0",
    controls=("#ff8a3d", "#2fc79a", "#e79cc6", "#f2c14e", "#9ad3f5", "#c9a86a", "#b0b0b0"),
)
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p")


@dataclass(frozen=True)
class Look:
    """Colour and marker of one arm."""

    colour: str
    marker: str


def looks(arms: Iterable[str], theme: Theme) -> dict[str, Look]:
    """Return the look of each arm: fixed for dense and ticket, by order for the controls.

    Beyond the palette colours repeat and the marker tells arms apart.
    """
    found = {DENSE: Look(theme.ink, ""), TICKET: Look(theme.ticket, "o")}
    controls = [arm for arm in dict.fromkeys(arms) if arm not in found]
    for i, arm in enumerate(controls):
        found[arm] = Look(theme.controls[i % len(theme.controls)], MARKERS[i % len(MARKERS)])
    return found
