"""What a job of kind ``trace`` does: repeat a training and add up what its weights do on the way.

The training is the same to the bit, so that whoever only wants its end pays for nothing. A score
reads the sums as the state ``trace``: see :func:`lth_zoo.scores.path_length` and its kin.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..compact import Plan
from ..hooks import Hook
from ..kinds import start_of, trained
from ..rewind import Snapshot
from ..scores import WINDOWS, wide
from ..session import Session

if TYPE_CHECKING:
    from ..train import Loop

#: Where a checkpoint keeps the sums, beside the optimiser's tensors.
TRACE = "trace:"


def trace_job(session: Session) -> None:
    """Train as the traced job did; write ``path/``, ``early-P/`` and ``sanh/`` of every weight."""
    model, masks = session.build(), session.masks("masks")
    names = {**session.adapter.prunable(model), **session.adapter.optional(model)}
    trace = Trace(list(names))
    begin = partial(start_of, session, Plan({}, masks))
    loop = trained(session, model, begin, [trace], masks)
    session.write_state(Snapshot(trace.found(), loop.iteration))
    session.write_json({"iterations": loop.end - loop.begin})


class Trace(Hook):
    """Adds up, over the steps of a loop, for each of these parameters and in float32 or better:

    - ``path``: |dw|, the way it goes, there and back;
    - ``sanh``: -w dL/dw, before the step: above 0 where the step leads away from 0 (Sanh et al.
      2020, arXiv:2005.07683, section 4);

    and notes ``early-P``: |w - w at the loop's beginning| after P % of the whole training's steps,
    or at the end where it trains fewer.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.sums: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def on_start(self, loop: Loop) -> None:
        """Begin at 0, or go on where the checkpoint stood."""
        weights = self._weights(loop)
        self._before = {n: w.clone() for n, w in weights.items()}
        if not self.sums:
            for name, weight in weights.items():
                self.sums[f"first/{name}"] = weight.clone()
                for what in ("path", "sanh"):
                    self.sums[f"{what}/{name}"] = torch.zeros_like(weight)
        device = next(iter(weights.values())).device
        self.sums = {key: tensor.to(device) for key, tensor in self.sums.items()}

    def on_gradients(self, loop: Loop) -> None:
        """Add -w dL/dw."""
        for name in self.names:
            weight = loop.model.get_parameter(name)
            if weight.grad is not None:
                product = wide(weight.detach()) * wide(weight.grad)
                # A step that fp16 skips has gradients that are not finite: it leads nowhere.
                self.sums[f"sanh/{name}"] -= product.nan_to_num_(0.0, 0.0, 0.0)

    def on_step(self, loop: Loop) -> None:
        """Add |dw|; note a window that ends here."""
        for name, weight in self._weights(loop).items():
            self.sums[f"path/{name}"] += (weight - self._before[name]).abs()
            self._before[name] = weight.clone()
        for percent in WINDOWS:
            if loop.iteration - loop.begin == max(
                1, round(percent * loop.training.iterations / 100)
            ):
                self._note(loop, percent)

    def on_end(self, loop: Loop) -> None:
        """Note the windows that the training was too short for."""
        for percent in WINDOWS:
            if f"early-{percent}/{self.names[0]}" not in self.sums:
                self._note(loop, percent)

    def on_snapshot(self, loop: Loop, snapshot: Snapshot) -> None:  # noqa: ARG002 - the contract
        """Put the sums into a checkpoint."""
        snapshot.optimizer |= {f"{TRACE}{k}": t.cpu().clone() for k, t in self.sums.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Take the sums out of a checkpoint."""
        for key in [key for key in snapshot.optimizer if key.startswith(TRACE)]:
            self.sums[key.removeprefix(TRACE)] = snapshot.optimizer.pop(key)

    def found(self) -> dict[str, Tensor]:
        """Return the sums by ``what/parameter name``, on the CPU."""
        return {k: t.cpu() for k, t in self.sums.items() if not k.startswith("first/")}

    def _weights(self, loop: Loop) -> dict[str, Tensor]:
        return {n: wide(loop.model.get_parameter(n).detach()) for n in self.names}

    def _note(self, loop: Loop, percent: int) -> None:
        for name, weight in self._weights(loop).items():
            self.sums[f"early-{percent}/{name}"] = (weight - self.sums[f"first/{name}"]).abs()
