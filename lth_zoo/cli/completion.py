"""lth-zoo completion: a script for bash, zsh or tcsh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal

import tyro

from .options import Output, parse

#: Command -> the dataclass of its flags.
FLAGS = {
    "find": "Find",
    "verify": "Verify",
    "plan": "Plan",
    "study": "Study",
    "status": "Status",
    "report": "Report",
    "export": "Export",
    "store": "Keep",
    "ls": "Ls",
    "show": "Show",
    "demo": "Demo",
}


@dataclass(frozen=True, kw_only=True)
class Completion(Output):
    """Print a completion script: eval "$(lth-zoo completion bash)"."""

    shell: Annotated[Literal["bash", "zsh", "tcsh"], tyro.conf.Positional] = "bash"
    """The shell."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Completion, args, "completion")
    commands: dict[str, Any] = {
        name: getattr(import_module(f"lth_zoo.cli.{name}"), flags) for name, flags in FLAGS.items()
    }
    tyro.extras.subcommand_cli_from_dict(
        commands, prog="lth-zoo", args=["--tyro-print-completion", options.shell]
    )
    return 0
