"""Masks in anyone's own loop: exact zeros, the kept weights' bits, and no trace afterwards."""

from __future__ import annotations

import copy
import pickle
from contextlib import ExitStack

import pytest
import torch
from loops import OPTIMIZERS, TASK, backward, by_hand, held, state_is_zero, train
from torch import nn
from torch.nn import functional as F
from torch.optim import optimizer as torch_optimizer
from toys import mlp, pruned_are_zero, same, some_masks

from lth_zoo.enforce import elementwise

#: torch's own fused SGD is wrong in 16 bits on the CPU (pytorch issue 191763).
ROWS = [
    (name, dtype)
    for name in OPTIMIZERS
    for dtype in (torch.float32, torch.bfloat16)
    if (name, dtype) != ("sgd fused", torch.bfloat16)
]


@pytest.mark.parametrize(("name", "dtype"), ROWS)
def test_pruned_stay_zero_and_kept_equal_the_dense_optimiser(name, dtype):
    model = mlp().to(dtype)
    reference = copy.deepcopy(model)
    masks, build = some_masks(model), OPTIMIZERS[name]
    by_hand(reference, masks, build(held(reference, name)))
    start, optimizer = copy.deepcopy(model), build(held(model, name))

    def zeros():
        return pruned_are_zero(model, masks) and state_is_zero(optimizer, model, masks)

    with masks.enforced(model, optimizer):
        train(model, optimizer, check=zeros)
    assert same(model.state_dict(), reference.state_dict())
    assert not all(p.equal(q) for p, q in zip(held(model, name), held(start, name), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_list_of_elementwise_optimisers_is_true(name):
    # Those on it need masked gradients alone: here nothing else touches weights or state.
    model = mlp()
    masks, optimizer = some_masks(model), OPTIMIZERS[name](held(model, name))
    masks.apply_(model)
    for step in range(3):
        optimizer.zero_grad()
        backward(model, step)
        masks.on(model).grads_()
        optimizer.step()
    zeros = pruned_are_zero(model, masks) and state_is_zero(optimizer, model, masks)
    assert zeros or not elementwise(optimizer)
    assert not (zeros and name in ("muon", "adamax"))


def test_every_kept_weight_with_a_gradient_moves_negative_ones_too():
    model = mlp()
    masks = some_masks(model)
    masks.apply_(model)
    before, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), 0.1)
    with masks.enforced(model, optimizer):
        train(model, optimizer, steps=1)
    for name, mask in masks.items():
        now, then = (m.get_parameter(name).detach() for m in (model, before))
        moved, gradient = now != then, model.get_parameter(name).grad
        assert moved.equal(gradient != 0)
        assert not moved[~mask].any()
        assert (moved & (then < 0)).any()
        assert (moved & (then > 0)).any()


def test_clipping_sees_masked_gradients():
    model = mlp()
    masks = some_masks(model)
    masks.apply_(model)
    dense = copy.deepcopy(model)
    backward(dense, 0)
    gradients = dict(dense.named_parameters())
    for name, mask in masks.items():
        gradients[name].grad = torch.where(mask, gradients[name].grad, 0)
    expected = torch.cat([p.grad.reshape(-1) for p in gradients.values()]).norm()
    with masks.enforced(model):
        backward(model, 0)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    torch.testing.assert_close(norm, expected)
    assert all(same(p.grad, gradients[n].grad) for n, p in model.named_parameters())


@pytest.mark.parametrize("name", ["sgd", "sgd fused", "adam fused"])
@pytest.mark.parametrize("place", ["pruned", "everywhere"])
def test_skipped_steps_of_a_gradient_scaler(name, place):
    model = mlp()
    masks, optimizer = some_masks(model), OPTIMIZERS[name](model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    moved = []
    with masks.enforced(model, optimizer):
        for step in range(3):
            before = copy.deepcopy(model.state_dict())
            optimizer.zero_grad()
            inputs, labels = TASK.batch("train", torch.arange(8))
            loss = F.cross_entropy(model(inputs), labels)
            if step == 1 and place == "everywhere":
                loss = loss * torch.inf
            elif step == 1:  # an infinite gradient on one pruned weight
                pruned = (~masks["0.weight"]).nonzero()[0].tolist()
                loss = loss + torch.inf * model[0].weight[*pruned]
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            moved.append(not same(before, model.state_dict()))
            assert pruned_are_zero(model, masks)
    assert moved == [True, False, True]
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("given", [True, False], ids=["given", "found at its first step"])
@pytest.mark.parametrize("name", ["sgd", "adam fused", "muon"])
def test_an_optimiser_with_a_past(name, given):
    model = mlp()
    optimizer = OPTIMIZERS[name](held(model, name))
    train(model, optimizer, steps=3)  # dense: the momentum points everywhere
    masks = some_masks(model)
    reference, other = copy.deepcopy((model, optimizer))
    by_hand(reference, masks, other)
    with masks.enforced(model, *([optimizer] if given else [])):
        train(model, optimizer, check=lambda: pruned_are_zero(model, masks))
    assert state_is_zero(optimizer, model, masks)
    # Muon mixes the momentum of all weights: it must be clean before the first step.
    assert same(model.state_dict(), reference.state_dict()) or (name == "muon" and not given)


def test_two_optimisers_and_accumulated_gradients():
    model = mlp()
    masks = some_masks(model)
    pair = [
        OPTIMIZERS[n](layer.parameters()) for n, layer in (("sgd", model[0]), ("adam", model[2]))
    ]
    with masks.enforced(model):
        for step in range(6):
            backward(model, step)
            if step % 2:
                for optimizer in pair:
                    optimizer.step()
                    optimizer.zero_grad()
                assert pruned_are_zero(model, masks)


def test_copies_and_pickles_are_ordinary_models():
    model = mlp()
    keys, masks = list(model.state_dict()), some_masks(model)
    optimizer = OPTIMIZERS["adam fused"](model.parameters())
    with masks.enforced(model, optimizer):
        train(model, optimizer, steps=2)
        twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        train(model, optimizer, steps=1)
    twins.append(copy.deepcopy(model))
    for twin in twins:
        assert list(twin.state_dict()) == keys
        assert pruned_are_zero(twin, masks)
        backward(twin, 0)  # unmasked: a copy carries no hooks
        assert all(twin.get_parameter(n).grad[~m].any() for n, m in masks.items())
    assert not same(twins[0].state_dict(), model.state_dict())


def residue(model):
    """All that a careless implementation might leave behind."""
    hooks = [
        sum(len(v) for k, v in vars(m).items() if "hooks" in k and hasattr(v, "__len__"))
        for m in model.modules()
    ]
    attributes = [sorted(vars(m)) for m in model.modules()]
    on_tensors = [
        len(getattr(p, kind, None) or ())
        for p in model.parameters()
        for kind in ("_post_accumulate_grad_hooks", "_backward_hooks", "__dict__")
    ]
    tables = vars(torch_optimizer).items()
    everywhere = [len(v) for k, v in tables if k.startswith("_global_optimizer")]
    assert everywhere
    names = [n for n, _ in model.named_parameters()], [n for n, _ in model.named_buffers()]
    classes = [type(m) for m in model.modules()]
    return list(model.state_dict()), hooks, attributes, on_tensors, everywhere, names, classes


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_no_trace_is_left(fails):
    model = mlp(nn.BatchNorm1d(8), nn.ReLU())
    clean, masks = residue(model), some_masks(model)
    optimizer = OPTIMIZERS["muon"](held(model, "muon"))
    with ExitStack() as stack:
        if fails:
            stack.enter_context(pytest.raises(ZeroDivisionError))
        with masks.enforced(model, optimizer):
            train(model, optimizer, steps=2)
            assert residue(model) != clean
            assert 1 / (not fails)
    assert residue(model) == clean
    assert not optimizer._optimizer_step_post_hooks
    assert pruned_are_zero(model, masks)
    train(model, optimizer, steps=2)  # dense again
    assert not pruned_are_zero(model, masks)


def test_contexts_follow_one_another_and_nest():
    model = mlp()
    wide, narrow = some_masks(model, 0.8), some_masks(model, 0.3, seed=1)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    with wide.enforced(model, optimizer):
        with narrow.enforced(model, optimizer):
            train(model, optimizer, check=lambda: pruned_are_zero(model, narrow))
            assert pruned_are_zero(model, wide)
        train(model, optimizer, check=lambda: pruned_are_zero(model, wide))
        assert not pruned_are_zero(model, narrow)
    with narrow.enforced(model, optimizer):
        train(model, optimizer, check=lambda: pruned_are_zero(model, narrow))
