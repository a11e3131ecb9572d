"""What a finished recipe measured, as plain data: the input of verdicts and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..jobs import DENSE, TICKET
from ..protocols import Yardstick

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DENSE", "TICKET", "Results", "Run", "margin_of", "mean_sd"]

#: Fields that most results do not use, and what they are then: they are left out of JSON.
_UNUSED = {"graph": None, "edges": None, "margin_share": 0.0, "pictures": ""}


@dataclass(frozen=True)
class Run:
    """One trained network: an arm, at a level, of a seed.

    ``metrics`` maps a split to its metrics at the last iteration; ``curve`` is the
    validation metrics along training (rows with ``iteration``); ``early_stop`` the iteration
    of the lowest validation loss; ``layers`` maps a prunable name to (kept, total);
    ``edges`` the same of a graph's edges, None where none are pruned;
    ``flags`` names what is degenerate about the run (``diverged``, ``constant``,
    ``collapsed-layer``); ``error`` says why it failed, with empty metrics. ``pictures`` is the
    file, below the store, of the images that a generative model made; empty where it made none.
    """

    arm: str
    level: int
    seed: int
    kept: int
    prunable: int
    parameters: int
    metrics: dict[str, dict[str, float]]
    curve: list[dict[str, float]] = field(default_factory=list)
    early_stop: int = 0
    iterations: int = 0
    seconds: float = 0.0
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    edges: tuple[int, int] | None = None
    flags: tuple[str, ...] = ()
    error: str = ""
    pictures: str = ""

    @property
    def density(self) -> float:
        """Kept share of the prunable weights."""
        return self.kept / self.prunable if self.prunable else 1.0

    @property
    def sparsity(self) -> float:
        """Removed share of the prunable weights."""
        return 1.0 - self.density

    @property
    def graph_sparsity(self) -> float:
        """Removed share of the graph's edges; 0 where none are pruned."""
        return 1.0 - self.edges[0] / self.edges[1] if self.edges and self.edges[1] else 0.0


@dataclass(frozen=True)
class Images:
    """What one seed's generative models made, dense and every arm at one level.

    ``arms`` maps an arm to name -> uint8, (..., channels, height, width); the names are
    ``samples``, ``interpolation``, ``originals`` and ``reconstructions``.
    """

    seed: int
    level: int
    arms: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Results:
    """Every run of one recipe, with what is needed to judge and to report them.

    ``margin`` is in the metric's own unit; where it is so much because the task states a share of
    the dense mean, ``margin_share`` is that share, else 0. ``graph`` says what the tickets kept of
    a graph, as plain data (:mod:`lth_zoo.trials.kept_graph`); None where no edge was pruned.
    ``images`` are in no JSON, which names the files they are from.
    """

    recipe: dict[str, Any]
    headline: str
    higher_is_better: bool
    margin: float
    runs: list[Run]
    cost: dict[str, float] = field(default_factory=dict)
    graph: dict[str, Any] | None = None
    margin_share: float = 0.0
    images: Images | None = field(default=None, compare=False, repr=False)

    @property
    def prunes_edges(self) -> bool:
        """Whether the recipe has a second sparsity, of a graph's edges."""
        return any(run.edges for run in self.runs)

    def arms(self) -> list[str]:
        """Arms in order: dense, ticket, then the controls as the recipe lists them."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    def levels(self) -> list[int]:
        """Levels at which anything ran, ascending; 0 is dense."""
        return sorted({run.level for run in self.runs})

    def select(self, arm: str, level: int) -> list[Run]:
        """Finished runs of one arm at one level, by seed."""
        runs = (r for r in self.runs if r.arm == arm and r.level == level and not r.error)
        return sorted(runs, key=lambda r: r.seed)

    def values(
        self, arm: str, level: int, split: str = "test", metric: str = ""
    ) -> dict[int, float]:
        """Seed -> metric (the headline by default) of one arm at one level."""
        metric = metric or self.headline
        return {r.seed: r.metrics[split][metric] for r in self.select(arm, level)}

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the images, and without what most results do not use."""
        data = asdict(replace(self, images=None))
        del data["images"]
        for found in (data, *data["runs"]):
            for name in [n for n, unused in _UNUSED.items() if n in found and found[n] == unused]:
                del found[name]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Results:
        """Read what :meth:`to_json` wrote."""
        runs = [
            Run(
                **{
                    **r,
                    "layers": {k: (v[0], v[1]) for k, v in r["layers"].items()},
                    "edges": tuple(edges) if (edges := r.get("edges")) else None,
                    "flags": tuple(r["flags"]),
                }
            )
            for r in data["runs"]
        ]
        return cls(**{**data, "runs": runs})


def margin_of(by: Yardstick, dense: Iterable[float]) -> tuple[float, float]:
    """Return the margin in the metric's own unit, and the share of the dense mean it is, or 0.

    ``dense`` are the dense runs' values; those that are not finite do not count. Where the margin
    is a share and there is no dense mean, or it is 0, the share stands for the margin: nothing
    can be judged then, and a margin has to be a positive number.

    >>> margin_of(Yardstick("cfd", False, 0.05, relative=True), [3.9, 4.1])
    (0.2, 0.05)
    """
    if not by.relative:
        return by.margin, 0.0
    known = [value for value in dense if math.isfinite(value)]
    return (abs(mean_sd(known)[0]) * by.margin if any(known) else by.margin), by.margin


def mean_sd(values: Iterable[float]) -> tuple[float, float, int]:
    """Return mean, sample standard deviation (0 for one value) and n."""
    import statistics

    numbers: Sequence[float] = list(values)
    if not numbers:
        return float("nan"), float("nan"), 0
    sd = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return statistics.fmean(numbers), sd, len(numbers)
