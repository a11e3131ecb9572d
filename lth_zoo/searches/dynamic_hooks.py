"""Masks that change while a network trains: RigL, SET and gradual pruning, as hooks of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..allocate import exact
from ..coverage import pools_of
from ..hooks import Hook
from ..masks import Masks
from ..relax import cubic
from ..seeds import generator
from ..select import select
from .rewiring import away_from_zero, filled, part_of, regained, share_at, weakened

if TYPE_CHECKING:
    from ..prunable import Prunable
    from ..rewind import Snapshot
    from ..train import Loop

#: Where a checkpoint keeps the masks, and what else a hook holds, beside the optimiser's tensors.
KEPT, HELD = "rewiring:kept:", "rewiring:held:"


class Rewiring(Hook):
    """Trains under masks that it changes; its checkpoints hold them.

    The first masks are random, of the exact counts. ``held`` are tensors by the names of the
    weights, and ``said`` plain values that the job's result tells: both are in checkpoints.
    """

    def __init__(
        self, config: Mapping[str, Any], model: nn.Module, covered: Mapping[str, Prunable]
    ) -> None:
        self.config, self.model, self.covered = config, model, covered
        self.pools = pools_of(config, model, covered)
        self.weights = {n: model.get_parameter(n) for n in covered}
        self.masks = self.first_masks()
        self.held: dict[str, Tensor] = {}
        self.said: dict[str, int] = {"updates": 0, "dropped": 0}

    def first_masks(self) -> Masks:
        """Return what the training starts with."""
        none = Masks({n: torch.zeros(w.shape, dtype=torch.bool) for n, w in self.weights.items()})
        return filled(none, self.pools, self.rng("first"))

    def rng(self, at: int | str) -> torch.Generator:
        """Return the generator of one moment: what it draws does not depend on earlier ones."""
        return generator(self.config["seed"], "prune", "dynamic", at)

    def change(self, loop: Loop, *masks: Masks) -> None:
        """Make masks the current ones, one after the other.

        What the first ones drop has lost its value, even where the last ones hold it again.
        """
        for new in masks:
            self.said["dropped"] += sum(int((m & ~new[n]).sum()) for n, m in self.masks.items())
            self.masks = new
            loop.set_masks(new)
        self.said["updates"] += 1

    def on_start(self, loop: Loop) -> None:
        """Enforce the first masks, or those of the checkpoint."""
        loop.set_masks(self.masks)

    def on_row(self, loop: Loop, row: dict[str, float]) -> None:  # noqa: ARG002 - the contract
        """Note how many weights are active."""
        row["active"] = self.masks.kept

    def on_snapshot(self, loop: Loop, snapshot: Snapshot) -> None:  # noqa: ARG002 - the contract
        """Put masks and what is held into a checkpoint."""
        snapshot.optimizer |= {f"{KEPT}{n}": bits for n, bits in self.masks.pack().items()}
        snapshot.optimizer |= {f"{HELD}{n}": t.cpu().clone() for n, t in self.held.items()}
        snapshot.extra["rewiring"] = dict(self.said)

    def restore(self, snapshot: Snapshot) -> None:
        """Take them out of a checkpoint."""
        shapes = {n: m.shape for n, m in self.masks.items()}
        self.masks = Masks.unpack(_taken(snapshot, KEPT), shapes)
        self.held = _taken(snapshot, HELD)
        self.said = snapshot.extra.pop("rewiring")


def _taken(snapshot: Snapshot, prefix: str) -> dict[str, Tensor]:
    keys = [key for key in snapshot.optimizer if key.startswith(prefix)]
    return {key.removeprefix(prefix): snapshot.optimizer.pop(key) for key in keys}


class Rigging(Rewiring):
    """RigL (Evci et al. 2020): the smallest weights go, the largest dense gradients come.

    An update takes the place of an optimiser step: at iterations ``every``, 2 ``every`` ... below
    ``stop``, counted from 0. It reads the gradients of the last ``accumulate`` iterations.
    """

    def on_gradients(self, loop: Loop) -> None:
        """Add up gradients ahead of an update; update, if it is due."""
        at, every = loop.iteration - loop.begin, self.config["every"]
        due = max(1, -(-at // every)) * every
        if due >= self.config["stop"] or due - at >= self.config["accumulate"]:
            return
        for name, weight in self.weights.items():
            if weight.grad is not None:
                before = self.held.get(name)
                now = weight.grad.detach()
                self.held[name] = now.clone() if before is None else before.to(now) + now
        if due == at:
            slopes = {n: self.held.get(n, torch.zeros_like(w)) for n, w in self.weights.items()}
            self.held = {}
            # Mixed precision may overflow here; the optimiser then skips the step by itself.
            if all(slope.isfinite().all() for slope in slopes.values()):
                self._update(loop, self._share(at), slopes)

    def _share(self, at: int) -> float:
        share: float = self.config["share"]
        return share_at(share, at, self.config["stop"]) if self.config["anneal"] else share

    def _update(self, loop: Loop, share: float, slopes: Mapping[str, Tensor]) -> None:
        sizes = {n: w.detach().abs().cpu() for n, w in self.weights.items()}
        grow = {n: slope.abs().cpu() for n, slope in slopes.items()}
        staying = new = self.masks
        for pool in self.pools:
            count = int(share * pool.keep)
            if count and pool.keep < part_of(self.masks, pool).size:
                left = weakened(part_of(self.masks, pool), pool, count, sizes)
                staying = staying.joined(left)
                new = new.joined(regained(left, pool, count, grow))
        self.change(loop, *([staying] if self.config["reset"] else []), new)
        for parameter in loop.model.parameters():
            parameter.grad = None


class Evolving(Rewiring):
    """SET (Mocanu et al. 2018): the weights nearest 0 of each sign go, random ones come at 0."""

    def on_step(self, loop: Loop) -> None:
        """Rewire, if it is due by the number of iterations."""
        every = self.config["every"]
        if every != "epoch" and (loop.iteration - loop.begin) % every == 0:
            self._evolve(loop)

    def on_epoch(self, loop: Loop) -> None:
        """Rewire, if it is due after each epoch."""
        if self.config["every"] == "epoch":
            self._evolve(loop)

    def _evolve(self, loop: Loop) -> None:
        if loop.iteration == loop.end:  # what would come now would never be trained
            return
        staying = away_from_zero(self.weights, self.masks, self.config["share"])
        self.change(loop, staying, filled(staying, self.pools, self.rng(loop.iteration)))


class Fading(Rewiring):
    """Gradual magnitude pruning (Zhu & Gupta 2017): dense at first, then less on a cubic."""

    def first_masks(self) -> Masks:
        """Return masks that keep everything."""
        return Masks.ones(self.model, self.covered)

    def on_step(self, loop: Loop) -> None:
        """Prune, if it is due; once at the end of the schedule in any case."""
        at = loop.iteration - loop.begin
        first, last = self.config["first"], self.config["last"]
        if at == last or (first < at < last and (at - first) % self.config["every"] == 0):
            target = self.config["density"]
            now = cubic(at - first, last - first, 1.0, float(exact(target)), 0.0, 0.0)
            asked = {**self.config, "density": target if at == last else str(now)}
            caps = {name: kept for name, (kept, _) in self.masks.counts.items()}
            sizes = {n: w.detach().abs() for n, w in self.weights.items()}
            pools = pools_of(asked, self.model, self.covered, caps)
            self.change(loop, select(sizes, pools, self.masks))
