"""Dual graph tickets: make a random ticket of graph and weights a good one, before the cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..allocate import TensorScope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .fast_glt import on_given_edges
from .graph_imp import entry
from .ugs import OWN_RATE


@dataclass(frozen=True)
class DualGraph(Finder):
    """Draw a ticket at random, fade out the rest while training (RST on graph and weights)."""

    growth: float = 1.0
    """Power by which what is to go falls over the search: 1 linearly, above that sooner."""
    gate_learning_rate: float | None = None
    """Learning rate of the gates of edges that are to go, without weight decay (default: 0.004)."""
    scope: TensorScope = "global"
    """Among which weights the random ones are drawn."""
    iterations: int | None = None
    """Iterations of the search (default: those of one training)."""
    tie_directions: bool = True
    """Whether both directions of an undirected edge go together."""
    rewind: str = "none"
    """What survivors get back: none[=K] (they train on), learning-rate[=K]; others forget what the
    search has moved into the ticket: init, step=K, P%, fresh."""

    prunes_graph: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Wang et al., ICLR 2023 (DGLT), after Bai et al., ICLR 2022, arXiv:2203.04248 (RST)"
    )
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train all, with a growing L2 penalty on what is to go",
        "prune": "random edges and weights, drawn before any training",
        "re-initialise": "nothing: survivors train on",
        "train": "a whole training, on the kept edges",
    }

    def __post_init__(self) -> None:
        for name in ("growth", "gate_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise BadInput(f"finder.{name} is {value}; it must be above 0")
        if self.iterations is not None and self.iterations < 1:
            raise BadInput(f"finder.iterations is {self.iterations}; it must be at least 1")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the pruned one."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == chain.edge_density == 1:
            return
        if chain.edges:
            yield on_given_edges(chain, dense, self.rewind, self.tie_directions, self.scope)
            return
        name = entry(self.tie_directions)
        drawn = chain.prune(
            *(dense.start, None),
            density=chain.density,
            score="random",
            scope=self.scope,
            start=dense.start,
            edges={"entry": name, "score": "random", "density": chain.edge_density},
        )
        whole = chain.recipe.training
        training = replace(whole, iterations=self.iterations or whole.iterations)
        masks = chain.search(
            "inform",
            {"start": dense.start, "masks": drawn},
            training=training.plain(),
            begin=0,
            end=training.iterations,
            entry=name,
            growth=self.growth,
            gate_rate=self.gate_learning_rate or OWN_RATE,
        )
        yield chain.retrain(self.rewind, masks, masks, 1)
