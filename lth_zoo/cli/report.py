"""lth-zoo report: figures, tables and one HTML page of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .options import Place, emit, parse


@dataclass(frozen=True, kw_only=True)
class Report(Place):
    """Write what the store holds of runs: PNG figures, Markdown, JSON and one HTML page."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Run ids or recipe names (default: all of the store)."""
    out: Path = Path("report")
    """Folder to write; an earlier report there is replaced."""
    title: str = "Lottery tickets"
    """Title of the page."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Report, args, "report")
    from ..errors import BadInput
    from ..report.page import check_free, write_report
    from ..runs import RunRecord, TransferRecord, recorded
    from ..store import Store
    from ..trials.collect import collect
    from ..trials.collect_cells import collect_transfer
    from .summary import warn_of_machines

    check_free(options.out)
    store = Store(options.store)
    every = recorded(store, options.runs)
    records = [record for record in every if isinstance(record, RunRecord)]
    experiments = [record.experiment() for record in records]
    results = [
        collect(one, store, record.failed) for one, record in zip(experiments, records, strict=True)
    ]
    results = [r for r in results if r.runs]
    transfers = [
        collect_transfer(record.matrix, store, record.failed)
        for record in every
        if isinstance(record, TransferRecord)
    ]
    transfers = [found for found in transfers if any(cell.runs for cell in found.cells)]
    if not results and not transfers:
        raise BadInput(f"{store.root} holds no finished run; start one with lth-zoo find")
    warn_of_machines(experiments, store)
    answer = write_report(results, options.out, title=options.title, transfers=transfers)
    emit(answer, options.json, f"wrote {options.out / 'index.html'}")
    return 0
