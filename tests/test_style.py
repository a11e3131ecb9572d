"""The house style in numbers: short files, short functions, everything public explained."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p for room in ("lth_zoo", "adapters", "tasks") for p in (ROOT / room).rglob("*.py"))
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def public(body: Sequence[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.stmt]]:
    """Yield the functions, classes and methods without underscore, by dotted name."""
    for node in body:
        if isinstance(node, (*FUNCTION, ast.ClassDef)) and not node.name.startswith("_"):
            yield owner + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{owner}{node.name}.")


def code_lines(function: ast.FunctionDef, lines: Sequence[str]) -> int:
    """Count the lines that are neither docstring, comment nor blank."""
    kept = set(range(function.lineno, function.end_lineno + 1))
    if ast.get_docstring(function) is not None:
        kept -= set(range(function.body[0].lineno, function.body[0].end_lineno + 1))
    return sum(re.match(r"\s*[^\s#]", lines[number - 1]) is not None for number in kept)


def unannotated(function: ast.FunctionDef) -> list[str]:
    """Name the arguments without a type, and ``return``; ``self`` and ``cls`` need none."""
    a = function.args
    args = filter(None, [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg])
    missing = [x.arg for x in args if x.annotation is None and x.arg not in ("self", "cls")]
    return missing + ["return"] * (function.returns is None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_documented_and_annotated(path: Path) -> None:
    text = path.read_text()
    lines, tree = text.splitlines(), ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    long = {f.name: n for f in functions if (n := code_lines(f, lines)) > 60}
    names = dict(public(tree.body))
    bare = [name for name, node in names.items() if ast.get_docstring(node) is None]
    untyped = {
        name: missing
        for name, node in names.items()
        if isinstance(node, FUNCTION) and (missing := unannotated(node))
    }
    assert len(lines) <= 350
    assert ast.get_docstring(tree), "no docstring: say what the file is for"
    assert not long, "functions past 60 lines of code"
    assert not bare, "public names without a docstring"
    assert not untyped, "public functions without annotations"


def test_no_module_is_named_like_a_dependency() -> None:
    # Running a file puts its folder first on sys.path: a namesake would hide the library.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = sum(project["optional-dependencies"].values(), project["dependencies"])
    wanted = {re.split(r"[^\w.-]", r)[0].lower().replace("_", "-") for r in requirements}
    taken = {
        name
        for name, distributions in packages_distributions().items()
        if wanted & {d.lower().replace("_", "-") for d in distributions}
    }
    assert {"torch", "yaml", "transformers"} <= taken
    clashes = [str(path.relative_to(ROOT)) for path in FILES if path.stem in taken - {"__init__"}]
    assert not clashes
