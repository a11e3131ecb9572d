"""lth-zoo study NAME: a question asked of a recipe's networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry
from ..parse import base_of
from ..studies.base import Study
from .options import WithRecipe, emit, execution_of, parse, workers_of

if TYPE_CHECKING:
    from ..studies.run import Studied


@dataclass(frozen=True, kw_only=True)
class Ask(WithRecipe):
    """Ask a question of a recipe's networks.

    The argument after the study's name may name a recipe (default: the study's own). Running the
    same command again resumes it.
    """

    study: Study = field(default_factory=Study)
    """The study's own settings."""
    out: Path | None = None
    """Folder of the page (default: STORE/studies/ID)."""


def ask(name: str, args: Sequence[str]) -> int:
    """Run the command."""
    kind = registry.find("studies", name)
    named = args and not args[0].startswith("-")
    base, rest = base_of(args if named else [kind.recipe, *args])
    about = f"study {name}"
    options = parse(Ask, rest, about, Ask(recipe=base, study=kind()))
    from ..report.folder import check_free
    from ..store import Store
    from ..studies.run import run_study
    from .progress import Bar

    if options.out is not None:
        check_free(options.out)
    found = run_study(
        *(options.study, options.recipe, Store(options.store), execution_of(options)),
        *(workers_of(options), Bar(f"{name}: {options.recipe.title}"), options.out),
    )
    answer = {"study": name, "settings": asdict(options.study), **asked(found)}
    emit(answer, options.json, say_asked(found))
    from . import FAILED

    return FAILED if found.outcome.failed else 0


def asked(found: Studied) -> dict[str, Any]:
    """Return a study that ran as plain data: what it found, where its page is, what failed."""
    return {
        "run": found.id,
        "findings": list(found.answer.findings) if found.answer else [],
        "answer": found.answer.data if found.answer else None,
        "page": None if found.page is None else str(found.page),
        "failed": _failures(found),
    }


def _failures(found: Studied) -> list[dict[str, str]]:
    """Return what failed: the job, and why."""
    from ..jobs import graph
    from .progress import describe

    jobs = {job.key: job for job in graph(probe.job for probe in found.probes)}
    return [
        {"job": describe(jobs[key]), "key": key, "error": error}
        for key, error in found.outcome.failed.items()
    ]


def say_asked(found: Studied) -> list[Any]:
    """Return the parts to print of a study that ran."""
    from ..report.tables import Table, to_text
    from .progress import clock

    outcome = found.outcome
    tables = [b for b in found.answer.blocks if isinstance(b, Table)] if found.answer else []
    return [
        *map(to_text, tables),
        *(found.answer.findings if found.answer else ()),
        f"{outcome.done} jobs run in {clock(outcome.seconds)}, {outcome.cached} found done",
        *([f"page: {found.page}"] if found.page else []),
        *(f"failed: {row['job']}: {row['error']}" for row in _failures(found)),
    ]
