"""A training loop as anyone writes it, every optimiser of torch's, and masking by hand."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from toys import Blobs

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
    """A plain loop of the user's own, which knows of no masks; ``check`` must hold every step."""
    for step in range(steps):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
        assert check is None or check()


def state_is_zero(optimizer, model, masks):
    """Say whether what the optimiser remembers of pruned weights is 0."""
    return not any(
        value[~mask].any()
        for name, mask in masks.items()
        for value in optimizer.state[model.get_parameter(name)].values()
        if isinstance(value, torch.Tensor) and value.shape == mask.shape
    )


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
