"""Models that read a graph: what they need before their edges can be pruned.

A model is called ``model(x, edge_index)``; while a finder learns an edge mask, with
``edge_weight=gates`` too: one gate a column, 0 exactly as if the column were deleted.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import BadInput
from .prunable import arguments_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .graph import Graph

#: What a task on a graph may ask for: see :class:`~lth_zoo.protocols.Signature`.
ANSWERS = ("nodes", "links", "graphs")
#: Largest difference, relative to the largest answer, between a closed gate and a deleted column.
TOLERANCE = 1e-4
_WAYS_OUT = (
    "choose a finder that needs no gates (graph-imp: edges pruned by degree, at random or by "
    "dspar), or a model of the family gnn, such as gcn, gin, gat or sage"
)
#: Sums are what a weight of 0 leaves unchanged; a mean still counts the column.
_SUMS = ("add", "sum")
#: Layers that divide by a node's degree without having given it a loop.
_LOOPLESS = ("ARMAConv", "ChebConv", "LGConv", "TAGConv", "WLConvContinuous")
_DIVIDES = "adds no self-loops, so its normalisation divides by 0 once a node's edges are closed"


def graph_example(features: int, nodes: int = 4) -> dict[str, Tensor]:
    """Return a ring of nodes, both directions, as the arguments of a model."""
    import torch

    ring = torch.arange(nodes)
    edges = torch.stack([ring, ring.roll(-1)])
    return {"x": torch.zeros(nodes, features), "edge_index": torch.cat([edges, edges.flip(0)], 1)}


def check_layers(model: nn.Module) -> None:
    """Switch off whatever a layer remembers of the first graph it saw (``cached=True``).

    PyTorch Geometric's caches hold the normalised edges: pruned edges would come back. Results
    on one graph are the same without them.
    """
    for _, module in convolutions(model):
        if getattr(module, "cached", False) is True:
            module.cached = False  # type: ignore[assignment]
        for name in vars(module):
            if name.startswith("_cached"):
                setattr(module, name, None)


def takes_gates(model: nn.Module, graph: Graph | None = None) -> bool:
    """Say whether a model honours a gate on every edge: see :func:`check_gates`."""
    return _refusal(model, graph) is None


def check_gates(model: nn.Module, graph: Graph | None = None) -> None:
    """Assert that a model accepts ``edge_weight`` and that 0 is the same as a deleted column.

    Layers are looked at one by one. With a graph the model is also tried on it, in evaluation
    mode: half of its columns closed, against half of them deleted.

    Raises:
        BadInput: naming the layer that cannot, and the ways out.
    """
    refusal = _refusal(model, graph)
    if refusal is not None:
        raise BadInput(f"edge masks cannot be learned: {refusal}; {_WAYS_OUT}")


def _refusal(model: nn.Module, graph: Graph | None) -> str | None:
    for name, layer in convolutions(model):
        refusal = _refusal_of(layer)
        if refusal is not None:
            place = f"layer {name!r}" if name else "the model"
            return f"{place} ({type(layer).__name__}) {refusal}"
    if not _accepts(model, "edge_weight"):
        return f"the forward of {type(model).__name__} takes no edge_weight"
    return None if graph is None else _trial(model, graph)


# -- layer by layer ---------------------------------------------------------------------------


def convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the innermost modules inside a model that are called with an ``edge_index``, by name.

    Those of PyTorch Geometric's ``MessagePassing`` count, whatever they call their arguments;
    others, if they have parameters.
    """
    library = sys.modules.get("torch_geometric.nn.conv.message_passing")
    passing = (library.MessagePassing,) if library else ()

    def reads(module: nn.Module) -> bool:
        return isinstance(module, passing) or (
            "edge_index" in arguments_of(module) and any(True for _ in module.parameters())
        )

    found = {name: m for name, m in model.named_modules() if reads(m)}
    for name, module in found.items():
        outer = any(other is not module and other in found.values() for other in module.modules())
        if not outer and (name or isinstance(module, passing)):
            yield name, module


def _accepts(module: nn.Module, argument: str) -> bool:
    """Say whether a module's forward can be given an argument, by its name or as any other."""
    parameters = arguments_of(module)
    others = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return argument in parameters or others


def _refusal_of(layer: Any) -> str | None:
    """Return why a layer does not honour gates, None where nothing speaks against it."""
    if not _accepts(layer, "edge_weight"):
        return "takes no edge weights"
    if not type(layer).__module__.startswith("torch_geometric."):
        return None
    if getattr(layer, "aggr", "add") not in _SUMS:
        return f"takes the {layer.aggr} of its neighbours, in which a weight of 0 still counts"
    if getattr(layer, "improved", False):
        return "gives its self-loops 2 with edge weights, and 1 without"
    loopless = getattr(layer, "add_self_loops", True) is False
    if type(layer).__name__ in _LOOPLESS or loopless:
        return _DIVIDES if getattr(layer, "normalize", True) else None
    return None


# -- on a graph -------------------------------------------------------------------------------


def _trial(model: nn.Module, graph: Graph) -> str | None:
    """Return what is wrong with a model's answers under gates, None if nothing is."""
    import torch

    kind = type(model).__name__
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    keep = _half(graph)
    x, columns, keep = (t.to(device) for t in (graph.x, graph.edge_index, keep))
    gates = keep.to(x.dtype).requires_grad_()
    with _quiet(model):
        with torch.no_grad():
            deleted, whole = model(x, columns[:, keep]), model(x, columns)
        try:
            with torch.no_grad():
                opened = model(x, columns, edge_weight=torch.ones_like(gates))
            closed = model(x, columns, edge_weight=gates)
        except Exception as error:
            return f"{kind} cannot be called with edge_weight ({type(error).__name__}: {error})"
        slope = None
        if closed.requires_grad:
            (slope,) = torch.autograd.grad(closed.square().sum(), gates, allow_unused=True)
    if _differ(closed, deleted):
        return f"{kind} answers otherwise for an edge_weight of 0 than for no edge"
    if _differ(opened, whole):
        return f"{kind} answers otherwise for edge_weights of 1 than for none"
    if slope is None or not bool(slope.isfinite().all()):
        return f"no finite gradient reaches the edge_weight of {kind}"
    return None


def _half(graph: Graph) -> Tensor:
    """Return which half of the columns to keep; one node loses all of its own."""
    import torch

    rng, target = torch.Generator().manual_seed(0), graph.edge_index[1]
    keep = torch.rand(len(target), generator=rng) < 0.5
    return keep & (target != target[:1])


def _differ(answer: Tensor, other: Tensor) -> bool:
    """Say whether two answers differ by more than rounding, or are not finite."""
    gap = (answer.detach() - other).abs().max()
    return not bool(gap <= TOLERANCE * (1 + other.abs().max()))


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode; its modes and torch's generators are as before then."""
    import torch

    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
