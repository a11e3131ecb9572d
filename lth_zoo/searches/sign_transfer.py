"""What a job of kind ``signs`` does: give a new initialisation the signs of a trained network.

A signed mask, -1, 0 or 1 a weight, is all that it brings (Oh, Baik & Lee 2025, arXiv:2504.05357):
where a mask keeps a weight, and in the biases of masked layers and in the output layer, the size is
that of the new draw and the sign the trained one's. Norms, and what is pruned, are the new draw's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..carry import in_step, tied, with_signs
from ..errors import StoreError
from ..masks import Masks
from ..rewind import Snapshot

if TYPE_CHECKING:
    from torch import nn

    from ..protocols import Adapter
    from ..session import Session


def signs_job(session: Session) -> None:
    """Write the start that has the signs of what was trained under the masks."""
    masks = session.masks("masks")
    if masks is None:
        raise StoreError(f"{session.job.label} has no masks")
    model, signed = session.build(), masks.weights
    whole = Masks.ones(model, beside(model, signed, session.adapter))
    trained, start = session.snapshot("trained").state, session.snapshot("start").state
    state = with_signs(start, trained, Masks({**whole, **signed}), "")
    session.write_start(Snapshot(in_step(model, start, state)))


def beside(model: nn.Module, masks: Masks, adapter: Adapter) -> list[str]:
    """Return the tensors without a mask whose signs come too: biases of masked layers, the head."""
    covered = adapter.prunable(model) | adapter.optional(model)
    biases = [f"{covered[name].layer}.bias".lstrip(".") for name in masks]
    head = adapter.head(model)
    names = {*biases, *(head - tied(model, head).keys())}
    known = dict(model.named_parameters(remove_duplicate=False))
    return sorted(name for name in names if name in known and name not in masks)
