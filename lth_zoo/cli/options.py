"""Flags that several commands share, and how their answers are printed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from ..recipe import Recipe

if TYPE_CHECKING:
    from ..session import Execution

T = TypeVar("T")


def default_store() -> Path:
    """Return LTH_ZOO_STORE, or lth-store in the current folder."""
    return Path(os.environ.get("LTH_ZOO_STORE", "lth-store"))


@dataclass(frozen=True, kw_only=True)
class Output:
    """How the answer is printed."""

    json: bool = False
    """Print one JSON object instead of tables."""


@dataclass(frozen=True, kw_only=True)
class Place(Output):
    """Where results are."""

    store: Path = field(default_factory=default_store)
    """Folder of all results (LTH_ZOO_STORE)."""


@dataclass(frozen=True, kw_only=True)
class Running(Place):
    """How jobs run; changes no result."""

    workers: int | None = None
    """Worker processes; 0 runs everything in this one (default: one a usable CPU; 1 for a GPU)."""
    device: str = "cpu"
    """Where tensors live: cpu, cuda, cuda:1 ..."""
    data: Path | None = None
    """Folder of local data sets (default: LTH_ZOO_DATA, then ../shared/data)."""
    checkpoint_seconds: float = 30.0
    """Time between two checkpoints of a training."""
    track: str | None = None
    """Live curves in STORE/tracking: tensorboard."""


@dataclass(frozen=True, kw_only=True)
class WithRecipe(Running):
    """A recipe and how it runs."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


def workers_of(options: Running) -> int:
    """Return the worker processes: those asked for, or one a CPU that this process may use.

    Where the device is not the CPU the default is 1: workers would share the one device.
    """
    if options.workers is not None:
        return options.workers
    if options.device != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):  # fewer than the machine has under taskset or Slurm
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def execution_of(options: Running) -> Execution:
    """Return how jobs run, from the flags.

    Raises:
        BadInput: a flag's value cannot be used here.
    """
    from ..errors import BadInput, unknown
    from ..session import Execution

    if options.workers is not None and options.workers < 0:
        raise BadInput(f"workers is {options.workers}; it must be 0 (this process) or more")
    if options.track not in (None, "tensorboard"):
        raise unknown("tracker", options.track, ["tensorboard"])
    if options.data is not None and not options.data.is_dir():
        raise BadInput(f"data folder {str(options.data)!r} does not exist")
    if options.device != "cpu":
        from ..backend import backend_for

        backend_for(options.device, "fp32")
    return Execution(options.device, options.data, options.checkpoint_seconds, options.track)


def parse(kind: type[T], args: Sequence[str], command: str, default: T | None = None) -> T:
    """Parse a command's flags; prints help and exits where they call for it.

    Raises:
        BadInput: a flag that does not exist, or a value of the wrong type, in one line.
    """
    from ..errors import BadInput
    from ..parse import one_line

    prog, said = f"lth-zoo {command}", io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, args=list(args), prog=prog)
            return tyro.cli(kind, args=list(args), prog=prog, default=default)
    except SystemExit as error:
        if error.code:
            raise BadInput(f"{one_line(said.getvalue())}; see {prog} --help") from error
        raise


def emit(answer: Any, as_json: bool, text: Any) -> None:
    """Print the answer: plain data as JSON, or ``text`` (anything rich can print)."""
    if as_json:
        print(json.dumps(answer, indent=1, default=str))
        return
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    for part in text if isinstance(text, (list, tuple)) else [text]:
        console.print(part, soft_wrap=isinstance(part, str), markup=not isinstance(part, str))
