"""lth-zoo completion: a script for bash, zsh or tcsh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from .. import registry
from .options import parse

#: Command -> where the dataclass of its flags is.
FLAGS = {
    "demo": "demo:Demo",
    "ls": "ls:Ls",
    "show": "show:Show",
    "find": "find:Find",
    "verify": "verify:Verify",
    "transfer": "transfer:Transfer",
    "plan": "plan:Plan",
    "study": "study:Study",
    "status": "status:Status",
    "report": "report:Report",
    "export": "export:Export",
    "import": "take_in:Import",
    "push": "push:Push",
    "store": "store:Keep",
}


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print a completion script: eval "$(lth-zoo completion bash)"."""

    shell: Annotated[Literal["bash", "zsh", "tcsh"], tyro.conf.Positional] = "bash"
    """The shell."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Completion, args, "completion")
    commands: dict[str, Any] = {
        name: registry.load(f"lth_zoo.cli.{flags}") for name, flags in FLAGS.items()
    }
    tyro.extras.subcommand_cli_from_dict(
        commands, prog="lth-zoo", args=["--tyro-print-completion", options.shell]
    )
    return 0
