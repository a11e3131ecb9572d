"""Masks that are learned: a score beside every weight, made hard in the forward pass.

The effective weight is ``W' = W * M`` with ``M`` a hard mask of the scores ``S``. ``M`` has no
useful derivative, so the gradient passes straight through it (Bengio et al. 2013,
arXiv:1308.3432): ``dL/dS = dL/dM = dL/dW' * W``. Weights, where they are trained too, get
``dL/dW = dL/dW' * M``. Nothing is left on the model: it is called with other tensors in place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from .allocate import Pool
from .errors import BadInput, Diverged
from .select import select

#: Half the distance between the scores that a mask training starts from: kept weights begin at
#: twice this, pruned ones at 0 (Liu et al. 2022, whose fixed threshold it is).
THRESHOLD = 0.01

Start = Literal["magnitude", "random", "zero"]
T = TypeVar("T")


class Relaxation(Protocol):
    """How scores become hard masks, what the weights are meanwhile, and what the loss gets."""

    def masks(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a bool mask of each score tensor, True = kept."""

    def penalty(self, scores: Mapping[str, Tensor]) -> Tensor | None:
        """Return a scalar to be added to the loss, or None."""

    def effective(
        self, weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], training: bool
    ) -> dict[str, Tensor]:
        """Return the weights that the model is called with, differentiable in the scores."""


class Straight:
    """Hard masks with the gradient straight through them, in training and out of it alike."""

    def effective(
        self: Relaxation,
        weights: Mapping[str, Tensor],
        scores: Mapping[str, Tensor],
        training: bool,  # noqa: ARG002 - the protocol
    ) -> dict[str, Tensor]:
        """Return ``W * M`` by name."""
        masks = self.masks({n: s.detach() for n, s in scores.items()})
        return {n: weights[n] * straight(s, masks[n]) for n, s in scores.items()}


@dataclass
class TopK(Straight):
    """Keep the highest scores of every pool: exact counts, in every forward pass."""

    pools: Sequence[Pool]

    def masks(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks that :func:`lth_zoo.select.select` makes of the scores.

        Raises:
            Diverged: a score is not finite: it must not revive or drop weights.
        """
        check_finite(scores)
        if all(s.device.type == "cpu" for s in scores.values()):
            return dict(select(scores, self.pools))
        return {n: m for pool in self.pools for n, m in top_of(scores, pool).items()}

    def penalty(self, scores: Mapping[str, Tensor]) -> None:
        """Return None: the count is kept by construction."""


@dataclass
class Soft(Straight):
    """Keep what scores above a threshold; a penalty pulls the scores down (Sanh et al. 2020).

    ``threshold`` is one of ``sigmoid(S)``, in [0, 1); at 0 all is kept. ``strength`` multiplies
    the mean of ``sigmoid(S)``, averaged over tensors. The count follows from both.
    """

    threshold: float
    strength: float

    def masks(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return where ``sigmoid(S)`` is above the threshold.

        Raises:
            Diverged: a score is not finite.
        """
        check_finite(scores)
        edge = torch.logit(torch.tensor(self.threshold, dtype=torch.float64)).item()
        return {name: score.detach() > edge for name, score in scores.items()}

    def penalty(self, scores: Mapping[str, Tensor]) -> Tensor | None:
        """Return ``strength`` times the mean over tensors of the mean ``sigmoid(S)``."""
        if not self.strength:
            return None
        return self.strength * torch.stack([s.sigmoid().mean() for s in scores.values()]).mean()


def check_finite(scores: Mapping[str, Tensor]) -> None:
    """Assert that every score is a finite number.

    Raises:
        Diverged: naming a tensor with one that is not.
    """
    for name, score in scores.items():
        # One pass: a NaN anywhere makes both ends NaN, an infinity is an end.
        if score.numel() and not torch.stack(score.detach().aminmax()).isfinite().all():
            raise Diverged(f"diverged: the scores of {name!r} are not finite")


@torch.no_grad()
def top_of(scores: Mapping[str, Tensor], pool: Pool) -> dict[str, Tensor]:
    """Return what ``select`` does for one pool, on the device of the scores.

    Ties keep the lowest (sorted name, flat index), whatever order the device works in.
    """
    names = sorted(pool.names)
    flat = torch.cat([scores[n].detach().reshape(-1) for n in names])
    if not 0 < pool.keep < len(flat):
        kept = torch.full_like(flat, pool.keep > 0, dtype=torch.bool)
    else:
        edge = flat.topk(pool.keep, sorted=False).values.min()
        kept, tied = flat > edge, flat == edge
        room = pool.keep - kept.sum(dtype=torch.int32)
        kept |= tied & (tied.cumsum(0, dtype=torch.int32) <= room)
    parts = kept.split([scores[n].numel() for n in names])
    return {n: part.view(scores[n].shape) for n, part in zip(names, parts, strict=True)}


class _Through(torch.autograd.Function):
    """A mask in the forward pass, the identity in the backward one."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG004
        return mask.to(score.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradients[0], None


def straight(value: Tensor, mask: Tensor) -> Tensor:
    """Return a mask in the dtype of a value that gets the mask's gradient as its own."""
    through: Tensor = _Through.apply(value, mask)
    return through


class _Asked(nn.Module):
    """A function of a model as a module, so that it can be called with other tensors in place."""

    def __init__(self, model: nn.Module, question: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.model, self.question = model, question

    def forward(self) -> Any:
        return self.question(self.model)


def ask(model: nn.Module, tensors: Mapping[str, Tensor], question: Callable[[nn.Module], T]) -> T:
    """Return what a function says of a model while it has other tensors, by name, in place."""
    named = {f"model.{name}": tensor for name, tensor in tensors.items()}
    answer: T = torch.func.functional_call(_Asked(model, question), named, ())
    return answer


class ScoredModel(nn.Module):
    """A model whose prunable weights are multiplied by a mask of trainable scores.

    Its parameters are ``scores.0``, ``scores.1`` ... in the order of ``names``, and those of
    ``inner``, of which only the ``live`` ones require a gradient. It is called as the inner
    model is, with tensors or ``**inputs``, and trains in the one loop.

    Args:
        inner: holds the weights; it is used in place, and frozen but for ``live``.
        scores: parameter name of the inner model -> initial score, of the weight's shape.
        relaxation: how scores become masks; may be exchanged between two steps.
        live: parameter names of the inner model that are trained as well.

    Raises:
        BadInput: a score has no parameter, or another shape.
    """

    def __init__(
        self,
        inner: nn.Module,
        scores: Mapping[str, Tensor],
        relaxation: Relaxation,
        live: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.inner, self.relaxation = inner, relaxation
        self.names = tuple(sorted(scores))
        weights = dict(inner.named_parameters(remove_duplicate=False))
        for name in self.names:
            if name not in weights or weights[name].shape != scores[name].shape:
                raise BadInput(f"scores of {name!r} fit no parameter of the model")
        for name, weight in inner.named_parameters():
            weight.requires_grad_(name in live)
        self.scores = nn.ParameterList([scores[n].detach().clone() for n in self.names])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the inner model says with its weights masked."""
        return torch.func.functional_call(self.inner, self.masked(), args, kwargs)

    def through(self, question: Callable[[nn.Module], T]) -> T:
        """Return what a function says of the inner model while its weights are masked.

        So losses may call parts of it, a decoder alone.
        """
        return ask(self.inner, self.masked(), question)

    def by_name(self) -> dict[str, Tensor]:
        """Return the scores by the name of the weight they belong to."""
        return dict(zip(self.names, self.scores, strict=True))

    def score_names(self) -> tuple[str, ...]:
        """Return the names of the scores among this module's own parameters."""
        return tuple(f"scores.{i}" for i in range(len(self.names)))

    def masks(self) -> dict[str, Tensor]:
        """Return the hard masks of the scores as they are."""
        return self.relaxation.masks({n: s.detach() for n, s in self.by_name().items()})

    def masked(self) -> dict[str, Tensor]:
        """Return the effective weights by name, differentiable: ``W * M`` of most relaxations."""
        weights = dict(self.inner.named_parameters(remove_duplicate=False))
        own = {n: weights[n] for n in self.names}
        return self.relaxation.effective(own, self.by_name(), self.training)

    def inner_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the inner model's part of a state of this module, by the inner names."""
        inner = {n for n in state if n.startswith("inner.")}
        return {n.removeprefix("inner."): t for n, t in state.items() if n in inner}


def start_scores(
    start: Start,
    weights: Mapping[str, Tensor],
    pools: Sequence[Pool],
    rng: torch.Generator,
) -> dict[str, Tensor]:
    """Return the scores that a search begins with, float32.

    ``magnitude`` and ``random`` have two values, so that the mask is at first that of the
    largest (or of random) weights and a score must move by ``2 * THRESHOLD`` before its weight
    changes sides; ``zero`` prefers none.
    """
    if start == "zero":
        return {n: torch.zeros(w.shape) for n, w in weights.items()}
    rank = {
        n: w.detach().float().abs() if start == "magnitude" else torch.rand(w.shape, generator=rng)
        for n, w in sorted(weights.items())
    }
    return {n: 2 * THRESHOLD * m.float() for n, m in select(rank, pools).items()}


def cubic(
    iteration: int, whole: int, first: float, last: float, warm_up: float, cool_down: float
) -> float:
    """Return a value on its cubic way from ``first`` to ``last`` (Zhu & Gupta 2017).

    It stays at ``first`` for the share ``warm_up`` of the whole, and at ``last`` for the share
    ``cool_down`` at its end (Sanh et al. 2020).

    >>> [cubic(i, 12, 1.0, 0.0, 0.25, 0.25) for i in (0, 3, 6, 9, 12)]
    [1.0, 1.0, 0.125, 0.0, 0.0]
    """
    begin, end = warm_up * whole, (1 - cool_down) * whole
    if iteration >= end or iteration <= begin:
        return last if iteration >= end else first
    return last + (first - last) * (1 - (iteration - begin) / (end - begin)) ** 3
