"""A transfer study as jobs: each source's ticket brought to each target, and what came of it.

A *source* is a task whose search gives the masks; a task ``@random-labels``, whose search saw
permuted labels; or one of two that search nothing: ``one-shot`` (the largest weights of theta_0)
and ``random`` (as many weights a layer as the target's own ticket). A *target* is a task they are
trained on, from theta_0 with the head its own ticket has. The *same-task ticket* and *dense* are
those of ``find``: the same jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from .. import registry
from ..controls import random_labels
from ..errors import BadInput, DataError, unknown
from ..experiment import Arm, experiment
from ..jobs import Job
from ..recipe import Recipe
from ..session import task_for
from .footing import footing
from .transfer_study import CellJob, TransferStudy, check_start

ONE_SHOT, RANDOM = "one-shot", "random"
#: Sources that no search is behind.
FREE = (ONE_SHOT, RANDOM)
#: What a source's name ends in that is searched on permuted labels.
RANDOM_LABELS = "@random-labels"
#: What of a source's ticket comes along.
Carry = Literal["mask", "mask+state", "mask+signs"]
_CHANGES = {"mask": "masks", "mask+state": "state", "mask+signs": "signs"}


@dataclass(frozen=True)
class Matrix(TransferStudy):
    """A checked study of tickets from task to task: ``sources`` and ``targets`` are tasks."""

    axis = "task"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task, as source or target."""
        return tuple(self.fingerprints)

    @property
    def title(self) -> str:
        """What a person calls it."""
        return self.recipe.name or f"transfer of {self.recipe.model}"

    @property
    def searches(self) -> int:
        """How many tickets are searched for."""
        searched = {*self.sources, *self.targets}.difference(FREE)
        return len(searched) * len(self.recipe.seeds)

    @cached_property
    def tickets(self) -> dict[tuple[str, int], Arm]:
        """(task, seed) -> the ticket of the last level; of sources on permuted labels, too."""
        found = {(name, a.seed): a for name, e in self.experiments.items() for a in e.tickets()}
        for source in self.sources:
            if searched_on(source) == source:
                continue
            for seed in self.recipe.seeds:
                chain = random_labels(self.chain(searched_on(source), seed))
                *_, level = chain.recipe.finder.search(chain)
                found[source, seed] = Arm(source, seed, level)
        return found

    def _cell(self, source: str, target: str, seed: int) -> CellJob:
        arm = self.tickets[target, seed]
        level, chain = arm.level, self.chain(target, seed)
        assert level.masks is not None
        if source == target:
            return CellJob(source, target, seed, level.masks, arm.goal)
        if source in FREE:
            masks = self._unsearched(source, target, seed)
            return CellJob(source, target, seed, masks, chain.again(arm.goal, level.start, masks))
        ticket = self.tickets[source, seed]
        assert ticket.level.masks is not None
        inputs = {"masks": ticket.level.masks}
        if self.recipe.finder.prunes_graph:
            inputs["own"] = level.masks
        if self.carry != "mask":
            inputs |= {"source": ticket.goal, "start": level.start}
        config = {k: v for k, v in chain.initial().config.items() if k != "draw"}
        brought = Job("carry", {**config, "changes": _CHANGES[self.carry]}, inputs)
        start = level.start if self.carry == "mask" else brought
        return CellJob(source, target, seed, brought, chain.again(arm.goal, start, brought))

    def _unsearched(self, source: str, task: str, seed: int) -> Job:
        """Return masks that no search is behind, with the edges of the task's own ticket if any."""
        chain = self.chain(task, seed)
        if source == ONE_SHOT and not self.recipe.finder.prunes_graph:
            return chain.prune(chain.initial(), None, density=self.recipe.density)
        control = {ONE_SHOT: "one-shot", RANDOM: "random-layer"}[source]  # they leave edges alone
        masks = chain.control(control, self.tickets[task, seed].level, "masks").masks
        assert masks is not None
        return masks

    def masks_of(self, source: str, seed: int) -> Job | None:
        """Return a source's masks, None for the random one: see :meth:`TransferStudy.masks_of`."""
        if source == RANDOM:
            return None
        if source == ONE_SHOT:
            return self._unsearched(source, self.targets[0], seed)
        return self.tickets[source, seed].level.masks


def searched_on(source: str) -> str:
    """Return the task that a source is searched on.

    >>> searched_on("mnist@random-labels"), searched_on("mnist")
    ('mnist', 'mnist')
    """
    return source.removesuffix(RANDOM_LABELS)


# -- asking for one ------------------------------------------------------------------------


def transfer_matrix(
    recipe: Recipe,
    sources: Sequence[str],
    targets: Sequence[str] = (),
    carry: str = "mask",
    data: Path | None = None,
) -> tuple[Matrix, list[str]]:
    """Check a transfer study and lay it out; also returns what a glob named and is not at hand.

    ``sources`` and ``targets`` may hold globs; no targets means the tasks among the sources, but
    for those ``@random-labels``.
    The recipe's own task and controls are not used.

    Raises:
        BadInput: a name that does not exist, a source without the labels to permute, or a recipe
            that has no ticket to bring anywhere.
        DataError: the data of a task is missing or damaged.
    """
    if carry not in get_args(Carry):
        if carry == "mask+start":
            raise BadInput("carry 'mask+start' is between models, which --backbones gives")
        raise unknown("carry", carry, get_args(Carry))
    if not sources:
        raise BadInput(f"no sources; give tasks, {' or '.join(FREE)}")
    from_, skipped = _named(sources, recipe, data, FREE)
    to, more = _named(targets or [s for s in from_ if _plain(s)], recipe, data)
    if not to:
        raise BadInput("no targets; give tasks to bring the tickets to")
    if recipe.sparsity == 0:
        raise BadInput("sparsity is 0: there is no ticket to bring anywhere; give one above 0")
    recipe = replace(recipe, task=to[0], controls=())
    tasks = list(dict.fromkeys([*(searched_on(s) for s in from_ if s not in FREE), *to]))
    if carry != "mask" and not any(s not in (*FREE, t) for s in from_ for t in to):
        raise BadInput(f"carry {carry!r} needs a source that is a task and not the only target")
    found = {task: experiment(replace(recipe, task=task), data) for task in tasks}
    for one in found.values():
        check_start(one.recipe)
    prints = {task: one.fingerprint for task, one in found.items()}
    iterations = {task: one.recipe.training.iterations for task, one in found.items()}
    behind = dict.fromkeys(searched_on(s) for s in from_ if s not in FREE)
    pairs = [(s, t) for s in behind for t in to if s != t]
    base = footing([one.recipe for one in found.values()], pairs, data)
    recipe = replace(recipe, head=found[to[0]].recipe.head)
    matrix = Matrix(recipe, tuple(from_), tuple(to), carry, prints, iterations, base)
    assert matrix.tickets  # a search that cannot be on permuted labels is said now
    return matrix, skipped + more


def known_tasks() -> list[str]:
    """Return every task that has a whole name, which a glob may stand for."""
    return [name for name in registry.names("tasks") if not name.endswith("/")]


def _plain(name: str) -> bool:
    """Say whether a source is a task as it is."""
    return name not in FREE and searched_on(name) == name


def _named(
    given: Sequence[str], recipe: Recipe, data: Path | None, free: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the tasks that names and globs stand for, and why some of a glob's are left out."""
    found: list[str] = []
    skipped: list[str] = []
    for name in given:
        if name in free:
            found.append(name)
        elif not free and not _plain(name):
            raise BadInput(f"{name!r} is a source, not a task to train on; it cannot be a target")
        elif not any(c in name for c in "*?"):
            _look(name, recipe, data)
            found.append(name)
        else:
            end = name[len(searched_on(name)) :]
            matches = [t + end for t in known_tasks() if fnmatchcase(t, searched_on(name))]
            if not matches:
                raise unknown("task", name, known_tasks())
            at_hand, missing = _at_hand(matches, recipe, data)
            if not at_hand:
                raise BadInput(f"no task of {name!r} can be used: {'; '.join(missing)}")
            found, skipped = found + at_hand, skipped + missing
    return list(dict.fromkeys(found)), skipped


def _at_hand(
    names: Iterable[str], recipe: Recipe, data: Path | None
) -> tuple[list[str], list[str]]:
    found, missing = [], []
    for name in names:
        try:
            _look(name, recipe, data)
            found.append(name)
        except (BadInput, DataError) as error:
            missing.append(f"{name}: {error}")
    return found, missing


def _look(name: str, recipe: Recipe, data: Path | None) -> None:
    """Raise unless a source's task exists, the model reads it, and its data is there."""
    task = task_for(replace(recipe, task=searched_on(name)), data)
    task.fingerprint()
    if searched_on(name) != name and not task.labelled:
        raise BadInput(f"source {name!r} permutes labels, and {searched_on(name)!r} has none")
