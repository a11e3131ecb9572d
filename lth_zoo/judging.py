"""The judges of a task, trained in this process: what jobs of their own are for the engine."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from .protocols import Pretraining, Task, adapter_of, task_of
from .recipe import Training, build
from .rewind import clone_state
from .seeds import seeded
from .train import Loop


def judged(task: Task | str, data: Path | None = None) -> Task:
    """Return a task with its judges trained, so that models can be evaluated by hand.

    They are the networks that jobs of a store would give it, to the bit; of digits they take
    seconds, of MNIST minutes. A task without judges is returned as it is.
    """
    if isinstance(task, str):
        task = task_of(task, data)
    if specs := task.judges():
        states = {str(i): _trained(spec, task.data) for i, spec in enumerate(specs)}
        task.judged_by({number: partial(dict, state) for number, state in states.items()})
    return task


def _trained(spec: Pretraining, data: Path | None) -> dict[str, torch.Tensor]:
    task, training = task_of(spec.task, data), build(Training, dict(spec.training))
    with seeded(spec.seed, "init"):
        network = adapter_of(spec.model).build(spec.model, task.signature)
    Loop(network, task, training, seed=spec.seed).run()
    return clone_state(network)
