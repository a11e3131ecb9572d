"""What tickets need that are used as they are found: constant weights, and settled norms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .hooks import Hook
from .prunable import Prunable
from .seeds import generator

if TYPE_CHECKING:
    from .protocols import Task
    from .train import Loop

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def signed_constant(model: nn.Module, covered: Mapping[str, Prunable], density: float) -> None:
    """Give the covered weights of a layer one size, and let them keep their signs, in place.

    The size is ``sqrt(2 / (n * density))``, with n the weights that one output sums: Kaiming's
    (He et al. 2015), scaled for those that will be pruned (Ramanujan et al. 2020,
    arXiv:1911.13299, section 4; their released code scales otherwise but at a half).
    """
    for name, entry in covered.items():
        weight, layer = model.get_parameter(name), model.get_submodule(entry.layer)
        size = (2 / (_summed(weight, entry, layer) * density)) ** 0.5
        weight.copy_(torch.where(weight < 0, -size, size))


def _summed(weight: nn.Parameter, entry: Prunable, layer: Any) -> float:
    """Return how many weights one output sums; a transposed convolution's stride parts them."""
    each = weight.numel() / weight.shape[entry.axis]
    return each / (layer.groups * prod(layer.stride)) if entry.axis == 1 else each


@torch.no_grad()
def settle(model: nn.Module, task: Task, seed: int, batches: int, batch_size: int) -> None:
    """Let a model's running statistics be those of its weights as they are; none of these moves.

    Every batch norm that the task's losses run through gets the mean over all batches, whatever
    it held before; spectral norm's vectors move on with them.
    """
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORM)]
    momenta, training = [norm.momentum for norm in norms], model.training
    for norm in norms:
        norm.momentum = None  # a plain mean, which begins anew where no batch is counted
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.zero_()
    model.train()
    order = task.epoch(batch_size, generator(seed, "data", "settle"))
    noise = generator(seed, "noise", "settle")
    for indices in islice(cycle(order), batches):
        batch = task.batch("train", indices)
        for objective in task.objectives(model):
            objective.loss(model, batch, noise)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


class Settle(Hook):
    """Settles a masked model before its first iteration, by the losses of a task."""

    def __init__(self, task: Task, batches: int) -> None:
        self.task, self.batches = task, batches

    def on_start(self, loop: Loop) -> None:
        """Run the batches."""
        settle(loop.model, self.task, loop.seed, self.batches, loop.training.batch_size)
