"""lth-zoo ls: what there is, without loading any of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from textwrap import shorten
from typing import Annotated, Any

import tyro

from .. import registry
from ..errors import unknown
from .options import Output, emit, parse


@dataclass(frozen=True, kw_only=True)
class Ls(Output):
    """List models, tasks, finders, scores, controls, studies or recipes.

    PATTERN may hold * and ?."""

    kind: Annotated[str, tyro.conf.Positional] = "recipes"
    """models, tasks, finders, scores, controls, studies or recipes."""
    pattern: Annotated[str, tyro.conf.Positional] = "*"
    """Names to show, such as 'resnet-*'."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Ls, args, "ls")
    if options.kind not in KINDS:
        raise unknown("kind", options.kind, KINDS)
    rows = [row for row in KINDS[options.kind]() if fnmatch(row["name"], options.pattern)]
    emit(rows, options.json, table_of(rows, options.kind))
    return 0


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Any:
    """Return a table of plain rows."""
    from rich.table import Table

    columns = list(rows[0]) if rows else ["name"]
    table = Table(*columns, title=f"{len(rows)} {title}", title_justify="left")
    for row in rows:
        # A recipe's source may be a paragraph; --json has the whole of it.
        table.add_row(*(shorten(str(row[c]), 100, placeholder=" …") for c in columns))
    return table


def _models() -> list[dict[str, Any]]:
    rows = []
    for family in registry.names("adapters"):
        adapter = registry.find("adapters", family)()
        rows += [{"name": name, "family": family} for name in adapter.models]
    return rows


def _tasks() -> list[dict[str, Any]]:
    rows = []
    for name in registry.names("tasks"):
        found = registry.find("tasks", name)
        rows.append(
            {
                "name": name,
                "metric": found.headline,
                "margin": f"{found.margin:.0%}" if found.relative else found.margin,
                "what": first_line(found),
                "licence": found.licence,
            }
        )
    return rows


def _finders() -> list[dict[str, Any]]:
    rows = []
    for name in registry.names("finders"):
        found = registry.find("finders", name)
        choices = {
            c: found.describes.get(c, "") for c in ("pretrain", "prune", "re-initialise", "train")
        }
        rows.append({"name": name, **choices, "paper": found.paper})
    return rows


def _functions(kind: str) -> Callable[[], list[dict[str, Any]]]:
    def rows() -> list[dict[str, Any]]:
        return [
            {"name": name, "what": first_line(registry.find(kind, name))}
            for name in registry.names(kind)
        ]

    return rows


def _scores() -> list[dict[str, Any]]:
    reads = {n: getattr(registry.find("scores", n), "needs", ()) for n in registry.names("scores")}
    return [{**row, "reads": ", ".join(reads[row["name"]])} for row in _functions("scores")()]


def _recipes() -> list[dict[str, Any]]:
    from ..parse import load
    from ..recipe import finder_name, shipped

    return [
        {
            "name": name,
            "model": recipe.model,
            "task": recipe.task,
            "finder": finder_name(recipe.finder),
            "paper": recipe.paper,
        }
        for name, recipe in ((n, load(n)) for n in sorted(shipped()))
    ]


def first_line(thing: Any) -> str:
    """Return the first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]


KINDS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "models": _models,
    "tasks": _tasks,
    "finders": _finders,
    "scores": _scores,
    "controls": _functions("controls"),
    "studies": _functions("studies"),
    "recipes": _recipes,
}
