"""What a transfer study is, whatever is transferred: cells of sources and targets as jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from ..chain import Chain
from ..errors import BadInput
from ..experiment import Arm, Experiment, lay_out
from ..jobs import DENSE, Job, graph
from ..recipe import Recipe
from ..rewind import Rewind
from .footing import Footing


@dataclass(frozen=True)
class CellJob:
    """One seed of a cell: the masks it trains under, and the training."""

    source: str
    target: str
    seed: int
    masks: Job
    goal: Job


@dataclass(frozen=True)
class TransferStudy:
    """A checked study of tickets of the sources on the targets.

    ``recipe`` is the one of every search, but for the field that ``axis`` names: along it sources
    and targets lie. ``fingerprints`` maps what is searched to its data's, ``iterations`` to the
    length of its trainings; ``footing`` says what all the masks share.
    """

    recipe: Recipe
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    carry: str
    fingerprints: Mapping[str, str]
    iterations: Mapping[str, int]
    footing: Footing

    axis: ClassVar[Literal["task", "model"]]

    # -- what subclasses write ---------------------------------------------------------------

    def _cell(self, source: str, target: str, seed: int) -> CellJob:
        raise NotImplementedError

    def masks_of(self, source: str, seed: int) -> Job | None:
        """Return a source's masks, for a comparison of sources; None where each target has its own.

        Masks that need no search are those of the first target.
        """
        raise NotImplementedError

    def prefix_of(self, source: str) -> str:  # noqa: ARG002 - for subclasses
        """Return what stands before the shared tensors' names in a source's masks."""
        return self.footing.prefix

    @property
    def title(self) -> str:
        """What a person calls it."""
        raise NotImplementedError

    # -- searches ----------------------------------------------------------------------------

    @cached_property
    def experiments(self) -> dict[str, Experiment]:
        """What is searched -> its dense runs and tickets, as ``find`` lays them out."""
        prints = self.fingerprints.items()
        return {name: lay_out(self.recipe_of(name), print_) for name, print_ in prints}

    def recipe_of(self, name: str) -> Recipe:
        """Return the recipe of one search."""
        training = replace(self.recipe.training, iterations=self.iterations[name])
        place: dict[str, Any] = {self.axis: name}
        return replace(self.recipe, **place, training=training, epochs=None)

    @cached_property
    def tickets(self) -> dict[tuple[str, int], Arm]:
        """(what is searched, seed) -> the ticket of the last level."""
        every = self.experiments.items()
        return {(name, arm.seed): arm for name, one in every for arm in one.tickets()}

    @property
    def searches(self) -> int:
        """How many tickets are searched for."""
        return len(self.fingerprints) * len(self.recipe.seeds)

    def chain(self, name: str, seed: int) -> Chain:
        """Return what builds jobs of a search and seed."""
        return Chain(self.experiments[name].recipe, seed, self.fingerprints[name])

    # -- cells -------------------------------------------------------------------------------

    @cached_property
    def cells(self) -> tuple[CellJob, ...]:
        """Every cell and seed, sources in order; last the targets' own that no source has."""
        return tuple(self._cell(s, t, seed) for s, t in self._pairs() for seed in self.recipe.seeds)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        yield from ((s, t) for s in self.sources for t in self.targets)
        yield from ((t, t) for t in self.targets if t not in self.sources)

    @cached_property
    def dense(self) -> tuple[Arm, ...]:
        """The targets' dense runs."""
        return tuple(arm for target in self.targets for arm in self.dense_of(target))

    def dense_of(self, target: str) -> list[Arm]:
        """Return the dense runs of a target, one a seed."""
        return [arm for arm in self.experiments[target].arms if arm.name == DENSE]

    @property
    def goals(self) -> list[Job]:
        """The trainings whose metrics are shown; what they need follows from them."""
        return list(dict.fromkeys([a.goal for a in self.dense] + [c.goal for c in self.cells]))

    @property
    def jobs(self) -> list[Job]:
        """Every job, inputs first, each once."""
        return graph(self.goals)


def check_start(recipe: Recipe) -> None:
    """Assert that a recipe's tickets can be compared from one start.

    Raises:
        BadInput: its finder goes on from trained weights.
    """
    rule = getattr(recipe.finder, "rewind", "init")
    if Rewind.parse(rule, recipe.training.iterations).kind in ("learning-rate", "none"):
        raise BadInput(
            f"finder.rewind is {rule!r}: every ticket would go on from its own trained weights, "
            "and the cells of a target must have one start; give init or step=K"
        )
