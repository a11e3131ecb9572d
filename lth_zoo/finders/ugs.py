"""UGS: learn a gate an edge and a soft mask a weight, prune the lowest, rewind."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Any, ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from ..protocols import Finder
from ..rewind import Rewind
from .graph_imp import GraphIMP, check_rates, entry, schedule

#: Learning rate of gates and soft masks where a finder has its own.
OWN_RATE = 0.004
#: The pull of each mode: as published for GCN on Cora; what measured best (docs/methods/ugs.md).
STRENGTHS = {"faithful": 1e-2, "safe": 1e-5}


@dataclass(frozen=True)
class Learned(Finder):
    """What the finders share that learn gates and soft masks level by level.

    Subclasses say in :meth:`_how` how a level learns, and whether directions are tied.
    """

    rate: float = 0.2
    """Share of the remaining weights removed a level."""
    edge_rate: float = 0.05
    """Share of the remaining edges removed a level."""
    iterations: int | None = None
    """Iterations of one search (default: those of one training, where that is short enough)."""
    mask_learning_rate: float | None = None
    """Learning rate of gates and soft masks, without weight decay (default: 0.004)."""
    earliest: int | None = None
    """First iteration whose masks may be the ones kept (default: the middle of the search)."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""
    levels: int | None = None
    """Stop after so many levels, if the targets are not reached before."""

    prunes_graph: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_rates(self.rate, self.edge_rate)
        for name in ("iterations", "earliest", "levels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"finder.{name} is {value}; it must be at least 1")
        if self.mask_learning_rate is not None and not 0 < self.mask_learning_rate < 1:
            raise BadInput(
                f"finder.mask_learning_rate is {self.mask_learning_rate}; it must be between 0 "
                "and 1"
            )

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and every pruned one.

        The control with random edges has no gates to learn: it prunes weights by magnitude.
        """
        if chain.edges:
            yield from self._on_given_edges(chain)
            return
        level = chain.dense(self.rewind)
        yield level
        amounts = schedule(self.rate, self.edge_rate, chain, self.levels)
        for index, (density, edges) in enumerate(amounts, start=1):
            inputs = {"start": start_of(self.rewind, level, chain)}
            found = self._search(chain, density, edges)
            masks = chain.search(
                "gates", inputs | ({"within": level.masks} if level.masks else {}), **found
            )
            level = chain.retrain(self.rewind, masks, masks, index)
            yield level

    def _on_given_edges(self, chain: Chain) -> Iterator[Level]:
        names = ("rate", "edge_rate", "rewind", "levels")
        same = {name: getattr(self, name) for name in names}
        yield from GraphIMP(**same, tie_directions=self._tied()).search(chain)

    def _search(self, chain: Chain, density: Fraction, edges: Fraction) -> dict[str, Any]:
        """Return what a job of kind ``gates`` reads for one level."""
        how = self._how(chain)
        training = replace(chain.recipe.training, iterations=how.pop("end"))
        return {
            "training": training.plain(),
            "begin": 0,
            "end": training.iterations,
            **amounts_of(entry(self._tied()), density, edges),
            "settle": None,
            **how,
        }

    def _tied(self) -> bool:
        raise NotImplementedError

    def _how(self, chain: Chain) -> dict[str, Any]:
        raise NotImplementedError

    def _bounded(self, chain: Chain) -> dict[str, Any]:
        """Return how long a search with a rate of its own is, and what of it may be kept.

        A pull that outweighs the loss moves a number by the rate a step: from 1 / rate steps on
        all would be 0, so that it ends before.

        Raises:
            BadInput: it is asked to be longer, or to keep what comes after its end.
        """
        rate = self.mask_learning_rate or OWN_RATE
        most = max(1, ceil(1 / Fraction(str(rate))) - 1)
        end = self.iterations or min(most, chain.recipe.training.iterations)
        if end > most:
            raise BadInput(
                f"finder.iterations is {end}; with finder.mask_learning_rate {rate} the masks may "
                f"all be 0 after 1 / {rate}: it must be at most {most}"
            )
        earliest = self.earliest or ceil(end / 2)
        if earliest > end:
            raise BadInput(
                f"finder.earliest is {earliest}; the search has {end} iterations: it must be at "
                "most that"
            )
        return {"end": end, "earliest": earliest, "noise": 0.0}


@dataclass(frozen=True)
class UGS(Learned):
    """Learn gates on edges and soft masks on weights under an L1 pull (Chen et al. 2021, UGS)."""

    mode: Literal["safe", "faithful"] = "safe"
    """faithful: one optimiser for all, nothing clamped, as in the published code; safe: masks of
    at least 0, with a learning rate of their own, that end before all are 0."""
    strength_edges: float | None = None
    """Weight of the L1 norm of the gates (default: faithful 1e-2, as published for GCN; safe
    1e-5)."""
    strength_weights: float | None = None
    """Weight of the L1 norm of the soft masks (default: the same)."""
    tie_directions: bool | None = None
    """Whether both directions of an edge go together (default: safe yes, faithful no)."""

    paper: ClassVar[str] = "Chen et al., ICML 2021, arXiv:2102.06790"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train gates on edges and soft masks on weights beside the weights, with L1",
        "prune": "lowest gates and soft masks, at the best validation",
        "re-initialise": "rewind to init or an early step",
        "train": "the same training, on the kept edges",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strengths(self, "strength_edges", "strength_weights")
        given = [n for n in ("mask_learning_rate", "earliest") if getattr(self, n) is not None]
        if self.mode == "faithful" and given:
            raise BadInput(
                f"finder.{given[0]} is {getattr(self, given[0])}, but mode 'faithful' has one "
                "learning rate and looks at every iteration; leave it out, or choose mode 'safe'"
            )

    def _tied(self) -> bool:
        return self.mode == "safe" if self.tie_directions is None else self.tie_directions

    def _how(self, chain: Chain) -> dict[str, Any]:
        if self.mode == "safe":
            rate = self.mask_learning_rate or OWN_RATE
            pulls = self._pulls(rate=rate, bounds=[0.0, None])
            return {**pulls, "distance": None, **self._bounded(chain)}
        training = chain.recipe.training
        end = self.iterations or training.iterations
        if training.learning_rate * end >= 1:
            _warn(
                f"finder 'ugs' in mode 'faithful' pulls every mask down by the learning rate "
                f"({training.learning_rate:g}) a step, and its {end} iterations reach past the "
                f"{ceil(1 / training.learning_rate)} after which all may be 0 and the loss NaN; "
                "the best masks before are used"
            )
        pulls = self._pulls(rate=None, bounds=None)
        return {**pulls, "distance": None, "end": end, "earliest": 1, "noise": 1e-5}

    def _pulls(self, **how: Any) -> dict[str, dict[str, Any]]:
        given = {"edges": self.strength_edges, "weights": self.strength_weights}
        usual = STRENGTHS[self.mode]
        return {part: {"strength": usual if s is None else s, **how} for part, s in given.items()}


def start_of(rewind: str, level: Level, chain: Chain) -> Job:
    """Return the job whose weights the next search starts from: the level's, or what it learned."""
    kind = Rewind.parse(rewind, chain.recipe.training.iterations).kind
    if level.index and kind in ("none", "learning-rate"):
        assert level.train is not None
        return level.train
    return level.start


def amounts_of(name: str, density: Fraction, edges: Fraction) -> dict[str, Any]:
    """Return how much of the edges and of the weights a job of kind ``gates`` keeps."""
    return {
        "entry": name,
        "edge_density": str(edges),
        "density": str(density),
        "scope": "global",
        "overrides": {},
        "total": None,
    }


def check_strengths(finder: Finder, *names: str) -> None:
    """Assert that weights of losses are finite and at least 0.

    Raises:
        BadInput: one is not.
    """
    for name in names:
        value = getattr(finder, name)
        if value is not None and not 0 <= value < float("inf"):
            raise BadInput(f"finder.{name} is {value}; it must be at least 0")


@lru_cache
def _warn(text: str) -> None:
    """Print a line on stderr, once a process: a recipe is laid out several times."""
    print(f"lth-zoo: warning: {text}", file=sys.stderr)
