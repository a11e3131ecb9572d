"""The losses of a training: looked at in windows, so that a device is seldom waited for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .errors import Diverged

if TYPE_CHECKING:
    from torch import Tensor

#: Losses are kept on the device and looked at this often: no synchronisation in between.
WINDOW = 50


class Ledger:
    """Losses since the last look, one an objective, by its name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._pending: list[tuple[int, Tensor]] = []
        self.clear()

    def clear(self) -> None:
        """Begin to count anew."""
        self._sums, self._count = [0.0] * len(self.names), 0

    def add(self, iteration: int, losses: Sequence[Tensor]) -> None:
        """Note the losses of an iteration, scalars without gradient.

        Raises:
            Diverged: see :meth:`flush`.
        """
        one = losses[0] if len(losses) == 1 else torch.stack(list(losses))
        self._pending.append((iteration, one))
        if len(self._pending) == WINDOW:
            self.flush()

    def flush(self) -> None:
        """Look at what was noted.

        Raises:
            Diverged: a loss is not finite; the message has the iteration.
        """
        if not self._pending:
            return
        iterations, pending = zip(*self._pending, strict=True)
        rows = torch.stack(pending).reshape(len(pending), -1).tolist()
        for iteration, losses in zip(iterations, rows, strict=True):
            for name, loss in zip(self.names, losses, strict=True):
                if not math.isfinite(loss):
                    whose = f"the loss {name}" if len(losses) > 1 else "the loss"
                    raise Diverged(f"diverged: {whose} is {loss} at iteration {iteration}")
        for losses in rows:  # one by one: the sums must not depend on where the windows end
            for place, loss in enumerate(losses):
                self._sums[place] += loss
        self._count += len(rows)
        self._pending.clear()

    def means(self) -> dict[str, float]:
        """Return ``train_loss``, the last objective's; where there are several, each by name."""
        means = [total / max(1, self._count) for total in self._sums]
        every = {f"train_loss_{n}": m for n, m in zip(self.names, means, strict=True)}
        return {"train_loss": means[-1]} | (every if len(means) > 1 else {})

    def state(self) -> list[float]:
        """Return what was noted since the last look, as plain data."""
        return [*self._sums, self._count]

    def load(self, state: Sequence[float]) -> None:
        """Put back what :meth:`state` returned."""
        *self._sums, count = state
        self._count = int(count)
