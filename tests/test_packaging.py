"""The package as others get it: built from a copy, installed alone, run from elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Source folder -> where its content installs.
ROOMS = {"lth_zoo": "lth_zoo", "adapters": "lth_zoo/adapters", "tasks": "lth_zoo/tasks"}
FOLDERS = (*ROOMS, "tests", "docs", "benchmarks")
SHIPPED = (".py", ".yaml", ".html", "py.typed")

# One worker builds, once.
pytestmark = pytest.mark.xdist_group("packaging")


@dataclass(frozen=True)
class Installed:
    """A wheel, the copy of the checkout it came from, and an environment that holds it."""

    tree: Path
    wheel: Path
    bin: Path

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, by default from outside the checkout."""
        keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        return subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=cwd or self.wheel.parent,
            env=keep,
            capture_output=True,
            text=True,
            timeout=120,
        )


def must(*words: str | Path) -> None:
    """Run a command; show what it said if it fails."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build sdist, and from it the wheel; install the wheel where nothing else of ours is."""
    base = tmp_path_factory.mktemp("packaging")
    tree, dist, env = base / "tree", base / "dist", base / "env"
    for folder in FOLDERS:
        junk = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tree / folder, ignore=junk)
    for file in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(file, tree)
    must(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, tree)
    (wheel,) = dist.glob("*.whl")
    must(sys.executable, "-m", "venv", "--without-pip", env)
    python = env / "bin" / "python"
    must(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel)
    # Dependencies come from this environment, by a plain path: its own .pth files, and so
    # an editable install of this package, are not read.
    (site,) = env.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(paths)))
    return Installed(tree, wheel, env / "bin")


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        "/".join((target, *file.parent.relative_to(ROOT / room).parts)).replace("/", ".")
        for room, target in ROOMS.items()
        for file in (ROOT / room).rglob("*")
        if file.name == "__init__.py" or file.suffix == ".yaml"
    }
    assert found == set(settings["packages"]), "unlisted packages vanish from the wheel"
    for name, folder in settings["package-dir"].items():
        assert (ROOT / folder).is_dir(), name


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_no_source() -> None:
    listed = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", *FOLDERS]
    done = subprocess.run(listed, capture_output=True, text=True, cwd=ROOT, check=True)
    lost = [file for file in done.stdout.splitlines() if "__pycache__" not in file]
    assert not lost, "a rule in .gitignore hides them; anchor it with a leading slash"


def test_the_wheel_holds_every_file_once(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    wanted = {
        f"{target}/{file.relative_to(installed.tree / room).as_posix()}"
        for room, target in ROOMS.items()
        for file in (installed.tree / room).rglob("*")
        if file.name.endswith(SHIPPED)
    }
    inside = [name for name in names if ".dist-info/" not in name]
    assert sorted(inside) == sorted(wanted)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_can_be_tested(installed: Installed) -> None:
    (sdist,) = installed.wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tests = {file.relative_to(installed.tree).as_posix() for file in installed.tree.glob("tests/*")}
    assert {"Makefile", "constraints.txt", "adapters/__init__.py", *tests} <= names


def test_the_command_runs_outside_the_checkout(installed: Installed) -> None:
    done = installed.run("lth-zoo", "--help")
    assert done.returncode == 0, done.stderr
    assert "find" in done.stdout


def test_adapters_tasks_and_recipes_come_from_the_wheel(installed: Installed) -> None:
    code = """
import importlib.resources, lth_zoo, lth_zoo.adapters.cnn, lth_zoo.tasks.vision
recipes = [p.name for p in importlib.resources.files("lth_zoo.tasks.recipes").iterdir()]
assert any(name.endswith(".yaml") for name in recipes), recipes
print(lth_zoo.__file__, lth_zoo.adapters.cnn.__file__, lth_zoo.tasks.vision.__file__, sep="\\n")
"""
    done = installed.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert len(files) == 3
    assert all(file.startswith(str(installed.bin.parent)) for file in files), files


def test_a_checkout_that_hides_the_install_says_what_to_do(installed: Installed) -> None:
    done = installed.run("python", "-c", "import lth_zoo", cwd=installed.tree)
    assert done.returncode != 0
    assert "pip install -e ." in done.stderr
