"""What a job of kind ``concrete`` does: learn which frozen weights a sparse network needs.

Concrete Ticket Search (Arora & Teuscher 2025, arXiv:2512.07142). Beside every weight a logit
alpha; in each forward pass the weight is multiplied by a gate ``z = sigmoid(alpha + L /
temperature)``, ``L = log u - log(1 - u)`` of a fresh uniform ``u``: a binary concrete variable
(Maddison et al. 2017, arXiv:1611.00712). The weights stay those of the start, norms and dropout are
those of an evaluation, and the loss is how far the gated network's answers are from the dense
one's. :class:`GradBalance` holds the expected count near the one that is asked for; the end keeps
exactly that many, the highest alphas.

The config holds, beside what a training and a prune job read, ``objective`` (``rkl``, ``fkl``,
``ce``), ``temperature``, and ``slack`` and ``smoothing`` of :class:`GradBalance`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..allocate import exact
from ..coverage import covered_of, pools_of
from ..data_scores import evaluating
from ..errors import BadInput
from ..hooks import Hook
from ..kinds import learned, trained
from ..protocols import Objective
from ..relax import ScoredModel, TopK
from ..seeds import generator
from ..select import select
from ..session import Session
from .learn import one_loss, through_masks, written

if TYPE_CHECKING:
    from torch import nn

    from ..protocols import Prunable, Split, Task
    from ..rewind import Snapshot
    from ..train import Loop

#: Least uniform number that a gate is drawn from: the logit of 0 is infinite.
LEAST = 1e-10


def concrete_job(session: Session) -> None:
    """Learn the gates of a frozen start, keep the exact count, and write masks and state.

    Raises:
        BadInput: see :func:`check_concrete`.
        Diverged: a loss or an alpha is not finite.
    """
    config, inner = session.config, session.build()
    inner.load_state_dict(session.snapshot("start").state)
    pools = pools_of(config, inner, covered_of(config, session.adapter, inner))
    first = torch.tensor(float(exact(config["density"]))).logit()
    shapes = {name: inner.get_parameter(name).shape for pool in pools for name in pool.names}
    alphas = {name: first.expand(shape) for name, shape in shapes.items()}
    model = Frozen(inner, alphas, Concrete(pools, config["temperature"]))
    keep = sum(pool.keep for pool in pools)
    balance = GradBalance(keep, config["slack"], config["smoothing"])
    task = compared(learned(session), config["objective"])
    loop = trained(session, model, lambda: None, [balance], task=task)

    final = loop.final_state()
    scores = {n: final[key] for n, key in zip(model.names, model.score_names(), strict=True)}
    balance.note(scores.values())
    relaxed = sum(int((score > 0).sum()) for score in scores.values())
    written(session, loop, select(scores, pools), relaxed=relaxed, expected=balance.expected)


def check_concrete(
    config: Mapping[str, Any], task: Task, model: nn.Module, covered: Mapping[str, Prunable]
) -> None:
    """Assert, before any work, that the objective has a slope for every weight that may go.

    Raises:
        BadInput: the task has several losses or no answers, or these do not depend on a tensor.
    """
    if config["objective"] == "ce":
        one_loss(task, model)
        return
    weights = [model.get_parameter(name) for name in covered]
    few = torch.arange(min(2, task.size("train")))
    with evaluating(model):
        said = task.answers(model, task.batch("train", few), generator(0, "noise"))
    slopes = torch.autograd.grad(said.sum(), weights, allow_unused=True)
    unseen = [name for name, slope in zip(covered, slopes, strict=True) if slope is None]
    if unseen:
        raise BadInput(
            f"objective {config['objective']!r} compares what a model answers, which does not "
            f"depend on {unseen[0]!r}: prune the other parts alone (only), such as a generator"
        )


# -- the gates -----------------------------------------------------------------------------


@dataclass
class Concrete(TopK):
    """Gates in (0, 1), drawn anew in every forward pass; as hard masks the exact counts."""

    temperature: float

    def effective(
        self, weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], training: bool
    ) -> dict[str, Tensor]:
        """Return ``W * z``, drawn from torch's global generator; out of training ``W * M``."""
        if not training:
            return super().effective(weights, scores, training)
        drawn = {n: gate(a, torch.rand_like(a), self.temperature) for n, a in scores.items()}
        return {name: weights[name] * z for name, z in drawn.items()}


def gate(alpha: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Return ``sigmoid(alpha + logit(uniform) / temperature)``.

    >>> gate(torch.zeros(3), torch.tensor([0.2, 0.5, 0.8]), 1.0)
    tensor([0.2000, 0.5000, 0.8000])
    """
    return (alpha + uniform.clamp(min=LEAST).logit() / temperature).sigmoid()


class Frozen(ScoredModel):
    """A scored model whose inner one is always in evaluation mode."""

    def train(self, mode: bool = True) -> Frozen:
        """Set the mode of all but the inner model."""
        super().train(mode)
        self.inner.eval()
        return self


class GradBalance(Hook):
    """Pulls the expected count of open gates down to a budget, by as strong a gradient as the loss.

    With ``S`` the sum of all sigmoid(alpha), the pull is the gradient of ``S / (slack * keep) -
    1``. Its strength follows that at which its L2 norm is the loss gradient's, by an average of
    decay ``smoothing``; below the budget it follows 0, without which the density collapses. The
    recorded loss stays the task's own.
    """

    def __init__(self, keep: int, slack: float, smoothing: float) -> None:
        self.keep, self.slack, self.smoothing = keep, slack, smoothing
        self.strength: float | None = None
        self._seen: dict[str, float] = {}

    @property
    def expected(self) -> dict[str, float]:
        """The expected count over the one asked for: least, most and last of what was noted."""
        return dict(self._seen)

    def note(self, alphas: Iterable[Tensor]) -> float:
        """Take note of the expected count of open gates, and return it."""
        count = math.fsum(alpha.detach().sigmoid().sum().item() for alpha in alphas)
        now = count / max(1, self.keep)
        least, most = self._seen.get("min", now), self._seen.get("max", now)
        self._seen = {"min": min(least, now), "max": max(most, now), "end": now}
        return count

    def on_gradients(self, loop: Loop) -> None:
        """Add the pull to the gradients of the loss."""
        assert isinstance(loop.model, ScoredModel)
        self.pull(list(loop.model.scores))

    @torch.no_grad()
    def pull(self, alphas: Sequence[nn.Parameter]) -> None:
        """Add the pull to the gradients of the alphas."""
        target = self.slack * max(1, self.keep)
        above = self.note(alphas) >= target
        opened = [alpha.sigmoid() for alpha in alphas]
        slopes = [p * (1 - p) / target for p in opened]
        slopes_norm = norm(slopes) if above else 0.0
        losses = [alpha.grad for alpha in alphas if alpha.grad is not None]
        wanted = norm(losses) / slopes_norm if slopes_norm else 0.0
        if self.strength is None:
            self.strength = wanted
        else:
            self.strength = self.smoothing * self.strength + (1 - self.smoothing) * wanted
        for alpha, slope in zip(alphas, slopes, strict=True):
            pull = self.strength * slope
            alpha.grad = pull if alpha.grad is None else alpha.grad.add_(pull)

    def on_snapshot(self, loop: Loop, snapshot: Snapshot) -> None:  # noqa: ARG002 - the contract
        """Put the strength and what was noted into a checkpoint."""
        snapshot.extra["balance"] = {"strength": self.strength, "seen": self._seen}

    def restore(self, snapshot: Snapshot) -> None:
        """Take them out again."""
        kept = snapshot.extra.pop("balance")
        self.strength, self._seen = kept["strength"], kept["seen"]


def norm(tensors: Sequence[Tensor]) -> float:
    """Return the L2 norm of all entries, which overflows only where an entry does."""
    largest = max((t.abs().max().item() for t in tensors if t.numel()), default=0.0)
    if not largest:
        return 0.0
    squares = math.fsum((t / largest).square().sum().item() for t in tensors)
    return float(largest * math.sqrt(squares))


# -- what is minimised ---------------------------------------------------------------------


def compared(task: Task, objective: str) -> Task:
    """Return a task as a search of gates sees it.

    Its loss compares a :class:`ScoredModel` with its own dense inner model, on batches without
    augmentation; looks are at the network of the exact count.
    """
    seen, batch = through_masks(task), task.batch

    def plain(split: Split, indices: Tensor, rng: torch.Generator | None = None) -> Any:
        # On a graph the generator draws neighbours: without it a batch would be of all nodes.
        return batch(split, indices, rng if task.graph() is not None else None)

    def objectives(model: nn.Module) -> Sequence[Objective]:  # noqa: ARG001 - the contract
        return [Objective(objective, partial(_lost, task, objective))]

    seen.batch, seen.objectives = plain, objectives  # type: ignore[method-assign]
    return seen


def _lost(
    task: Task, objective: str, model: ScoredModel, batch: Any, rng: torch.Generator
) -> Tensor:
    """Return the loss of the gated network on a batch."""
    if objective == "ce":
        (one,) = task.objectives(model.inner)
        return model.through(lambda gated: one.loss(gated, batch, rng))
    before = rng.get_state()
    with torch.no_grad():
        dense = task.answers(model.inner, batch, rng)
    rng.set_state(before)  # where codes are drawn, both are asked of the same
    sparse = model.through(lambda gated: task.answers(gated, batch, rng))
    if task.signature.answer in ("value", "images"):
        return F.mse_loss(sparse.float(), dense.float())
    return divergence(objective, sparse.float(), dense.float())


def divergence(objective: str, sparse: Tensor, dense: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of two networks' logits (..., classes).

    ``rkl`` is KL(sparse || dense), ``fkl`` KL(dense || sparse).
    """
    first, second = sparse.log_softmax(-1), dense.log_softmax(-1)
    if objective == "fkl":
        first, second = second, first
    return (first.exp() * (first - second)).sum(-1).mean()
