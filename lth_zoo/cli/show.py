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

    from ..graph_cost import GraphCost
    from ..protocols import Adapter, Signature
    from ..ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class Show(Output):
    """Show a recipe as YAML (copy it: lth-zoo show quick > mine.yaml), a model, or a ticket."""

    name: Annotated[str, tyro.conf.Positional]
    """A recipe, a model, or a ticket's folder or hub id."""
    task: str | None = None
    """Task whose shapes a model is built for (default: an embedded one of the family)."""
    data: Path | None = None
    """Folder of local data sets (default: LTH_ZOO_DATA, then ../shared/data)."""
    cost: bool = False
    """Of a ticket with a graph's edges: count the multiply-accumulates of one pass, dense and
    pruned, and measure its time on this machine."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Show, args, "show")
    name = options.name
    if name in shipped() or name.endswith((".yaml", ".yml")):
        from ..parse import load, to_yaml

        recipe = load(name)
        emit(recipe.to_dict(), options.json, None if options.json else to_yaml(recipe).rstrip())
    elif (Path(name) / "ticket.json").is_file():
        _ticket(name, options)
    else:
        _model(options)
    return 0


def _ticket(name: str, options: Show) -> None:
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
    parts = [card(ticket), table_of(rows, "masked tensors")]
    if options.cost:
        found = _cost(ticket, options.data)
        answer["cost_on_graph"] = found.to_json()
        parts += cost_tables(found)
    emit(answer, options.json, parts)


def _cost(ticket: Ticket, data: Path | None) -> GraphCost:
    from ..graph_cost import graph_cost
    from ..protocols import adapter_of
    from ..recipe import Recipe
    from ..session import task_for

    if not ticket.masks.data or "recipe" not in ticket.meta:
        raise BadInput("--cost is of tickets that hold a graph's edges and their recipe")
    recipe = Recipe.from_dict(ticket.meta["recipe"])
    task = task_for(recipe, data)
    graph, adapter = task.graph(), adapter_of(recipe.model)
    assert graph is not None, "its ticket holds edges"
    model = adapter.build(recipe.model, task.signature)
    return graph_cost(model, graph, ticket.masks, adapter.prunable(model))


def cost_tables(found: GraphCost) -> list[Any]:
    """Return the tables and the sentences that a graph's costs are shown as."""
    layers = [
        {
            "layer": c.layer,
            "transform": f"{c.transform:,}",
            "kept": f"{c.transform_effective:,}",
            "aggregation": f"{c.aggregation:,}",
            "kept edges": f"{c.aggregation_effective:,}",
        }
        for c in found.layers
    ]
    ways = {
        "all": "transform and aggregation",
        "ugs": "as UGS counts: transform alone, so no edge shows",
        "gebt": "as GEBT counts: transform, and the features once over every column",
    }
    totals = [
        {"counted": ways[way], "dense": f"{dense:,}", "ticket": f"{kept:,}"}
        for way, (dense, kept) in found.totals().items()
    ]
    edges, left = found.edge_bytes
    said = (
        f"one pass over the graph on one thread: {1000 * found.seconds:.2f} ms dense, "
        f"{1000 * found.seconds_kept:.2f} ms on the kept edges (zeros in the weights speed "
        f"nothing up); weights {found.weight_bytes:,} B, kept {found.weight_bytes_kept:,} B; "
        f"edge_index {edges:,} B, kept {left:,} B"
    )
    tables = [table_of(layers, "layers, multiply-accumulates"), table_of(totals, "ways to count")]
    return [*tables, said]


def _model(options: Show) -> None:
    try:
        adapter, signature, model = _built(options)
    except LthZooError as error:
        if options.name.count("/") == 1 and ":" not in options.name:  # as hub ids are
            try:
                _ticket(options.name, options)
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
