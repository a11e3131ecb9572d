"""What a finished run looks like on the screen."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..api import Finished
from ..experiment import Experiment
from ..runs import run_id
from ..store import Store
from ..trials.collect import machines
from . import FAILED
from .progress import clock, describe


def say(finished: Finished, saved: Sequence[str] = ()) -> list[Any]:
    """Return the parts to print: the table of levels, the last verdict, where things are."""
    from ..report.tables import text_table

    outcome = finished.outcome
    parts: list[Any] = []
    if any(not run.error for run in finished.results.runs):
        parts.append(text_table(finished.results, finished.verdicts))
        parts += [str(verdict) for verdict in finished.verdicts[-1:]]
    found = f"{outcome.done} jobs run in {clock(outcome.seconds)}, {outcome.cached} found done"
    parts.append(f"{found}; run {finished.id}")
    if saved:
        parts.append(f"tickets: {saved[0]}" + (f" and {len(saved) - 1} more" if saved[1:] else ""))
    if outcome.failed:
        parts += trouble(finished)
    return parts


def failures(finished: Finished) -> list[dict[str, str]]:
    """Return what failed: the job, and why."""
    jobs = {job.key: job for job in finished.experiment.jobs}
    return [
        {"job": describe(jobs[key]), "key": key, "error": error}
        for key, error in finished.outcome.failed.items()
    ]


def trouble(finished: Finished) -> list[Any]:
    """Return the table of what failed and what to do about it."""
    from rich.table import Table

    table = Table("job", "why", "times", title=f"failed of {finished.experiment.recipe.title}")
    counts = Counter((row["job"], row["error"]) for row in failures(finished))
    for (job, error), count in counts.items():
        table.add_row(job, error, str(count))
    blocked = len(finished.outcome.blocked)
    advice = "everything else is kept: mend the cause and run the same command again"
    return [table, f"{blocked} jobs that rest on these were not run; {advice}"]


def command_of(name: str, args: Sequence[str]) -> str:
    """Return the line that runs a command again, as a shell reads it.

    >>> command_of("find", ["my recipe.yaml", "--seeds", "0"])
    "lth-zoo find 'my recipe.yaml' --seeds 0"
    """
    return shlex.join(["lth-zoo", name, *args])


def warn_of_machines(experiments: Sequence[Experiment], store: Store) -> None:
    """Say in one line on stderr which runs have arms that ran on different machines."""
    mixed = {
        run_id(one.recipe): found for one in experiments if len(found := machines(one, store)) > 1
    }
    if mixed:
        every = sorted({" / ".join(machine) for found in mixed.values() for machine in found})
        print(
            f"lth-zoo: warning: arms ran on different machines ({'; '.join(every)}), so they "
            f"differ in more than the ticket: {', '.join(mixed)}",
            file=sys.stderr,
        )


def exit_code(*finished: Finished) -> int:
    """Return 0, or 1 if any job failed."""
    return FAILED if any(one.outcome.failed for one in finished) else 0
