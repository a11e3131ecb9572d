"""ICPG: a learned network scores the edges, and can score those of graphs it has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .graph_imp import GraphIMP, check_rates, entry, schedule
from .ugs import amounts_of, start_of


@dataclass(frozen=True)
class ICPG(Finder):
    """Train a scorer of edges beside the weights, drop the lowest of both (Sui et al. 2023)."""

    rate: float = 0.2
    """Share of the remaining weights removed a level."""
    edge_rate: float = 0.05
    """Share of the remaining edges removed a level."""
    width: int = 64
    """Numbers of a node's embedding in the scorer (the published code: 128)."""
    scorer_learning_rate: float | None = None
    """Learning rate of the scorer (default: the recipe's)."""
    scorer_weight_decay: float = 5e-6
    """Weight decay of the scorer."""
    iterations: int | None = None
    """Iterations of one search (default: those of one training)."""
    tie_directions: bool = True
    """Whether both directions of an undirected edge go together, scored by their mean (the
    published code: no)."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""
    levels: int | None = None
    """Stop after so many levels, if the targets are not reached before."""

    prunes_graph: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = True
    paper: ClassVar[str] = "Sui et al., JCST 2023, doi:10.1007/s11390-023-2583-5"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train a scorer of edges beside the weights, its scores as gates",
        "prune": "lowest-scored edges and smallest weights",
        "re-initialise": "rewind to init or an early step",
        "train": "the same training, on the kept edges",
    }

    def __post_init__(self) -> None:
        check_rates(self.rate, self.edge_rate)
        for name in ("width", "iterations", "levels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"finder.{name} is {value}; it must be at least 1")
        rate, decay = self.scorer_learning_rate, self.scorer_weight_decay
        if rate is not None and not 0 < rate < float("inf"):
            raise BadInput(f"finder.scorer_learning_rate is {rate}; it must be above 0")
        if not 0 <= decay < float("inf"):
            raise BadInput(f"finder.scorer_weight_decay is {decay}; it must be at least 0")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and every pruned one.

        The control with random edges has nothing to score: it prunes weights by magnitude.
        """
        if chain.edges:
            same = {n: getattr(self, n) for n in ("rate", "edge_rate", "rewind", "levels")}
            yield from GraphIMP(**same, tie_directions=self.tie_directions).search(chain)
            return
        level = chain.dense(self.rewind)
        yield level
        whole = chain.recipe.training
        training = replace(whole, iterations=self.iterations or whole.iterations)
        scorer = {
            "width": self.width,
            "rate": self.scorer_learning_rate or whole.learning_rate,
            "weight_decay": self.scorer_weight_decay,
        }
        amounts = schedule(self.rate, self.edge_rate, chain, self.levels)
        for index, (density, edges) in enumerate(amounts, start=1):
            inputs = {"start": start_of(self.rewind, level, chain)}
            masks = chain.search(
                "scorer",
                inputs | ({"within": level.masks} if level.masks else {}),
                training=training.plain(),
                begin=0,
                end=training.iterations,
                **amounts_of(entry(self.tie_directions), density, edges),
                weights=None,
                scorer=scorer,
            )
            level = chain.retrain(self.rewind, masks, masks, index)
            yield level
