"""What a job of kind ``head`` does: fit a linear head on what a frozen network has last hidden.

Ridge regression on the classes as 0 and 1, in closed form: nothing is drawn and nothing is tuned
but the strength, on the validation part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..protocols import Adapter, Split, Task
from ..session import Session, cached_task

CHUNK = 1000


def head_job(session: Session) -> None:
    """Write the accuracy of the head on ``target``, in percent, and what it was fitted on.

    The network is that of ``state``, whose own head is not used; without one the inputs themselves
    are the features. ``constant`` counts features that never vary; ``majority`` is the accuracy of
    the answer that is most frequent in training.
    """
    config, device = session.config, torch.device(session.execution.device)
    how = config.get("max_length"), config.get("data_fraction", 1.0)
    task = cached_task(config["target"], session.execution.data, config["model"], *how)
    task.to(device)
    model: nn.Module = nn.Identity()
    layer = ""
    if "state" in session.job.inputs:
        model = session.build()
        model.load_state_dict(session.snapshot("state").state)
        layer = head_layer(session.adapter, model)
    model.to(device).eval()
    x, y = features(model, layer, task, "train")
    validation, test = (features(model, layer, task, s) for s in ("validation", "test"))
    classes = task.signature.output
    found = [
        (accuracy(head, *validation), strength, head)
        for strength, head in zip(
            config["strengths"], ridge(x, y, classes, config["strengths"]), strict=True
        )
    ]
    seen, strength, head = max(found, key=lambda one: one[:2])  # of equals the strongest pull
    most = torch.bincount(y, minlength=classes).argmax()
    session.write_json(
        {
            "accuracy": {"validation": seen, "test": accuracy(head, *test)},
            "strength": strength,
            "features": x.shape[1],
            "constant": int((x.std(0, unbiased=False) == 0).sum()),
            "majority": 100 * (test[1] == most).double().mean().item(),
        }
    )


def head_layer(adapter: Adapter, model: nn.Module) -> str:
    """Return the linear layer that a classifier ends in, empty where it ends in another."""
    layer = list(adapter.prunable(model).values())[-1].layer
    return layer if isinstance(model.get_submodule(layer), nn.Linear) else ""


@torch.no_grad()
def features(model: nn.Module, layer: str, task: Task, split: Split) -> tuple[Tensor, Tensor]:
    """Return what goes into a layer, (n, d) float64, and the labels; without one the inputs."""
    seen: list[Tensor] = []
    labels: list[Tensor] = []

    def note(_: Any, given: Any) -> None:
        seen.append(given[0].flatten(1).double().cpu())

    handle = model.get_submodule(layer).register_forward_pre_hook(note)
    try:
        for chunk in torch.arange(task.size(split)).split(CHUNK):
            batch = task.batch(split, chunk)
            task.answers(model, batch)
            labels.append(batch[1].cpu())
    finally:
        handle.remove()
    return torch.cat(seen), torch.cat(labels)


#: A head: scores are ``(x - mean) @ weight + bias``.
Head = tuple[Tensor, Tensor, Tensor]


def ridge(x: Tensor, y: Tensor, classes: int, strengths: Sequence[float]) -> list[Head]:
    """Return the head of each strength: least squares plus ``n * strength * |weight|^2``.

    Features are measured in their standard deviations; one that never varies has weight 0.
    """
    n, mean, scale = len(x), x.mean(0), x.std(0, unbiased=False)
    per = torch.where(scale > 0, 1 / scale.where(scale > 0, 1), 0.0)
    z = (x - mean) * per
    targets = nn.functional.one_hot(y, classes).double()
    bias = targets.mean(0)
    values, vectors = torch.linalg.eigh(z.T @ z / n)
    along = vectors.T @ (z.T @ (targets - bias) / n)
    values = values.clamp(min=0)[:, None]
    return [(mean, per[:, None] * (vectors @ (along / (values + s))), bias) for s in strengths]


def accuracy(head: Head, x: Tensor, y: Tensor) -> float:
    """Return the share of right answers of a head, in percent."""
    mean, weight, bias = head
    return 100 * ((x - mean) @ weight + bias).argmax(1).eq(y).double().mean().item()
