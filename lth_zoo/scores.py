"""Criteria: one function each, ``score(ctx) -> {prunable name: tensor}``, higher = kept.

A score is pure, runs on any device, answers in float32 or better and is deterministic.
It declares the states it reads with :func:`needs`, which ``lth-zoo ls scores`` shows.
The family of :func:`large_final` and its kin is from Zhou et al., "Deconstructing Lottery
Tickets" (2019, table 1), with w_i the weight the search started from and w_f the trained one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import registry
from .masks import Masks

Scores = dict[str, Tensor]


@dataclass(frozen=True)
class ScoreContext:
    """What a score may look at.

    ``states`` maps ``init`` (as drawn), ``rewind`` (what the training started from, the same
    unless it rewinds to a later step) and ``final`` (the trained weights) to
    ``{parameter name: tensor}``, and ``trace`` to what the weights did on the way there
    (``{what/parameter name: tensor}``), all loaded on access; ``model`` holds the weights to be
    pruned; ``masks`` says what is still kept. ``batches`` are training batches in a fixed
    order of the seed, drawn on access, and ``loss(model, batch)`` the task's first objective,
    for scores that need data, of which scores of slopes read ``count``. ``example`` is a batch
    of one in the form of the task's input, for scores that look at the network alone.
    """

    model: nn.Module
    masks: Masks
    states: Mapping[str, Mapping[str, Tensor]]
    generator: torch.Generator
    batches: Iterable[Any] = ()
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    count: int = 1
    example: Any = None

    def pairs(self) -> Iterable[tuple[str, Tensor, Tensor]]:
        """Yield (name, initial, final) weights in float32 or better."""
        for name in self.masks:
            yield name, wide(self.states["init"][name]), wide(self.states["final"][name])


def needs(
    *states: str, data: bool = False, slopes: bool = False
) -> Callable[[Callable[[ScoreContext], Scores]], Any]:
    """Declare which states a score reads, and whether it reads training batches.

    ``slopes`` marks one that fails where the network has no gradient: it is tried before a run.
    """

    def mark(score: Callable[[ScoreContext], Scores]) -> Callable[[ScoreContext], Scores]:
        score.needs = states  # type: ignore[attr-defined]
        score.data = data  # type: ignore[attr-defined]
        score.slopes = slopes  # type: ignore[attr-defined]
        return score

    return mark


def score(name: str, ctx: ScoreContext) -> Scores:
    """Compute a registered score.

    Raises:
        BadInput: no such score.
    """
    found: Scores = registry.find("scores", name)(ctx)
    return found


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 or better."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


@needs()
def magnitude(ctx: ScoreContext) -> Scores:
    """|w| of the model as it is (Han et al. 2015)."""
    return {n: wide(ctx.model.get_parameter(n).detach()).abs() for n in ctx.masks}


@needs()
def random(ctx: ScoreContext) -> Scores:
    """Draw uniform scores: the random baseline."""
    return {n: torch.rand(m.shape, generator=ctx.generator) for n, m in ctx.masks.items()}


@needs("final")
def large_final(ctx: ScoreContext) -> Scores:
    """|w_f|: what IMP uses."""
    return {n: wide(ctx.states["final"][n]).abs() for n in ctx.masks}


@needs("final")
def small_final(ctx: ScoreContext) -> Scores:
    """-|w_f|: the smallest survive; a control that should lose."""
    return {n: -wide(ctx.states["final"][n]).abs() for n in ctx.masks}


@needs("init")
def large_init(ctx: ScoreContext) -> Scores:
    """|w_i|: needs no training."""
    return {n: wide(ctx.states["init"][n]).abs() for n in ctx.masks}


@needs("init", "final")
def movement(ctx: ScoreContext) -> Scores:
    """|w_f - w_i|: what moved most."""
    return {n: (final - init).abs() for n, init, final in ctx.pairs()}


@needs("init", "final")
def magnitude_increase(ctx: ScoreContext) -> Scores:
    """|w_f| - |w_i|: what grew most."""
    return {n: final.abs() - init.abs() for n, init, final in ctx.pairs()}


@needs("init", "final")
def large_final_same_sign(ctx: ScoreContext) -> Scores:
    """sign(w_i) w_f: large at the end, and on the side of zero where it began."""
    return {n: init.sign() * final for n, init, final in ctx.pairs()}


# -- what a training did on the way ----------------------------------------------------------

#: Per cent of a whole training's steps after which early movement is noted.
WINDOWS = (1, 2, 5, 10)


@needs("trace")
def path_length(ctx: ScoreContext) -> Scores:
    """Sum of |dw| over the training's steps: what went furthest, there and back."""
    return _traced(ctx, "path")


@needs("trace")
def sanh(ctx: ScoreContext) -> Scores:
    """-sum of w dL/dw over the steps: what was led away from 0 (Sanh et al. 2020)."""
    return _traced(ctx, "sanh")


@needs("trace")
def early_movement_1(ctx: ScoreContext) -> Scores:
    """|w - w_start| after the first 1 % of the steps."""
    return _traced(ctx, "early-1")


@needs("trace")
def early_movement_2(ctx: ScoreContext) -> Scores:
    """|w - w_start| after the first 2 % of the steps."""
    return _traced(ctx, "early-2")


@needs("trace")
def early_movement_5(ctx: ScoreContext) -> Scores:
    """|w - w_start| after the first 5 % of the steps."""
    return _traced(ctx, "early-5")


@needs("trace")
def early_movement_10(ctx: ScoreContext) -> Scores:
    """|w - w_start| after the first 10 % of the steps."""
    return _traced(ctx, "early-10")


def _traced(ctx: ScoreContext, what: str) -> Scores:
    return {n: wide(ctx.states["trace"][f"{what}/{n}"]) for n in ctx.masks}
