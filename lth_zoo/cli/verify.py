"""lth-zoo verify: judge tickets again, with their controls, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from .options import Running, emit, execution_of, parse, workers_of


@dataclass(frozen=True, kw_only=True)
class Verify(Running):
    """Judge tickets: their recipe over seeds, each with its own search, retraining and controls.

    What the store holds already is not run again.
    """

    tickets: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Ticket folders or hub ids."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Root seeds."""
    controls: tuple[str, ...] | None = None
    """Controls (default: the recipe's)."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Verify, args, "verify")
    from ..api import run_recipes
    from ..errors import BadInput
    from ..store import Store
    from ..ticket import Ticket
    from ..tickets import recipe_of
    from .progress import Bar
    from .summary import command_of, exit_code, failures, say

    if not options.tickets:
        raise BadInput("name at least one ticket folder or hub id")
    execution = execution_of(options)
    tickets = [Ticket.from_pretrained(name) for name in options.tickets]
    recipes = [recipe_of(ticket, options.seeds, options.controls) for ticket in tickets]
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
