"""Masks: which weights are kept. A mask is a bool tensor, True = kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .enforce import Enforcer, enforced, named
from .errors import BadInput, unknown

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
        return cls({n: torch.ones(named(known, n).shape, dtype=torch.bool) for n in names})

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

    def enforced(self, model: nn.Module, optimizer: Any = None) -> AbstractContextManager[Enforcer]:
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
        return enforced(self.on(model), optimizer)
