"""Training that learns signs alone: kept weights never change their size.

A weight is ``sign(t) w0`` with ``w0`` that of its start, and the gradient passes the sign straight
through: that of ``t`` is ``w0`` times the weight's own.
Two optimisers move ``t`` (Chen, Zhang & Wang 2022, *Peek-a-Boo*, ICLR):

- ``bop`` (Helwegen et al. 2019, arXiv:1906.02107) has no ``t`` but its sign: a moving average of
  gradients, which begins at 0, flips it where it points against it by ``tau`` or more;
- ``prox`` (Yang et al. 2020, ProxSGD) moves a ``t`` in [-1, 1] towards
  ``clip(t - average / mu, -1, 1)`` by a share ``step`` of the way.

``gamma`` is the averages' rate; it falls by ``decay`` at every share ``every`` of the training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .hooks import Hook
from .seeds import generator

if TYPE_CHECKING:
    from .rewind import Snapshot
    from .train import Loop

#: Where a checkpoint keeps averages and relaxed signs, beside the optimiser's tensors.
SIGNS = "signs:"


class Signs(Hook):
    """Moves the signs of some parameters, in the place of the training's optimiser.

    ``config`` holds ``optimizer`` and its numbers, as above. What masks prune stays 0; all other
    parameters are the training's. The curve has ``sign_flips``, those of the step before the look.
    """

    def __init__(self, config: Mapping[str, Any], names: Iterable[str]) -> None:
        self.config, self.names = config, sorted(names)
        self.state: dict[str, Tensor] = {}
        self._flips: list[Tensor] = []
        self._parameters: dict[str, torch.nn.Parameter] = {}

    def on_start(self, loop: Loop) -> None:
        """Find the parameters; averages begin at 0, relaxed signs between 0.01 and 0.1."""
        known = dict(loop.model.named_parameters(remove_duplicate=False))
        self._parameters = {n: known[n] for n in self.names}
        for name, weight in self._parameters.items():
            average, relaxed = f"{name}/average", f"{name}/relaxed"
            if average not in self.state:
                self.state[average] = torch.zeros_like(weight)
                if self.config["optimizer"] == "prox":
                    rng = generator(loop.seed, "noise", "signs", name)
                    small = 0.01 + 0.09 * torch.rand(weight.shape, generator=rng)
                    self.state[relaxed] = small.to(weight) * weight.detach().sign()
            for key in (average, relaxed):
                if key in self.state:
                    self.state[key] = self.state[key].to(weight.device)

    @torch.no_grad()
    def on_gradients(self, loop: Loop) -> None:
        """Move the signs; the optimiser then sees no gradient of these parameters."""
        config = self.config
        past = int(loop.iteration / (config["every"] * loop.training.iterations))
        gamma = config["gamma"] * config["decay"] ** past
        self._flips = []
        for name, weight in self._parameters.items():
            if weight.grad is None:
                continue
            average = self.state[f"{name}/average"]
            if config["optimizer"] == "bop":
                flips = bop(weight, weight.grad, average, gamma, config["tau"])
            else:
                relaxed = self.state[f"{name}/relaxed"]
                how = gamma, config["mu"], config["step"]
                flips = prox(weight, weight.grad, average, relaxed, *how)
            self._flips.append(flips)
            weight.grad = None

    def on_row(self, loop: Loop, row: dict[str, float]) -> None:  # noqa: ARG002 - the contract
        """Say how many signs the last step flipped."""
        row["sign_flips"] = float(sum(int(f) for f in self._flips))

    def on_snapshot(self, loop: Loop, snapshot: Snapshot) -> None:  # noqa: ARG002 - the contract
        """Put averages and relaxed signs into a checkpoint."""
        snapshot.optimizer |= {f"{SIGNS}{n}": t.cpu().clone() for n, t in self.state.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Take them out of a checkpoint."""
        for key in [key for key in snapshot.optimizer if key.startswith(SIGNS)]:
            self.state[key.removeprefix(SIGNS)] = snapshot.optimizer.pop(key)


def bop(weight: Tensor, gradient: Tensor, average: Tensor, gamma: float, tau: float) -> Tensor:
    """Take a step of Bop in place; return how many signs flipped.

    With t the sign relative to the start, its average gradient is |w| times the weight's, turned by
    the start's sign: it points against t by tau or more where ``w x average >= tau``.
    """
    average.lerp_(gradient, gamma)
    flipped = weight * average >= tau
    weight.copy_(torch.where(flipped, -weight, weight))
    return flipped.sum()


def prox(
    weight: Tensor,
    gradient: Tensor,
    average: Tensor,
    relaxed: Tensor,
    gamma: float,
    mu: float,
    step: float,
) -> Tensor:
    """Take a step of ProxSGD in place; return how many signs flipped."""
    average.lerp_(gradient * weight.abs(), gamma)
    before = relaxed.signbit()
    relaxed.lerp_((relaxed - average / mu).clamp_(-1, 1), step)
    weight.copy_(torch.copysign(weight, relaxed))
    return ((before != relaxed.signbit()) & (weight != 0)).sum()
