"""What every task's evaluation does to a model: nothing that stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode without gradients; restore modes and generators after.

    Not in inference mode: what a model makes there and keeps (a cached mask, a lazy layer)
    cannot be trained with later.
    """
    import torch

    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        cuda = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(cuda), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
