"""FastGLT: prune graph and weights at once, then mend both masks while training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ..allocate import TensorScope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..protocols import Finder
from .graph_imp import entry
from .ugs import amounts_of


@dataclass(frozen=True)
class FastGLT(Finder):
    """Prune to the targets at once, swap a few of the kept every few steps (Yue et al. 2025)."""

    every: int = 3
    """Iterations between two swaps."""
    share: float = 0.3
    """Share of the kept that goes, and of the rest that comes back, in the first swap."""
    degree_weight: float = 1.0
    """Weight of the ends' degrees in an edge's score, beside the gradient of its gate."""
    edges: Literal["degree", "random", "dspar"] = "degree"
    """Which edges stay at first: TEDDY's degree score, a random set, or one drawn as by DSpar."""
    scope: TensorScope = "global"
    """Where the weights compete, at first and in the swaps."""
    iterations: int | None = None
    """Iterations of the mending (default: those of one training)."""
    tie_directions: bool = True
    """Whether both directions of an undirected edge go together."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""

    prunes_graph: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = True
    paper: ClassVar[str] = "Yue et al., AAAI 2025, arXiv:2412.07605"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "one whole training, then one more in which the masks are mended",
        "prune": "smallest weights and lowest-scored edges at once; swaps by gradient afterwards",
        "re-initialise": "rewind to init or an early step",
        "train": "the same training again, on the kept edges",
    }

    def __post_init__(self) -> None:
        for name in ("every", "iterations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"finder.{name} is {value}; it must be at least 1")
        if not 0 <= self.share <= 1:
            raise BadInput(f"finder.share is {self.share}; it must be in [0, 1]")
        if not 0 <= self.degree_weight < float("inf"):
            raise BadInput(f"finder.degree_weight is {self.degree_weight}; it must be at least 0")

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the pruned one."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == chain.edge_density == 1:
            return
        if chain.edges:
            yield on_given_edges(chain, dense, self.rewind, self.tie_directions, self.scope)
            return
        assert dense.train is not None
        name = entry(self.tie_directions)
        coarse = chain.prune(
            *(dense.train, None),
            density=chain.density,
            scope=self.scope,
            start=dense.start,
            edges={"entry": name, "score": self.edges, "density": chain.edge_density},
        )
        whole = chain.recipe.training
        training = replace(whole, iterations=self.iterations or whole.iterations)
        amounts = amounts_of(name, chain.density, chain.edge_density)
        masks = chain.search(
            "denoise",
            {"start": dense.train, "masks": coarse},
            training=training.plain(),
            begin=0,
            end=training.iterations,
            **{**amounts, "scope": self.scope},
            every=self.every,
            share=self.share,
            degree_weight=self.degree_weight,
        )
        yield chain.retrain(self.rewind, masks, masks, 1)


def on_given_edges(
    chain: Chain, dense: Level, rewind: str, tie_directions: bool, scope: str = "global"
) -> Level:
    """Return the one level of a control with given edges: the smallest dense weights go.

    It is what :class:`~lth_zoo.finders.graph_imp.GraphIMP` does where one level is the whole way.
    """
    assert dense.train is not None
    masks = chain.prune(
        *(dense.train, None),
        density=chain.density,
        scope=scope,
        start=dense.start,
        edges={"entry": entry(tie_directions), "density": chain.edge_density},
    )
    return chain.retrain(rewind, dense.train, masks, 1)
