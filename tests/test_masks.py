"""Masks as values: exact counts, algebra, identity, storage, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from toys import mlp, pruned_are_zero, some_masks

from lth_zoo.errors import BadInput
from lth_zoo.formats import dump_masks, load_masks
from lth_zoo.masks import Masks

SHAPES = st.dictionaries(
    st.sampled_from(["a", "b.weight", "é", "z"]), st.lists(st.integers(0, 5), max_size=3).map(tuple)
)


def drawn(shapes, seed):
    rng = torch.Generator().manual_seed(seed)
    return Masks({n: torch.rand(s, generator=rng) < 0.5 for n, s in shapes.items()})


def kept_places(masks):
    """The kept set as Python sees it: (name, flat index)."""
    return {(n, i) for n, m in masks.items() for i, bit in enumerate(m.reshape(-1).tolist()) if bit}


@given(SHAPES, st.integers(0, 9))
def test_counts_are_exact(shapes, seed):
    masks = drawn(shapes, seed)
    kept, size = len(kept_places(masks)), sum(prod(s) for s in shapes.values())
    assert (masks.kept, masks.size) == (kept, size)
    assert masks.density == (kept / size if size else 1.0)
    assert masks.sparsity == 1 - masks.density
    assert list(masks) == sorted(shapes) == list(masks.counts)
    for name, (own, total) in masks.counts.items():
        assert own == sum(n == name for n, _ in kept_places(masks))
        assert total == prod(shapes[name])


@given(SHAPES, st.integers(0, 9), st.integers(0, 9))
def test_algebra_is_that_of_the_kept_sets(shapes, one, other):
    a, b = drawn(shapes, one), drawn(shapes, other)
    x, y = kept_places(a), kept_places(b)
    assert kept_places(a & b) == x & y
    assert kept_places(a | b) == x | y
    assert kept_places(~a).isdisjoint(x)
    assert (~a).kept == a.size - a.kept
    assert a.distance(b) == len(x ^ y) / max(1, a.size)
    assert a.jaccard(b) == (len(x & y) / len(x | y) if x | y else 1.0)
    assert (a == b) == (x == y)
    assert kept_places(a.without("z")) == {place for place in x if place[0] != "z"}


@given(SHAPES, st.integers(0, 9))
def test_packing_is_one_bit_a_weight_and_loses_nothing(shapes, seed):
    masks = drawn(shapes, seed)
    packed = masks.pack()
    for name, data in packed.items():
        assert data.dtype == torch.uint8
        assert data.numel() == -(-prod(shapes[name]) // 8)
    assert Masks.unpack(packed, shapes) == masks
    assert load_masks(dump_masks(masks)) == masks
    for name, mask in Masks.unpack(packed, shapes).items():
        assert mask.shape == masks[name].shape


def test_the_digest_knows_names_shapes_and_every_bit_but_no_order():
    a, b = torch.tensor([[True, False], [True, True]]), torch.tensor([False])
    masks = Masks({"a": a, "b": b})
    assert masks == Masks({"b": b, "a": a})
    assert hash(masks) == hash(Masks({"b": b, "a": a}))
    others = [{"a": a.reshape(4), "b": b}, {"a": a, "c": b}, {"a": a}, {"a": a.t(), "b": b}]
    flips = [a ^ bit for bit in torch.eye(4, dtype=torch.bool).reshape(4, 2, 2)]
    others += [{"a": flipped, "b": b} for flipped in flips]
    digests = {Masks(other).digest() for other in others} | {masks.digest()}
    assert len(digests) == len(others) + 1
    assert masks != "masks"


def test_a_transposed_view_is_its_values():
    view = torch.tensor([[True, True], [False, False]]).t()
    whole = Masks({"w": view.contiguous()})
    assert Masks({"w": view}) == whole
    assert load_masks(dump_masks(Masks({"w": view}))) == whole


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks_work(value):
    model = mlp()
    masks = Masks({n: torch.full_like(m, value) for n, m in some_masks(model).items()})
    before = copy.deepcopy(model)
    masks.apply_(model)
    assert masks.density == float(value)
    assert pruned_are_zero(model, masks)
    for name in masks:
        assert model.get_parameter(name).equal(before.get_parameter(name) * value)
    assert Masks({}).density == 1.0
    assert Masks({}).distance(Masks({})) == 0.0
    Masks({}).apply_(model)


def test_masks_are_a_read_only_mapping_that_pickles():
    masks = some_masks(mlp())
    with pytest.raises(TypeError):
        masks["0.weight"] = torch.ones(8, 6, dtype=torch.bool)
    assert pickle.loads(pickle.dumps(masks)) == masks
    assert copy.deepcopy(masks) == masks
    assert Masks.ones(mlp(), masks).density == 1.0
    assert repr(Masks({"w": torch.tensor([True, False])})) == "Masks(1 of 2 kept in 1 tensors)"


def bits(*shape):
    return torch.ones(shape, dtype=torch.bool)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: Masks({"w": torch.ones(2)}), r"mask 'w' has dtype torch.float32"),
        (lambda m: Masks({"w": torch.ones(2, dtype=torch.uint8)}), "a mask is torch.bool"),
        (lambda m: Masks({"0.weight": bits(2)})["0.wieght"], "did you mean '0.weight'"),
        (lambda m: Masks({"w": bits(2)}) & Masks({"v": bits(2)}), "different tensors: v, w"),
        (lambda m: Masks({"w": bits(2)}) | Masks({"w": bits(3)}), r"shape \(2,\) here, \(3,\)"),
        (lambda m: Masks({"0.weigth": bits(8, 6)}).on(m), "did you mean '0.weight'"),
        (lambda m: Masks({"0.weight": bits(6, 8)}).on(m), r"shape \(6, 8\), .* \(8, 6\)"),
        (lambda m: Masks.ones(m, ["2.weigth"]), "did you mean '2.weight'"),
        (lambda m: Masks.unpack({}, {"w": [3]}), "'w' is missing"),
        (lambda m: Masks.unpack({"w": bits(2).byte()}, {"w": [3]}), r"not hold shape \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(act, message):
    with pytest.raises(BadInput, match=message):
        act(mlp())


def test_one_tensor_takes_one_mask():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    mask = torch.rand(4, 4) < 0.5
    Masks({"1.weight": mask}).apply_(model)
    assert model[0].weight.detach().ne(0).equal(mask)
    with pytest.raises(BadInput, match=r"'1.weight' covers a tensor that another mask covers"):
        Masks({"0.weight": mask, "1.weight": mask}).on(model)


@pytest.mark.parametrize(
    ("value", "exact"), [(0.0, True), (-0.0, True), (1e-45, False), (torch.nan, False)]
)
def test_minus_zero_is_zero_and_nothing_else_is(value, exact):
    model = nn.Linear(2, 1, bias=False)
    masks = Masks({"weight": torch.tensor([[True, False]])})
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, value]]))
    assert masks.on(model).exact() is exact


def test_negative_weights_prune_to_zero_and_the_rest_keeps_its_bits():
    model = mlp().bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    masks, before = some_masks(model), copy.deepcopy(model)
    masks.apply_(model)
    assert pruned_are_zero(model, masks)
    for name, mask in masks.items():
        assert model.get_parameter(name)[mask].equal(before.get_parameter(name)[mask])
    assert model[0].bias.equal(before[0].bias)
