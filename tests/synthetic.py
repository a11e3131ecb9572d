"""Synthetic results of a whole recipe, with a known Occam's hill: what reports are tested on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from lth_zoo.trials.results import DENSE, TICKET, Results, Run

CONTROLS = ("reinit", "shuffle", "random-global", "random-erk")
LAYERS = {"fc1.weight": 235_200, "fc2.weight": 30_000, "fc3.weight": 1_000}
TOTAL = sum(LAYERS.values())
#: Where each arm starts to fall (density), and how steeply.
FALLS = {"reinit": (0.30, 0.9), "shuffle": (0.16, 1.2), "random-global": (0.20, 2.0)}


def accuracy(arm: str, density: float, rng: random.Random) -> float:
    """Return a plausible percentage: a hill for the ticket, a fall for its controls."""
    depth = -math.log(density)
    value = 98.1 + rng.gauss(0, 0.06)
    if arm == TICKET:
        return value + 0.28 * math.exp(-((depth - 1.9) ** 2)) - 0.25 * max(0, depth - 3.0)
    start, slope = FALLS.get(arm, (0.22, 1.0))
    lost = max(0.0, depth + math.log(start))
    collapse = 30 * max(0.0, depth - 3.0) if arm == "random-global" else 0.0
    return value - slope * lost**1.5 - collapse


def run(arm: str, level: int, seed: int, density: float) -> Run:
    """Return one plausible run of LeNet-300-100 on MNIST."""
    rng = random.Random(f"{arm} {level} {seed}")
    end = accuracy(arm, density, rng)
    speed = 450 if arm == TICKET else 650
    at = range(100, 5001, 100)
    curve = [
        {"iteration": i, "validation_accuracy": end - 8 * math.exp(-i / speed) + rng.gauss(0, 0.08)}
        for i in at
    ]
    curve = [{**row, "validation_loss": (100 - row["validation_accuracy"]) / 30} for row in curve]
    stop = 3600 * density**0.2 if arm in (TICKET, DENSE) else 3600 + 300 * -math.log(density)
    kept = {
        n: max(1, round(t * density ** (1.05 - 0.25 * i)))
        for i, (n, t) in enumerate(LAYERS.items())
    }
    return Run(
        arm=arm,
        level=level,
        seed=seed,
        kept=round(TOTAL * density),
        prunable=TOTAL,
        parameters=TOTAL + 410,
        metrics={
            "validation": {"accuracy": end + 0.1, "loss": 0.08},
            "test": {"accuracy": end, "loss": 0.09},
        },
        curve=curve,
        early_stop=int(100 * round((stop + rng.gauss(0, 150)) / 100)),
        iterations=5000,
        seconds=14 + rng.random(),
        layers={n: (k, LAYERS[n]) for n, k in kept.items()},
    )


def results(seeds: int = 5, levels: int = 15, controls: Sequence[str] = CONTROLS) -> Results:
    """Return a whole recipe's results: dense, ticket and controls at every level."""
    runs = [run(DENSE, 0, seed, 1.0) for seed in range(seeds)]
    for arm in (TICKET, *controls):
        for level in range(1, levels + 1):
            runs += [run(arm, level, seed, 0.8**level) for seed in range(seeds)]
    recipe = {
        "model": "lenet-300-100",
        "task": "mnist",
        "finder": {"name": "imp", "rate": 0.2, "scope": "layer", "rewind": "init"},
        "training": {"iterations": 5000, "batch_size": 60, "optimizer": "adam", "milestones": []},
        "sparsity": 0.965,
        "seeds": list(range(seeds)),
        "controls": list(controls),
        "compare": "paired",
        "name": "lenet-mnist-short",
        "paper": "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2",
        "expected": "dense 98.0 to 98.2; ticket 0.3 points above it at 21 % of weights",
    }
    cost = {
        "search_dense_runs": levels + 1.0,
        "seconds_total": sum(r.seconds for r in runs),
        "iterations_total": 5000.0 * len(runs),
    }
    return Results(recipe, "accuracy", True, 0.3, runs, cost)
