"""lth-zoo demo: tickets on embedded data, judged and reported, in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..parse import load
from .options import Running, emit, execution_of, parse, workers_of

RECIPES = ("quick", "quick-conv", "vae-digits", "gcn-digits-knn", "bert-mini-pydocs")
#: The matrix of the demo: sources of tickets for the last recipe's own task.
SOURCES = ("pydocs/topic", "one-shot", "random")


@dataclass(frozen=True, kw_only=True)
class Demo(Running):
    """Find tickets on embedded data, run controls, move tickets to another task, judge, report.

    Images are scikit-learn's digits, to tell apart and to make; joined to their nearest
    neighbours they are a graph too. Texts are Python's own documentation.
    """

    out: Path = Path("report")
    """Folder of the report; an earlier report there is replaced."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Demo, args, "demo")
    from ..api import run_recipes, run_transfer
    from ..report.matrix import text_matrix
    from ..report.page import check_free, write_report
    from ..store import Store
    from ..trials.transfer import transfer_matrix
    from . import FAILED
    from .progress import Bar
    from .summary import command_of, exit_code, failures, say, warn_of_machines

    check_free(options.out)
    store, execution, workers = Store(options.store), execution_of(options), workers_of(options)
    command = command_of("demo", args)
    recipes = [load(name) for name in RECIPES]
    finished = run_recipes(recipes, store, execution, workers, Bar("demo"), command=command)
    matrix, _ = transfer_matrix(recipes[-1], SOURCES, (recipes[-1].task,))
    moved = run_transfer(matrix, store, execution, workers, Bar(matrix.title), command=command)
    warn_of_machines([one.experiment for one in finished], store)
    results = [one.results for one in finished if one.results.runs]
    report = write_report(results, options.out, title="lth_zoo demo", transfers=[moved.results])
    answer = {
        "report": report,
        "runs": [
            {"run": one.id, "verdicts": [v.to_json() for v in one.verdicts]} for one in finished
        ],
        "transfer": {"run": moved.id, "judged": [cell.to_json() for cell in moved.judged]},
        "failed": [row for one in finished for row in failures(one)],
    }
    parts = [part for one in finished for part in say(one)]
    last = [text_matrix(moved.results, moved.judged), f"report: {options.out / 'index.html'}"]
    emit(answer, options.json, [*parts, *last])
    return FAILED if moved.outcome.failed else exit_code(*finished)
