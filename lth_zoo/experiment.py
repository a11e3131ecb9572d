"""A recipe as arms: the dense runs, the tickets and the controls, each at a level and a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import registry
from .controls import changed_by
from .errors import BadInput, unknown
from .jobs import DENSE, TICKET, Chain, Job, Level, graph
from .kinds import covered_by
from .protocols import adapter_of, task_of
from .recipe import Recipe
from .seeds import seeded


@dataclass(frozen=True)
class Arm:
    """One trained network of an experiment."""

    name: str
    seed: int
    level: Level

    @property
    def goal(self) -> Job:
        """The job that trains it."""
        assert self.level.train is not None
        return self.level.train


@dataclass(frozen=True)
class Experiment:
    """A checked recipe with every arm it asks for."""

    recipe: Recipe
    fingerprint: str
    arms: tuple[Arm, ...]

    @property
    def goals(self) -> list[Job]:
        """The trainings, search first: what others wait for comes early."""
        return [arm.goal for arm in self.arms]

    @property
    def jobs(self) -> list[Job]:
        """Every job, inputs first."""
        return graph(self.goals)

    def tickets(self) -> list[Arm]:
        """The tickets of the last level, one a seed."""
        last = max(arm.level.index for arm in self.arms)
        return [a for a in self.arms if a.name == TICKET and a.level.index == last]


def check(recipe: Recipe, data: Path | None = None) -> str:
    """Look at model, data and layers before any long work; return the data's fingerprint.

    Raises:
        BadInput: a name that does not exist, or layers that do not.
        DataError: the data is missing or damaged.
    """
    task = task_of(recipe.task, data)
    adapter = adapter_of(recipe.model)
    fingerprint = task.fingerprint()
    with seeded(0, "init"):
        prunable = adapter.prunable(adapter.build(recipe.model, task.signature))
    if not prunable:
        raise BadInput(f"model {recipe.model!r} has no prunable layer")
    config = {
        "exclude": recipe.exclude,
        "prune_first": recipe.prune_first,
        "prune_last": recipe.prune_last,
    }
    layers = [p.layer for p in covered_by(config, prunable).values()]
    for layer in getattr(recipe.finder, "overrides", dict)():
        if layer not in layers:
            raise unknown("layer", layer, layers)
    return fingerprint


def experiment(recipe: Recipe, data: Path | None = None) -> Experiment:
    """Check a recipe and lay out its arms.

    Raises:
        BadInput, DataError: see :func:`check`.
    """
    return lay_out(recipe, check(recipe, data))


def lay_out(recipe: Recipe, fingerprint: str) -> Experiment:
    """Return a recipe's arms over data of that fingerprint, unchecked."""
    return Experiment(recipe, fingerprint, tuple(_arms(recipe, fingerprint)))


def _arms(recipe: Recipe, fingerprint: str) -> Iterator[Arm]:
    chains = [Chain(recipe, seed, fingerprint) for seed in recipe.seeds]
    searched = {chain.seed: list(recipe.finder.search(chain)) for chain in chains}
    for seed, levels in searched.items():
        for level in levels:
            yield Arm(TICKET if level.index else DENSE, seed, level)
    for name in recipe.controls:
        control = registry.find("controls", name)
        for chain in chains:
            levels = [level for level in searched[chain.seed] if level.index and level.masks]
            if recipe.controls_at == "last":
                levels = levels[-1:]
            others = {}
            if changed_by(control) == "search":
                others = {lv.index: lv for lv in recipe.finder.search(control(chain))}
            for level in levels:
                yield Arm(name, chain.seed, _controlled(chain, name, level, others))


def _controlled(chain: Chain, name: str, level: Level, others: dict[int, Level]) -> Level:
    if not others:
        changes = changed_by(registry.find("controls", name))
        return chain.control(name, level, changes)
    masks = others[level.index].masks
    assert masks is not None
    assert level.train is not None
    return Level(level.index, level.start, masks, chain.again(level.train, level.start, masks))
