"""Norms that fade into the identity's scale at random: a training option of AWS.

In every mini-batch one ``a ~ U(0, 1)``, the same for all layers, puts ``a + (1 - a) gamma`` and
``(1 - a) beta`` in the place of each norm's scale and shift (Oh, Baik & Lee 2025,
arXiv:2504.05357). What is learned so does not rest on the norms, which a new initialisation has
at gamma 1 and beta 0. Losses see it, evaluations do not, and the model is as it was afterwards.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .relax import ask

if TYPE_CHECKING:
    from .protocols import Objective, Task

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


def norms_of(model: nn.Module) -> Iterator[tuple[str, float]]:
    """Yield a model's batch and layer norms: name of a scale or shift, its neutral value.

    >>> list(norms_of(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))))
    [('1.weight', 1.0), ('1.bias', 0.0)]
    """
    for place, module in model.named_modules():
        if isinstance(module, _NORMS):
            for name, neutral in (("weight", 1.0), ("bias", 0.0)):
                if getattr(module, name, None) is not None:
                    yield f"{place}.{name}".lstrip("."), neutral


def check_norms(model: nn.Module, name: str) -> None:
    """Say on standard error, once, where a model has no norms to interpolate."""
    if next(norms_of(model), None) is None:
        _say_none(name)


@cache
def _say_none(name: str) -> None:
    print(
        f"lth-zoo: note: {name} has no batch or layer norm, so nothing is interpolated",
        file=sys.stderr,
    )


def interpolated(task: Task) -> Task:
    """Return a task whose losses are of a model with faded norms.

    The share is the first draw from the generator that a loss is given.
    """
    seen = copy.copy(task)

    def objectives(model: nn.Module) -> Sequence[Objective]:
        return [replace(one, loss=partial(_lost, one)) for one in task.objectives(model)]

    seen.objectives = objectives  # type: ignore[method-assign]
    return seen


def _lost(one: Objective, model: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
    share = torch.rand((), generator=rng).item()
    return ask(model, faded(model, share), lambda other: one.loss(other, batch, rng))


def faded(model: nn.Module, share: float) -> dict[str, Tensor]:
    """Return a model's scales and shifts at a share of the way to 1 and 0, differentiable."""
    return {
        name: share * neutral + (1 - share) * model.get_parameter(name)
        for name, neutral in norms_of(model)
    }
