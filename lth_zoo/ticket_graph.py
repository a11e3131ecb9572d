"""The graph half of a ticket: its edges by the nodes they join, so that they survive renumbering.

A mask has a bit for each element of a graph, in the graph's own order. Every transform of a data
set may order the columns of ``edge_index`` anew; the numbers of the nodes stay.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import BadInput, TicketError
from .graph import Graph
from .masks import Masks

#: What a ticket's state file calls the edges: the undirected ones, the lower node first; or,
#: where some have one direction only, the directed columns. (2, n) int32.
PAIRS, COLUMNS = "graph/pairs", "graph/columns"
#: Node numbers must fit the file's int32.
MOST_NODES = 2**31


def bare(graph: Graph | None, masks: Masks) -> Graph | None:
    """Return a copy of a ticket's graph without features; None where no edge is masked.

    Raises:
        TicketError: edges are masked and there is no graph, or another one.
    """
    if not masks.data:
        return None
    if graph is None:
        raise TicketError(
            f"mask {next(iter(masks.data))!r} is of a graph, and the ticket was given none"
        )
    if graph.nodes >= MOST_NODES:
        raise TicketError(f"the graph has {graph.nodes:,} nodes; a ticket names {MOST_NODES:,}")
    try:
        graph.restricted(masks.data)
    except BadInput as error:
        raise TicketError(str(error)) from error
    return of(graph.edge_index.cpu().clone(), graph.nodes)


def of(edge_index: Tensor, nodes: int) -> Graph:
    """Return the graph of columns, without features."""
    return Graph.of(torch.empty(nodes, 0), edge_index)


def facts(graph: Graph) -> dict[str, Any]:
    """Return what ``ticket.json`` says of a graph; the fingerprint binds it to the edges."""
    return {
        "nodes": graph.nodes,
        "columns": graph.edge_index.shape[1],
        "edges": graph.pairs.shape[1],
        "fingerprint": graph.fingerprint(),
    }


def dumped(graph: Graph | None) -> dict[str, Tensor]:
    """Return the entry of the state file that holds a graph's edges."""
    if graph is None:
        return {}
    name, columns = (PAIRS, graph.pairs) if graph.undirected else (COLUMNS, graph.edge_index)
    return {name: columns.int().contiguous()}


def taken(tensors: dict[str, Tensor], meta: Mapping[str, Any]) -> Graph | None:
    """Take the graph out of a state file's tensors, which are then the model's alone.

    Raises:
        TicketError: it is damaged, or not the graph that ``ticket.json`` speaks of.
    """
    found = {name: tensors.pop(name) for name in (PAIRS, COLUMNS) if name in tensors}
    said = meta.get("graph")
    if not found and said is None:
        return None
    if len(found) != 1 or not isinstance(said, dict) or not isinstance(said.get("nodes"), int):
        raise TicketError(f"its graph is not whole: {sorted(found)}, described by {said}")
    if not 0 < said["nodes"] < MOST_NODES:
        raise TicketError(f"its graph has {said['nodes']} nodes")
    (name, columns), *_ = found.items()
    if columns.dtype != torch.int32:
        raise TicketError(f"{name!r} is {columns.dtype}, not int32")
    graph = of(both(columns) if name == PAIRS else columns, said["nodes"])
    if facts(graph) != said:
        raise TicketError("its edges are not those of the graph it was found on")
    return graph


def both(pairs: Tensor) -> Tensor:
    """Return undirected edges as columns, both directions of each, (2, columns)."""
    return torch.cat([pairs, pairs.flip(0)], 1)


def restricted(data: Any, graph: Graph, masks: Masks) -> Any:
    """Return a copy of a graph's data without the edges that a ticket pruned.

    ``data`` is a PyTorch Geometric ``Data`` or ``(x, edge_index)``; it may order its columns as it
    likes, repeat some and lack some. Whatever it holds for each edge (``edge_attr``,
    ``edge_weight``) is cut along; ``edge_label`` and ``edge_label_index`` are targets and stay.
    Self-loops are no edges and stay.

    Raises:
        BadInput: it is no graph, has other nodes, or edges that the ticket's graph has not.
    """
    plain = isinstance(data, tuple | list)
    if plain and len(data) != 2:
        raise BadInput(f"a graph is given as (x, edge_index) or as Data, not as {len(data)} things")
    edge_index = data[1] if plain else getattr(data, "edge_index", None)
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise BadInput(f"{type(data).__name__} holds no edge_index of shape (2, columns)")
    nodes = len(data[0]) if plain else data.num_nodes
    if nodes != graph.nodes:
        raise BadInput(f"the ticket's graph has {graph.nodes:,} nodes, the data {nodes:,}")
    keep = kept_columns(edge_index, graph, masks)
    if plain:
        return data[0], edge_index[:, keep]
    cut = copy.copy(data)
    for name in data.keys():  # noqa: SIM118 - Data is no mapping
        value = data[name]
        if name == "edge_index":
            cut[name] = edge_index[:, keep]
        elif "edge_label" not in name and isinstance(value, Tensor) and data.is_edge_attr(name):
            axis = data.__cat_dim__(name, value)
            cut[name] = value.index_select(axis, keep.nonzero().flatten())
    return cut


def kept_columns(edge_index: Tensor, graph: Graph, masks: Masks) -> Tensor:
    """Return which columns stay, (columns,) bool, on their device.

    Raises:
        BadInput: some are edges that the ticket's graph has not.
    """
    source, target = edge_index.detach().cpu().long()
    inside = (edge_index.numel() == 0) or bool(
        (edge_index.min() >= 0) and (edge_index.max() < graph.nodes)
    )
    if not inside:
        raise BadInput(f"edge_index names nodes outside 0 to {graph.nodes - 1:,}")
    loops = source == target
    known = _found(source, target, graph) | loops
    if not known.all():
        unknown = int((~known).sum())
        first = int((~known).nonzero()[0])
        raise BadInput(
            f"the ticket is of another graph: {unknown:,} of {len(known):,} columns are no edges "
            f"of its graph, the first {int(source[first])} to {int(target[first])}"
        )
    kept = graph.restricted(masks.data)
    return (_found(source, target, kept) | loops).to(edge_index.device)


def _found(source: Tensor, target: Tensor, graph: Graph) -> Tensor:
    """Return which columns a graph has; its own are sorted by source and target."""
    if not graph.edge_index.shape[1]:
        return torch.zeros(len(source), dtype=torch.bool)
    ours = graph.edge_index[0] * graph.nodes + graph.edge_index[1]
    asked = source * graph.nodes + target
    place = torch.searchsorted(ours, asked).clamp(max=len(ours) - 1)
    return ours[place] == asked
