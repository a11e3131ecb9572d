"""What a job of kind ``line`` does: measure a model on the straight line between two states."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..protocols import Split, Task
from ..rewind import Snapshot
from ..seeds import seeded
from ..session import Session
from ..strong import settle

if TYPE_CHECKING:
    State = Mapping[str, Tensor]

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def line_job(session: Session) -> None:
    """Write the metrics of a split at evenly spaced points from ``state-0`` to ``state-1``.

    With ``norms`` ``settled`` the running statistics of batch norms are those of ``batches``
    training batches under the weights at each point, the ends included; ``interpolated`` takes
    them from the line as all else.
    """
    config, task = session.config, session.task
    device = torch.device(session.execution.device)
    model = session.build().to(device)
    task.to(device)
    ends = session.snapshot("state-0").state, session.snapshot("state-1").state
    prepare = settling(task, config) if config["norms"] == "settled" else None
    resumed = session.resume()
    rows = list(resumed.extra["rows"]) if resumed else []
    alphas, saved = spaced(config["alphas"]), time.monotonic()
    for row in along(model, ends, alphas[len(rows) :], task, config["split"], prepare):
        rows.append(row)
        session.progress(len(rows), len(alphas))
        if time.monotonic() - saved > session.execution.checkpoint_seconds:
            session.checkpoint(Snapshot({}, extra={"rows": rows, "seconds": session.seconds()}))
            saved = time.monotonic()
    session.write_json({"rows": rows})


def spaced(count: int) -> list[float]:
    """Return so many numbers from 0 to 1, evenly spaced, both ends included.

    >>> spaced(3)
    [0.0, 0.5, 1.0]
    """
    return [i / (count - 1) for i in range(count)]


def along(
    model: nn.Module,
    ends: tuple[State, State],
    alphas: Sequence[float],
    task: Task,
    split: Split = "validation",
    prepare: Callable[[nn.Module], None] | None = None,
) -> Iterator[dict[str, float]]:
    """Yield ``alpha`` and a split's metrics of the model at each point; its state is left there.

    ``prepare(model)`` is called before each is measured.
    """
    for alpha in alphas:
        model.load_state_dict(between(*ends, alpha))
        if prepare is not None:
            prepare(model)
        with seeded(0, "noise", "evaluation"):
            yield {"alpha": alpha, **task.evaluate(model, split)}


def between(a: State, b: State, alpha: float) -> dict[str, Tensor]:
    """Return ``(1 - alpha) a + alpha b`` of two states; whole numbers (counts) are a's."""
    return {n: torch.lerp(t, b[n], alpha) if t.is_floating_point() else t for n, t in a.items()}


def barrier(errors: Sequence[float]) -> float:
    """Return the highest error on a line over the mean of its ends (Frankle et al. 2020).

    >>> barrier([1.0, 5.0, 2.0]), barrier([1.0, 2.0])
    (3.5, 0.5)
    """
    return max(errors) - fmean((errors[0], errors[-1]))


def settling(task: Task, config: Mapping[str, Any]) -> Callable[[nn.Module], None] | None:
    """Return what estimates the running statistics of batch norms anew."""
    seed, batches, size = (config[name] for name in ("seed", "batches", "batch_size"))

    def prepare(model: nn.Module) -> None:
        if any(isinstance(module, _BATCH_NORM) for module in model.modules()):
            with seeded(seed, "dropout", "settle"):
                settle(model, task, seed, batches, size)

    return prepare
