"""What a finished recipe measured, as plain data: the input of verdicts and reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..jobs import DENSE, TICKET

__all__ = ["DENSE", "TICKET", "Results", "Run", "mean_sd"]


@dataclass(frozen=True)
class Run:
    """One trained network: an arm, at a level, of a seed.

    ``metrics`` maps a split to its metrics at the last iteration; ``curve`` is the
    validation metrics along training (rows with ``iteration``); ``early_stop`` the iteration
    of the lowest validation loss; ``layers`` maps a prunable name to (kept, total);
    ``edges`` the same of a graph's edges, None where none are pruned;
    ``flags`` names what is degenerate about the run (``diverged``, ``constant``,
    ``collapsed-layer``); ``error`` says why it failed, with empty metrics.
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
class Results:
    """Every run of one recipe, with what is needed to judge and to report them.

    ``graph`` says what the tickets kept of a graph, as plain data
    (:mod:`lth_zoo.trials.kept_graph`); None where no edge was pruned.
    """

    recipe: dict[str, Any]
    headline: str
    higher_is_better: bool
    margin: float
    runs: list[Run]
    cost: dict[str, float] = field(default_factory=dict)
    graph: dict[str, Any] | None = None

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
        """Return plain data; what is about graphs is left out where there is none."""
        data = asdict(self)
        for found in (data, *data["runs"]):
            for name in ("graph", "edges"):
                if found.get(name, 0) is None:
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


def mean_sd(values: Iterable[float]) -> tuple[float, float, int]:
    """Return mean, sample standard deviation (0 for one value) and n."""
    import statistics

    numbers: Sequence[float] = list(values)
    if not numbers:
        return float("nan"), float("nan"), 0
    sd = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return statistics.fmean(numbers), sd, len(numbers)
