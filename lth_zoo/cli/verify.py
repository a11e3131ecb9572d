"""lth-zoo verify: judge tickets again, with their controls, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .ask import asked, say_asked
from .options import Running, emit, execution_of, parse, workers_of


@dataclass(frozen=True, kw_only=True)
class Verify(Running):
    """Judge tickets: their recipe over seeds, each with its own search, retraining and controls.

    With --battery each goes through sanity checks, one table for each. What the store holds
    already is not run again.
    """

    tickets: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Ticket folders or hub ids."""
    seeds: tuple[int, ...] | None = None
    """Root seeds (default: 0 1 2 3 4; 0 1 2 of the quick battery)."""
    controls: tuple[str, ...] | None = None
    """Controls (default: the recipe's)."""
    battery: str | None = None
    """Sanity checks: quick (no ticket without these) or full."""
    out: Path | None = None
    """Folder of the battery's page (default: STORE/studies/ID)."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Verify, args, "verify")
    if options.battery is not None:
        return _battery(options)
    from ..api import run_recipes
    from ..errors import BadInput
    from ..recipe import Recipe
    from ..store import Store
    from ..ticket import Ticket
    from ..tickets import recipe_of
    from .progress import Bar
    from .summary import command_of, exit_code, failures, say

    if not options.tickets:
        raise BadInput("name at least one ticket folder or hub id")
    execution = execution_of(options)
    tickets = [Ticket.from_pretrained(name) for name in options.tickets]
    seeds = options.seeds or Recipe().seeds
    recipes = [recipe_of(ticket, seeds, options.controls) for ticket in tickets]
    store = Store(options.store)
    finished = run_recipes(
        *(recipes, store, execution, workers_of(options), Bar("verify")),
        command=command_of("verify", args),
        one_machine=True,
    )
    answer = [
        {
            "ticket": name,
            "id": ticket.id,
            "verdict": one.verdicts[-1].to_json() if one.verdicts else None,
            "failed": failures(one),
        }
        for name, ticket, one in zip(options.tickets, tickets, finished, strict=True)
    ]
    parts = [part for one in finished for part in say(one)]
    emit(answer, options.json, parts)
    return exit_code(*finished)


def _battery(options: Verify) -> int:
    """Put every ticket through a battery."""
    from ..errors import BadInput
    from ..report.folder import check_free
    from ..sanity import Examination, run_battery
    from ..store import Store
    from ..ticket import Ticket
    from . import FAILED
    from .progress import Bar

    assert options.battery is not None
    if not options.tickets:
        raise BadInput("name at least one ticket folder or hub id")
    if options.controls is not None:
        raise BadInput(f"battery {options.battery!r} has its own controls: leave --controls out")
    if options.out is not None and len(options.tickets) > 1:
        raise BadInput(f"--out is one page's folder, and {len(options.tickets)} tickets are named")
    if options.out is not None:
        check_free(options.out)
    store, execution = Store(options.store), execution_of(options)
    examinations = [
        Examination.of(Ticket.from_pretrained(name), options.battery, options.seeds, options.data)
        for name in options.tickets
    ]
    found = [
        run_battery(one, store, execution, workers_of(options), Bar(name), options.out)
        for name, one in zip(options.tickets, examinations, strict=True)
    ]
    answer = [
        {"ticket": name, "battery": options.battery, **asked(one)}
        for name, one in zip(options.tickets, found, strict=True)
    ]
    emit(answer, options.json, [part for one in found for part in say_asked(one)])
    return FAILED if any(one.outcome.failed for one in found) else 0
