"""What may look at a running training loop, or change its masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rewind import Snapshot
    from .train import Loop


class Hook:
    """Observes a loop; may change its masks through ``loop.set_masks``.

    Subclass and override any of these. ``on_gradients`` sees dense gradients.
    """

    def on_start(self, loop: Loop) -> None:
        """Before the first iteration of this process."""

    def on_gradients(self, loop: Loop) -> None:
        """After backward, before the gradients are masked."""

    def on_step(self, loop: Loop) -> None:
        """After the steps of an iteration; the place to change masks."""

    def on_epoch(self, loop: Loop) -> None:
        """After the last iteration of an epoch."""

    def on_iteration(self, loop: Loop) -> None:
        """After all of an iteration, its looks included: a snapshot taken here loses nothing."""

    def on_row(self, loop: Loop, row: dict[str, float]) -> None:
        """After a look at the validation part."""

    def on_snapshot(self, loop: Loop, snapshot: Snapshot) -> None:
        """Whenever everything to continue from is taken: add what the hook continues from."""

    def restore(self, snapshot: Snapshot) -> None:
        """Before the loop is made, from a checkpoint: take out what ``on_snapshot`` added."""

    def on_end(self, loop: Loop) -> None:
        """After the last iteration."""


def overridden(hooks: Sequence[Hook]) -> dict[str, list[Any]]:
    """Return event -> the bound methods that do something, so that idle events cost nothing."""
    events = [name for name in vars(Hook) if name.startswith("on_")]
    return {
        event: [
            getattr(h, event) for h in hooks if getattr(type(h), event) is not getattr(Hook, event)
        ]
        for event in events
    }
