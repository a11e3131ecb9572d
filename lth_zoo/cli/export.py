"""lth-zoo export: a ticket's network in a deployable form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .options import Output, emit, parse


@dataclass(frozen=True, kw_only=True)
class Export(Output):
    """Write a ticket's masked network at its rewind point as one file."""

    ticket: Annotated[str, tyro.conf.Positional]
    """A ticket's folder or hub id."""
    format: Literal["safetensors"] = "safetensors"
    """Form of the file."""
    out: Path = Path("model.safetensors")
    """File to write."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Export, args, "export")
    from ..export.weights import write
    from ..ticket import Ticket

    answer = write(Ticket.from_pretrained(options.ticket), options.out)
    kept = f"{answer['kept']:,} of {answer['prunable']:,} prunable weights"
    text = f"wrote {answer['path']} with {kept}"
    emit(answer, options.json, text)
    return 0
