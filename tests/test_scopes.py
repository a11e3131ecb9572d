"""Scopes beside one threshold: balanced, smart ratios, and N of each M weights."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import tiny_recipe

from lth_zoo.allocate import allocate, block_of, round_half_up
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, OneShot
from lth_zoo.masks import Masks
from lth_zoo.select import select


def kept(shapes, density, scope, **options):
    pools = allocate(shapes, Fraction(density), scope, **options)
    return {pool.names[0]: pool.keep for pool in pools}


def test_balanced_keeps_the_same_number_in_each_tensor():
    shapes = {"a": (10, 10), "b": (50, 2), "c": (4, 5)}
    assert kept(shapes, "54/220", "balanced") == {"a": 18, "b": 18, "c": 18}
    # 100 of 220: 33 1/3 each would be more than the 20 of the last, 80 are shared by the others.
    assert kept(shapes, "100/220", "balanced") == {"a": 40, "b": 40, "c": 20}
    # 55 of 220: what does not divide goes to the first.
    assert kept(shapes, "55/220", "balanced") == {"a": 19, "b": 18, "c": 18}


def test_smart_ratios_by_hand():
    # j is 3, 2, 1: densities are to one another as 12, 6 and 2; the last layer has 0.3.
    shapes = {"a": (10, 10), "b": (10, 20), "c": (40, 10), "head": (10, 10)}
    # 800 weights, 206 stay: 30 of the head and 176 = s (1200 + 1200 + 800), so s = 0.055.
    assert kept(shapes, "206/800", "smart-ratio") == {"a": 66, "b": 66, "c": 44, "head": 30}
    # 350: s = 0.1; the first would have 120, so 20 go to the second: 140, and 80.
    assert kept(shapes, "350/800", "smart-ratio") == {"a": 100, "b": 140, "c": 80, "head": 30}
    # 670: s = 0.2; 240 of 100, then 240 + 140 of 200, then 160 + 180.
    assert kept(shapes, "670/800", "smart-ratio") == {"a": 100, "b": 200, "c": 340, "head": 30}
    # 790: 760 of the 700 of the three are too many, and the head takes the rest.
    assert kept(shapes, "790/800", "smart-ratio") == {"a": 100, "b": 200, "c": 400, "head": 90}
    # Of 16 the head may have half, and 8 = s (1200 + 1200 + 800).
    assert kept(shapes, "16/800", "smart-ratio") == {"a": 3, "b": 3, "c": 2, "head": 8}


def test_smart_ratios_beside_a_density_of_ones_own():
    shapes = {"a": (10, 10), "b": (10, 20), "head": (10, 10)}
    own = {"head": Fraction(1, 2)}
    # Of the others' 300 a fifth: 60 = s (6 x 100 + 2 x 200).
    assert kept(shapes, "1/5", "smart-ratio", overrides=own) == {"head": 50, "a": 36, "b": 24}


def test_two_of_four_by_hand():
    scores = torch.tensor([[9.0, 8, 7, 6, 0, 0, 0, 1], [1, 2, 3, 4, -5, -6, -7, -8]])
    pools = allocate({"w": (2, 8)}, Fraction(1, 2), "2:4")
    found = select({"w": scores}, pools)["w"].int().tolist()
    assert found == [[1, 1, 0, 0, 1, 0, 0, 1], [0, 0, 1, 1, 1, 1, 0, 0]]
    # The same layer the other way round, as transformers' Conv1D has it.
    pools = allocate({"w": (8, 2)}, Fraction(1, 2), "2:4", axes={"w": 1})
    assert select({"w": scores.T}, pools)["w"].T.int().tolist() == found


def test_a_kernel_is_read_through_its_inputs_first():
    # 4 inputs: blocks are the inputs at one place of the kernel.
    scores = torch.rand(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = select({"w": scores}, allocate({"w": (3, 4, 2, 2)}, Fraction(1, 4), "1:4"))["w"]
    assert (mask.sum(1) == 1).all()
    assert mask.float().argmax(1).equal(scores.argmax(1))


def test_an_input_that_m_does_not_divide_ends_with_a_shorter_block():
    # 6 inputs: a block of 4 keeps 2, one of 2 keeps 1 of the 2: 3 of each output.
    scores = torch.tensor([[1.0, 2, 3, 4, 6, 5], [4, 3, 2, 1, 5, 6]])
    mask = select({"w": scores}, allocate({"w": (2, 6)}, Fraction(1, 2), "2:4"))["w"]
    assert mask.int().tolist() == [[0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 0, 1]]
    # 5 inputs and 3 outputs: 8 of 15 (7.5 rounded); 2 of each block, and 2 of the 3 left over.
    mask = select({"w": torch.ones(3, 5)}, allocate({"w": (3, 5)}, Fraction(1, 2), "2:4"))["w"]
    assert mask.int().tolist() == [[1, 1, 0, 0, 1], [1, 1, 0, 0, 1], [1, 1, 0, 0, 0]]
    # A kernel on one channel: its places are the row.
    scores = torch.arange(18.0).reshape(2, 1, 3, 3)
    mask = select({"w": scores}, allocate({"w": (2, 1, 3, 3)}, Fraction(1, 2), "2:4"))["w"]
    assert mask.reshape(2, 9).int().tolist() == [
        [0, 0, 1, 1, 0, 0, 1, 1, 1],
        [0, 0, 1, 1] * 2 + [0],
    ]


SHAPES = st.lists(
    st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple), min_size=1, max_size=4
).map(lambda shapes: dict(zip("pdza", shapes, strict=False)))


@given(SHAPES, st.sampled_from(["1:2", "2:4", "1:4", "4:8", "3:5"]))
def test_blocks_have_exact_counts(shapes, scope):
    n, m = block_of(scope)
    rng = torch.Generator().manual_seed(1)
    scores = {name: torch.rand(shape, generator=rng) for name, shape in shapes.items()}
    masks = select(scores, allocate(shapes, Fraction(n, m), scope))
    assert masks.kept == round_half_up(Fraction(n, m) * sum(map(prod, shapes.values())))
    for mask in masks.values():
        rows = mask.movedim(1, -1).flatten(1)
        whole = rows[:, : rows.shape[1] // m * m].reshape(-1, m)
        assert (whole.sum(1) == n).all()


def test_blocks_within_earlier_masks():
    scores, pools = torch.arange(8.0).reshape(1, 8), allocate({"w": (1, 8)}, Fraction(1, 2), "2:4")
    before = Masks({"w": torch.tensor([[1, 1, 1, 0, 1, 1, 0, 0]]).bool()})
    assert select({"w": scores}, pools, before)["w"].int().tolist() == [[0, 1, 1, 0, 1, 1, 0, 0]]
    before = Masks({"w": torch.tensor([[1, 0, 0, 0, 1, 1, 1, 1]]).bool()})
    with pytest.raises(BadInput, match="cannot keep 2 of 4: earlier masks left fewer"):
        select({"w": scores}, pools, before)


def test_a_tensor_with_a_density_of_its_own_has_no_blocks():
    pools = allocate({"a": (4, 4), "b": (4, 4)}, Fraction(1, 2), "2:4", {"b": Fraction(1)})
    assert {p.names[0]: (p.keep, p.block) for p in pools} == {"b": (16, None), "a": (8, (2, 4))}


@pytest.mark.parametrize(
    ("finder", "sparsity", "message"),
    [
        (OneShot(scope="2:4"), 0.9, r"'2:4' keeps 0\.5 of every tensor in one step, not 0\.1"),
        (OneShot(scope="1:4"), 0.5, r"give sparsity 0\.75"),
        (IMP(scope="2:4"), 0.5, r"not 0\.8"),
    ],
)
def test_blocks_have_one_density(finder, sparsity, message):
    with pytest.raises(BadInput, match=message):
        experiment(tiny_recipe(finder=finder, sparsity=sparsity))


def test_scopes_that_do_not_exist():
    for scope in ("4:4", "0:4", "2-4", "smart"):
        with pytest.raises(BadInput, match="scope"):
            block_of(scope)
    with pytest.raises(BadInput, match="did you mean 'smart-ratio'"):
        block_of("smart-ratios")
