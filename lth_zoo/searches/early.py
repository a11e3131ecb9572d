"""What a job of kind ``early-bird`` does: train until the mask has settled, keep that mask.

Every so many iterations the mask of the asked density is drawn from the weights' magnitude. The
last few are kept in a window; when the newest is near all of them, training stops (You et al.
2020, arXiv 1909.11957; Chen et al. 2021, arXiv 2101.00063, for BERT).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from ..coverage import covered_of, pools_of
from ..hooks import Hook
from ..kinds import learned
from ..masks import Masks
from ..recipe import Training, build
from ..rewind import Snapshot
from ..scores import wide
from ..select import select
from ..session import LOG, Session
from ..train import Loop
from ..watch import Watch
from .structured import alive_in, keep_units, magnitudes, removable, shares_of, spread, summary

if TYPE_CHECKING:
    from torch import Tensor

Drawn = Callable[[nn.Module], Masks]
Told = Callable[[Masks], tuple[Masks, dict[str, Any]]]

#: Where a checkpoint keeps the window, beside the optimiser's tensors.
WINDOW = "window:"


def early_job(session: Session) -> None:
    """Train until the mask has settled, or to the end, and write the mask and the state.

    Raises:
        BadInput: whole units are asked for and the model has none, or the shares cannot be.
        Diverged: a loss or a weight is not finite.
    """
    model = session.build()
    settle(session, model, *drawer(session, model))


def settle(session: Session, model: nn.Module, drawn: Drawn, told: Told, *hooks: Hook) -> None:
    """Train a model until what ``drawn`` returns stays the same; write its mask and the state.

    ``told`` makes the ticket's mask of it, and what is said of that; ``hooks`` look on besides.

    Raises:
        Diverged: a loss or a weight is not finite.
    """
    config, settling = session.config, Settling(session.config, drawn)
    start = session.resume()
    if start is not None:
        settling.restore(start)
    else:
        start = replace(session.snapshot("start"), iteration=config["begin"])
    loop = Loop(
        model,
        learned(session),
        build(Training, dict(config["training"])),
        seed=config["seed"],
        start=start,
        end=config["end"],
        hooks=[*hooks, settling, Watch(session)],
        device=session.execution.device,
    )
    loop.begin = config["begin"]
    loop.run()
    with loop.averaged():
        masks, units = told(drawn(loop.model))
    session.write(LOG, "".join(json.dumps(row) + "\n" for row in loop.rows).encode())
    session.write_masks(masks)
    session.write_state(Snapshot(loop.final_state(), loop.iteration))
    session.write_json(
        {
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            "density": masks.density,
            **units,
            "settled": settling.settled,
            "distances": settling.distances,
            "iterations": loop.iteration - loop.begin,
            "metrics": {"validation": loop.evaluate("validation")},
        }
    )


def drawer(session: Session, model: nn.Module) -> tuple[Drawn, Told]:
    """Return how a mask is drawn, and how it becomes the ticket's and what is told of it.

    Of single weights it is the ticket's mask itself; with ``shares`` it is one of whole units,
    compared unit by unit.

    Raises:
        BadInput: see :func:`early_job`.
    """
    config = session.config
    covered = covered_of(config, session.adapter, model)
    if config["shares"] is None:
        pools = pools_of(config, model, covered)

        def weights(network: nn.Module) -> Masks:
            found = {n: wide(network.get_parameter(n).detach()).abs() for n in covered}
            return select(found, pools)

        return weights, lambda masks: (masks, {})
    whole = Masks.ones(model, covered)
    units = removable(session.adapter.units(model), covered)
    counts = shares_of(units, config["shares"])
    alive = alive_in(units, whole)
    return (
        lambda network: keep_units(magnitudes(network, units), units, counts, alive),
        lambda kept: (spread(kept, units, whole), {"units": summary(kept)}),
    )


def largest_distance(window: Sequence[Masks]) -> float:
    """Return how far the newest mask is from the farthest of those before it, in [0, 1]."""
    *before, newest = window
    return max((newest.distance(mask) for mask in before), default=1.0)


class Settling(Hook):
    """Draws masks while a network trains, and ends the training when they stay the same."""

    def __init__(self, config: Mapping[str, Any], drawn: Callable[[nn.Module], Masks]) -> None:
        self.config, self._drawn = config, drawn
        self.window: deque[Masks] = deque(maxlen=config["window"])
        self.distances: list[float] = []

    @property
    def settled(self) -> bool:
        """Whether the newest mask is near all of the window."""
        return bool(self.distances) and self.distances[-1] < self.config["threshold"]

    def on_start(self, loop: Loop) -> None:
        """Stay stopped, where the checkpoint is of the last iteration."""
        if self.settled:
            loop.end = loop.iteration

    def on_iteration(self, loop: Loop) -> None:
        """Draw the mask where one is due; stop where the window is full and near the newest."""
        if (loop.iteration - loop.begin) % self.config["every"]:
            return
        with loop.averaged():
            self.window.append(self._drawn(loop.model))
        if len(self.window) == self.config["window"]:
            self.distances.append(largest_distance(self.window))
            if self.settled:
                loop.end = loop.iteration

    def on_snapshot(self, loop: Loop, snapshot: Snapshot) -> None:  # noqa: ARG002 - the contract
        """Put the window into a checkpoint, 8 entries a byte."""
        for place, masks in enumerate(self.window):
            packed = masks.pack().items()
            snapshot.optimizer |= {f"{WINDOW}{place}/{name}": bits for name, bits in packed}
        shapes = {n: list(m.shape) for masks in self.window for n, m in masks.items()}
        snapshot.extra |= {"distances": self.distances, "shapes": shapes}

    def restore(self, snapshot: Snapshot) -> None:
        """Take the window out of a checkpoint."""
        packed: dict[int, dict[str, Tensor]] = {}
        for key in [key for key in snapshot.optimizer if key.startswith(WINDOW)]:
            place, _, name = key.removeprefix(WINDOW).partition("/")
            packed.setdefault(int(place), {})[name] = snapshot.optimizer.pop(key)
        shapes = snapshot.extra.pop("shapes")
        self.window.extend(Masks.unpack(bits, shapes) for _, bits in sorted(packed.items()))
        self.distances = snapshot.extra.pop("distances")
