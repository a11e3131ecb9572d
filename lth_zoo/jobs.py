"""Jobs as data: the graph of pure steps that a recipe asks for.

A job is a kind, the fields it reads, and the jobs whose results it takes in. Its key is a
hash of all that, so whoever asks for the same work finds it done. Nothing here runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

#: Names of the two arms that every experiment has.
DENSE, TICKET = "dense", "ticket"

#: Raise a kind's number when its result for the same config changes.
VERSIONS = {
    **dict.fromkeys(("init", "train", "prune", "control", "graft", "carry", "learn"), 1),
    **dict.fromkeys(("units", "soup", "early-bird", "gates", "denoise", "scorer", "inform"), 1),
    "channels": 1,
    "elastic": 1,
    "dynamic": 1,
    "supermask": 1,
    "rounds": 1,
    "concrete": 1,
    "signs": 1,
}


def canonical(value: Any) -> str:
    """Return the one JSON text of plain data: sorted keys, no spaces, fractions as text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


@dataclass(frozen=True)
class Ref:
    """A job by name only: what a worker process is told of inputs."""

    kind: str
    key: str


@dataclass(frozen=True, repr=False)
class Job:
    """One pure step. ``config`` is plain data; ``inputs`` maps a role to another job."""

    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Job] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Job({self.label})"

    def shallow(self) -> Job:
        """Return the same job with its inputs by name only: small to send to a worker."""
        refs = {role: Ref(job.kind, job.key) for role, job in self.inputs.items()}
        return Job(self.kind, self.config, refs)  # type: ignore[arg-type]

    @cached_property
    def key(self) -> str:
        """sha256 over the kind, its version, the config and the keys of the inputs."""
        inputs = {role: job.key for role, job in self.inputs.items()}
        parts = [self.kind, VERSIONS.get(self.kind, 1), self.config, inputs]
        return hashlib.sha256(canonical(parts).encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.key == other.key

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.kind} {self.key[:8]}"


@dataclass(frozen=True)
class Level:
    """One round of a finder: the masks, the state they start from, and the retraining.

    At level 0 there are no masks and ``train`` is the dense run. ``train`` is None where a
    finder's level is only a mask.
    """

    index: int
    start: Job
    masks: Job | None = None
    train: Job | None = None


def iterations_of(job: Job) -> int:
    """Return how many iterations a job trains; 0 where it does not.

    Where it begins at what its start has reached (``begin`` None) it trains at most those.
    """
    return int(job.config.get("end", 0) - (job.config.get("begin") or 0))


def graph(goals: Iterable[Job]) -> list[Job]:
    """Return the goals and all they need, inputs first, each once."""
    order: dict[str, Job] = {}

    def visit(job: Job) -> None:
        if job.key not in order:
            for needed in job.inputs.values():
                visit(needed)
            order[job.key] = job

    for goal in goals:
        visit(goal)
    return list(order.values())
