"""Recipes from flags and YAML files, through one parser.

A recipe file is flattened into flags, so its types, unknown names and suggestions are
checked exactly as the command line's are, and ``--help`` shows the recipe's own values.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import registry
from .errors import BadInput
from .recipe import Recipe, read_yaml, recipe_file


def flags_of(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return nested plain data as flags.

    >>> flags_of({"sparsity": 0.9, "training": {"milestones": [1, 2], "nesterov": False}})
    ['--sparsity', '0.9', '--training.milestones', '1', '2', '--training.no-nesterov']
    """
    flags: list[str] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", "-")
        if isinstance(value, Mapping):
            flags += flags_of(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            head, _, last = name.rpartition(".")
            negated = f"{head}.no-{last}" if head else f"no-{last}"
            flags.append(f"--{name if value else negated}")
        elif isinstance(value, (list, tuple)):
            flags += [f"--{name}", *map(str, value)]
        else:
            flags += [f"--{name}", str(value)]
    return flags


def take(args: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """Take ``flag VALUE`` or ``flag=VALUE`` out of arguments; return the value and the rest."""
    rest, value, tokens = [], None, list(args)
    while tokens:
        token = tokens.pop(0)
        if token == flag and tokens:
            value = tokens.pop(0)
        elif token.startswith(f"{flag}="):
            value = token.partition("=")[2]
        else:
            rest.append(token)
    return value, rest


def base_of(args: Sequence[str]) -> tuple[Recipe, list[str]]:
    """Return the recipe that arguments start from, and the arguments left.

    The first argument may name a recipe; ``--finder NAME`` picks the method whose
    hyper-parameters then are flags.

    Raises:
        BadInput: no such recipe or finder.
    """
    args = list(args)
    base = load(args.pop(0)) if args and not args[0].startswith("-") else Recipe()
    base, rest = with_finder(base, args)
    if {"--epochs", "--training.iterations"} <= _given(rest):
        raise BadInput("both --epochs and --training.iterations are given; give one of them")
    return with_length(base, rest), rest


def with_finder(base: Recipe, args: Sequence[str]) -> tuple[Recipe, list[str]]:
    """Take ``--finder NAME`` out of the arguments and put that method in the recipe."""
    finder, rest = take(args, "--finder")
    if finder is not None:
        found = registry.find("finders", finder)
        if type(base.finder) is not found:
            base = replace(base, finder=found())
    return base, rest


def with_length(base: Recipe, args: Sequence[str]) -> Recipe:
    """Drop the recipe's epochs if the arguments give iterations: a training has one length."""
    return replace(base, epochs=None) if "--training.iterations" in _given(args) else base


def _given(args: Sequence[str]) -> set[str]:
    return {arg.partition("=")[0] for arg in args}


def from_mapping(values: Mapping[str, Any], base: Recipe, where: str) -> Recipe:
    """Return the base with the values of a mapping, as a file or a grid cell holds them.

    Raises:
        BadInput: an unknown field or a value of the wrong type; the message names ``where``.
    """
    import tyro

    values = dict(values)
    finder = values.pop("finder", None) or {}
    finder = dict(finder) if isinstance(finder, Mapping) else {"name": finder}
    name = finder.pop("name", None)
    flags = flags_of(values | ({"finder": finder} if finder else {}))
    base, flags = with_finder(base, flags + (["--finder", str(name)] if name else []))
    base = with_length(base, flags)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            recipe: Recipe = tyro.cli(Recipe, args=flags, default=base, console_outputs=True)
    except SystemExit as error:
        raise BadInput(f"{where}: {one_line(said.getvalue())}") from error
    return recipe


def one_line(boxed: str) -> str:
    """Return tyro's boxed message as one line, without its title and its advice on help."""
    lines = [line.strip("╭─╮│╰╯ ") for line in boxed.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    return re.split("Argument helptext|For full helptext", text)[0].strip(" .")


def load(name: str, above: Sequence[Path] = ()) -> Recipe:
    """Return a shipped recipe by name, or the user's own by its file.

    ``above`` lists the files whose ``base`` led here.

    Raises:
        BadInput: no such recipe, or something in it is wrong.
    """
    path = recipe_file(name)
    if path in above:
        raise BadInput(f"{path} is its own base: {' -> '.join(map(str, [*above, path]))}")
    values = read_yaml(path)
    base = Recipe(name=path.stem)
    if parent := values.pop("base", None):
        base = replace(load(str(parent), [*above, path]), name=path.stem)
    return from_mapping(values, base, str(path))


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML that :func:`load` reads back."""
    import yaml

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return list(value) if isinstance(value, tuple) else value

    text: str = yaml.safe_dump(plain(recipe.to_dict()), sort_keys=False, width=100)
    return text
