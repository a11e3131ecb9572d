"""Sums over the edges of a graph as sparse products: no value per edge and channel is ever held.

What a convolution gathers, ``out[t] = sum of w x[s]`` over the columns (s, t), is the product of a
sparse matrix and the features. Its slopes are again such sums, and one number a column, but torch
makes the slope of a sparse factor as a dense matrix of nodes x nodes; here it is not. Everything is
differentiable any number of times. Sums run in a fixed order: a rerun repeats every bit.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

#: Devices on which torch multiplies matrices in CSR.
SPARSE = ("cpu", "cuda")

with warnings.catch_warnings():  # torch says once a process that CSR is in beta
    warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
    torch.eye(1).to_sparse_csr()


class Order(NamedTuple):
    """Columns sorted by one of their ends, as the rows of a matrix in CSR, all int64.

    ``starts`` is (nodes + 1,), where each row begins; ``others`` (columns,) the other ends;
    ``place`` (columns,) which column of ``edge_index`` each one is.
    """

    starts: Tensor
    others: Tensor
    place: Tensor


def edge_sum(x: Tensor, edge_index: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return (nodes, width): over each node's incoming columns, the source's row times its weight.

    ``x`` is (nodes, width); ``edge_index`` (2, columns), source above target; ``weights``
    (columns,), None for ones. Half precision is summed in float32 and returned as it came.
    """
    kind = torch.promote_types(x.dtype, torch.float32)
    if weights is None:
        weights = x.new_ones(edge_index.shape[1])
    found: Tensor = _Sum.apply(x.to(kind), weights.to(kind), *orders(edge_index, len(x)))
    return found.to(x.dtype)


def looped(edge_index: Tensor, weights: Tensor | None, nodes: int) -> tuple[Tensor, Tensor | None]:
    """Return the columns and one from every node to itself, of weight 1; raw loops are left out."""

    def make() -> tuple[Tensor, Tensor]:
        keep = (edge_index[0] != edge_index[1]).nonzero().flatten()
        loops = torch.arange(nodes, device=edge_index.device).expand(2, -1)
        return torch.cat([edge_index[:, keep], loops], 1), keep

    columns, keep = _once(edge_index, ("looped", nodes), make)
    if weights is not None:
        weights = torch.cat([weights.index_select(0, keep), weights.new_ones(nodes)])
    return columns, weights


def orders(edge_index: Tensor, nodes: int) -> tuple[Order, Order]:
    """Return the columns by target, and by source."""

    def make() -> tuple[Order, Order]:
        source, target = edge_index
        return _order(target, source, nodes), _order(source, target, nodes)

    found: tuple[Order, Order] = _once(edge_index, ("orders", nodes), make)
    return found


def _order(rows: Tensor, others: Tensor, nodes: int) -> Order:
    place = rows.argsort(stable=True)
    starts = rows.new_zeros(nodes + 1)
    starts[1:] = torch.bincount(rows, minlength=nodes).cumsum(0)
    return Order(starts, others[place], place)


#: What was made of a tensor, for as long as that lives.
_made: Any = WeakTensorKeyDictionary()


def _once(edge_index: Tensor, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """Make something of the columns once, and again when they have been written to.

    A graph is then sorted once, and not at every call of every layer. Tensors of torch's
    inference mode do not tell whether they were written to.
    """
    if edge_index.is_inference():
        return make()
    made = _made.setdefault(edge_index, {})
    key = (*key, edge_index._version)
    if key not in made:
        made[key] = make()
    return made[key]


# -- the two products, whose slopes are each other ----------------------------------------------


class _Sum(torch.autograd.Function):
    """``edge_sum`` with the columns by target and by source."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, into: Order, out_of: Order) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.orders = into, out_of
        sorted_weights = weights[into.place]
        if x.device.type in SPARSE:
            # `@` makes a second result on the way, which is most of the memory of a wide layer.
            nothing = x.new_zeros(()).expand_as(x)
            return torch.addmm(nothing, _matrix(into, sorted_weights), x, beta=0)
        sent = sorted_weights[:, None] * x[into.others]
        return torch.zeros_like(x).index_add_(0, _rows(into), sent)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        (x, weights), (into, out_of), (slope,) = ctx.saved_tensors, ctx.orders, slopes
        of_x = _Sum.apply(slope, weights, out_of, into) if ctx.needs_input_grad[0] else None
        of_weights = _Dot.apply(x, slope, into, out_of) if ctx.needs_input_grad[1] else None
        return of_x, of_weights, None, None


class _Dot(torch.autograd.Function):
    """Of each column, the product of the row of ``x`` at its source and of ``y`` at its target."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, into: Order, out_of: Order) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.orders = into, out_of
        if x.device.type in SPARSE:
            blank = _matrix(into, x.new_zeros(len(into.others)))
            found = torch.sparse.sampled_addmm(blank, y, x.t(), beta=0.0).values()
        else:
            found = torch.linalg.vecdot(x[into.others], y[_rows(into)])
        return torch.empty_like(found).index_copy_(0, into.place, found)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        (x, y), (into, out_of), (slope,) = ctx.saved_tensors, ctx.orders, slopes
        of_x = _Sum.apply(y, slope, out_of, into) if ctx.needs_input_grad[0] else None
        of_y = _Sum.apply(x, slope, into, out_of) if ctx.needs_input_grad[1] else None
        return of_x, of_y, None, None


def _matrix(order: Order, values: Tensor) -> Tensor:
    size = (len(order.starts) - 1,) * 2
    return torch.sparse_csr_tensor(order.starts, order.others, values, size, check_invariants=False)


def _rows(order: Order) -> Tensor:
    nodes = torch.arange(len(order.starts) - 1, device=order.starts.device)
    return nodes.repeat_interleave(order.starts.diff())


# -- counting ---------------------------------------------------------------------------------

#: Sums into rows by index: what an aggregation is made of, and where the summed values stand.
_SUMS = {
    torch.ops.aten.scatter_add.default: 3,
    torch.ops.aten.scatter_add_.default: 3,
    torch.ops.aten.index_add.default: 3,
    torch.ops.aten.index_add_.default: 3,
    torch.ops.aten.scatter_reduce.two: 3,
    torch.ops.aten.scatter_reduce_.two: 3,
}
#: Products, and where their two factors stand.
_PRODUCTS = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}


class SumCounter(TorchDispatchMode):
    """Counts the values that are summed over columns, by ``layer``, which the user of it sets.

    Products with a matrix in CSR are such sums; they are hidden from a ``FlopCounterMode`` around
    this one, which would take the matrix for a full one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = ""
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        factors = args[_PRODUCTS.get(func, len(args)) :]
        if factors and factors[0].layout is torch.sparse_csr:
            self.counts[self.layer] += factors[0].values().numel() * factors[1].shape[1]
            with _disable_current_modes():
                return func(*args, **(kwargs or {}))
        place = _SUMS.get(func)
        if place is not None:
            source: Tensor = args[place]
            if source.dim() > 1:  # sums of single numbers are those of a normalisation
                self.counts[self.layer] += source.numel()
        return func(*args, **(kwargs or {}))
