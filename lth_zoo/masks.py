"""Masks: which weights are kept, and how that is enforced in any training loop.

A mask is a bool tensor, True = kept. Weights stay dense tensors with exact zeros: one fused
multiplication of the gradients keeps them zero under every element-wise optimiser, which
measured cheaper than forward hooks, parametrizations or sparse layouts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
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


#: How the names of entries begin that are elements of the input, not weights.
DATA = "graph/"


class Masks(Mapping[str, Tensor]):
    """Immutable ``name -> bool tensor`` (CPU), names sorted.

    An entry named ``graph/...`` covers edges of the input: it is in no count of weights, and no
    model is asked for it.

    >>> m = Masks({"w": torch.tensor([True, False, True, True])})
    >>> m.kept, m.size, m.density
    (3, 4, 0.75)
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype != torch.bool:
                raise BadInput(f"mask {name!r} has dtype {tensor.dtype}; a mask is torch.bool")
        self._tensors = {name: tensors[name].cpu() for name in sorted(tensors)}

    @classmethod
    def ones(cls, model: nn.Module, names: Iterable[str]) -> Masks:
        """Return the mask of the dense network over those parameters.

        Raises:
            BadInput: the model has no parameter of that name.
        """
        known = dict(model.named_parameters(remove_duplicate=False))
        return cls({n: torch.ones(_parameter(known, n).shape, dtype=torch.bool) for n in names})

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise unknown("mask", name, self._tensors)
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Masks({self.kept:,} of {self.size:,} kept in {len(self)} tensors)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masks) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    # -- counts ------------------------------------------------------------------------

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """(kept, total) of each tensor."""
        return {name: (int(np.count_nonzero(m.numpy())), m.numel()) for name, m in self.items()}

    @property
    def kept(self) -> int:
        """Number of kept weights."""
        return sum(kept for kept, _ in self.weights.counts.values())

    @property
    def size(self) -> int:
        """Number of prunable weights, the denominator of density and sparsity."""
        return sum(m.numel() for m in self.weights.values())

    @property
    def density(self) -> float:
        """Kept share of the prunable weights; 1 where there are none."""
        return self.kept / self.size if self.size else 1.0

    @property
    def sparsity(self) -> float:
        """Removed share of the prunable weights."""
        return 1.0 - self.density

    # -- parts -------------------------------------------------------------------------

    @property
    def weights(self) -> Masks:
        """The entries that are weights of the model."""
        return self.without(*(n for n in self if n.startswith(DATA)))

    @property
    def data(self) -> Masks:
        """The entries that are elements of the input: a graph's edges."""
        return self.without(*(n for n in self if not n.startswith(DATA)))

    def joined(self, other: Masks) -> Masks:
        """Return these masks and the other's; where both have a name, the other's."""
        return Masks({**self, **other})

    # -- algebra -----------------------------------------------------------------------

    def _zip(self, other: Masks) -> Iterator[tuple[str, Tensor, Tensor]]:
        if list(self) != list(other):
            odd = sorted(set(self) ^ set(other))
            raise BadInput(f"masks cover different tensors: {', '.join(odd)}")
        for name, mask in self.items():
            if mask.shape != other[name].shape:
                raise BadInput(
                    f"mask {name!r} has shape {tuple(mask.shape)} here, "
                    f"{tuple(other[name].shape)} there"
                )
            yield name, mask, other[name]

    def __and__(self, other: Masks) -> Masks:
        return Masks({name: a & b for name, a, b in self._zip(other)})

    def __or__(self, other: Masks) -> Masks:
        return Masks({name: a | b for name, a, b in self._zip(other)})

    def __invert__(self) -> Masks:
        return Masks({name: ~m for name, m in self.items()})

    def distance(self, other: Masks) -> float:
        """Return the normalised Hamming distance over all entries, in [0, 1]."""
        size = sum(m.numel() for m in self.values())
        return sum(int((a ^ b).sum()) for _, a, b in self._zip(other)) / max(size, 1)

    def jaccard(self, other: Masks) -> float:
        """Return the overlap of the kept sets, |a and b| / |a or b|; 1 for two empty ones."""
        pairs = list(self._zip(other))
        union = sum(int((a | b).sum()) for _, a, b in pairs)
        return sum(int((a & b).sum()) for _, a, b in pairs) / union if union else 1.0

    def without(self, *names: str) -> Masks:
        """Return the masks less those of the named tensors."""
        return Masks({n: m for n, m in self.items() if n not in names})

    # -- identity and storage ------------------------------------------------------------

    def digest(self) -> str:
        """Return the sha256 of names, shapes and bits."""
        hasher = hashlib.sha256()
        for name, mask in self.items():
            hasher.update(json.dumps([name, list(mask.shape)]).encode())
            hasher.update(np.packbits(mask.numpy().ravel()).tobytes())
        return hasher.hexdigest()

    def pack(self) -> dict[str, Tensor]:
        """Return one uint8 tensor a mask, 8 weights a byte."""
        return {n: torch.from_numpy(np.packbits(m.numpy().ravel())) for n, m in self.items()}

    @classmethod
    def unpack(cls, packed: Mapping[str, Tensor], shapes: Mapping[str, Iterable[int]]) -> Masks:
        """Read what :meth:`pack` wrote.

        Raises:
            BadInput: a tensor is missing or has the wrong number of bytes.
        """
        masks = {}
        for name, dims in shapes.items():
            shape = tuple(dims)
            size = int(np.prod(shape, dtype=np.int64))
            if name not in packed or packed[name].numel() != -(-size // 8):
                raise BadInput(f"packed mask {name!r} is missing or does not hold shape {shape}")
            bits = np.unpackbits(packed[name].numpy(), count=size)
            masks[name] = torch.from_numpy(bits.astype(np.bool_)).reshape(shape)
        return cls(masks)

    # -- enforcement ---------------------------------------------------------------------

    def on(self, model: nn.Module) -> Enforcer:
        """Bind the masks to a model's parameters.

        Raises:
            BadInput: a masked tensor does not exist or has another shape.
        """
        return Enforcer(self.weights, model)

    def apply_(self, model: nn.Module) -> None:
        """Set the pruned weights of the model to zero, in place."""
        self.on(model).weights_()

    @contextmanager
    def enforced(self, model: nn.Module, optimizer: Any = None) -> Iterator[Enforcer]:
        """Keep pruned weights at exactly 0 in anyone's training loop.

        Inside, each prunable parameter's gradient is masked as soon as it is accumulated
        (so that clipping sees masked gradients), and every optimiser that holds one of them
        has its state masked when it is first met; those that are not element-wise have
        weights and state masked after every step. The optimiser may be wrapped (Accelerate)
        or be built later (a Hugging Face ``Trainer``). A parameter that is frozen on entry is met
        at the first step after it was unfrozen: only that step's clipping saw its whole
        gradient. On exit all hooks are gone.

        Raises:
            BadInput: a masked tensor does not exist or has another shape.
        """
        bound = self.on(model)
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


def _parameter(known: Mapping[str, nn.Parameter], name: str) -> nn.Parameter:
    if name not in known:
        raise unknown("parameter", name, known)
    return known[name]


class Enforcer:
    """Masks bound to one model: multiplies gradients, weights and optimiser state.

    The float masks have each parameter's dtype, device and strides; a bool mask, or one of
    another dtype, falls off torch's fast path (measured 9 times slower).
    """

    def __init__(self, masks: Masks, model: nn.Module) -> None:
        known = dict(model.named_parameters(remove_duplicate=False))
        self.parameters: list[Tensor] = []
        self.floats: list[Tensor] = []
        for name, mask in masks.items():
            parameter = _parameter(known, name)
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
