"""lth-zoo study: a question asked of a recipe's networks, or a grid of recipes as one job graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tyro

from .. import registry
from ..errors import BadInput, unknown
from ..parse import from_mapping, load
from ..recipe import Recipe, read_yaml
from .ask import ask
from .options import Running, emit, execution_of, parse, workers_of


@dataclass(frozen=True, kw_only=True)
class Study(Running):
    """Ask a question of tickets, or run a grid of recipes as one job graph.

    `lth-zoo study NAME [RECIPE]` asks one of the questions that `lth-zoo ls studies` lists;
    `lth-zoo study NAME --help` shows its settings.

    `lth-zoo study GRID.yaml` runs a grid: what its cells share runs once.
    GRID is a YAML file with `base` (a recipe's name or its fields) and `grid`, which maps
    fields such as model, task, finder.name or training.learning_rate to lists of values.
    """

    grid: Annotated[Path, tyro.conf.Positional]
    """The YAML file."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    if args and args[0] in registry.names("studies"):
        return ask(args[0], args[1:])
    options = parse(Study, args, "study")
    from ..api import run_recipes
    from ..store import Store
    from .ls import table_of
    from .progress import Bar
    from .summary import command_of, exit_code, failures, trouble, warn_of_machines

    recipes = cells(options.grid)
    store = Store(options.store)
    finished = run_recipes(
        *(recipes, store, execution_of(options), workers_of(options), Bar(options.grid.stem)),
        command=command_of("study", args),
    )
    warn_of_machines([one.experiment for one in finished], store)
    answer, rows = [], []
    for one in finished:
        last = one.verdicts[-1] if one.verdicts else None
        answer.append(
            {
                "run": one.id,
                "name": one.experiment.recipe.name,
                "verdicts": [v.to_json() for v in one.verdicts],
                "failed": failures(one),
            }
        )
        rows.append(
            {
                "cell": one.experiment.recipe.name,
                "sparsity": last.amounts.replace(" sparsity", "") if last else "-",
                "verdict": last.name if last else "-",
                "what was measured": last.sentence if last else "",
                "failed": len(one.outcome.failed),
            }
        )
    failed = [part for one in finished if one.outcome.failed for part in trouble(one)]
    emit(answer, options.json, [table_of(rows, "cells"), *failed, "figures: lth-zoo report"])
    return exit_code(*finished)


def cells(path: Path) -> list[Recipe]:
    """Return the recipes of a grid file, named by what differs.

    Raises:
        BadInput: no such file, a field that does not exist, or a value of the wrong type.
    """
    if not path.is_file():
        if not path.suffix:
            raise unknown("study", str(path), registry.names("studies"))
        raise BadInput(f"grid file {str(path)!r} does not exist")
    data = read_yaml(path)
    odd = set(data) - {"base", "grid"}
    if odd or not isinstance(data.get("grid"), dict) or not data["grid"]:
        raise BadInput(
            f"{path} must hold `grid` (field -> list of values) and may hold `base` only"
        )
    base = data.get("base", {})
    start = load(base) if isinstance(base, str) else from_mapping(base, Recipe(), str(path))
    axes = {str(f): v if isinstance(v, list) else [v] for f, v in data["grid"].items()}
    if empty := [f for f, values in axes.items() if not values]:
        raise BadInput(f"{path}: grid field {empty[0]!r} has no values")
    return [
        _cell(start, dict(zip(axes, values, strict=True)), path)
        for values in product(*axes.values())
    ]


def _cell(start: Recipe, chosen: Mapping[str, Any], path: Path) -> Recipe:
    nested: dict[str, Any] = {}
    for field, value in chosen.items():
        *parents, last = field.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    label = " ".join(f"{f}={v}" for f, v in chosen.items())
    recipe = from_mapping(nested, start, f"{path}, {label}")
    return replace(recipe, name=f"{path.stem}: {label}")
