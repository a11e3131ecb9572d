"""Masks that were made elsewhere, and what they need to become a ticket's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from .errors import BadInput
from .graph import ARCS, EDGES, Graph
from .ticket_graph import COLUMNS, PAIRS, both, of


def read_masks(
    masks: Mapping[str, Tensor], polarity: Literal["keep", "prune"]
) -> dict[str, Tensor]:
    """Return masks as bool tensors, True = kept.

    Raises:
        BadInput: the polarity is not said, or a mask holds anything but zeros and ones.
    """
    if polarity not in ("keep", "prune"):
        raise BadInput(f"polarity {polarity!r} is not keep (1 = kept) or prune (1 = removed)")
    kept = {}
    for name, mask in masks.items():
        if not torch.isin(mask.float(), torch.tensor([0.0, 1.0])).all():
            raise BadInput(f"mask {name!r} holds other values than 0 and 1")
        kept[name] = mask.bool() if polarity == "keep" else ~mask.bool()
    return kept


def read_torch_prune(
    source: nn.Module | Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return masks and state of a model pruned by ``torch.nn.utils.prune``, or of its state dict.

    Raises:
        BadInput: there is no ``*_orig`` / ``*_mask`` pair in it.
    """
    given = source.state_dict() if isinstance(source, nn.Module) else source
    masks = {n.removesuffix("_mask"): t for n, t in given.items() if n.endswith("_mask")}
    masks = {n: t for n, t in masks.items() if f"{n}_orig" in given}
    if not masks:
        raise BadInput("no pair of *_orig and *_mask tensors: nothing was pruned by torch prune")
    dropped = {f"{n}_mask" for n in masks}
    renamed = {f"{n}_orig": n for n in masks}
    return masks, {renamed.get(n, n): t for n, t in given.items() if n not in dropped}


def read_graph(
    masks: Mapping[str, Tensor], state: Mapping[str, Tensor], nodes: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Graph | None]:
    """Return masks, state and graph of a foreign dictionary with edges in it.

    ``graph/edges`` needs ``graph/pairs`` in the state, (2, edges), the nodes that each bit is
    about, in any order and direction; ``graph/arcs`` needs ``graph/columns``. ``nodes`` is the
    number of nodes, the largest one and 1 by default. Bits are put into the graph's order.

    Raises:
        BadInput: the nodes of a mask are missing, or name an edge twice.
    """
    bits, rest = dict(masks), {n: t for n, t in state.items() if n not in (PAIRS, COLUMNS)}
    found = [name for name in (EDGES, ARCS) if name in bits]
    if not found:
        return bits, rest, None
    entry, needed = found[0], PAIRS if found[0] == EDGES else COLUMNS
    ends, mask = state.get(needed), bits[entry]
    if len(found) > 1 or ends is None or ends.shape != (2, mask.numel()) or not mask.numel():
        raise BadInput(
            f"mask {entry!r} has {mask.numel():,} bits: the state must hold {needed!r}, the nodes "
            f"of each, as (2, {mask.numel()}) whole numbers"
        )
    ends = ends.long()
    graph = of(both(ends) if entry == EDGES else ends, nodes or int(ends.max()) + 1)
    elements = graph.elements(entry)
    if elements.shape != ends.shape:
        raise BadInput(f"{needed!r} has self-loops or names an edge twice")
    ends = ends.sort(0).values if entry == EDGES else ends
    bits[entry] = mask.reshape(-1)[(ends[0] * graph.nodes + ends[1]).argsort()]
    return bits, rest, graph
