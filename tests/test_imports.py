"""What may import what, and what an instant command must not load.

The order of the rooms inside ``lth_zoo`` is a contract in ``.importlinter``; the folders
that an install maps in, ``adapters/`` and ``tasks/``, are invisible to it and checked here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lth_zoo import registry

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "torch",
    "torch_geometric",
    "transformers",
    "datasets",
    "matplotlib",
    "scipy",
    "sklearn",
    "pandas",
    "accelerate",
}
#: The rooms that a family or a task may stand on.
BELOW = {
    *("edge_sums", "errors", "graph", "graph_models", "identity", "masks", "permutations"),
    *("protocols", "prunable", "recipe", "registry", "rewind", "seeds"),
}

EVERY_NAME = """
from lth_zoo import registry
for kind in ("adapters", "tasks", "finders"):
    for name in registry.names(kind):
        registry.find(kind, name)
"""


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter; return the top-level packages it has loaded."""
    code += "\nimport sys; print('\\nloaded', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def command(*words: str) -> str:
    """Return code that runs ``python -m lth_zoo WORDS`` and goes on after its exit."""
    return f"""
import runpy, sys
sys.argv = ["lth-zoo", *{words!r}]
try:
    runpy.run_module("lth_zoo", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import lth_zoo", id="import"),
        pytest.param(EVERY_NAME, id="names"),
        pytest.param(command("--help"), id="help"),
        pytest.param(command("ls", "models", "--json"), id="ls"),
    ],
)
def test_an_instant_command_loads_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_every_public_name_is_found() -> None:
    import lth_zoo

    for name in dir(lth_zoo):
        getattr(lth_zoo, name)
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = lth_zoo.nonesuch


def imported(path: Path, package: str) -> Iterator[str]:
    """Yield the full name of everything a file imports at any depth, of ``lth_zoo`` only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            stem = ".".join([*base, *filter(None, [node.module])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "lth_zoo")


def package_of(path: Path) -> str:
    """Return the installed name of the package that a source file lies in."""
    parts = path.relative_to(ROOT).parent.parts
    return ".".join(parts if parts[0] == "lth_zoo" else ("lth_zoo", *parts))


@pytest.mark.parametrize("path", sorted((ROOT / "lth_zoo").rglob("*.py")), ids=lambda p: p.stem)
def test_the_engine_knows_no_family_and_no_task(path: Path) -> None:
    rooms = {name.split(".")[1] for name in imported(path, package_of(path)) if "." in name}
    assert not rooms & {"adapters", "tasks"}, "ask the registry by name"


@pytest.mark.parametrize("room", ["adapters", "tasks"])
def test_families_and_tasks_stand_on_the_contracts_only(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        found = {name.split(".")[1] for name in imported(path, package_of(path)) if "." in name}
        assert found <= BELOW | {room}, path.name


def test_families_do_not_import_one_another() -> None:
    every = {registry.find("adapters", name).__module__ for name in registry.names("adapters")}
    homes = sorted(home for home in every if home.startswith("lth_zoo.adapters."))
    assert homes
    for home in homes:
        path = ROOT / "adapters" / f"{home.split('.')[2]}.py"
        other = [name for name in imported(path, "lth_zoo.adapters") if not name.startswith(home)]
        assert not [n for n in other if any(f"{n}.".startswith(f"{h}.") for h in homes)], home
