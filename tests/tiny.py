"""The command line on runs of a second, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_zoo.cli import main
from lth_zoo.engines.local import Outcome, run
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP
from lth_zoo.jobs import Job
from lth_zoo.recipe import Recipe, Training
from lth_zoo.session import Execution
from lth_zoo.store import Store

#: A search on digits of one level at 50 %, two seeds, two controls: 8 short trainings.
FLAGS = (
    *("quick", "--training.iterations", "40", "--training.evaluate-every", "20"),
    *("--finder.rate", "0.5", "--sparsity", "0.5", "--seeds", "0", "1"),
    *("--controls", "reinit", "shuffle", "--workers", "0"),
)
TRAINING = Training(iterations=40, evaluate_every=20)
PYTHON = [sys.executable, "-m", "lth_zoo"]


def recipe(**fields: Any) -> Recipe:
    """Return what FLAGS say, but for some fields."""
    fields = {"seeds": (0, 1), "controls": ("reinit", "shuffle"), "sparsity": 0.5} | fields
    return Recipe(**{"finder": IMP(rate=0.5), "training": TRAINING} | fields)


def run_tiny(store: Path, **fields: Any) -> Outcome:
    """Run a tiny recipe in this process."""
    return run(experiment(recipe(**fields)).goals, Store(store), Execution())


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as strict JSON: nothing else on it, no NaN."""
        return json.loads(self.out, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def cli(capsys, *args: object) -> Answer:
    """Run a command in this process."""
    capsys.readouterr()
    try:
        code = main([str(a) for a in args])
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return Answer(code, said.out, said.err)


def start(
    *args: object, cwd: Path, first: Callable[[], None] | None = None, **more: Any
) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, where Ctrl-C works as at a terminal.

    A shell starts what it puts in the background with SIGINT ignored, and a child inherits that.
    ``first`` runs in the child before the command.
    """

    def before() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if first is not None:
            first()

    return subprocess.Popen(
        [*PYTHON, *map(str, args)],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=before,
        **more,
    )


def group(leader: int) -> list[int]:
    """Return the live processes of a group, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found


def kill_group(leader: int) -> None:
    """Kill every process of a group at once."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    """Return the condition's first true value, or its last one after that time."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


def files_of(store: Path, *names: str) -> dict[str, bytes]:
    """Return ``KIND/KEY/NAME -> bytes`` of every finished job's files of those names."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for name in names
        for path in sorted(store.glob(f"*/*/{name}"))
        if (path.parent / "manifest.json").exists()
    }


def job(**config: Any) -> Job:
    """Return a job that is only data."""
    return Job("init", {"seed": 0, **config})
