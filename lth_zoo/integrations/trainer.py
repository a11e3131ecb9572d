"""A ticket in a Hugging Face ``Trainer``: masks enforced, sparsity logged, checkpoints clean."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import nn
from transformers import TrainerCallback

from ..enforce import Enforcer
from ..errors import BadInput
from ..masks import Masks
from ..placing import base_prefix
from ..ticket import Ticket
from .lora import check_sparsity, masks_in, plain_name

SPARSITY = "ticket/sparsity"


class LotteryTicketCallback(TrainerCallback):
    """Keeps the pruned weights of a ``Trainer``'s model at exactly 0, from begin to end.

    Give it the masks that ``ticket.apply_to(model)`` returned, or the ticket itself; only its
    masks are used: the weights are the model's. Gradients are masked as they accumulate, so
    clipping sees masked ones. Whenever the Trainer logs, evaluates, saves or ends, pruned
    weights are checked; ``ticket/sparsity``, as counted in the weights, is in the Trainer's
    ``log_history`` and reaches every callback after this one. Trackers of ``report_to`` come
    before it unless it is put first: ``trainer.callback_handler.callbacks.insert(0, callback)``.

    Nothing is added to the model, so checkpoints hold its plain state dict and training resumes
    from them. If training ends in an exception, :meth:`close` (or leaving ``with callback:``)
    takes the hooks off; so does the next training.

    Under PEFT the base is frozen: its pruned weights are zeroed, watched and left alone.

    Raises (when training begins):
        TicketError: the masks do not fit the model, or it is sharded.
    """

    def __init__(self, ticket: Ticket | Masks) -> None:
        if not isinstance(ticket, Ticket | Masks):
            raise BadInput(f"a {type(ticket).__name__} is neither a Ticket nor Masks")
        self._given = ticket
        self._stack = ExitStack()
        self._model: nn.Module | None = None
        self._masks: Masks | None = None
        self._bound: Enforcer | None = None

    def __enter__(self) -> LotteryTicketCallback:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take every hook off; safe to call at any time."""
        self._stack.close()
        self._model = self._masks = self._bound = None

    @property
    def sparsity(self) -> float | None:
        """Share of zeros among the prunable weights now; None outside a training."""
        if self._bound is None:
            return None
        zeros = sum(p.numel() - int(p.count_nonzero()) for p in self._bound.parameters)
        return zeros / max(sum(p.numel() for p in self._bound.parameters), 1)

    # -- the Trainer's events -------------------------------------------------------------

    def on_train_begin(
        self,
        args: Any,  # noqa: ARG002 - the contract
        state: Any,  # noqa: ARG002
        control: Any,  # noqa: ARG002
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Zero the pruned weights and begin to enforce; a checkpoint to resume is loaded by now."""
        self.close()
        if model is None:
            raise BadInput("the Trainer handed no model to its callbacks")
        self._masks = masks_on(self._given, model)
        self._bound = self._stack.enter_context(self._masks.enforced(model))
        self._model = model

    def on_log(
        self,
        args: Any,  # noqa: ARG002 - the contract
        state: Any,
        control: Any,  # noqa: ARG002
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Check, and add the sparsity to what is logged."""
        self.check()
        if (sparsity := self.sparsity) is None:
            return
        if logs is not None:
            logs[SPARSITY] = sparsity
        if state.log_history:  # the Trainer wrote its copy before it called
            state.log_history[-1][SPARSITY] = sparsity

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Check that what was evaluated is the ticket."""
        self.check()

    def on_save(self, *_: Any, **__: Any) -> None:
        """Check that what was saved is the ticket."""
        self.check()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Check for the last time and take every hook off."""
        try:
            self.check()
        finally:
            self.close()

    def check(self) -> None:
        """Assert that pruned weights are 0 in a training that runs; else do nothing.

        Raises:
            TicketError: naming the tensors in which some are not.
        """
        if self._model is not None and self._masks is not None:
            check_sparsity(self._model, self._masks)


def masks_on(ticket: Ticket | Masks, model: nn.Module) -> Masks:
    """Return a ticket's masks, or those of the plain model, under a live model's names.

    Raises:
        TicketError: they do not fit; the message names the tensors.
    """
    inner = getattr(model, "get_base_model", None)
    if isinstance(ticket, Masks):
        return masks_in(model, ticket)
    if not callable(inner):
        return ticket.masks_for(model)
    before = base_prefix(inner()) or ""
    plain = {plain_name(n) for n, _ in model.named_parameters()}
    names = {n: before + n if before + n in plain else n for n in ticket.masks}
    return masks_in(model, Masks({names[n]: m for n, m in ticket.masks.items()}))
