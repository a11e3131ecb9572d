"""Graph neural networks, by name: nodes with features and columns of ``edge_index`` in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lth_zoo.errors import BadInput, unknown
from lth_zoo.graph_models import ANSWERS
from lth_zoo.protocols import Adapter, Signature
from lth_zoo.prunable import Prunable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


@dataclass(frozen=True)
class Family:
    """The numbers that may follow a family's name, in their order, and their defaults."""

    fields: tuple[str, ...]
    usual: tuple[int, ...]
    #: How many must be given, if any is.
    least: int = 1


#: Widths and depths as published; ``layers`` counts convolutions.
FAMILIES: dict[str, Family] = {
    "gcn": Family(("width", "layers"), (16, 2)),
    "gcn-bare": Family(("width", "layers"), (512, 2)),
    "gin": Family(("width", "layers"), (64, 2)),
    "gin-linear": Family(("width", "layers"), (64, 2)),
    "sage": Family(("width", "layers"), (64, 2)),
    "gat": Family(("heads", "width", "layers"), (8, 8, 2), least=2),
    "gcnii": Family(("width", "layers"), (64, 16)),
    "resgcn": Family(("layers", "width"), (28, 128)),
}
_NAME = re.compile(rf"({'|'.join(FAMILIES)})(?:-([1-9]\d*(?:x[1-9]\d*)*))?")


class GNN(Adapter):
    """GCN, GIN, GAT, GraphSAGE, GCNII and a deep residual GCN.

    Numbers follow the name: width, and then layers, of ``gcn-64``, ``gin-512x3``, ``sage``,
    ``gcnii-64x16``, and of two that are as UGS has them: ``gin-linear`` (one linear layer a sum
    instead of two) and ``gcn-bare`` (no biases, no dropout of the features);
    heads and their width of ``gat-8x8``; layers, and then width, of ``resgcn-28x128``.
    The input is the number of features a node. Every model takes gates as ``edge_weight``.
    """

    models: Sequence[str] = (*(f for f in FAMILIES if f != "resgcn"), "resgcn-14", "resgcn-28")
    shown_on: ClassVar[str] = "karate"
    sparse_features: ClassVar[bool] = True

    def owns(self, name: str) -> bool:
        """Say whether the name is a family's, with as many numbers as it takes."""
        return _parts(name) is not None

    def build(self, name: str, signature: Signature) -> nn.Module:
        """Return the network, drawn as PyTorch Geometric draws its layers.

        Raises:
            BadInput: no such network, or the task has no graph.
        """
        family, numbers = parse(name)
        if signature.answer not in ANSWERS:
            raise BadInput(
                f"model {name!r} reads a graph, and the task has none (its input has shape "
                f"{signature.input}): choose a graph task, or a model of another family"
            )
        from lth_zoo.adapters import gnn_networks

        kinds: dict[str, Any] = {
            "gcn": gnn_networks.GCN,
            "gcn-bare": gnn_networks.GCN,
            "gin": gnn_networks.GIN,
            "gin-linear": gnn_networks.GIN,
            "sage": gnn_networks.SAGE,
            "gat": gnn_networks.GAT,
            "gcnii": gnn_networks.GCNII,
            "resgcn": gnn_networks.ResGCN,
        }
        more = {"gin-linear": {"linear": True}, "gcn-bare": {"bare": True}}.get(family, {})
        (features,) = signature.input
        model: nn.Module = kinds[family](features, signature.output, **numbers, **more)
        return model

    def optional(self, model: nn.Module) -> dict[str, Prunable]:
        """Return the attention vectors of GAT, which UGS prunes; a vector is its own layer."""
        found: dict[str, Prunable] = {}
        for name, _ in model.named_parameters():
            if name.rpartition(".")[2] in ("att_src", "att_dst"):
                found[name] = Prunable(name, "attention", len(found) // 2, axis=1)
        return found


def _parts(name: str) -> tuple[str, list[int]] | None:
    """Return the family and the numbers of a name, None where it is no model's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    numbers = [int(n) for n in match[2].split("x")] if match[2] else []
    family = FAMILIES[match[1]]
    fits = not numbers or family.least <= len(numbers) <= len(family.fields)
    return (match[1], numbers) if fits and (numbers or match[1] != "resgcn") else None


def parse(name: str) -> tuple[str, dict[str, int]]:
    """Return a model's family and sizes.

    >>> parse("gcn-64"), parse("resgcn-14")
    (('gcn', {'width': 64, 'layers': 2}), ('resgcn', {'layers': 14, 'width': 128}))

    Raises:
        BadInput: no such network.
    """
    parts = _parts(name)
    if parts is None:
        raise unknown("model", name, GNN.models)
    base, numbers = parts
    family = FAMILIES[base]
    sizes = (*numbers, *family.usual[len(numbers) :])
    return base, dict(zip(family.fields, sizes, strict=True))
