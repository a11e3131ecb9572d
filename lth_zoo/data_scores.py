"""Criteria that read training batches: what a weight does to the data, not its size alone.

They see the first :data:`BATCHES` batches of the context, in evaluation mode (no dropout,
running statistics), and leave the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .errors import BadInput
from .scores import ScoreContext, Scores, needs, wide

#: Calibration batches: of 100 examples in a prune job, so a thousand examples.
BATCHES = 10


@needs(data=True)
def wanda(ctx: ScoreContext) -> Scores:
    """|w| times the L2 norm of what it is multiplied with (Sun et al. 2023, arXiv 2306.11695).

    The norm is over all examples and places (tokens that are no padding, pixels under the
    kernel). The paper compares within an output: ``scope=row``.

    Raises:
        BadInput: a layer is neither linear nor a convolution, or no data reaches it.
    """
    squares: dict[str, Tensor] = {}
    real = _Padding()

    def look(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found = input_squares(module, real.blanked(args[0].detach()))
        squares[name] = squares[name] + found if name in squares else found

    with torch.no_grad(), evaluating(ctx.model), ExitStack() as hooks:
        for name in ctx.masks:
            layer = ctx.model.get_submodule(name.rpartition(".")[0])
            handle = layer.register_forward_pre_hook(partial(look, name))
            hooks.callback(handle.remove)
        for batch, loss in _data(ctx, "wanda"):
            real.of(batch)
            loss(ctx.model, batch)
    unseen = [name for name in ctx.masks if name not in squares]
    if unseen:
        raise BadInput(f"score 'wanda' saw no input of {unseen[0]!r}: its layer is not called")
    weights = {n: wide(ctx.model.get_parameter(n).detach()) for n in ctx.masks}
    return {n: w.abs() * squares[n].sqrt().to(w.dtype) for n, w in weights.items()}


@needs(data=True)
def gradient(ctx: ScoreContext) -> Scores:
    """|w dL/dw|, summed over batches: the first-order change of the loss if w goes.

    As a score of single weights: Molchanov et al. 2019 (Taylor), arXiv 1906.10771.
    """
    weights = {n: ctx.model.get_parameter(n) for n in ctx.masks}
    total = {n: torch.zeros_like(wide(w.detach())) for n, w in weights.items()}
    with evaluating(ctx.model):
        for batch, loss in _data(ctx, "gradient"):
            for name, product in products(weights, loss(ctx.model, batch)).items():
                total[name] += product.abs()
    return total


def products(weights: Mapping[str, Tensor], loss: Tensor) -> dict[str, Tensor]:
    """Return w dL/dw of every weight, in float32 or better; zeros where the loss ignores it."""
    with torch.enable_grad():
        slopes = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {
        name: wide(w.detach()) * wide(g) if g is not None else torch.zeros_like(wide(w.detach()))
        for (name, w), g in zip(weights.items(), slopes, strict=True)
    }


def input_squares(module: nn.Module, x: Tensor) -> Tensor:
    """Return the sum of squares of what each weight of a layer is multiplied with.

    ``x`` is the layer's input. The answer has the weight's shape, or broadcasts to it.

    Raises:
        BadInput: the layer is neither linear nor a convolution.
    """
    x = wide(x).square()
    if isinstance(module, _ConvNd):
        # A convolution is linear in its kernel: the slope of its sum is what lies below it.
        kernel = torch.zeros_like(wide(module.weight.detach()), requires_grad=True)
        with torch.enable_grad():
            summed = module._conv_forward(x, kernel, None).sum()
            return torch.autograd.grad(summed, kernel)[0]
    total = x.reshape(-1, x.shape[-1]).sum(0)
    if isinstance(module, nn.Linear):
        return total
    if any(kind.__name__ == "Conv1D" for kind in type(module).__mro__):
        # The linear layer of transformers' GPT-2: its weight is (input, output).
        return total[:, None]
    raise BadInput(
        f"score 'wanda' reads linear and convolution layers, not {type(module).__name__}"
    )


class _Padding:
    """Which tokens of the batch at hand are text."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None

    def of(self, batch: Any) -> None:
        """Note a batch's attention mask, if it has one."""
        inputs = batch[0] if isinstance(batch, tuple) else batch
        self._mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None

    def blanked(self, x: Tensor) -> Tensor:
        """Return activations with those of padding set to 0."""
        if self._mask is None or x.shape[:-1] != self._mask.shape:
            return x
        return x * self._mask.unsqueeze(-1).to(x.dtype)


def _data(
    ctx: ScoreContext, score: str
) -> Iterator[tuple[Any, Callable[[nn.Module, Any], Tensor]]]:
    """Yield the calibration batches on the model's device, each with the loss.

    Raises:
        BadInput: the context has no data.
    """
    device, seen = next(ctx.model.parameters()).device, 0
    for batch in islice(ctx.batches, BATCHES if ctx.loss is not None else 0):
        assert ctx.loss is not None
        yield on_device(batch, device), ctx.loss
        seen += 1
    if not seen:
        raise BadInput(f"score {score!r} reads training batches, and there are none")


def on_device(batch: Any, device: torch.device) -> Any:
    """Return a batch of nested tuples, lists and mappings of tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(on_device(value, device) for value in batch)
    return batch


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode inside, each as it was after."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
