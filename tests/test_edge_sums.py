"""Sums over edges: against sums by hand, their slopes, and what is held on the way."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lth_zoo import edge_sums
from lth_zoo.edge_sums import SumCounter, edge_sum, looped, orders
from lth_zoo.seeds import generator

NODES, COLUMNS, WIDTH = 7, 20, 3


def drawn(kind=torch.float64):
    """Features and weights that want slopes, and columns of which some are there twice."""
    rng = generator(0, "data")
    columns = torch.randint(0, NODES - 1, (2, COLUMNS), generator=rng)
    x = torch.randn(NODES, WIDTH, generator=rng, dtype=torch.float64).to(kind)
    weights = torch.rand(COLUMNS, generator=rng, dtype=torch.float64).to(kind)
    return x.requires_grad_(), weights.requires_grad_(), columns


def by_hand(x, weights, columns):
    out = torch.zeros_like(x)
    for weight, source, target in zip(weights, *columns.tolist(), strict=True):
        out[target] += weight * x[source]
    return out


@pytest.fixture(params=["sparse", "indexed"])
def each_way(request, monkeypatch):
    """As on devices that multiply sparse matrices, and as on others."""
    if request.param == "indexed":
        monkeypatch.setattr(edge_sums, "SPARSE", ())


@pytest.mark.usefixtures("each_way")
def test_sums_and_all_their_slopes():
    x, weights, columns = drawn()
    torch.testing.assert_close(edge_sum(x, columns, weights), by_hand(x, weights, columns))
    ones = torch.ones(COLUMNS).double()
    torch.testing.assert_close(edge_sum(x, columns), by_hand(x, ones, columns))
    wanted = (x, weights)
    torch.autograd.gradcheck(lambda a, b: edge_sum(a, columns, b), wanted)
    torch.autograd.gradgradcheck(lambda a, b: edge_sum(a, columns, b), wanted)


@pytest.mark.usefixtures("each_way")
def test_no_columns_and_no_neighbours_sum_to_zero():
    x, nowhere = torch.ones(3, 2), torch.zeros(2, 0, dtype=torch.long)
    assert not edge_sum(x, nowhere).any()
    alone = edge_sum(x, torch.tensor([[0, 1], [2, 2]]))
    assert alone.tolist() == [[0, 0], [0, 0], [2, 2]]
    empty = torch.zeros(0, requires_grad=True)
    edge_sum(x, nowhere, empty).sum().backward()
    assert empty.grad.shape == (0,)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_summed_in_float32(kind):
    x, weights, columns = drawn(kind)
    found = edge_sum(x, columns, weights)
    assert found.dtype == kind
    expected = by_hand(x.float(), weights.float(), columns)
    torch.testing.assert_close(found, expected.to(kind))
    found.float().sum().backward()
    assert x.grad.dtype == weights.grad.dtype == kind


def test_a_rerun_repeats_every_bit():
    rng = generator(1, "data")
    x, columns = (
        torch.randn(500, 64, generator=rng),
        torch.randint(0, 500, (2, 9000), generator=rng),
    )
    assert edge_sum(x, columns).equal(edge_sum(x, columns.clone()))


def test_columns_are_sorted_once_and_again_when_written_to():
    _, _, columns = drawn()
    first = orders(columns, NODES)
    assert orders(columns, NODES) is first
    assert orders(columns, NODES + 1) is not first
    columns[1, 0] = NODES - 1
    assert orders(columns, NODES) is not first
    assert edge_sum(torch.ones(NODES, 1), columns)[NODES - 1] == 1
    with torch.inference_mode():
        unstamped = columns.clone()
        before = edge_sum(torch.ones(NODES, 1), unstamped)
        unstamped[1, 0] = 0
        assert not edge_sum(torch.ones(NODES, 1), unstamped).equal(before)


def test_nothing_made_of_a_graph_outlives_it():
    _, _, columns = drawn()
    own, _ = looped(columns, None, NODES)
    made = weakref.ref(orders(own, NODES)[0].place)
    del own, columns
    gc.collect()
    assert made() is None


@pytest.mark.parametrize("node", [-1, NODES, NODES + 5])
@pytest.mark.parametrize("end", [0, 1])
def test_a_column_to_a_node_that_is_not_there_reads_no_foreign_memory(node, end):
    _, _, columns = drawn()
    columns[end, 3] = node
    with pytest.raises(RuntimeError):
        edge_sum(torch.ones(NODES, 1), columns)


def test_loops_are_added_once_and_raw_ones_left_out():
    columns = torch.tensor([[0, 1, 2], [1, 1, 0]])
    weights = torch.tensor([0.5, 9.0, 0.25], requires_grad=True)
    found, given = looped(columns, weights, 3)
    assert found.tolist() == [[0, 2, 0, 1, 2], [1, 0, 0, 1, 2]]
    assert given.tolist() == [0.5, 0.25, 1, 1, 1]
    given.sum().backward()
    assert weights.grad.tolist() == [1, 0, 1]
    assert looped(columns, None, 3)[1] is None
    assert looped(columns, weights, 3)[0] is found


class Largest(TorchDispatchMode):
    """Notes the most values that any operation returned."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.values = max(self.values, found.numel())
        return found


def test_no_value_a_column_and_channel_is_ever_held():
    nodes, columns, width = 50, 2000, 16
    rng = generator(0, "data")
    x = torch.randn(nodes, width, generator=rng, requires_grad=True)
    weights = torch.rand(columns, generator=rng, requires_grad=True)
    edges = torch.randint(0, nodes, (2, columns), generator=rng)
    with Largest() as seen:
        edge_sum(x, edges, weights).sum().backward()
    assert weights.grad.shape == (columns,)
    assert columns <= seen.values <= max(nodes**2, 2 * columns) < columns * width


def test_sums_are_counted_by_columns_and_no_dense_product_is():
    x, weights, columns = drawn(torch.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as flops, SumCounter() as sums:
        sums.layer = "one"
        edge_sum(x, columns, weights)
        sums.layer = "two"
        torch.zeros(NODES, WIDTH).index_add_(0, columns[1], x[columns[0]])
        torch.zeros(NODES).index_add_(0, columns[1], weights)
        x @ torch.ones(WIDTH, 5)
    assert sums.counts == {"one": COLUMNS * WIDTH, "two": COLUMNS * WIDTH}
    assert flops.get_total_flops() == 2 * NODES * WIDTH * 5
