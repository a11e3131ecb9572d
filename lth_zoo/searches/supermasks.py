"""How searches on frozen weights relax their mask: edge-popup, biprop, coins, gates, Gem-Miner.

Each is a :class:`~lth_zoo.relax.Relaxation` of a :class:`~lth_zoo.relax.ScoredModel`. While it
trains, the weights are multiplied by what :meth:`Supermask.gates` makes of the scores; whatever is
measured on the way has the exact mask of the pools, as the ticket will have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..allocate import Pool
from ..relax import check_finite, straight, top_of
from ..select import select
from ..strong import binary

Scores = Mapping[str, Tensor]


class Supermask:
    """What all have in common; by itself the mask of the highest scores, straight through.

    Args:
        pools: the exact count of the ticket; may be exchanged between two steps.
        finish: what else the weights go through: ``rescaled`` multiplies those of a tensor by
            size / kept, as dropout does (Zhou et al. 2019); ``binary`` see :class:`Popup`.
    """

    def __init__(self, pools: Sequence[Pool], finish: str = "") -> None:
        self.pools, self.finish = pools, finish
        #: Bool masks that a search keeps by name, moved to the device with it.
        self.fixed: dict[str, dict[str, Tensor]] = {}

    def start(
        self,
        shapes: Mapping[str, torch.Size],
        rng: torch.Generator,  # noqa: ARG002 - others draw
    ) -> dict[str, Tensor]:
        """Return what the scores are at first, float32; 0 here."""
        return {n: torch.zeros(shape) for n, shape in shapes.items()}

    def ranking(self, scores: Scores) -> dict[str, Tensor]:
        """Return the detached scores as they are ranked, higher = kept."""
        return {n: s.detach() for n, s in scores.items()}

    def masks(self, scores: Scores) -> dict[str, Tensor]:
        """Return the masks with exactly the count of the pools.

        Raises:
            Diverged: a score is not finite.
        """
        check_finite(scores)
        ranked = self.ranking(scores)
        if all(s.device.type == "cpu" for s in ranked.values()):
            return dict(select(ranked, self.pools))
        return {n: m for pool in self.pools for n, m in top_of(ranked, pool).items()}

    def gates(self, scores: Scores) -> dict[str, Tensor]:
        """Return what the weights are multiplied by in a training step, differentiable."""
        masks = self.masks(scores)
        return {n: straight(s, masks[n]) for n, s in scores.items()}

    def own(self, scores: Scores) -> dict[str, Tensor]:
        """Return the multipliers that the search by itself would be tested with."""
        return {n: m.to(scores[n].dtype) for n, m in self.masks(scores).items()}

    def count(self, scores: Scores) -> int:
        """Return how many weights the search by itself would keep."""
        return sum(int(m.sum()) for m in self.masks(scores).values())

    def penalty(self, scores: Scores) -> Tensor | None:  # noqa: ARG002 - the protocol
        """Return what is added to the loss; nothing here."""
        return None

    def after_step(self, scores: Scores) -> None:
        """Change the scores in place, after a step of the optimiser; nothing here."""

    def effective(
        self, weights: Mapping[str, Tensor], scores: Scores, training: bool
    ) -> dict[str, Tensor]:
        """Return the weights times their gates, or times the exact masks out of training."""
        return self.times(weights, self.gates(scores) if training else Supermask.own(self, scores))

    def times(
        self, weights: Mapping[str, Tensor], gates: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the weights times some gates, finished."""
        found = {n: weights[n] * gate for n, gate in gates.items()}
        if self.finish == "rescaled":
            share = {
                n: gate.detach().mean().clamp(min=1 / gate.numel()) for n, gate in gates.items()
            }
            return {n: value / share[n] for n, value in found.items()}
        if self.finish == "binary":
            hard = {n: gate.detach() for n, gate in gates.items()}
            signs = {n: binary(weights[n], mask) * mask for n, mask in hard.items()}
            return {n: straight(value, signs[n]) for n, value in found.items()}
        return found


class Popup(Supermask):
    """Edge-popup: the highest sizes of the scores (Ramanujan et al. 2020, arXiv:1911.13299).

    The gradient goes straight through to the size, ``dL/d|S| = dL/dW' * W``, with ``binary`` too:
    there ``W' = alpha sign(W) M`` (Diffenderfer & Kailkhura 2021, arXiv:2103.09377).

    Some weights may be kept, others pruned before the search: :meth:`freeze` (Otsuka et al. 2024,
    arXiv:2402.14029).
    """

    def start(self, shapes: Mapping[str, torch.Size], rng: torch.Generator) -> dict[str, Tensor]:
        """Return Kaiming's uniform draw with a = sqrt(5), within 1 / sqrt(inputs of an output)."""
        return {
            n: (2 * torch.rand(shape, generator=rng) - 1) / shape[1:].numel() ** 0.5
            for n, shape in shapes.items()
        }

    def freeze(
        self, shapes: Mapping[str, torch.Size], kept: float, out: float, rng: torch.Generator
    ) -> dict[str, int]:
        """Draw the weights that are kept, and those that are pruned, whatever is learned.

        ``kept`` and ``out`` are shares of what a pool keeps and of what it prunes, rounded down.
        Returns both counts.
        """
        self.fixed = {"kept": {}, "out": {}}
        for pool in self.pools:
            names = sorted(pool.names)
            sizes = [shapes[n].numel() for n in names]
            order = torch.randperm(sum(sizes), generator=rng)
            stay, go = int(kept * pool.keep + 1e-9), int(out * (len(order) - pool.keep) + 1e-9)
            for key, places in (("kept", order[:stay]), ("out", order[len(order) - go :])):
                flat = torch.zeros(len(order), dtype=torch.bool)
                flat[places] = True
                parts = zip(names, flat.split(sizes), strict=True)
                self.fixed[key] |= {n: part.view(shapes[n]) for n, part in parts}
        return {key: sum(int(m.sum()) for m in masks.values()) for key, masks in self.fixed.items()}

    def ranking(self, scores: Scores) -> dict[str, Tensor]:
        """Return the sizes; of what is fixed, one above or below all."""
        sizes = {n: s.detach().abs() for n, s in scores.items()}
        if not self.fixed:
            return sizes
        top = 2 * max(float(size.max()) for size in sizes.values()) + 1
        kept, out = self.fixed["kept"], self.fixed["out"]
        return {n: s.masked_fill(kept[n], top).masked_fill(out[n], -1) for n, s in sizes.items()}

    def gates(self, scores: Scores) -> dict[str, Tensor]:
        """Return the mask of the highest sizes, straight through to the size of each score."""
        masks = self.masks(scores)
        return {n: straight(s.abs(), masks[n]) for n, s in scores.items()}


class Bernoulli(Supermask):
    """A coin of chance sigmoid(S) for every weight in every step (Zhou et al. 2019).

    The gradient goes straight through the coin to its chance.
    """

    def gates(self, scores: Scores) -> dict[str, Tensor]:
        """Return a fresh toss, from the global generator of the device."""
        check_finite(scores)
        chances = {n: s.sigmoid() for n, s in scores.items()}
        return {n: straight(p, torch.bernoulli(p.detach())) for n, p in chances.items()}

    def own(self, scores: Scores) -> dict[str, Tensor]:
        """Return a toss too."""
        return {n: torch.bernoulli(s.detach().sigmoid()) for n, s in scores.items()}

    def count(self, scores: Scores) -> int:
        """Return the count to be expected, rounded."""
        return round(sum(float(s.detach().double().sigmoid().sum()) for s in scores.values()))


class Relaxed(Supermask):
    """Gates ``clamp(S + 0.5 + noise, 0, 1)``, the noise normal (Tsayag & Lindenbaum 2026).

    Differentiable by itself. ``strength`` times the mean chance that a gate is open,
    ``Phi((S + 0.5) / 0.5)``, is added to the loss.
    """

    #: Standard deviation of the noise (Yamada et al. 2020, arXiv:1810.04247).
    NOISE = 0.5

    def __init__(self, pools: Sequence[Pool], strength: float) -> None:
        super().__init__(pools)
        self.strength = strength

    def start(self, shapes: Mapping[str, torch.Size], rng: torch.Generator) -> dict[str, Tensor]:
        """Return normal draws of size 0.01."""
        return {n: 0.01 * torch.randn(shape, generator=rng) for n, shape in shapes.items()}

    def gates(self, scores: Scores) -> dict[str, Tensor]:
        """Return gates under noise from the global generator of the device."""
        check_finite(scores)
        noisy = {n: s + 0.5 + self.NOISE * torch.randn_like(s) for n, s in scores.items()}
        return {n: s.clamp(0, 1) for n, s in noisy.items()}

    def own(self, scores: Scores) -> dict[str, Tensor]:
        """Return the gates without noise."""
        return {n: (s.detach() + 0.5).clamp(0, 1) for n, s in scores.items()}

    def count(self, scores: Scores) -> int:
        """Return how many gates are more open than closed without noise."""
        return sum(int((s > 0).sum()) for s in scores.values())

    def penalty(self, scores: Scores) -> Tensor:
        """Return ``strength`` times the mean chance, over all weights."""
        size = sum(s.numel() for s in scores.values())
        chances = [torch.special.ndtr((s + 0.5) / self.NOISE).sum() for s in scores.values()]
        return self.strength * torch.stack(chances).sum() / size


class Gem(Supermask):
    """Gem-Miner: scores in [0, 1], rounded; the lowest are frozen out (Sreenivasan et al. 2022).

    ``strength`` times the sum of the squared scores is added to the loss. ``fixed["alive"]`` are
    the weights that are not frozen out.
    """

    def __init__(self, pools: Sequence[Pool], strength: float) -> None:
        super().__init__(pools)
        self.strength = strength

    def start(self, shapes: Mapping[str, torch.Size], rng: torch.Generator) -> dict[str, Tensor]:
        """Return uniform draws; every weight is alive."""
        every = {n: torch.ones(shape, dtype=torch.bool) for n, shape in shapes.items()}
        self.fixed = {"alive": every}
        return {n: torch.rand(shape, generator=rng) for n, shape in shapes.items()}

    def ranking(self, scores: Scores) -> dict[str, Tensor]:
        """Return the scores, the dead below all."""
        alive = self.fixed["alive"]
        return {n: s.detach().masked_fill(~alive[n], -1) for n, s in scores.items()}

    def gates(self, scores: Scores) -> dict[str, Tensor]:
        """Return what of the living rounds up, straight through."""
        check_finite(scores)
        masks = self.own(scores)
        return {n: straight(s, masks[n]) for n, s in scores.items()}

    def own(self, scores: Scores) -> dict[str, Tensor]:
        """Return what of the living rounds up."""
        return {n: (s > 0.5).to(s.dtype) for n, s in self.ranking(scores).items()}

    def count(self, scores: Scores) -> int:
        """Return how many these are."""
        return sum(int(gate.sum()) for gate in self.own(scores).values())

    def penalty(self, scores: Scores) -> Tensor:
        """Return ``strength`` times the sum of squares."""
        return self.strength * torch.stack([s.square().sum() for s in scores.values()]).sum()

    @torch.no_grad()
    def after_step(self, scores: Scores) -> None:
        """Bring the scores back to [0, 1]."""
        for score in scores.values():
            score.clamp_(0, 1)

    def freeze_out(self, scores: Scores, pools: Sequence[Pool]) -> None:
        """Let only the highest of the living live on, as many as the pools keep."""
        last, self.pools = self.pools, pools
        self.fixed["alive"] = self.masks(scores)
        self.pools = last
