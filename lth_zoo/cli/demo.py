"""lth-zoo demo: tickets on embedded data, judged and reported, in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..parse import load
from .options import Running, emit, execution_of, parse, workers_of

RECIPES = ("quick", "quick-conv")


@dataclass(frozen=True, kw_only=True)
class Demo(Running):
    """Find tickets on embedded data (scikit-learn's digits), run controls, judge and report."""

    out: Path = Path("report")
    """Folder of the report; an earlier report there is replaced."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Demo, args, "demo")
    from ..api import run_recipes
    from ..report.page import check_free, write_report
    from ..store import Store
    from .progress import Bar
    from .summary import command_of, exit_code, failures, say, warn_of_machines

    check_free(options.out)
    store = Store(options.store)
    recipes = [load(name) for name in RECIPES]
    finished = run_recipes(
        *(recipes, store, execution_of(options), workers_of(options), Bar("demo")),
        command=command_of("demo", args),
    )
    warn_of_machines([one.experiment for one in finished], store)
    results = [one.results for one in finished if one.results.runs]
    report = write_report(results, options.out, title="lth_zoo demo")
    answer = {
        "report": report,
        "runs": [
            {"run": one.id, "verdicts": [v.to_json() for v in one.verdicts]} for one in finished
        ],
        "failed": [row for one in finished for row in failures(one)],
    }
    parts = [part for one in finished for part in say(one)]
    emit(answer, options.json, [*parts, f"report: {options.out / 'index.html'}"])
    return exit_code(*finished)
