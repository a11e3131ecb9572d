"""Graph convolutions with a gate on every column: 1 = there, 0 = exactly as if it were deleted.

PyTorch Geometric's GCNConv, GraphConv and GCN2Conv do this with ``edge_weight``. GIN, SAGE, GAT and
the softmax aggregation do not take one, and a mask on their messages alone is wrong: a mean still
counts the column, a softmax still has it in the denominator. Here the gate stands in the sum, in
the count and in the softmax. Sums are sparse products (:mod:`~lth_zoo.edge_sums`), those of the
library's convolutions too: a message a column takes columns x width values, and most of the time.

Gates are at least 0. Everything is differentiable in them, also at 0 and for nodes without any
column left, whose gathered value is 0. Parameters are drawn as in the library's layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GCN2Conv, GCNConv, Linear, inits
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import scatter

from lth_zoo.edge_sums import edge_sum, looped

#: A sum below counts as 0: nothing is gathered there. Its square is still a float32.
LEAST = 1e-18
#: Largest exponent: a column that is closed, or as good as (1 / e^40), must not overflow where
#: its score is far above the open ones'.
STEEPEST = 40.0


def dropped(x: Tensor, p: float, training: bool) -> Tensor:
    """Return the values with a share ``p`` of them 0 and the rest larger, as ``F.dropout`` does.

    On a CPU uniform numbers are three times as fast as its Bernoulli ones (measured, 2,708 x
    1,433 values: 48 to 14 ms), and dropping input features costs a small network more than all
    else. Of features in CSR only those that are not 0 are drawn for.
    """
    if training and x.layout is torch.sparse_csr:
        values = dropped(x.values(), p, training)
        places = (x.crow_indices(), x.col_indices())
        return torch.sparse_csr_tensor(*places, values, x.shape, check_invariants=False)
    if not training or x.device.type != "cpu":
        return F.dropout(x, p, training)
    return x * torch.rand_like(x).ge_(p).div_(1 - p)


def goes_first(lin: Linear, x: Tensor) -> bool:
    """Say whether to multiply by a layer's weights before gathering: the same, and here faster."""
    return x.layout is torch.sparse_csr or lin.out_channels < lin.in_channels


def gathered_mean(x: Tensor, edge_index: Tensor, gates: Tensor | None) -> Tensor:
    """Return the mean of what :func:`edge_sum` sums: sum(m x) / sum(m), 0 for a sum of 0."""
    target = edge_index[1]
    count = x.new_ones(len(target)) if gates is None else gates
    total = scatter(count, target, dim=0, dim_size=len(x), reduce="sum")
    return edge_sum(x, edge_index, gates) / divisor(total)[:, None]


def divisor(total: Tensor) -> Tensor:
    """Return the sums to divide by, 1 for those of nothing."""
    return total.masked_fill(total < LEAST, 1)


def gated_softmax(scores: Tensor, gates: Tensor | None, target: Tensor, nodes: int) -> Tensor:
    """Return m e^s / sum(m e^s) over the columns of each target, (columns, heads) as ``scores``.

    The largest open column of a target, s + log m, is taken out of the exponents first.
    """
    with torch.no_grad():
        level = scores
        if gates is not None:
            shut = gates < math.exp(-STEEPEST)
            level = scores + gates.log().masked_fill(shut, -torch.inf)[:, None]
        top = scatter(level, target, dim=0, dim_size=nodes, reduce="max")
        top.masked_fill_(top == -torch.inf, 0)
    weight = (scores - top.index_select(0, target)).clamp(max=STEEPEST).exp()
    if gates is not None:
        weight = gates[:, None] * weight
    total = scatter(weight, target, dim=0, dim_size=nodes, reduce="sum")
    return weight / divisor(total).index_select(0, target)


def normalised(edge_index: Tensor, gates: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns and loops, and the share of each: the symmetric normalisation of a GCN."""
    columns, gates = looped(edge_index, gates, len(x))
    found: tuple[Tensor, Tensor] = gcn_norm(
        columns, gates, len(x), add_self_loops=False, dtype=x.dtype
    )
    return found


class GCN(GCNConv):
    """Graph convolution (Kipf & Welling 2017) over columns and shares of :func:`normalised`."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias, normalize=False)

    def propagate(self, edge_index: Tensor, x: Tensor, edge_weight: Tensor | None) -> Tensor:
        """Return the sums, without a message a column."""
        return edge_sum(x, edge_index, edge_weight)


class GCN2(GCN2Conv):
    """GCNII's convolution (Chen et al. 2020) over columns and shares of :func:`normalised`."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__(width, alpha=0.1, theta=0.5, layer=depth, normalize=False)

    propagate = GCN.propagate


class GIN(nn.Module):
    """Graph isomorphism convolution, ``h((1 + eps) x + sum of the neighbours)`` (Xu et al. 2019).

    ``h`` is one linear layer, or with ``hidden`` two and a ReLU between them. The first one
    commutes with the sum, and is taken first where it narrows: fewer values are then sent along
    edges. ``eps`` is 0 and stays there unless it is learned.
    """

    eps: Tensor

    def __init__(
        self, inputs: int, outputs: int, hidden: int | None = None, learn_eps: bool = False
    ) -> None:
        super().__init__()
        self.lin = Linear(inputs, hidden or outputs, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden or outputs))
        if learn_eps:
            self.eps = nn.Parameter(torch.empty(1))
        else:
            self.register_buffer("eps", torch.empty(1))
        more = [nn.ReLU(), Linear(hidden, outputs)] if hidden else []
        self.rest = nn.Sequential(*more)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as torch's linear layers do; eps is 0."""
        inits.reset(self.lin)
        inits.uniform(self.lin.in_channels, self.bias)
        inits.reset(self.rest)
        inits.zeros(self.eps)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, inputs) to (nodes, outputs); ``edge_weight`` are the gates."""
        first = goes_first(self.lin, x)
        x = self.lin(x) if first else x
        x = (1 + self.eps) * x + edge_sum(x, edge_index, edge_weight)
        x = x if first else self.lin(x)
        return self.rest(x + self.bias)


class SAGE(nn.Module):
    """GraphSAGE with the mean of the neighbours (Hamilton et al. 2017, algorithm 1).

    ``lin_l`` is for the neighbours, ``lin_r`` for the node. The mean is taken of what
    ``lin_l`` returns where that is narrower.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin_l = Linear(inputs, outputs, bias=False)
        self.lin_r = Linear(inputs, outputs)

    def reset_parameters(self) -> None:
        """Draw the weights as torch's linear layers do."""
        self.lin_l.reset_parameters()
        self.lin_r.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, inputs) to (nodes, outputs); ``edge_weight`` are the gates."""
        if goes_first(self.lin_l, x):
            mean = gathered_mean(self.lin_l(x), edge_index, edge_weight)
        else:
            mean = self.lin_l(gathered_mean(x, edge_index, edge_weight))
        return mean + self.lin_r(x)


class GAT(nn.Module):
    """Graph attention (Velickovic et al. 2018): a softmax over the neighbours and the node itself.

    Returns the heads side by side, or their mean if not ``concat``. ``dropout`` is of the
    attention. The node's own loop always has gate 1. Tensors are named as in ``GATConv``.
    """

    def __init__(
        self, inputs: int, width: int, heads: int = 1, concat: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.concat, self.dropout = heads, concat, dropout
        self.lin = Linear(inputs, heads * width, bias=False, weight_initializer="glorot")
        self.att_src = nn.Parameter(torch.empty(1, heads, width))
        self.att_dst = nn.Parameter(torch.empty(1, heads, width))
        self.bias = nn.Parameter(torch.empty(heads * width if concat else width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and attention vectors after Glorot; the bias is 0."""
        self.lin.reset_parameters()
        inits.glorot(self.att_src)
        inits.glorot(self.att_dst)
        inits.zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, inputs) to (nodes, heads x width); ``edge_weight`` are the gates."""
        edge_index, gates = looped(edge_index, edge_weight, nodes := len(x))
        source, target = edge_index
        x = self.lin(x).unflatten(1, (self.heads, -1))
        sent, received = (x * self.att_src).sum(2), (x * self.att_dst).sum(2)
        scores = sent.index_select(0, source) + received.index_select(0, target)
        share = gated_softmax(F.leaky_relu(scores, 0.2), gates, target, nodes)
        share = dropped(share, self.dropout, self.training)
        heads = zip(x.unbind(1), share.unbind(1), strict=True)
        out = torch.stack([edge_sum(one, edge_index, part) for one, part in heads], 1)
        return (out.flatten(1) if self.concat else out.mean(1)) + self.bias


class GEN(nn.Module):
    """Softmax aggregation channel by channel, then a linear layer (Li et al. 2020, DeeperGCN).

    ``lin(x + sum(w h) / sum(w))`` with h = relu(x) + 1e-7 and w = e^(t h) of each neighbour,
    through which no gradient flows: the published ``softmax_sg``. As w depends on the source
    alone, two sums of node values replace a softmax over columns, in memory O(nodes).
    It is exact while t h differs by less than 41 between the nodes in a channel.
    """

    def __init__(self, inputs: int, outputs: int, t: float = 0.1) -> None:
        super().__init__()
        self.t = t
        self.lin = Linear(inputs, outputs)

    def reset_parameters(self) -> None:
        """Draw the weights as torch's linear layers do."""
        self.lin.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Map (nodes, inputs) to (nodes, outputs); ``edge_weight`` are the gates."""
        sent = x.relu() + 1e-7
        with torch.no_grad():
            share = ((sent - sent.amax(0)) * self.t).exp()
        both = edge_sum(torch.cat([share * sent, share], 1), edge_index, edge_weight)
        above, below = both.chunk(2, 1)
        return self.lin(x + above / divisor(below))
