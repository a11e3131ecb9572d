"""What tickets need that are used as they are found: constant weights, and settled norms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .hooks import Hook
from .prunable import Prunable
from .seeds import generator

if TYPE_CHECKING:
    from .protocols import Task
    from .train import Loop

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


#: What the frozen weights of a ticket may be, beside what its start is.
LAWS = ("signed-constant", "signed-std", "kaiming", "uniform")


@torch.no_grad()
def lay(
    model: nn.Module,
    covered: Mapping[str, Prunable],
    law: object,
    density: float,
    rng: torch.Generator,
) -> None:
    """Give the covered weights a law, in place; any other than those of ``LAWS`` changes nothing.

    - ``signed-constant``: see :func:`signed_constant`;
    - ``signed-std``: their signs, times the standard deviation of the layer (Zhou et al. 2019);
    - ``kaiming``: normal, of the constant's size (Ramanujan et al. 2020);
    - ``uniform``: between minus and plus ``sqrt(6 / n)``, whatever the density.
    """
    if law == "signed-constant":
        signed_constant(model, covered, density)
    for name, entry in covered.items() if law in LAWS[1:] else ():
        weight = model.get_parameter(name)
        summed = _summed(weight, entry, model.get_submodule(entry.layer))
        if law == "signed-std":
            weight.copy_(torch.where(weight < 0, -weight.std(), weight.std()))
        elif law == "kaiming":
            drawn = torch.randn(weight.shape, generator=rng)
            weight.copy_(drawn * (2 / (summed * density)) ** 0.5)
        else:
            drawn = 2 * torch.rand(weight.shape, generator=rng) - 1
            weight.copy_(drawn * (6 / summed) ** 0.5)


def binary(weight: Tensor, mask: Tensor) -> Tensor:
    """Return the signs of a weight times the mean size of what a mask keeps of it.

    ``alpha = |W * M|_1 / |M|_1`` (Diffenderfer & Kailkhura 2021, arXiv:2103.09377, section 3);
    the pruned ones have it too.
    """
    alpha = (weight.abs() * mask).sum() / mask.sum().clamp(min=1)
    return torch.where(weight < 0, -alpha, alpha)


@torch.no_grad()
def finish(model: nn.Module, masks: Mapping[str, Tensor], how: object) -> None:
    """Make the weights what a search worked with under these masks, in place.

    ``binary``: see :func:`binary`; ``rescaled``: times size / kept of the layer; else nothing.
    """
    for name, mask in masks.items() if how in ("binary", "rescaled") else ():
        weight = model.get_parameter(name)
        kept = mask.to(weight.device)
        if how == "binary":
            weight.copy_(binary(weight, kept))
        else:
            weight.mul_(kept.numel() / kept.sum().clamp(min=1))


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
    if entry.axis == 0 or not hasattr(layer, "stride"):
        return each
    return each / (layer.groups * prod(layer.stride))


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
