"""DEEP R: connections that reach 0 go dormant, and others wake at random (Bellec et al. 2018).

A weight is ``w = s theta`` where ``theta > 0`` and 0 elsewhere; its sign ``s`` never changes. The
paper's step is ``theta <- theta - rate dE/dtheta - rate l1 + rate noise xi`` with xi ~ N(0, 1).
Here the loop's optimiser takes the first part, on ``w``; the hook adds the others after it, to
active connections alone, and then looks at signs. Under plain SGD that is the paper's step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..masks import Masks
from ..select import select
from .dynamic_hooks import Rewiring
from .rewiring import dormant_floor, filled, part_of

if TYPE_CHECKING:
    from ..prunable import Prunable
    from ..train import Loop

#: What theta a connection wakes with.
AWAKE = 1e-12


class DeepR(Rewiring):
    """Hard: as many connections wake at random as have gone dormant, in the same step.

    Signs are those of the start, so that active connections begin with their initial weights.
    """

    def __init__(
        self, config: Mapping[str, Any], model: nn.Module, covered: Mapping[str, Prunable]
    ) -> None:
        super().__init__(config, model, covered)
        one = torch.ones(())
        self.signs = {n: torch.where(w.detach() < 0, -one, one) for n, w in self.weights.items()}
        self.live: dict[str, Tensor] = {}

    def on_start(self, loop: Loop) -> None:
        """Enforce the masks; go where the weights are."""
        super().on_start(loop)
        self.signs = {n: s.to(self.weights[n]) for n, s in self.signs.items()}
        self._follow()

    @torch.no_grad()
    def on_step(self, loop: Loop) -> None:
        """Add drift and noise, then let dormant connections be replaced."""
        rate, rng = loop.training.rate_at(loop.iteration - 1), self.rng(loop.iteration)
        theta = self._moved(rate, rng)
        left = {n: (self.live[n] * t > 0).cpu() for n, t in theta.items()}
        for name, weight in self.weights.items():
            weight.copy_(theta[name] * self.signs[name] * self.live[name])
        staying = Masks(left)
        if staying.kept == self.masks.kept:
            return
        new = filled(staying, self.pools, rng)
        self.change(loop, staying, new)
        self._follow()
        for name, weight in self.weights.items():
            woken = self.live[name] - left[name].to(weight)
            weight.add_(self.signs[name] * woken, alpha=AWAKE)

    def _moved(self, rate: float, rng: torch.Generator) -> dict[str, Tensor]:
        """Return theta after drift and noise; of dormant connections it has no meaning."""
        moved = {}
        for name, weight in self.weights.items():
            xi = torch.randn(weight.shape, generator=rng).to(weight)
            drift = self.config["noise"] * xi - self.config["l1"]
            moved[name] = weight * self.signs[name] + rate * drift
        return moved

    def _follow(self) -> None:
        self.live = {n: m.to(self.weights[n]) for n, m in self.masks.items()}


class SoftDeepR(DeepR):
    """Soft: dormant connections walk at random below 0, and wake where they pass it.

    The number of active ones is free; ``held`` has the theta of the others. After the last step
    the largest theta make the exact count, and ``said`` keeps how many were active (``relaxed``).
    """

    def __init__(
        self, config: Mapping[str, Any], model: nn.Module, covered: Mapping[str, Prunable]
    ) -> None:
        super().__init__(config, model, covered)
        densities = [(pool, pool.keep / part_of(self.masks, pool).size) for pool in self.pools]
        self.densities = {n: density for pool, density in densities for n in pool.names}
        rng, floors = self.rng("dormant"), self._floors(config["rate"])
        for name, mask in self.masks.items():
            walk = torch.rand(mask.shape, generator=rng) * floors[name]
            self.held[name] = walk * ~mask

    def _floors(self, rate: float) -> dict[str, float]:
        l1, noise = self.config["l1"], self.config["noise"]
        return {n: dormant_floor(p, rate, l1, noise) for n, p in self.densities.items()}

    def on_start(self, loop: Loop) -> None:
        """Enforce the masks; go where the weights are."""
        super().on_start(loop)
        self.held = {n: t.to(self.weights[n]) for n, t in self.held.items()}

    @torch.no_grad()
    def on_step(self, loop: Loop) -> None:
        """Let all connections move; which are active follows."""
        rate, rng = loop.training.rate_at(loop.iteration - 1), self.rng(loop.iteration)
        floors, active = self._floors(rate), {}
        for name, theta in self._moved(rate, rng).items():
            theta.clamp_(min=floors[name])
            active[name] = (theta > 0).cpu()
            awake = theta.clamp(min=0)
            self.held[name] = theta - awake
            self.weights[name].copy_(awake * self.signs[name])
        new = Masks(active)
        if loop.iteration == loop.end:
            self.said["relaxed"] = new.kept
            new = select(self._theta(), self.pools)
        if any(not m.equal(self.masks[n]) for n, m in new.items()):
            self.change(loop, new)
            self._follow()

    def _moved(self, rate: float, rng: torch.Generator) -> dict[str, Tensor]:
        """Return theta after a step: drift and noise for the active, noise for the dormant."""
        moved, l1, noise = {}, self.config["l1"], self.config["noise"]
        for name, weight in self.weights.items():
            xi = torch.randn(weight.shape, generator=rng).to(weight)
            theta = weight * self.signs[name] + self.held[name]
            moved[name] = theta + rate * (noise * xi - l1 * self.live[name])
        return moved

    def _theta(self) -> dict[str, Tensor]:
        return {n: w * self.signs[n] + self.held[n] for n, w in self.weights.items()}
