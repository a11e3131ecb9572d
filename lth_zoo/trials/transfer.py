"""A transfer study as jobs: each source's ticket brought to each target, and what came of it.

A *source* is a task whose search gives the masks, or one of two that search nothing:
``one-shot`` (the largest weights of theta_0) and ``random`` (as many weights a layer as the
target's own ticket). A *target* is a task they are trained on, from theta_0 with the head its
own ticket has. The *same-task ticket* and *dense* are those of ``find``: the same jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from .. import registry
from ..errors import BadInput, DataError, unknown
from ..experiment import experiment
from ..jobs import Job
from ..recipe import Recipe
from ..session import task_for
from .footing import footing
from .transfer_study import CellJob, TransferStudy, check_start

ONE_SHOT, RANDOM = "one-shot", "random"
#: Sources that no search is behind.
FREE = (ONE_SHOT, RANDOM)
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


# -- asking for one ------------------------------------------------------------------------


def transfer_matrix(
    recipe: Recipe,
    sources: Sequence[str],
    targets: Sequence[str] = (),
    carry: str = "mask",
    data: Path | None = None,
) -> tuple[Matrix, list[str]]:
    """Check a transfer study and lay it out; also returns what a glob named and is not at hand.

    ``sources`` and ``targets`` may hold globs; no targets means the tasks among the sources.
    The recipe's own task and controls are not used.

    Raises:
        BadInput: a name that does not exist, or a recipe that has no ticket to bring anywhere.
        DataError: the data of a task is missing or damaged.
    """
    if carry not in get_args(Carry):
        if carry == "mask+start":
            raise BadInput("carry 'mask+start' is between models, which --backbones gives")
        raise unknown("carry", carry, get_args(Carry))
    if not sources:
        raise BadInput(f"no sources; give tasks, {' or '.join(FREE)}")
    from_, skipped = _named(sources, recipe, data, FREE)
    to, more = _named(targets or [s for s in from_ if s not in FREE], recipe, data)
    if not to:
        raise BadInput("no targets; give tasks to bring the tickets to")
    if recipe.sparsity == 0:
        raise BadInput("sparsity is 0: there is no ticket to bring anywhere; give one above 0")
    recipe = replace(recipe, task=to[0], controls=())
    tasks = list(dict.fromkeys([*(s for s in from_ if s not in FREE), *to]))
    if carry != "mask" and not any(s not in (*FREE, t) for s in from_ for t in to):
        raise BadInput(f"carry {carry!r} needs a source that is a task and not the only target")
    found = {task: experiment(replace(recipe, task=task), data) for task in tasks}
    for one in found.values():
        check_start(one.recipe)
    prints = {task: one.fingerprint for task, one in found.items()}
    iterations = {task: one.recipe.training.iterations for task, one in found.items()}
    pairs = [(s, t) for s in from_ for t in to if s not in (*FREE, t)]
    base = footing([one.recipe for one in found.values()], pairs, data)
    recipe = replace(recipe, head=found[to[0]].recipe.head)
    matrix = Matrix(recipe, tuple(from_), tuple(to), carry, prints, iterations, base)
    return matrix, skipped + more


def known_tasks() -> list[str]:
    """Return every task that has a whole name, which a glob may stand for."""
    return [name for name in registry.names("tasks") if not name.endswith("/")]


def _named(
    given: Sequence[str], recipe: Recipe, data: Path | None, free: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the tasks that names and globs stand for, and why some of a glob's are left out."""
    found: list[str] = []
    skipped: list[str] = []
    for name in given:
        if name in free:
            found.append(name)
        elif name in FREE:
            raise BadInput(f"{name!r} is a source, not a task to train on; it cannot be a target")
        elif not any(c in name for c in "*?"):
            _look(name, recipe, data)
            found.append(name)
        else:
            matches = [task for task in known_tasks() if fnmatchcase(task, name)]
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
    """Raise unless the task exists, the model reads it, and its data is there."""
    task_for(replace(recipe, task=name), data).fingerprint()
