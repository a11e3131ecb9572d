"""lth-zoo find: tickets, their controls, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..parse import base_of
from .options import WithRecipe, emit, execution_of, parse


@dataclass(frozen=True, kw_only=True)
class Find(WithRecipe):
    """Find tickets, run their controls, judge them.

    The first argument may name a recipe (lth-zoo ls recipes) or a YAML file; --finder NAME
    picks the method. Running the same command again resumes it.
    """

    out: Path | None = None
    """Folder for the tickets of the last level, one a seed (default: STORE/tickets/RUN)."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    base, rest = base_of(args)
    options = parse(Find, rest, "find", Find(recipe=base))
    from ..api import run_recipes
    from ..store import Store
    from ..tickets import ticket_of
    from .progress import Bar
    from .summary import exit_code, failures, say

    recipe = options.recipe
    store = Store(options.store)
    (finished,) = run_recipes(
        [recipe], store, execution_of(options), options.workers, Bar(recipe.title)
    )
    folder = options.out or store.root / "tickets" / finished.id
    saved = []
    for arm in finished.experiment.tickets():
        if store.entry(arm.goal) is not None and arm.level.masks is not None:
            path = folder / f"seed-{arm.seed}"
            ticket_of(arm, finished, store).save_pretrained(path)
            saved.append(str(path))
    answer = {
        "run": finished.id,
        "store": str(store.root),
        "tickets": saved,
        "verdicts": [v.to_json() for v in finished.verdicts],
        "results": finished.results.to_json(),
        "failed": failures(finished),
    }
    emit(answer, options.json, say(finished, saved))
    return exit_code(finished)
