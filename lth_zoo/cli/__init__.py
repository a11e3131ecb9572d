"""The command line: one module a command, loaded only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

#: Command -> what it does, in the order of a first reading.
COMMANDS = {
    "demo": "find tickets on embedded data and write a report, in minutes",
    "ls": "list models, tasks, finders, scores, controls, studies or recipes",
    "show": "show a recipe (as YAML), a model's layers, or a ticket",
    "find": "find tickets, run their controls, judge them",
    "verify": "judge a ticket again: dense, ticket and controls over seeds",
    "transfer": "bring tickets of source tasks to target tasks: the whole matrix, judged",
    "plan": "say what a command would run: jobs, hours, disk; starts nothing",
    "study": "ask a question of tickets (noise, ...), or run a grid of recipes",
    "status": "say how far each run of the store is",
    "report": "write figures, tables and one HTML page of finished runs",
    "export": "write a ticket's network in a deployable form",
    "import": "make a ticket of masks made elsewhere (torch prune, plain masks)",
    "push": "upload a ticket to the Hugging Face hub",
    "store": "list or clean the store: ls, gc",
    "completion": "print a shell completion script",
}

#: Exit codes: wrong input, some jobs failed, interrupted.
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def usage() -> str:
    """Return the top-level help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lth-zoo COMMAND [...]",
            "",
            "Find, judge, move and ship lottery tickets.",
            "",
            "commands:",
            *lines,
            "",
            "lth-zoo COMMAND --help shows a command's options with their real defaults, those of",
            "the recipe if one is named. Every command but completion takes --json. Running a",
            "command again resumes it.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0
    if args[0] == "--version":
        from .. import __version__

        print(f"lth-zoo {__version__}")
        return 0
    from ..errors import LthZooError, unknown

    command, *rest = args
    try:
        if command not in COMMANDS:
            raise unknown("command", command, COMMANDS)
        # `import` is a keyword, so its module has another name.
        module = {"import": "take_in"}.get(command, command)
        code: int = import_module(f".{module}", __name__).run(rest)
        return code
    except LthZooError as error:
        # The words of a library may hold line breaks; an error is one line.
        print(f"lth-zoo: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\nlth-zoo: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 0
