"""What a user waits for before anything happens: wall time of whole processes.

Medians of 7 subprocesses, the start of the interpreter (against) included.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import Row

RUNS = 7
LOADED = (
    "import sys\n"
    "from lth_zoo.cli import main\n"
    "try:\n    main({args!r})\n"
    "except SystemExit:\n    pass\n"
    "sys.exit(99 if 'torch' in sys.modules else 0)"
)


def wall(command: list[str]) -> float:
    """Return the wall seconds of a subprocess that must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def loads_torch(args: list[str]) -> bool:
    """Say whether a command imports torch."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(args=args)], stdout=subprocess.DEVNULL, check=False
    )
    return done.returncode == 99


def bench() -> list[Row]:
    """Measure the import and the help."""
    program = str(Path(sys.executable).parent / "lth-zoo")
    commands = {
        "bare": [sys.executable, "-c", "pass"],
        "`import lth_zoo`": [sys.executable, "-c", "import lth_zoo"],
        "`lth-zoo --help`": [program, "--help"],
        "`lth-zoo find --help`": [program, "find", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            times[name].append(wall(command))
    median = {name: statistics.median(found) for name, found in times.items()}
    targets = {"`import lth_zoo`": 0.3, "`lth-zoo --help`": 0.6}
    bare = median.pop("bare")
    rows = [Row(name, s, bare, "s", target=targets.get(name)) for name, s in median.items()]
    args: list[list[str]] = [["--help"], ["find", "--help"], ["ls"]]
    loading = [f"lth-zoo {' '.join(a)}" for a in args if loads_torch(a)]
    name = "of `--help`, `find --help` and `ls`, how many import torch"
    return [*rows, Row(name, len(loading), target=0.0, note=", ".join(loading))]
