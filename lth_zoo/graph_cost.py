"""What a model costs on a graph: multiply-accumulates by layer and kind, bytes, measured time.

*Transform* is the dense products of features and weights, which weight sparsity makes smaller in
theory; *aggregation* is the sums over edges, which pruned edges make smaller in fact. Papers count
differently: UGS (Chen et al. 2021) the transform alone, so that pruned edges do not show in its
figures; GEBT (You et al. 2022) the transform, and the first aggregation as if of raw features.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .edge_sums import SumCounter
from .graph import Graph
from .graph_models import convolutions
from .masks import Masks

if TYPE_CHECKING:
    from .protocols import Prunable


@dataclass(frozen=True)
class LayerCost:
    """Multiply-accumulates of one layer for all nodes; ``effective`` ones count what is kept."""

    layer: str
    transform: int
    transform_effective: int
    aggregation: int
    aggregation_effective: int


@dataclass(frozen=True)
class GraphCost:
    """What one pass over the whole graph costs, dense and as the ticket has it.

    Bytes are of float32 weights (dense), of the kept ones, and of int64 ``edge_index`` before and
    after. Seconds are medians of whole passes on one thread, dense and on the kept edges: zeros
    in the weights make no dense product faster, so the difference is that of the edges.
    """

    layers: tuple[LayerCost, ...]
    features: int
    columns: int
    columns_kept: int
    weight_bytes: int
    weight_bytes_kept: int
    seconds: float
    seconds_kept: float

    @property
    def edge_bytes(self) -> tuple[int, int]:
        """Bytes of ``edge_index``, all of it and the kept columns."""
        return 16 * self.columns, 16 * self.columns_kept

    def totals(self) -> dict[str, tuple[int, int]]:
        """Return (dense, effective) multiply-accumulates under each way to count.

        ``all`` is transform and aggregation; ``ugs`` the transform alone; ``gebt`` the transform
        and the features once over every column.
        """
        transform = sum(c.transform for c in self.layers)
        effective = sum(c.transform_effective for c in self.layers)
        aggregation = sum(c.aggregation for c in self.layers)
        kept = sum(c.aggregation_effective for c in self.layers)
        raw, raw_kept = self.features * self.columns, self.features * self.columns_kept
        return {
            "all": (transform + aggregation, effective + kept),
            "ugs": (transform, effective),
            "gebt": (transform + raw, effective + raw_kept),
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "totals": self.totals()}


def graph_cost(
    model: nn.Module,
    graph: Graph,
    masks: Masks,
    prunable: Mapping[str, Prunable],
    repeats: int = 15,
) -> GraphCost:
    """Count and time a model on a graph, whole and under the masks of a ticket.

    ``repeats`` passes are timed of each, in turn, after one that is not.
    """
    kept = graph.restricted(masks.data)
    counts, density = masks.weights.counts, {}
    for name, (some, whole) in counts.items():
        density[name] = some / whole
    with _evaluating(model):
        transform, aggregation = _counted(model, graph.x, graph.edge_index, prunable)
        _, aggregation_kept = _counted(model, graph.x, kept.edge_index, prunable)
        seconds = _timed(model, graph.x, (graph.edge_index, kept.edge_index), repeats)
    names = list(dict.fromkeys([p.layer for p in prunable.values()] + list(aggregation)))
    rows = {layer: [0.0, 0.0] for layer in names}
    for name, macs in transform.items():
        row = rows[prunable[name].layer]
        row[0] += macs
        row[1] += macs * density.get(name, 1.0)
    layers = tuple(
        LayerCost(n, int(a), round(b), aggregation.get(n, 0), aggregation_kept.get(n, 0))
        for n, (a, b) in rows.items()
    )
    size = sum(model.get_parameter(n).numel() for n in prunable)
    pruned = masks.size - masks.kept
    return GraphCost(
        *(layers, graph.x.shape[1], graph.edge_index.shape[1], kept.edge_index.shape[1]),
        *(4 * size, 4 * (size - pruned), *seconds),
    )


def _counted(
    model: nn.Module, x: Tensor, edge_index: Tensor, prunable: Mapping[str, Prunable]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return multiply-accumulates of the prunable tensors, and of the sums of the layers."""
    sums, flops, handles = SumCounter(), FlopCounterMode(display=False), []

    def entering(name: str) -> Any:
        return lambda *_: setattr(sums, "layer", name)

    for name, module in convolutions(model):
        handles.append(module.register_forward_pre_hook(entering(name)))
        handles.append(module.register_forward_hook(entering("")))
    try:
        with torch.no_grad(), flops, sums:
            model(x, edge_index)
    finally:
        for handle in handles:
            handle.remove()
    root, found = type(model).__name__, flops.get_flop_counts()
    shared = Counter(p.layer for p in prunable.values())
    transform = {
        name: sum(found.get(f"{root}.{p.layer}" if p.layer else root, {}).values())
        // 2
        // shared[p.layer]
        for name, p in prunable.items()
    }
    return transform, dict(sums.counts)


def _timed(
    model: nn.Module, x: Tensor, graphs: tuple[Tensor, Tensor], repeats: int
) -> tuple[float, float]:
    """Return the median seconds of a pass on each of two graphs, in turn, on one thread."""
    taken: tuple[list[float], list[float]] = ([], [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for turn in range(repeats + 1):
                for edge_index, into in zip(graphs, taken, strict=True):
                    began = time.perf_counter()
                    model(x, edge_index)
                    if turn:
                        into.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return median(taken[0]), median(taken[1])


class _evaluating:
    """A model in evaluation mode inside; its mode is as before afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)
