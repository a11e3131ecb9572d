"""A training step under RigL's changing mask against the same step under a mask that stays.

resnet-20 on batches of 32x32 images, 80 % sparsity by ERK, the defaults of the finder: an update
each 100 iterations. Each arm is our loop with the same fused optimiser and runs as many steps as
lie between two updates, the update among them, after untimed ones. An update takes the place
of an optimiser step; what it adds is a choice in each layer and new float masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from measure import Row, compared, interleaved
from step import Case, Clock, images

from lth_zoo.protocols import Signature, adapter_of, default_prunable
from lth_zoo.recipe import Training
from lth_zoo.searches.dynamic_hooks import Rewiring, Rigging
from lth_zoo.train import Loop

PERIOD, WARM, ROUNDS = 100, 2, 5
CONFIG: dict[str, Any] = {
    **{"seed": 0, "density": "1/5", "scope": "erk", "overrides": {}, "total": None},
    **{"every": PERIOD, "stop": 10**6, "share": 0.3, "anneal": True, "accumulate": 1},
    "reset": False,
}


def case() -> Case:
    """Return resnet-20 at a small batch: the less a step costs, the more an update weighs."""
    training = Training(
        batch_size=16, optimizer="sgd", learning_rate=0.1, momentum=0.9, evaluate_every=10**9
    )
    return Case(
        f"resnet-20, batch 16 of 32x32, an update every {PERIOD}",
        lambda: adapter_of("resnet-20").build("resnet-20", Signature((3, 32, 32), 10)),
        images(16, 4, (3, 32, 32)),
        training,
        warm=WARM,
        steps=PERIOD,
        rounds=ROUNDS,
        target=1.10,
    )


def stepped(one: Case, rule: type[Rewiring]) -> float:
    """Return the CPU seconds of one step of a loop over one period of a rule."""
    model, clock = one.fresh(), Clock(one.warm)
    hook, end = rule(CONFIG, model, default_prunable(model)), one.warm + one.steps
    Loop(model, one.task, one.training, seed=0, end=end, hooks=[hook, clock]).run()
    assert hook.said["updates"] == (rule is Rigging)
    return clock.seconds / one.steps


def bench() -> list[Row]:
    """Measure periods of steps with one update, and as many steps with none."""
    one = case()
    arms: Mapping[str, Callable[[], float]] = {
        "rigl": lambda: stepped(one, Rigging),
        "plain": lambda: stepped(one, Rewiring),
    }
    found = interleaved(arms, one.rounds)
    return [compared(one.name, found["rigl"], found["plain"], one.target)]
