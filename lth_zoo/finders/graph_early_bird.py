"""Early-bird tickets of graph and weights: stop learning gates once both masks have settled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .amounts import iterations_in
from .graph_imp import entry
from .ugs import amounts_of, check_strengths


@dataclass(frozen=True)
class GraphEarlyBird(Finder):
    """Train weights and gates until their masks stop changing, train on (You et al. 2022, GEBT)."""

    learning_rate: float | None = None
    """Learning rate of the weights in the search (default: the recipe's)."""
    gate_learning_rate: float = 1e-3
    """Learning rate of the gates, without weight decay."""
    strength: float = 1e-5
    """Weight of the L1 norm of the gates."""
    every: str = "1"
    """How often masks are drawn: iterations, or a share of a whole training (5%, 1/50)."""
    window: int = 4
    """Masks that are compared: the newest with those before it."""
    threshold: float = 0.1
    """Largest sum of the shares of edges and of weights in which they may differ at the stop."""
    tie_directions: bool = True
    """Whether both directions of an undirected edge go together."""
    rewind: str = "none"
    """What survivors get back: none[=K] (they train on), init, step=K, P%, learning-rate[=K],
    fresh."""

    prunes_graph: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = True
    paper: ClassVar[str] = "You et al., AAAI 2022, arXiv:2103.00794"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train weights and gates on edges until the masks drawn stay the same",
        "prune": "lowest gates and smallest weights at that moment, the whole amount at once",
        "re-initialise": "nothing: survivors train on (or init, an early step)",
        "train": "a whole training, on the kept edges",
    }

    def __post_init__(self) -> None:
        check_strengths(self, "strength")
        for name in ("learning_rate", "gate_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise BadInput(f"finder.{name} is {value}; it must be above 0")
        if self.window < 2:
            raise BadInput(f"finder.window is {self.window}; it must be at least 2")
        if not 0 < self.threshold <= 2:
            raise BadInput(f"finder.threshold is {self.threshold}; it must be in (0, 2]")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the pruned one."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == chain.edge_density == 1:
            return
        assert dense.train is not None
        if chain.edges:  # the control with random edges: one step there by magnitude
            edges = {"entry": entry(self.tie_directions), "density": chain.edge_density}
            masks = chain.prune(
                *(dense.train, None), density=chain.density, start=dense.start, edges=edges
            )
            yield chain.retrain(self.rewind, dense.train, masks, 1)
            return
        training = chain.recipe.training
        every = iterations_in(self.every, training.iterations, "every")
        training = replace(training, learning_rate=self.learning_rate or training.learning_rate)
        gates = {"strength": self.strength, "rate": self.gate_learning_rate, "bounds": [0.0, None]}
        masks = chain.search(
            "gates",
            {"start": dense.start},
            training=training.plain(),
            begin=0,
            end=training.iterations,
            **amounts_of(entry(self.tie_directions), chain.density, chain.edge_density),
            edges=gates,
            weights=None,
            noise=0.0,
            earliest=None,
            settle={"every": every, "window": self.window, "threshold": self.threshold},
            distance=None,
        )
        level = chain.retrain(self.rewind, masks, masks, 1)
        yield chain.going_on(level) if self.rewind == "none" else level
