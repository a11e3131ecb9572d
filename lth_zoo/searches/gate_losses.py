"""A loss for masks of edges that no training node can see: distances between predicted classes.

In a network of two layers only the edges within two hops of a training node get a slope from the
task's loss. A term over the answers for *all* nodes reaches every edge (Hui et al. 2023, WD-GLT,
ICLR, arXiv 2305.02190).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import log
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import BadInput

if TYPE_CHECKING:
    from ..protocols import Objective, Task

#: Exponents below are as good as minus infinity; numbers near the smallest take 8 times as long.
LEAST = -60.0


def with_distance(task: Task, config: Mapping[str, Any]) -> Task:
    """Return the task whose loss is lowered by ``strength`` times :func:`apart`.

    The model must be a :class:`~lth_zoo.gates.Gated`, which keeps its last answers. The loss that
    the loop records is then this one; ``evaluate`` is as it was.

    Raises:
        BadInput: the task classifies no nodes.
    """
    if task.signature.answer != "nodes":
        raise BadInput(
            f"the distance between classes of nodes needs node classification; task {task.name!r} "
            f"asks for {task.signature.answer}"
        )
    pushed, plain = copy.copy(task), task.objectives

    def objectives(model: nn.Module) -> Sequence[Objective]:
        return [replace(o, loss=partial(_loss, o.loss, config)) for o in plain(model)]

    pushed.objectives = objectives  # type: ignore[method-assign]
    return pushed


def _loss(
    loss: Callable[..., Tensor],
    config: Mapping[str, Any],
    model: nn.Module,
    batch: Any,
    rng: torch.Generator,
) -> Tensor:
    value = loss(model, batch, rng)
    answers = model.answers
    assert isinstance(answers, Tensor)
    how = {name: config[name] for name in ("nodes", "epsilon", "rounds")}
    return value - config["strength"] * apart(answers.float(), rng, **how)


def apart(
    answers: Tensor, rng: torch.Generator, *, nodes: int, epsilon: float, rounds: int
) -> Tensor:
    """Return the sum over classes of the distance between nodes predicted so and all others.

    ``answers`` are (nodes, classes), before the softmax; distances are between softmax outputs.
    Of either side of a class at most ``nodes`` are looked at, drawn from ``rng``: memory is that
    number squared. A class that none or all are predicted to be in adds nothing.
    """
    outputs, predicted = answers.softmax(1), answers.detach().argmax(1)
    total = outputs.new_zeros(())
    for label in range(answers.shape[1]):
        sides = [(predicted == label).nonzero(), (predicted != label).nonzero()]
        if all(map(len, sides)):
            mine, theirs = (outputs[_drawn(side.flatten(), nodes, rng)] for side in sides)
            total = total + transport(mine, theirs, epsilon, rounds)
    return total


def _drawn(among: Tensor, count: int, rng: torch.Generator) -> Tensor:
    if len(among) <= count:
        return among
    return among[torch.randperm(len(among), generator=rng)[:count].to(among.device)]


def transport(a: Tensor, b: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Return the entropic Wasserstein distance of two point sets: the cost of moving a to b.

    ``a`` is (n, dimensions) and ``b`` (m, dimensions), all points of a set of one weight; the cost
    is the Euclidean distance. ``rounds`` of Sinkhorn's iteration in the log domain (Peyre & Cuturi
    2019, section 4.4). The plan is held fixed in the gradient, which is then that of the
    regularised objective once the plan has converged, and no history of the rounds is kept.
    """
    cost = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    with torch.no_grad():
        kernel, g = cost / -epsilon, cost.new_full((len(b),), -log(len(b)))
        for _ in range(rounds):
            f = -log(len(a)) - _logsumexp(kernel + g, 1)
            g = -log(len(b)) - _logsumexp(kernel + f[:, None], 0)
        plan = (kernel + f[:, None] + g).clamp_(min=LEAST).exp_()
    return (plan * cost).sum()


def _logsumexp(values: Tensor, dim: int) -> Tensor:
    """Return log(sum(exp)) along a dimension; ``values`` are overwritten."""
    top = values.amax(dim, keepdim=True)
    return values.sub_(top).clamp_(min=LEAST).exp_().sum(dim).log_() + top.squeeze(dim)
