"""Iterative pruning of a graph's edges and a network's weights, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

from .. import registry
from ..allocate import Scope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder


@dataclass(frozen=True)
class GraphIMP(Finder):
    """Prune weights by magnitude and edges by a score of the graph alone, rewind, repeat.

    The schedule is that of UGS (Chen et al. 2021, arXiv 2102.06790): 20 % of the remaining weights
    and 5 % of the remaining edges a level, each down to a target of its own. The edge scores need
    no training, so a level costs half of what a learned mask does.
    """

    rate: float = 0.2
    """Share of the remaining weights removed a level."""
    edge_rate: float = 0.05
    """Share of the remaining edges removed a level."""
    edges: Literal["degree", "random", "dspar"] = "degree"
    """Which edges stay: TEDDY's degree score, a random set, or one drawn as DSpar does."""
    tie_directions: bool = True
    """Whether both directions of an undirected edge go together (the published code: no)."""
    score: str = "magnitude"
    """Criterion of the weights: a name of `lth-zoo ls scores`."""
    scope: Scope = "global"
    """Where the weights' scores compete."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""
    levels: int | None = None
    """Stop after so many levels, if the targets are not reached before."""

    prunes_graph: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "the schedule of Chen et al., ICML 2021, arXiv:2102.06790; the edge score of Seo et al., "
        "ICLR 2024 (TEDDY)"
    )
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train on the edges that are left, every level",
        "prune": "smallest weights, and edges by a score of the graph",
        "re-initialise": "rewind to init or an early step",
        "train": "the same training again, on the kept edges",
    }

    def __post_init__(self) -> None:
        check_rates(self.rate, self.edge_rate)
        if self.levels is not None and self.levels < 1:
            raise BadInput(f"finder.levels is {self.levels}; it must be at least 1")
        registry.check("scores", self.score)

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and every pruned one."""
        level = chain.dense(self.rewind)
        yield level
        amounts = schedule(self.rate, self.edge_rate, chain, self.levels)
        for index, (density, edges) in enumerate(amounts, start=1):
            assert level.train is not None
            masks = chain.prune(
                *(level.train, level.masks),
                density=density,
                score=self.score,
                scope=self.scope,
                start=level.start,
                edges={"entry": entry(self.tie_directions), "score": self.edges, "density": edges},
            )
            level = chain.retrain(self.rewind, level.train, masks, index)
            yield level


def entry(tie_directions: bool) -> str:
    """Return the name of the masks' entry for edges: one bit a pair, or one a direction."""
    return "graph/edges" if tie_directions else "graph/arcs"


def check_rates(rate: float, edge_rate: float) -> None:
    """Assert that the shares removed a level can be shares.

    Raises:
        BadInput: one is not between 0 and 1.
    """
    for name, value in (("rate", rate), ("edge_rate", edge_rate)):
        if not 0 < value < 1:
            raise BadInput(f"finder.{name} is {value}; it must be between 0 and 1")


def schedule(
    rate: float, edge_rate: float, chain: Chain, levels: int | None
) -> list[tuple[Fraction, Fraction]]:
    """Return the densities (weights, edges) of each level; each stops at its own target."""
    weights = densities(rate, chain.density, levels)
    edges = densities(edge_rate, chain.edge_density, levels)
    longest = max(len(weights), len(edges))
    for found in (weights, edges):
        found += [found[-1] if found else Fraction(1)] * (longest - len(found))
    return list(zip(weights, edges, strict=True))


def densities(rate: float, target: Fraction, levels: int | None = None) -> list[Fraction]:
    """Return the density of each level at a rate of the remaining, the last one the target's.

    >>> [str(d) for d in densities(0.5, Fraction(1, 5))]
    ['1/2', '1/4', '1/5']
    """
    kept, found = 1 - Fraction(str(rate)), [Fraction(1)]
    while found[-1] > target and len(found) - 1 != levels:
        found.append(max(kept * found[-1], target))
    return found[1:]
