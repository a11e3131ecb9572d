"""What the command line and Python callers share: run recipes, judge them, hand out tickets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import runs
from .backend import backend_for
from .engines.local import Outcome, Watcher, run
from .errors import BadInput, JobFailed
from .experiment import Experiment, experiment
from .protocols import Finder
from .recipe import Recipe, Training, build
from .session import Execution, cached_task, machine_of
from .store import Store
from .trials.cells import Judged, TransferResults, judge_cells
from .trials.collect import collect, machines
from .trials.collect_cells import collect_transfer
from .trials.makers import MakerCarry, between_models
from .trials.results import Results
from .trials.transfer import Carry, transfer_matrix
from .trials.transfer_study import TransferStudy
from .trials.verdict import LevelVerdict, judge_levels

if TYPE_CHECKING:
    from torch import nn

    from .ticket import Ticket


@dataclass(frozen=True)
class Finished:
    """A recipe that ran: what was measured, the verdict at each level, and how it went."""

    id: str
    experiment: Experiment
    results: Results
    verdicts: list[LevelVerdict]
    outcome: Outcome


@dataclass(frozen=True)
class Transferred:
    """A transfer matrix that ran: what was measured, what may be said of each cell, and how.

    A failed run is in its cell's ``errors``; it is not raised.
    """

    id: str
    matrix: TransferStudy
    results: TransferResults
    judged: list[Judged]
    outcome: Outcome


def run_recipes(
    recipes: Sequence[Recipe],
    store: Store,
    execution: Execution,
    workers: int = 0,
    watcher: Watcher | None = None,
    *,
    command: str = "",
    one_machine: bool = False,
) -> list[Finished]:
    """Run recipes as one job graph; what they share runs once, what is done is not run again.

    ``command`` is kept with the runs as the line that resumes them; with ``one_machine``
    arms that ran elsewhere are refused (see :func:`check_machines`).

    Raises:
        BadInput, DataError: something in a recipe is wrong; nothing ran.
        StoreError: the store cannot be written.
    """
    for recipe in recipes:
        backend_for(execution.device, recipe.training.precision)
    cached_task.cache_clear()  # the data may have changed since an earlier call of this process
    laid = [experiment(recipe, execution.data) for recipe in recipes]
    if one_machine:
        for one in laid:
            check_machines(one, store, execution)
    store.prepare()
    for one in laid:
        runs.note(store, one, "running", command=command)
    goals = [goal for one in laid for goal in one.goals]
    outcome = run(goals, store, execution, workers, watcher)
    finished = []
    for one in laid:
        own = share_of(outcome, one)
        state = "failed" if own.failed else "done"
        name = runs.note(store, one, state, own.failed, command)
        finished.append(judged(name, one, store, own, execution.data))
    return finished


def share_of(outcome: Outcome, one: Experiment) -> Outcome:
    """Return an outcome with the failures of one experiment only."""
    keys = {job.key for job in one.jobs}
    failed = {k: v for k, v in outcome.failed.items() if k in keys}
    return replace(outcome, failed=failed, blocked=[j for j in outcome.blocked if j.key in keys])


def judged(
    name: str, one: Experiment, store: Store, outcome: Outcome, data: Path | None = None
) -> Finished:
    """Collect and judge what the store holds of an experiment."""
    results = collect(one, store, outcome.failed, data)
    paired = one.recipe.compare == "paired"
    return Finished(name, one, results, judge_levels(results, paired=paired), outcome)


def find(
    model: str | nn.Module = "lenet-300-100",
    task: str = "digits",
    *,
    finder: Finder | None = None,
    sparsity: float = 0.9,
    seed: int = 0,
    training: Training | None = None,
    store: Path | str = "lth-store",
    workers: int = 0,
    data: Path | None = None,
    device: str = "cpu",
    **fields: Any,
) -> Ticket:
    """Find one ticket and return it; running it again returns the same one at once.

    Args:
        model: a name of ``lth-zoo ls models``, ``module:function``, or an ``nn.Module``,
            whose own weights are then the initial state.
        task: a name of ``lth-zoo ls tasks``.
        finder: how; iterative magnitude pruning by default.
        sparsity: removed share of the prunable weights, in [0, 1).
        seed: root seed of everything random.
        training: hyper-parameters; the defaults of :class:`~lth_zoo.recipe.Training`.
        store: folder of all results.
        workers: worker processes; 0 (the default) runs in this one, which needs no
            ``if __name__ == "__main__"`` in a script.
        data: folder of local data sets.
        device: where tensors live.
        **fields: any other field of :class:`~lth_zoo.recipe.Recipe`.

    Raises:
        BadInput, DataError, StoreError: see the message.
        JobFailed: a job failed; the message has each one's reason.
    """
    from .objects import registered
    from .tickets import ticket_of

    if workers and not isinstance(model, str):
        raise BadInput(f"workers is {workers}; a model object stays in this process: give 0")
    given = {"finder": finder, "training": training}
    chosen = {k: v for k, v in given.items() if v is not None} | fields
    with registered(model, store) as (name, place):
        recipe: Recipe = build(
            Recipe,
            {"model": name, "task": task, "sparsity": sparsity, "seeds": (seed,), "controls": ()}
            | chosen,
        )
        execution = Execution(device=device, data=data)
        (finished,) = run_recipes([recipe], Store(place), execution, workers)
        finished_or_raise(finished)
        return ticket_of(finished.experiment.tickets()[0], finished, Store(place), data)


def check_machines(one: Experiment, store: Store, execution: Execution) -> None:
    """Assert, before anything runs, that all arms ran, or will run, on one kind of machine.

    Arms of different machines differ in more than the ticket.

    Raises:
        BadInput: the store's trainings, and those to be run here, make more than one kind of
            device, processor or torch.
    """
    found = machines(one, store)
    if any(store.entry(arm.goal) is None for arm in one.arms):
        here = machine_of(execution)
        found |= {(here["device"], here["cpu"], here["torch"])}
    if len(found) > 1:
        listed = "; ".join(" / ".join(machine) for machine in sorted(found))
        raise BadInput(
            f"the trainings of run {runs.run_id(one.recipe)} would be of different machines "
            f"({listed}), which a verdict must not mix; choose a new store (--store) to train "
            "all of them here"
        )


def finished_or_raise(finished: Finished) -> None:
    """Raise if any job of a run failed.

    Raises:
        JobFailed: with every reason.
    """
    if finished.outcome.failed:
        reasons = "; ".join(sorted(set(finished.outcome.failed.values())))
        raise JobFailed(f"{len(finished.outcome.failed)} jobs failed: {reasons}")


def verify(
    ticket: Ticket,
    *,
    model: nn.Module | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    controls: Sequence[str] | None = None,
    store: Path | str = "lth-store",
    workers: int = 0,
    data: Path | None = None,
    device: str = "cpu",
    watcher: Watcher | None = None,
) -> LevelVerdict:
    """Judge a ticket: its recipe over several seeds, each with its own search and controls.

    A ticket of a model object needs that object again as ``model``, with the weights it had.

    Raises:
        BadInput: the ticket carries no recipe (it was imported), its model object is not
            given, or the store's trainings ran on different machines.
        JobFailed: a job failed.
    """
    from .objects import registered
    from .tickets import recipe_of

    if workers and model is not None:
        raise BadInput(f"workers is {workers}; a model object stays in this process: give 0")
    named = ticket.meta.get("model", "") if model is None else model
    with registered(named, store) as (_, place):
        recipe = recipe_of(ticket, tuple(seeds), None if controls is None else tuple(controls))
        (finished,) = run_recipes(
            *([recipe], Store(place), Execution(device=device, data=data), workers, watcher),
            one_machine=True,
        )
    finished_or_raise(finished)
    return finished.verdicts[-1]


def run_transfer(
    matrix: TransferStudy,
    store: Store,
    execution: Execution,
    workers: int = 0,
    watcher: Watcher | None = None,
    *,
    command: str = "",
) -> Transferred:
    """Run a transfer matrix as one job graph; each source's search runs once, as in ``find``.

    Raises:
        StoreError: the store cannot be written.
    """
    backend_for(execution.device, matrix.recipe.training.precision)
    store.prepare()
    runs.note_transfer(store, matrix, "running", command=command)
    outcome = run(matrix.goals, store, execution, workers, watcher)
    state = "failed" if outcome.failed else "done"
    name = runs.note_transfer(store, matrix, state, outcome.failed, command)
    results = collect_transfer(matrix, store, outcome.failed)
    return Transferred(name, matrix, results, judge_cells(results), outcome)


def transfer(
    model: str | nn.Module = "lenet-300-100",
    *,
    sources: Sequence[str] = (),
    targets: Sequence[str] = (),
    carry: Carry | MakerCarry = "mask",
    backbones: Sequence[str] | None = None,
    finder: Finder | None = None,
    sparsity: float = 0.7,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    training: Training | None = None,
    store: Path | str = "lth-store",
    workers: int = 0,
    data: Path | None = None,
    device: str = "cpu",
    watcher: Watcher | None = None,
    **fields: Any,
) -> Transferred:
    """Bring tickets found on the sources to the targets and judge every cell.

    With ``backbones`` each model's ticket is brought to all of them instead, on the ``task``: its
    edges on a graph, beside edges by degree and at random; on a task ``generation/...`` its
    decoder's or generator's masks, beside one-shot and random ones.

    Args:
        model: as in :func:`find`; not used with ``backbones``.
        sources: tasks, ``one-shot`` (the largest weights of theta_0), ``random`` (the layer
            counts of the target's own ticket), tasks with ``@random-labels`` (a search on
            permuted labels); globs such as ``glue/*`` stand for tasks.
        targets: tasks; those among the sources where none are given.
        carry: what comes along besides the mask: ``mask`` nothing, ``mask+state`` the source
            ticket's trained weights, ``mask+signs`` their signs; between models that make images
            ``mask`` or ``mask+start``, the weights that the ticket is rewound to.
        backbones: names of models that read a graph, or that make images; without sources and
            targets.
        finder: how tickets are found; iterative magnitude pruning by default.
        sparsity: removed share of the prunable weights, the same for all sources.
        seeds: root seeds; each is a search on every source and its own trainings.
        training: hyper-parameters of every training.
        store: folder of all results.
        workers: worker processes; 0 runs in this one.
        data: folder of local data sets.
        device: where tensors live.
        watcher: what may look at the running graph.
        **fields: any other field of :class:`~lth_zoo.recipe.Recipe`.

    Raises:
        BadInput, DataError, StoreError: see the message. A cell that fails is not raised.
    """
    from .objects import registered

    if workers and not isinstance(model, str):
        raise BadInput(f"workers is {workers}; a model object stays in this process: give 0")
    if backbones is not None and (sources or targets):
        raise BadInput("backbones have no sources, targets or carry: each is brought to all")
    unused = {"task", "controls"} if backbones is None else {"controls"}
    if odd := fields.keys() & unused:
        raise BadInput(f"a transfer has no {sorted(odd)[0]} of its own; give sources and targets")
    given = {"finder": finder, "training": training}
    chosen = {k: v for k, v in given.items() if v is not None} | fields
    with registered(model if backbones is None else "", store) as (name, place):
        plain = {"model": name, "sparsity": sparsity, "seeds": tuple(seeds), "controls": ()}
        recipe: Recipe = build(Recipe, plain | chosen)
        cached_task.cache_clear()
        matrix: TransferStudy
        if backbones is None:
            matrix, _ = transfer_matrix(recipe, sources, targets, carry, data)
        else:
            matrix = between_models(recipe, backbones, carry, data)
        execution = Execution(device=device, data=data)
        return run_transfer(matrix, Store(place), execution, workers, watcher)
