"""Criteria of slopes at the weights as they are, for pruning before any training.

They see the network under the context's masks. SNIP and GraSP see it in training mode, as it is
about to be trained: norms use the batch, dropout is on. All leave the model as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .data_scores import on_device
from .errors import BadInput
from .masks import Masks
from .scores import ScoreContext, Scores, needs, wide


@needs(data=True, slopes=True)
def snip(ctx: ScoreContext) -> Scores:
    """|w dL/dw| of one mini-batch, the sum before the absolute value (Lee et al. 2019).

    The slope is that of the network under the masks; w is the whole weight, so that what is pruned
    has a score too (FORCE, de Jorge et al. 2021). The paper's division by the sum over all weights
    changes no order. arXiv 1810.02340, equation 5.

    Raises:
        BadInput: no data, or the loss has no slope at a weight.
    """
    with _as_trained(ctx) as (live, whole):
        total = {n: torch.zeros_like(wide(w)) for n, w in whole.items()}
        for loss in _losses(ctx, "snip"):
            for name, slope in zip(live, _slopes(loss, live, "snip"), strict=True):
                total[name] += wide(slope)
    return {n: (wide(w) * total[n]).abs() for n, w in whole.items()}


@needs(data=True, slopes=True)
def grasp(ctx: ScoreContext) -> Scores:
    """W (H g), with g the gradient and H the Hessian of the loss (Wang et al. 2020).

    Removing w changes |g|^2 by -w (H g) to first order. What would raise it most goes first, so
    that gradient is left to train with. Over several batches g and H g are sums. arXiv
    2002.07376, equation 8; their code takes the largest -w (H g) away, as here.

    Raises:
        BadInput: no data, or the loss has no slope, or no curvature, at the weights.
    """
    # Fused attention has no second derivative.
    with _as_trained(ctx) as (live, whole), sdpa_kernel(SDPBackend.MATH):
        weights = list(live.values())
        g = [torch.zeros_like(w) for w in weights]
        for loss in _losses(ctx, "grasp"):
            g = [sum_ + slope for sum_, slope in zip(g, _slopes(loss, live, "grasp"), strict=True)]
        curved = [torch.zeros_like(w) for w in weights]
        for loss in _losses(ctx, "grasp"):
            slopes = _slopes(loss, live, "grasp", create_graph=True)
            flow = sum((s * fixed).sum() for s, fixed in zip(slopes, g, strict=True))
            assert isinstance(flow, Tensor)
            if not flow.requires_grad:
                raise BadInput("score 'grasp' is of the loss's curvature, and the loss is straight")
            for into, found in zip(
                curved, torch.autograd.grad(flow, weights, allow_unused=True), strict=True
            ):
                if found is not None:
                    into += found
    return {n: wide(w) * wide(c) for (n, w), c in zip(whole.items(), curved, strict=True)}


@needs(slopes=True)
def synflow(ctx: ScoreContext) -> Scores:
    """|w dR/dw|, R the sum of the outputs for an input of ones under |w| (Tanaka et al. 2020).

    It needs no data. All parameters are made positive, running statistics are not, norms are in
    evaluation mode; float64, since R is a product of layers. On a graph there are ones at every
    node of a small ring. What is pruned scores 0. arXiv 2006.05467, section 5.

    Raises:
        BadInput: the model reads tokens, or a weight has no part in what it answers.
    """
    model = copy.deepcopy(ctx.model).double().eval()
    live = {name: model.get_parameter(name) for name in ctx.masks}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        for name, weight in live.items():
            weight.mul_(ctx.masks[name].to(weight.device))
    with torch.enable_grad():
        answers = _answers(model, _ones(ctx.example))
        slopes = _slopes(answers.sum(), live, "synflow")
    return {n: (s * w.detach()).abs() for (n, w), s in zip(live.items(), slopes, strict=True)}


@contextmanager
def _as_trained(ctx: ScoreContext) -> Iterator[tuple[dict[str, nn.Parameter], dict[str, Tensor]]]:
    """Put a model in training mode and under its masks inside; leave no trace of it after.

    Yields the parameters that the masks cover, and their whole values.
    """
    model = ctx.model
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    live = {name: model.get_parameter(name) for name in ctx.masks}
    whole = {name: weight.detach().clone() for name, weight in live.items()}
    seed = int(torch.randint(2**62, (), generator=ctx.generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model.train()
        _masked(live, ctx.masks)
        try:
            yield live, whole
        finally:
            with torch.no_grad():
                for name, weight in live.items():
                    weight.copy_(whole[name])
                for name, buffer in model.named_buffers():
                    buffer.copy_(buffers[name])
            for module, mode in modes.items():
                module.training = mode


@torch.no_grad()
def _masked(live: Mapping[str, nn.Parameter], masks: Masks) -> None:
    for name, weight in live.items():
        weight.mul_(masks[name].to(weight.device))


def _losses(ctx: ScoreContext, score: str) -> Iterator[Tensor]:
    """Yield the loss of each batch that a score of slopes reads.

    Raises:
        BadInput: the context has no data.
    """
    device, seen = next(ctx.model.parameters()).device, 0
    for batch in islice(ctx.batches, ctx.count if ctx.loss is not None else 0):
        assert ctx.loss is not None
        with torch.enable_grad():
            yield ctx.loss(ctx.model, on_device(batch, device))
        seen += 1
    if not seen:
        raise BadInput(f"score {score!r} reads training batches, and there are none")


def _slopes(
    value: Tensor, live: Mapping[str, nn.Parameter], score: str, *, create_graph: bool = False
) -> Sequence[Tensor]:
    """Return the gradient of a value at each weight.

    Raises:
        BadInput: it has none at one of them.
    """
    fixed = [name for name, weight in live.items() if not weight.requires_grad]
    slopes: Sequence[Tensor | None] = [None] * len(live)
    if value.requires_grad and not fixed:
        slopes = torch.autograd.grad(
            value, list(live.values()), allow_unused=True, create_graph=create_graph
        )
    found = [slope for slope in slopes if slope is not None]
    if len(found) < len(live):
        lost = next(n for n, s in zip(live, slopes, strict=True) if s is None)
        what = "the answer to ones" if score == "synflow" else "the loss"
        raise BadInput(
            f"score {score!r} is of slopes, and {what} has none at {(fixed or [lost])[0]!r}: "
            "exclude its layer, or choose a score without slopes, such as magnitude"
        )
    return found


def _ones(example: Any) -> Any:
    """Return an example of ones, float64; what is no feature (a ring's edges) stays.

    Raises:
        BadInput: it has no features.
    """
    if isinstance(example, Tensor) and example.is_floating_point():
        return torch.ones_like(example, dtype=torch.float64)
    parts = example if isinstance(example, Mapping) else {}
    if not any(isinstance(p, Tensor) and p.is_floating_point() for p in parts.values()):
        raise BadInput(
            "score 'synflow' feeds a model ones in place of data, and this one reads tokens, of "
            "which none is a one: choose a score that reads data, such as snip or gradient"
        )
    return {
        n: torch.ones_like(p, dtype=torch.float64) if p.is_floating_point() else p
        for n, p in parts.items()
    }


def _answers(model: nn.Module, example: Any) -> Tensor:
    answer = model(**example) if isinstance(example, dict) else model(example)
    found: Tensor = getattr(answer, "logits", answer)
    return found
