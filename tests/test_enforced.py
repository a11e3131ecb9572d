"""Masks in anyone's own loop: exact zeros, the kept weights' bits, and no trace afterwards."""

from __future__ import annotations

import copy
import pickle
import warnings
from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import optimizer as torch_optimizer
from toys import INPUTS, Blobs, mlp, pruned_are_zero, same, some_masks

from lth_zoo.masks import ELEMENTWISE, Masks, elementwise, unwrap

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, amsgrad=True),
    "adam fused": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, foreach=False),
    "adamw fused": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.1),
    "radam": lambda p: torch.optim.RAdam(p, 0.01, weight_decay=0.1),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, weight_decay=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, 1.0, weight_decay=0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.01, weight_decay=0.1),
    "muon": lambda p: torch.optim.Muon(p, 0.01, weight_decay=0.1),
    "asgd": lambda p: torch.optim.ASGD(p, 0.01, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
}
TASK = Blobs()


def held(model, name):
    """The parameters that an optimiser takes; Muon is for matrices only."""
    return [p for p in model.parameters() if name != "muon" or p.dim() == 2]


def backward(model, step):
    dtype = next(model.parameters()).dtype
    inputs, labels = TASK.batch("train", torch.arange(step * 4 % 32, step * 4 % 32 + 8))
    loss = F.cross_entropy(model(inputs.to(dtype)), labels)
    loss.backward()
    return loss


def train(model, optimizer, steps=10, check=None):
    """A plain loop of the user's own, which knows of no masks."""
    for step in range(steps):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
        if check is not None:
            check()


def by_hand(model, masks, optimizer, steps=10):
    """The reference: the dense optimiser on masked gradients, masks put on with ``where``."""
    table = {model.get_parameter(n): m for n, m in masks.items()}

    @torch.no_grad()
    def clean():
        for p, m in table.items():
            p.copy_(torch.where(m, p, 0))
            for value in optimizer.state.get(p, {}).values():
                if isinstance(value, torch.Tensor) and value.shape == m.shape:
                    value.copy_(torch.where(m, value, 0))

    clean()
    for step in range(steps):
        optimizer.zero_grad()
        backward(model, step)
        for p, m in table.items():
            p.grad = torch.where(m, p.grad, 0)
        optimizer.step()
        clean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_stay_zero_and_kept_equal_the_dense_optimiser(name, dtype):
    model = mlp().to(dtype)
    reference = copy.deepcopy(model)
    masks, build = some_masks(model), OPTIMIZERS[name]
    by_hand(reference, masks, build(held(reference, name)))
    start, optimizer = copy.deepcopy(model), build(held(model, name))

    def zeros():
        assert pruned_are_zero(model, masks)
        for entry, mask in masks.items():
            for value in optimizer.state[model.get_parameter(entry)].values():
                if isinstance(value, torch.Tensor) and value.shape == mask.shape:
                    # Rprop's step sizes and ASGD's average start elsewhere than at 0.
                    assert (value[~mask] == 0).all()

    with masks.enforced(model, optimizer):
        train(model, optimizer, check=zeros)
    assert same(model.state_dict(), reference.state_dict())
    assert not any(p.equal(q) for p, q in zip(held(model, name), held(start, name), strict=True))


def test_the_list_of_elementwise_optimisers_is_true():
    # Each keeps the zeros by masked gradients alone: nothing touches weights or state.
    for name, build in OPTIMIZERS.items():
        model = mlp()
        masks, optimizer = some_masks(model), build(held(model, name))
        masks.apply_(model)
        for step in range(3):
            optimizer.zero_grad()
            backward(model, step)
            masks.on(model).grads_()
            optimizer.step()
        kept_zeros = pruned_are_zero(model, masks)
        assert elementwise(optimizer) == (type(optimizer).__name__ in ELEMENTWISE)
        assert kept_zeros or not elementwise(optimizer), name
        assert not (name == "muon" and kept_zeros)


def test_every_kept_weight_with_a_gradient_moves_negative_ones_too():
    model = mlp()
    masks = some_masks(model)
    masks.apply_(model)
    before, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), 0.1)
    with masks.enforced(model, optimizer):
        train(model, optimizer, steps=1)
    for name, mask in masks.items():
        now, then = (m.get_parameter(name).detach() for m in (model, before))
        has_gradient = model.get_parameter(name).grad != 0
        assert has_gradient.equal(mask)
        assert (now != then).equal(mask)
        assert ((then < 0) & (now != then)).any()


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


@pytest.mark.parametrize("name", ["sgd", "adam fused"])
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


def test_accelerates_wrapped_optimiser():
    from accelerate import Accelerator

    model = mlp()
    reference, masks = copy.deepcopy(model), some_masks(model)
    by_hand(reference, masks, OPTIMIZERS["muon"](held(reference, "muon")))
    optimizer = OPTIMIZERS["muon"](held(model, "muon"))
    wrapped = Accelerator(cpu=True).prepare_optimizer(optimizer)
    assert unwrap(wrapped) is optimizer
    with masks.enforced(model, wrapped):
        train(model, wrapped)
    assert same(model.state_dict(), reference.state_dict())


@pytest.mark.parametrize("given", [True, False], ids=["given", "found at its first step"])
@pytest.mark.parametrize("name", ["sgd", "adam fused"])
def test_an_optimiser_with_a_past(name, given):
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, steps=3)  # dense: the momentum points everywhere
    masks = some_masks(model)
    with masks.enforced(model, *([optimizer] if given else [])):
        train(model, optimizer, check=lambda: pruned_are_zero(model, masks) or pytest.fail())
    for entry, mask in masks.items():
        for value in optimizer.state[model.get_parameter(entry)].values():
            assert value.shape != mask.shape or not value[~mask].any()


def test_two_optimisers_and_accumulated_gradients():
    model = mlp()
    masks = some_masks(model)
    pair = [OPTIMIZERS[n](layer.parameters()) for n, layer in (("sgd", model[0]), ("adam", model[2]))]
    with masks.enforced(model):
        for step in range(6):
            backward(model, step)
            if step % 2:
                for optimizer in pair:
                    optimizer.step()
                    optimizer.zero_grad()
                assert pruned_are_zero(model, masks)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(INPUTS, 2, batch_first=True)
        self.out = nn.Linear(INPUTS, 3)

    def forward(self, x):
        x = x[:, None, :] * torch.ones(1, 4, 1, dtype=x.dtype)
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(INPUTS, INPUTS)
        self.decoder = nn.Linear(INPUTS, INPUTS)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x)))[:, :3]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Attention, ["attention.in_proj_weight", "attention.out_proj.weight", "out.weight"]),
        (Tied, ["encoder.weight"]),
        (Tied, ["decoder.weight"]),
    ],
)
def test_attention_and_tied_weights_in_training_and_evaluation(kind, names):
    torch.manual_seed(0)
    model = kind()
    rng = torch.Generator().manual_seed(0)
    shapes = dict(model.named_parameters(remove_duplicate=False))
    masks = Masks({n: torch.rand(shapes[n].shape, generator=rng) < 0.5 for n in names})
    optimizer = OPTIMIZERS["adamw fused"](model.parameters())
    inputs, _ = TASK.batch("test", torch.arange(4))
    with masks.enforced(model, optimizer):
        for _ in range(3):
            train(model.train(), optimizer, steps=2)
            assert pruned_are_zero(model, masks)
            zeroed = copy.deepcopy(model).eval()
            tensors = dict(zeroed.named_parameters(remove_duplicate=False))
            for name, mask in masks.items():
                tensors[name].data[~mask] = 0
            with torch.no_grad():  # attention has a fast path of its own here
                assert model.eval()(inputs).equal(zeroed(inputs))


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


def test_a_compiled_model():
    model = mlp()
    reference, masks = copy.deepcopy(model), some_masks(model)
    by_hand(reference, masks, OPTIMIZERS["adam fused"](reference.parameters()), steps=3)
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = OPTIMIZERS["adam fused"](compiled.parameters())
    with warnings.catch_warnings(), masks.enforced(model, optimizer):
        warnings.simplefilter("ignore")
        train(compiled, optimizer, steps=3)
    assert pruned_are_zero(model, masks)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name])


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
            train(model, optimizer, check=lambda: pruned_are_zero(model, narrow) or pytest.fail())
            assert pruned_are_zero(model, wide)
        train(model, optimizer, check=lambda: pruned_are_zero(model, wide) or pytest.fail())
        assert not pruned_are_zero(model, narrow)
    with narrow.enforced(model, optimizer):
        train(model, optimizer, check=lambda: pruned_are_zero(model, narrow) or pytest.fail())
