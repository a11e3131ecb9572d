"""Snapshots of training, and what the survivors of pruning get back.

``init``, ``step=K`` and ``P%`` return to a snapshot of the dense run; ``learning-rate`` keeps
the weights and restarts the schedule (Renda et al. 2020); ``none`` fine-tunes on at the last
learning rate; ``fresh`` draws a new initialisation. A snapshot is always a clone: aliasing it
is the bug that made "rewinding" a no-op elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Kind = Literal["init", "step", "learning-rate", "none", "fresh"]


@dataclass(frozen=True)
class Rewind:
    """A parsed rewind rule: the kind, and the iteration it returns to.

    ``at`` counts iterations from the start of training for ``step``, and the length of the
    retraining for ``learning-rate`` and ``none``.
    """

    kind: Kind
    at: int = 0

    @classmethod
    def parse(cls, text: str, iterations: int) -> Rewind:
        """Read ``init | step=K | P% | learning-rate[=K|=P%] | none[=K|=P%] | fresh``.

        ``P%`` is a share of ``iterations``. ``learning-rate`` and ``none`` alone retrain for
        the whole length.

        >>> Rewind.parse("3%", 1000)
        Rewind(kind='step', at=30)

        Raises:
            BadInput: anything else, or a step past the end.
        """
        pattern = r"(?:(init|fresh|step|learning-rate|none)(?:=|$))?(?:(\d+(?:\.\d+)?)(%?))?"
        found = re.fullmatch(pattern, text.strip())
        kind, number, percent = found.groups() if found and text.strip() else (None, None, "")
        whole = float(number or 0)
        at = round(whole / 100 * iterations) if percent else int(whole)
        if kind is None and percent:
            kind = "step"
        bare = number is None
        wrong = (
            kind is None
            or (kind == "step" and bare)
            or (kind in ("init", "fresh") and not bare)
            or (not percent and at != whole)
        )
        if wrong or text.strip().endswith("=") or not 0 <= at <= iterations:
            raise BadInput(
                f"rewind {text!r} is not one of init, step=K, P%, learning-rate[=K|=P%], "
                f"none[=K|=P%], fresh, with K at most {iterations} iterations"
            )
        if bare and kind in ("learning-rate", "none"):
            at = iterations
        return cls("init" if kind == "step" and at == 0 else kind, at)  # type: ignore[arg-type]


@dataclass
class Snapshot:
    """Everything that training continues from.

    ``state`` is the model's state dict (parameters and buffers, spectral-norm vectors and
    batch-norm statistics among them); ``optimizer`` the state tensors as
    ``parameter name/key``; ``average`` the moving average of the weights; ``iteration`` the
    place in the schedule and in the data order; ``extra`` plain values (Python's and numpy's
    generators).
    """

    state: dict[str, Tensor]
    iteration: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor under one flat, prefixed name."""
        parts = {"state": self.state, "optimizer": self.optimizer, "average": self.average}
        return {f"{part}:{n}": t for part, group in parts.items() for n, t in group.items()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], iteration: int, extra: dict[str, Any] | None = None
    ) -> Snapshot:
        """Read what :meth:`tensors` returned."""
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "optimizer": {}, "average": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(":")
            parts[part][rest] = tensor
        return cls(iteration=iteration, extra=extra or {}, **parts)


def clone_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a detached CPU copy of parameters and buffers; tied tensors are copied once each."""
    return {n: t.detach().cpu().clone().contiguous() for n, t in model.state_dict().items()}


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[Any, str], prefix: str = ""
) -> dict[str, Tensor]:
    """Return a copy of an optimiser's state as ``prefix + parameter name/key`` -> tensor."""
    import torch

    return {
        f"{prefix}{names[p]}/{key}": torch.as_tensor(value).detach().cpu().clone()
        for p, entries in optimizer.state.items()
        for key, value in entries.items()
        if value is not None
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Mapping[Any, str],
    tensors: Mapping[str, Tensor],
    prefix: str = "",
) -> None:
    """Put back what :func:`optimizer_tensors` copied, cloned, on each parameter's device."""
    by_name = {name: p for p, name in names.items()}
    ours = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    for full, tensor in ours.items():
        name, _, key = full.rpartition("/")
        parameter = by_name[name]
        device = parameter.device if tensor.dim() or parameter.is_cuda else tensor.device
        optimizer.state[parameter][key] = tensor.clone().to(device)
