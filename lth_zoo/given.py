"""What is trained beforehand and given to jobs: embedded pre-trained starts, judges."""

from __future__ import annotations

from functools import cache

from .jobs import Job, graph
from .protocols import Pretraining, adapter_of, task_of
from .recipe import Training, build


@cache
def pretrained_start(model: str) -> Job | None:
    """Return the training that makes a model's pre-trained start, None where there is none.

    It is the same job for every task and seed: one checkpoint, as a downloaded one would be.
    """
    if model.startswith("object/"):
        return None
    adapter = adapter_of(model)
    made = adapter.pretraining(model)
    if made is None:
        return None
    data = task_of(made.task).prepared(model).fingerprint() + made.fingerprint
    return _trained(made, model, data)


@cache
def judges_of(task: str, data: str) -> dict[str, Job]:
    """Return the trainings of the networks that judge a task's models, by role.

    They are the same jobs for every model, seed and arm; ``data`` is the task's fingerprint.
    """
    specs = task_of(task).judges()
    return {f"judge-{i}": _trained(spec, spec.model, data) for i, spec in enumerate(specs)}


def _trained(made: Pretraining, model: str, data: str) -> Job:
    base = {"model": model, "task": made.task, "data": data, "seed": made.seed}
    training = build(Training, dict(made.training)).plain()
    start = Job("init", {**base, "draw": 0})
    config = {
        "training": training,
        "begin": 0,
        "end": training["iterations"],
        "keep": "weights",
        "fresh_optimizer": True,
    }
    return Job("train", {**base, **config}, {"start": start})


def own_graph(*goals: Job) -> list[Job]:
    """Return jobs and all they need, inputs first, less what was given and how that was made.

    Judges and a pre-training are made once, whatever is searched for and trained with them.
    """
    every = graph(goals)
    given = [
        needed
        for job in every
        for role, needed in job.inputs.items()
        if role.startswith("judge-") or role == "pretrained"
    ]
    made = {job.key for job in graph(given)}
    return [job for job in every if job.key not in made]
