"""WD-GLT: learned edge masks whose loss reaches every edge, through the answers for all nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..chain import Chain
from ..errors import BadInput
from .ugs import OWN_RATE, Learned, check_strengths


@dataclass(frozen=True)
class WDGLT(Learned):
    """Learn gates that also hold predicted classes apart (Hui et al. 2023, WD-GLT)."""

    strength: float = 0.1
    """Weight of the Wasserstein distances between a predicted class and the other nodes."""
    epsilon: float = 1e-3
    """Entropic regularisation of the distances."""
    rounds: int = 10
    """Rounds of Sinkhorn's iteration."""
    nodes: int = 256
    """Nodes drawn from either side of a class, each iteration; memory is their square."""
    strength_edges: float = 0.0
    """Weight of the L1 norm of the gates (the paper: none)."""
    strength_weights: float = 0.0
    """Weight of the L1 norm of the soft masks (the paper: none)."""
    tie_directions: bool = True
    """Whether both directions of an undirected edge go together."""

    paper: ClassVar[str] = "Hui et al., ICLR 2023, arXiv:2305.02190"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train gates and soft masks beside the weights, with distances of classes",
        "prune": "lowest gates and soft masks, at the best validation",
        "re-initialise": "rewind to init or an early step",
        "train": "the same training, on the kept edges",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strengths(self, "strength", "strength_edges", "strength_weights")
        for name in ("rounds", "nodes"):
            if getattr(self, name) < 1:
                raise BadInput(f"finder.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.epsilon < float("inf"):
            raise BadInput(f"finder.epsilon is {self.epsilon}; it must be above 0")

    def _tied(self) -> bool:
        return self.tie_directions

    def _how(self, chain: Chain) -> dict[str, Any]:
        rate = self.mask_learning_rate or OWN_RATE
        distance = {n: getattr(self, n) for n in ("strength", "epsilon", "rounds", "nodes")}
        return {
            "edges": {"strength": self.strength_edges, "rate": rate, "bounds": [0.0, 1.0]},
            "weights": {"strength": self.strength_weights, "rate": rate, "bounds": [0.0, None]},
            "distance": distance,
            **self._bounded(chain),
        }
