"""What the jobs ``attack`` and ``attack-transfer`` do: how a trained image classifier bears harm.

Both read the first ``examples`` test images, and attack them as :mod:`.attacks` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..protocols import Task
from ..seeds import generator
from ..session import Session
from .attacks import (
    Answers,
    Space,
    fgsm,
    fooled_by_pgd,
    noised,
    pgd,
    smallest,
    uphill,
    wrong,
)
from .corruptions import CORRUPTIONS, STRENGTHS, corrupted

CHUNK = 250


def pixels_of(task: Task) -> tuple[Tensor, Tensor] | None:
    """Return what a task's batch holds for black and white, None where it classifies no images."""
    pixels = getattr(task, "pixels", None)
    found: tuple[Tensor, Tensor] | None = (
        pixels() if pixels is not None and task.signature.answer == "classes" else None
    )
    return found


def attack_job(session: Session) -> None:
    """Write the accuracy on clean, noised, attacked and corrupted images, and attack distances.

    ``eps`` has a row for each: every accuracy is over all examples, in percent. ``distance`` is the
    median of the smallest eps over what is answered right; ``still`` the share of it whose loss has
    no slope at all, which hides from attacks by gradient.
    """
    config, total = session.config, _Total()
    answers, rng = _answers(session, "state"), generator(session.config["seed"], "noise", "attack")
    how = {"loss": config["loss"]}
    distances = []
    chunks = list(_chunks(session))
    for done, (x, y, space) in enumerate(chunks):
        session.progress(done, len(chunks))
        clean = wrong(answers, x, y)
        total.add("clean", clean)
        slopes = uphill(answers, x, y, config["loss"])[~clean]
        total.add("slopes", (slopes == 0).flatten(1).all(1))
        for eps in config["eps"]:
            by = torch.full((len(x), 1, 1, 1), eps).to(x)
            total.add(f"noise {eps}", wrong(answers, noised(x, by, space, rng), y))
            total.add(f"fgsm {eps}", wrong(answers, fgsm(answers, x, y, by, space, **how), y))
            steps, restarts = config["steps"], config["restarts"]
            fooled = fooled_by_pgd(answers, x, y, by, space, steps, restarts, rng, **how)
            total.add(f"pgd {eps}", fooled)
        distances.append(smallest(answers, x, y, space, config["steps"], **how)[~clean].cpu())
        plain = (x - space.black) / (space.white - space.black)
        for name in CORRUPTIONS:
            for strength in range(STRENGTHS):
                harmed = corrupted(plain, name, strength, rng)
                again = space.black + harmed * (space.white - space.black)
                total.add(f"{name} {strength}", wrong(answers, again, y))
    near = torch.cat(distances)
    rows = [
        {"eps": eps} | {kind: total.right(f"{kind} {eps}") for kind in ("noise", "fgsm", "pgd")}
        for eps in config["eps"]
    ]
    session.write_json(
        {
            "examples": total.count["clean"],
            "clean": total.right("clean"),
            "still": 1 - total.right("slopes") / 100,
            "eps": rows,
            "distance": near.median().item() if len(near) else 0.0,
            "corruptions": {
                name: [total.right(f"{name} {s}") for s in range(STRENGTHS)] for name in CORRUPTIONS
            },
        }
    )


def transfer_job(session: Session) -> None:
    """Write how many attacks by PGD on one network fool it, and how many another one.

    Only images that both answer right are counted; an attack is its last step, from the image.
    """
    config, total = session.config, _Total()
    ours, theirs = _answers(session, "state-from"), _answers(session, "state-to")
    for x, y, space in _chunks(session):
        both = ~(wrong(ours, x, y) | wrong(theirs, x, y))
        x, y = x[both], y[both]
        for eps in config["eps"]:
            by = torch.full((len(x), 1, 1, 1), eps).to(x)
            last = pgd(ours, x, y, by, space, config["steps"], None, config["loss"])[0]
            total.add(f"own {eps}", wrong(ours, last, y))
            total.add(f"other {eps}", wrong(theirs, last, y))
    rows = [
        {"eps": eps} | {whose: 100 - total.right(f"{whose} {eps}") for whose in ("own", "other")}
        for eps in config["eps"]
    ]
    session.write_json({"examples": total.count[f"own {config['eps'][0]}"], "eps": rows})


class _Total:
    """Counts of wrong answers by name."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self._wrong: dict[str, int] = {}

    def add(self, name: str, found: Tensor) -> None:
        self.count[name] = self.count.get(name, 0) + len(found)
        self._wrong[name] = self._wrong.get(name, 0) + int(found.sum())

    def right(self, name: str) -> float:
        """Return the right ones in percent; 100 of none."""
        return 100.0 - 100.0 * self._wrong[name] / max(1, self.count[name])


def _answers(session: Session, role: str) -> Answers:
    model, task = session.build(), session.task
    model.load_state_dict(session.snapshot(role).state)
    model.to(session.execution.device).eval().requires_grad_(requires_grad=False)

    def answers(x: Tensor) -> Tensor:
        return task.answers(model, (x, None))

    return answers


def _chunks(session: Session) -> Iterator[tuple[Any, Any, Space]]:
    task, device = session.task, torch.device(session.execution.device)
    task.to(device)
    pixels = pixels_of(task)
    assert pixels is not None, "checked before the run"
    space = Space(*(tensor.to(device) for tensor in pixels))
    count = min(session.config["examples"], task.size("test"))
    for chunk in torch.arange(count).split(CHUNK):
        x, y = task.batch("test", chunk)
        yield x, y, space
