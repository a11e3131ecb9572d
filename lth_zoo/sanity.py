"""A ticket through the battery of sanity checks: for the command line and for Python callers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .api import check_machines
from .engines.local import Watcher
from .errors import BadInput
from .experiment import Experiment
from .recipe import Recipe
from .session import Execution
from .store import Store
from .studies.battery import SEEDS, Battery
from .studies.run import Studied, run_study
from .tickets import recipe_of

if TYPE_CHECKING:
    from torch import nn

    from .ticket import Ticket


@dataclass(frozen=True)
class Examination:
    """A ticket's recipe and the battery it is put through, checked; nothing has run."""

    study: Battery
    recipe: Recipe
    experiment: Experiment

    @classmethod
    def of(
        cls,
        ticket: Ticket,
        profile: str,
        seeds: Sequence[int] | None = None,
        data: Path | None = None,
    ) -> Examination:
        """Return what a battery does to a ticket; without ``seeds`` the battery's own.

        Raises:
            BadInput: no such battery, or the ticket carries no recipe.
        """
        study = Battery(profile=profile)
        recipe = recipe_of(ticket, tuple(seeds or SEEDS[profile]), ())
        return cls(study, recipe, study.suited(recipe, data)[0])


def run_battery(
    one: Examination,
    store: Store,
    execution: Execution,
    workers: int = 0,
    watcher: Watcher | None = None,
    out: Path | None = None,
) -> Studied:
    """Run a ticket's checks and write their page; what is done is not run again.

    Raises:
        BadInput: the arms would be of different machines.
        StoreError: the store or the page cannot be written.
    """
    check_machines(one.experiment, store, execution)
    return run_study(one.study, one.recipe, store, execution, workers, watcher, out)


def battery(
    ticket: Ticket,
    profile: str = "quick",
    *,
    model: nn.Module | None = None,
    seeds: Sequence[int] | None = None,
    store: Path | str = "lth-store",
    workers: int = 0,
    data: Path | None = None,
    device: str = "cpu",
    watcher: Watcher | None = None,
    out: Path | None = None,
) -> Studied:
    """Put a ticket through sanity checks: ``lz.battery(ticket, "full").answer.findings``.

    Args:
        ticket: one that carries its recipe.
        profile: ``quick``, the checks no ticket should be shown without, or ``full``.
        model: the object that a ticket of a model object is of, with the weights it had.
        seeds: root seeds (default: 3 of the quick battery, 5 of the full one).
        store: folder of all results.
        workers: worker processes; 0 runs in this one.
        data: folder of local data sets.
        device: where tensors live.
        watcher: what may look at the running graph.
        out: folder of the page (default: STORE/studies/ID).

    Raises:
        BadInput: no such battery, the ticket carries no recipe (it was imported), its model
            object is not given, or the store's trainings ran on different machines. A check that
            does not suit the ticket is no error: the answer says why.
    """
    from .objects import registered

    if workers and model is not None:
        raise BadInput(f"workers is {workers}; a model object stays in this process: give 0")
    with registered(ticket.meta.get("model", "") if model is None else model, store) as (_, place):
        one = Examination.of(ticket, profile, seeds, data)
        execution = Execution(device=device, data=data)
        return run_battery(one, Store(place), execution, workers, watcher, out)
