"""Masks held in anyone's training loop: gradients, weights and the optimiser's state.

Weights stay dense tensors with exact zeros: one fused multiplication of the gradients keeps them
zero under every element-wise optimiser, which measured cheaper than forward hooks,
parametrizations or sparse layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from .errors import BadInput, unknown

#: Optimisers that leave weight and state 0 where both and the gradient are 0 (not Adamax).
ELEMENTWISE = frozenset(
    ("SGD", "Adam", "AdamW", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adafactor")
)


class Enforcer:
    """Masks bound to one model: multiplies gradients, weights and optimiser state.

    The float masks have each parameter's dtype, device and strides; a bool mask, or one of
    another dtype, falls off torch's fast path (measured 9 times slower).
    """

    def __init__(self, masks: Mapping[str, Tensor], model: nn.Module) -> None:
        known = dict(model.named_parameters(remove_duplicate=False))
        self.parameters: list[Tensor] = []
        self.floats: list[Tensor] = []
        for name, mask in masks.items():
            parameter = named(known, name)
            if parameter.shape != mask.shape:
                raise BadInput(
                    f"mask {name!r} has shape {tuple(mask.shape)}, the model's tensor "
                    f"{tuple(parameter.shape)}"
                )
            if any(parameter is p for p in self.parameters):
                raise BadInput(f"mask {name!r} covers a tensor that another mask covers too")
            self.parameters.append(parameter)
            self.floats.append(torch.empty_like(parameter, requires_grad=False).copy_(mask))
        self._met: set[int] = set()

    def grads_(self) -> None:
        """Mask the gradients."""
        pairs = [(p.grad, m) for p, m in zip(self.parameters, self.floats, strict=True)]
        present = [(g, m) for g, m in pairs if g is not None]
        if present:
            torch._foreach_mul_(*map(list, zip(*present, strict=True)))

    @torch.no_grad()
    def weights_(self) -> None:
        """Mask the weights."""
        if self.parameters:
            torch._foreach_mul_(self.parameters, self.floats)

    @torch.no_grad()
    def tensors_(self, like: Mapping[Any, Tensor]) -> None:
        """Mask tensors that mirror the parameters (an average of the weights)."""
        for parameter, mask in zip(self.parameters, self.floats, strict=True):
            if parameter in like:
                like[parameter].mul_(mask)

    @torch.no_grad()
    def state_(self, optimizer: Any) -> None:
        """Mask every state tensor of the shape of its parameter (momentum, moments)."""
        state = unwrap(optimizer).state
        for parameter, mask in zip(self.parameters, self.floats, strict=True):
            for value in state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == mask.shape:
                    value.mul_(mask.to(value))

    def after_step(self, optimizer: Any, *_: Any) -> None:
        """Mask what an optimiser may have revived; a step post-hook."""
        first = id(optimizer) not in self._met
        if first:
            ours = {id(p) for p in self.parameters}
            held = (id(p) for group in optimizer.param_groups for p in group["params"])
            if ours.isdisjoint(held):
                return
            self._met.add(id(optimizer))
        if first or not elementwise(optimizer):
            self.state_(optimizer)
            self.weights_()

    def exact(self) -> bool:
        """Say whether every pruned weight is exactly 0."""
        pairs = zip(self.parameters, self.floats, strict=True)
        return all(bool((p.detach() * m == p.detach()).all()) for p, m in pairs)


def named(known: Mapping[str, nn.Parameter], name: str) -> nn.Parameter:
    """Return a parameter by its name, or raise ``BadInput`` with the nearest one."""
    if name not in known:
        raise unknown("parameter", name, known)
    return known[name]


@contextmanager
def enforced(bound: Enforcer, optimizer: Any = None) -> Iterator[Enforcer]:
    """Hold masks while inside: see :meth:`~lth_zoo.masks.Masks.enforced`."""
    bound.weights_()
    if optimizer is not None:
        bound.state_(optimizer)
    handles: list[Any] = []
    late = list(zip(bound.parameters, bound.floats, strict=True))

    def hook(*_: Any) -> None:
        # torch refuses hooks on tensors without gradients: these wait for a step.
        ready = [(p, m) for p, m in late if p.requires_grad]
        late[:] = [(p, m) for p, m in late if not p.requires_grad]
        for parameter, mask in ready:
            masking = _masking(mask)
            masking(parameter)
            handles.append(parameter.register_post_accumulate_grad_hook(masking))

    hook()
    handles.append(register_optimizer_step_pre_hook(hook))
    handles.append(register_optimizer_step_post_hook(bound.after_step))
    try:
        yield bound
    finally:
        for handle in handles:
            handle.remove()
        bound.weights_()


def _masking(mask: Tensor) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.mul_(mask)

    return hook


def unwrap(optimizer: Any) -> torch.optim.Optimizer:
    """Return torch's optimiser behind wrappers such as Accelerate's."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    found: torch.optim.Optimizer = optimizer
    return found


def elementwise(optimizer: Any) -> bool:
    """Say whether masked gradients alone keep pruned weights at 0 under this optimiser."""
    return type(unwrap(optimizer)).__name__ in ELEMENTWISE
