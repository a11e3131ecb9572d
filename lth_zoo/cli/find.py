"""lth-zoo find: tickets, their controls, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BadInput
from ..parse import base_of, with_finder
from ..recipe import Recipe
from .options import WithRecipe, emit, execution_of, parse, workers_of


@dataclass(frozen=True, kw_only=True)
class Find(WithRecipe):
    """Find tickets, run their controls, judge them.

    The first argument may name a recipe (lth-zoo ls recipes), a YAML file, or a ticket's
    folder, whose search then goes on to a higher --sparsity; --finder NAME picks the method.
    Running the same command again resumes it.
    """

    out: Path | None = None
    """Folder for the tickets of the last level, one a seed (default: STORE/tickets/RUN)."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    base, rest, reached = start_of(args)
    options = parse(Find, rest, "find", Find(recipe=base))
    if options.recipe.sparsity < reached:
        raise BadInput(
            f"sparsity {options.recipe.sparsity} is below the ticket's, {reached:.4f}: a search "
            "only goes on; to get a denser ticket, run its recipe"
        )
    from ..api import run_recipes
    from ..folder import check_place
    from ..store import Store
    from ..tickets import ticket_of
    from .progress import Bar
    from .summary import command_of, exit_code, failures, say, warn_of_machines

    recipe = options.recipe
    if options.out is not None:
        for place in (options.out, *options.out.parents):
            if place.exists() and not place.is_dir():
                raise BadInput(f"--out {options.out}: {place} is a file, not a folder")
        for seed in recipe.seeds:
            check_place(options.out / f"seed-{seed}")
    store = Store(options.store)
    (finished,) = run_recipes(
        *([recipe], store, execution_of(options), workers_of(options), Bar(recipe.title)),
        command=command_of("find", args),
    )
    warn_of_machines([finished.experiment], store)
    folder = options.out or store.root / "tickets" / finished.id
    saved = []
    for arm in finished.experiment.tickets():
        if store.entry(arm.goal) is not None and arm.level.masks is not None:
            path = folder / f"seed-{arm.seed}"
            ticket_of(arm, finished, store, options.data).save_pretrained(path)
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


def start_of(args: Sequence[str]) -> tuple[Recipe, list[str], float]:
    """Return the recipe to start from, the arguments left, and the sparsity reached so far."""
    if not args or not (Path(args[0]) / "ticket.json").is_file():
        return *base_of(args), 0.0
    from ..ticket import Ticket
    from ..tickets import recipe_of

    ticket = Ticket.from_pretrained(args[0])
    found = Recipe.from_dict(ticket.meta["recipe"]) if "recipe" in ticket.meta else Recipe()
    base = recipe_of(ticket, found.seeds, found.controls)
    if hasattr(base.finder, "levels"):
        base = replace(base, finder=replace(base.finder, levels=None))  # type: ignore[call-arg]
    return *with_finder(base, args[1:]), round(ticket.sparsity, 4)
