"""Graph networks of the lottery-ticket papers, as plain modules over ``(x, edge_index, gates)``.

Every ``forward(x, edge_index, edge_weight=None)`` maps (nodes, features) to (nodes, outputs);
``edge_weight`` are the gates of :mod:`~lth_zoo.adapters.gnn_layers`. Features may be in CSR, which
is faster where nearly all of them are 0. Nothing is cached between calls: the next graph may have
fewer edges. Every draw comes from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import Linear

from lth_zoo.adapters import gnn_layers
from lth_zoo.adapters.gnn_layers import dropped, normalised


def widths(features: int, width: int, outputs: int, layers: int) -> Iterable[tuple[int, int]]:
    """Return the inputs and outputs of each layer.

    >>> list(widths(5, 4, 3, 3))
    [(5, 4), (4, 4), (4, 3)]
    """
    return pairwise([features, *[width] * (layers - 1), outputs])


class Stack(nn.Module):
    """Convolutions one after another, dropout before each and an activation between them.

    ``whole`` leaves the features that come in as they are.
    """

    def __init__(
        self,
        convs: Iterable[nn.Module],
        dropout: float = 0.5,
        activation: Callable[[Tensor], Tensor] = F.relu,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.dropout, self.activation, self.whole = dropout, activation, whole

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, features) to (nodes, outputs)."""
        for i, conv in enumerate(self.convs):
            x = self.activation(x) if i else x
            x = x if self.whole and not i else dropped(x, self.dropout, self.training)
            x = conv(x, edge_index, edge_weight)
        return x


class GCN(Stack):
    """Graph convolutional network (Kipf & Welling 2017): 2 layers, dropout 0.5.

    The symmetric normalisation is computed once a call, for all layers. If ``bare``, no layer has
    a bias and features are not dropped, as in the published code of UGS (Chen et al. 2021).
    """

    def __init__(
        self, features: int, outputs: int, width: int, layers: int = 2, bare: bool = False
    ) -> None:
        sizes = widths(features, width, outputs, layers)
        super().__init__((gnn_layers.GCN(i, o, bias=not bare) for i, o in sizes), whole=bare)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, features) to (nodes, outputs)."""
        return super().forward(x, *normalised(edge_index, edge_weight, x))


class GIN(Stack):
    """Graph isomorphism network (Xu et al. 2019): sums, dropout 0.5.

    A layer's MLP has two linear layers, or one with a learned eps if ``linear``, as in UGS
    (Chen et al. 2021), whose published code takes the mean instead of the sum.
    """

    def __init__(
        self, features: int, outputs: int, width: int, layers: int = 2, linear: bool = False
    ) -> None:
        super().__init__(
            gnn_layers.GIN(i, o, hidden=None if linear else width, learn_eps=linear)
            for i, o in widths(features, width, outputs, layers)
        )


class SAGE(Stack):
    """GraphSAGE with mean aggregation (Hamilton et al. 2017): 2 layers, dropout 0.5."""

    def __init__(self, features: int, outputs: int, width: int, layers: int = 2) -> None:
        super().__init__(gnn_layers.SAGE(i, o) for i, o in widths(features, width, outputs, layers))


class GAT(Stack):
    """Graph attention network (Velickovic et al. 2018, section 3.3), dropout 0.6.

    ``heads`` of ``width`` side by side in every layer but the last, which has one head.
    """

    def __init__(
        self, features: int, outputs: int, heads: int, width: int, layers: int = 2
    ) -> None:
        *hidden, (inputs, _) = widths(features, heads * width, outputs, layers)
        convs = [gnn_layers.GAT(i, width, heads, dropout=0.6) for i, _ in hidden]
        last = gnn_layers.GAT(inputs, outputs, concat=False, dropout=0.6)
        super().__init__([*convs, last], 0.6, F.elu)


class GCNII(nn.Module):
    """GCNII (Chen et al. 2020): alpha 0.1, theta 0.5, dropout 0.6, as published for Cora.

    A linear layer in, ``layers`` convolutions that mix in its answer, a linear layer out.
    """

    def __init__(self, features: int, outputs: int, width: int, layers: int = 16) -> None:
        super().__init__()
        self.first = Linear(features, width)
        self.convs = nn.ModuleList(gnn_layers.GCN2(width, d) for d in range(1, layers + 1))
        self.last = Linear(width, outputs)
        self.dropout = 0.6

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, features) to (nodes, outputs)."""
        edge_index, shares = normalised(edge_index, edge_weight, x)
        x = first = self.first(self._drop(x)).relu()
        for conv in self.convs:
            x = conv(self._drop(x), first, edge_index, shares).relu()
        return self.last(self._drop(x))

    def _drop(self, x: Tensor) -> Tensor:
        return dropped(x, self.dropout, self.training)


class Residual(nn.Module):
    """Norm, ReLU, dropout, convolution, and the input added (Li et al. 2020, "res+")."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.conv = gnn_layers.GEN(width, width)
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, width) to (nodes, width)."""
        inner = dropped(self.norm(x).relu(), self.dropout, self.training)
        return x + self.conv(inner, edge_index, edge_weight)


class ResGCN(nn.Module):
    """Deep residual network with softmax aggregation, ResGCN-28 of UGS (Li et al. 2020).

    A linear layer in; a first convolution and ``layers - 1`` residual ones of one linear layer
    each; norm, ReLU, dropout 0.5, and a linear layer out.
    """

    def __init__(self, features: int, outputs: int, layers: int, width: int = 128) -> None:
        super().__init__()
        self.first = Linear(features, width)
        self.conv = gnn_layers.GEN(width, width)
        self.blocks = nn.ModuleList(Residual(width, 0.5) for _ in range(layers - 1))
        self.norm = nn.BatchNorm1d(width)
        self.last = Linear(width, outputs)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, features) to (nodes, outputs)."""
        x = self.conv(self.first(x), edge_index, edge_weight)
        for block in self.blocks:
            x = block(x, edge_index, edge_weight)
        x = dropped(self.norm(x).relu(), 0.5, self.training)
        return self.last(x)
