"""Early stopping by validation: a training's result is its best look, not its last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .hooks import Hook

if TYPE_CHECKING:
    from torch import Tensor

    from .rewind import Snapshot
    from .train import Loop

#: Where a checkpoint keeps the best state, beside the optimiser's tensors.
BEST = "best:"


class Best(Hook):
    """Keeps the state of the best validation headline, and gives it to the loop at the end.

    Where a look does not measure the headline it is the loss. The test part is read once all
    the same, on that state. Ties keep the earlier one.
    """

    def __init__(self) -> None:
        self.value, self.iteration = float("-inf"), 0
        self.state: dict[str, Tensor] = {}

    def on_row(self, loop: Loop, row: dict[str, float]) -> None:
        """Keep the state, averaged weights in place of live ones, where it is the best so far."""
        value = row.get(f"validation_{loop.task.headline}")
        if value is None:
            value = -row["validation_loss"]
        elif not loop.task.higher_is_better:
            value = -value
        if value > self.value:
            self.value, self.iteration = value, loop.iteration
            self.state = loop.final_state()

    def on_end(self, loop: Loop) -> None:
        """Go back to the best state."""
        if self.state:
            loop.model.load_state_dict(self.state)
            loop.average.clear()

    def on_snapshot(self, loop: Loop, snapshot: Snapshot) -> None:  # noqa: ARG002 - the contract
        """Put the best state into a checkpoint."""
        snapshot.optimizer |= {f"{BEST}{name}": tensor for name, tensor in self.state.items()}
        snapshot.extra["best"] = [self.value, self.iteration]

    def restore(self, snapshot: Snapshot) -> None:
        """Take the best state out of a checkpoint."""
        for key in [key for key in snapshot.optimizer if key.startswith(BEST)]:
            self.state[key.removeprefix(BEST)] = snapshot.optimizer.pop(key)
        self.value, self.iteration = snapshot.extra.pop("best")
