"""lth-zoo show: one recipe, model or ticket, whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import BadInput, LthZooError
from ..recipe import shipped
from .ls import table_of
from .options import Output, emit, parse

if TYPE_CHECKING:
    from torch import nn

    from ..protocols import Adapter, Signature


@dataclass(frozen=True, kw_only=True)
class Show(Output):
    """Show a recipe as YAML (copy it: lth-zoo show quick > mine.yaml), a model, or a ticket."""

    name: Annotated[str, tyro.conf.Positional]
    """A recipe, a model, or a ticket's folder or hub id."""
    task: str | None = None
    """Task whose shapes a model is built for (default: an embedded one of the family)."""
    data: Path | None = None
    """Folder of local data sets (default: LTH_ZOO_DATA, then ../shared/data)."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Show, args, "show")
    name = options.name
    if name in shipped() or name.endswith((".yaml", ".yml")):
        from ..parse import load, to_yaml

        recipe = load(name)
        emit(recipe.to_dict(), options.json, None if options.json else to_yaml(recipe).rstrip())
    elif (Path(name) / "ticket.json").is_file():
        _ticket(name, options.json)
    else:
        _model(options)
    return 0


def _ticket(name: str, as_json: bool) -> None:
    from ..card import card
    from ..ticket import Ticket

    ticket = Ticket.from_pretrained(name)
    answer = {
        **ticket.meta,
        "id": ticket.id,
        "counts": ticket.counts(),
        "layers": ticket.masks.counts,
    }
    rows = [
        {
            "tensor": n,
            "kept": f"{kept:,}",
            "of": f"{total:,}",
            "density": f"{kept / max(total, 1):.2%}",
        }
        for n, (kept, total) in ticket.masks.counts.items()
    ]
    emit(answer, as_json, [card(ticket), table_of(rows, "masked tensors")])


def _model(options: Show) -> None:
    try:
        adapter, signature, model = _built(options)
    except LthZooError as error:
        if options.name.count("/") == 1 and ":" not in options.name:  # as hub ids are
            try:
                _ticket(options.name, options.json)
            except LthZooError as other:
                raise LthZooError(f"{error} Nor is it a ticket: {other}") from error
            return
        if not isinstance(error, BadInput):
            raise
        raise LthZooError(
            f"{error} Nor is it a recipe ({', '.join(sorted(shipped()))}) or a ticket."
        ) from error
    total = sum(p.numel() for p in model.parameters())
    macs = adapter.macs(model, adapter.example(signature))
    rows: list[dict[str, Any]] = [
        {
            "tensor": name,
            "layer": entry.layer,
            "role": entry.role,
            "shape": list(model.get_parameter(name).shape),
            "weights": model.get_parameter(name).numel(),
            "macs": macs[name],
        }
        for name, entry in adapter.prunable(model).items()
    ]
    prunable = sum(row["weights"] for row in rows)
    work = sum(row["macs"] for row in rows)
    answer = {"model": options.name, "parameters": total, "prunable": prunable, "macs": work}
    answer["tensors"] = rows
    counts = f"{options.name}: {total:,} parameters, {prunable:,} of them prunable weights, "
    counts += f"{work:,} multiply-accumulates an example in the prunable layers"
    shown = [{k: v for k, v in row.items() if k != "layer"} for row in rows]  # says it twice
    emit(answer, options.json, [table_of(shown, "prunable tensors"), counts])


def _built(options: Show) -> tuple[Adapter, Signature, nn.Module]:
    """Return a model's family, the shapes it is built for, and the model."""
    from ..protocols import adapter_of, task_of
    from ..seeds import seeded

    adapter = adapter_of(options.name)
    task = task_of(options.task or adapter.shown_on, options.data).prepared(options.name)
    with seeded(0, "init"):
        return adapter, task.signature, adapter.build(options.name, task.signature)
