"""lth-zoo transfer: tickets brought from task to task, or from model to model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import BadInput
from ..parse import base_of
from .options import WithRecipe, emit, execution_of, parse, workers_of

if TYPE_CHECKING:
    from ..api import Transferred
    from ..trials.transfer_study import TransferStudy

#: Flags of a recipe that a transfer has other names for.
_UNUSED: tuple[str, ...] = ("--task", "--controls", "--controls-at")
#: Flags that mean nothing where models are given.
_NOT_OF_BACKBONES: tuple[str, ...] = ("--from", "--to", "--model", "--controls", "--controls-at")
_BROUGHT = "--backbones are brought to one another"


@dataclass(frozen=True, kw_only=True)
class Transfer(WithRecipe):
    """Bring tickets of source tasks to target tasks, and judge every cell of the matrix.

    The first argument may name a recipe; its task and controls are not used. Each source is
    searched once; every cell of a target has one start, head and data order. Running the same
    command again resumes it, cell by cell.

    With --backbones tickets move between models, on the recipe's task. On a graph these are edges
    of each model's ticket, beside edges by degree and at random, under every model with all its
    weights. On generation/... they are masks of the decoder or the generator, beside one-shot
    and random ones; the model's other network is dense.
    """

    from_: Annotated[tuple[str, ...], tyro.conf.arg(name="from")] = ()
    """Sources: tasks (globs such as 'glue/*' too), one-shot (the largest weights of theta_0),
    random (the layer counts of the target's own ticket), TASK@random-labels (a search on permuted
    labels)."""
    to: tuple[str, ...] = ()
    """Targets: tasks (default: those among the sources)."""
    carry: Literal["mask", "mask+state", "mask+signs", "mask+start"] = "mask"
    """What comes along: the mask alone, with the source ticket's trained weights, or with their
    signs; between models that make images also the weights the ticket is rewound to."""
    backbones: tuple[str, ...] = ()
    """Models in the place of --from and --to: some that read a graph (gcn-64 gin-64 gat-8x8), or
    that make images (vae dcgan)."""
    out: Path | None = None
    """Folder of a report (default: none; lth-zoo report writes it later)."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    base, rest = base_of(args)
    options = parse(Transfer, rest, "transfer", Transfer(recipe=base))
    _check_flags(rest)
    from ..api import run_transfer
    from ..report.page import check_free, write_report
    from ..session import cached_task
    from ..store import Store
    from . import FAILED
    from .progress import Bar
    from .summary import command_of

    if options.out is not None:
        check_free(options.out)
    execution = execution_of(options)
    cached_task.cache_clear()  # the data may have changed since an earlier call of this process
    matrix, skipped = _study(options, flags_in(rest))
    found = run_transfer(
        *(matrix, Store(options.store), execution, workers_of(options), Bar(matrix.title)),
        command=command_of("transfer", args),
    )
    if options.out is not None:
        write_report([], options.out, title=matrix.title, transfers=[found.results])
    answer = {
        "run": found.id,
        "store": str(options.store),
        "results": found.results.to_json(),
        "judged": [judged.to_json() for judged in found.judged],
        "skipped": skipped,
        "failed": _failures(found),
        "report": None if options.out is None else str(options.out / "index.html"),
    }
    emit(answer, options.json, _say(found, options))
    return FAILED if found.outcome.failed else 0


def flags_in(args: Sequence[str]) -> list[str]:
    """Return the names of the flags among arguments."""
    return [arg.partition("=")[0] for arg in args if arg.startswith("--")]


def _check_flags(args: Sequence[str]) -> None:
    """Refuse a flag that would change nothing."""
    flags = flags_in(args)
    unused, instead = _UNUSED, "give --from and --to"
    if "--backbones" in flags:
        unused, instead = _NOT_OF_BACKBONES, _BROUGHT
    for flag in flags:
        if flag in unused:
            raise BadInput(f"{flag} has no meaning here: {instead}")


def _study(options: Transfer, flags: Sequence[str]) -> tuple[TransferStudy, list[str]]:
    """Return the checked study, and what a glob named and is not at hand; says both on stderr."""
    from ..trials.makers import Makers, between_models
    from ..trials.transfer import transfer_matrix

    if "--backbones" in flags:
        study = between_models(options.recipe, options.backbones, options.carry, options.data)
        if "--carry" in flags and not isinstance(study, Makers):
            raise BadInput(f"--carry has no meaning here: {_BROUGHT}")
        for note in study.footing.notes:
            print(f"lth-zoo: note: {note}", file=sys.stderr)
        return study, []
    matrix, skipped = transfer_matrix(
        options.recipe, options.from_, options.to, options.carry, options.data
    )
    for why in skipped:
        print(f"lth-zoo: left out, not at hand: {why}", file=sys.stderr)
    return matrix, skipped


def _say(found: Transferred, options: Transfer) -> list[Any]:
    from ..report.matrix import text_matrix, transfer_findings
    from .progress import clock

    outcome = found.outcome
    report = (
        f"report: {options.out / 'index.html'}"
        if options.out is not None
        else f"figures: lth-zoo report {found.id}"
    )
    return [
        text_matrix(found.results, found.judged),
        *transfer_findings(found.results, found.judged),
        f"{outcome.done} jobs run in {clock(outcome.seconds)}, {outcome.cached} found done; "
        f"run {found.id}",
        report,
        *_trouble(found),
    ]


def _failures(found: Transferred) -> list[dict[str, str]]:
    """Return what failed: the job, and why."""
    from .progress import describe

    jobs = {job.key: job for job in found.matrix.jobs}
    return [
        {"job": describe(jobs[key]), "key": key, "error": error}
        for key, error in found.outcome.failed.items()
    ]


def _trouble(found: Transferred) -> list[str]:
    rows = [f"failed: {row['job']}: {row['error']}" for row in _failures(found)]
    if not rows:
        return []
    blocked = len(found.outcome.blocked)
    advice = "everything else is kept: mend the cause and run the same command again"
    return [*rows, f"{blocked} jobs that rest on these were not run; {advice}"]
