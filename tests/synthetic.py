"""Synthetic results of a whole recipe, with a known Occam's hill: what reports are tested on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from lth_zoo.trials.kept_graph import Kept, portrait
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


# -- weights and edges ---------------------------------------------------------------------

GRAPH_CONTROLS = (
    *("random-edges", "random-graph", "graph-only", "weights-only"),
    *("reinit", "shuffle"),
)
#: A 64-wide GCN on Cora: its prunable weights, and the undirected edges of the graph.
GRAPH_WEIGHTS, GRAPH_EDGES = 92_160, 5_278


def graph_run(arm: str, level: int, seed: int, rates: tuple[float, float]) -> Run:
    """Return one plausible run of a GCN on Cora, after so many levels at these rates."""
    rng = random.Random(f"{arm} {level} {seed}")
    weights = 1.0 if arm in (DENSE, "graph-only") else (1 - rates[0]) ** level
    edges = 1.0 if arm in (DENSE, "weights-only") else (1 - rates[1]) ** level
    lost = {"random-edges": 14, "random-graph": 14}.get(arm, 9) * (1 - edges) ** 2
    depth = -math.log(weights)
    steep = {"random-graph": 16, "reinit": 3, "shuffle": 4}.get(arm, 1.6)
    lost += steep * max(0.0, depth - (0.6 if arm == "random-graph" else 1.6))
    end = max(13.0, 81.6 + rng.gauss(0, 0.5) - lost)
    curve = [
        {"iteration": i, "validation_accuracy": end - 30 * math.exp(-i / 30) + rng.gauss(0, 0.4)}
        for i in range(10, 201, 10)
    ]
    curve = [{**row, "validation_loss": (100 - row["validation_accuracy"]) / 30} for row in curve]
    kept = round(GRAPH_WEIGHTS * weights)
    last = min(round(448 * weights**0.5), kept)
    return Run(
        arm=arm,
        level=level,
        seed=seed,
        kept=kept,
        prunable=GRAPH_WEIGHTS,
        parameters=GRAPH_WEIGHTS + 71,
        metrics={s: {"accuracy": end, "loss": 0.9} for s in ("validation", "test")},
        curve=curve,
        early_stop=int(60 + 200 * (1 - weights) + rng.gauss(0, 12)),
        iterations=200,
        seconds=2 + rng.random(),
        layers={
            "convs.0.lin.weight": (kept - last, GRAPH_WEIGHTS - 448),
            "convs.1.lin.weight": (last, 448),
        }
        if weights < 1
        else {},
        edges=None if edges == 1 else (round(GRAPH_EDGES * edges), GRAPH_EDGES),
    )


def graph_results(
    seeds: int = 5,
    levels: int = 12,
    controls: Sequence[str] = GRAPH_CONTROLS,
    rates: tuple[float, float] = (0.2, 0.05),
    nodes: int = 60,
) -> Results:
    """Return a recipe's results on two axes, and what its masks keep of a small graph."""
    runs = [graph_run(DENSE, 0, seed, rates) for seed in range(seeds)]
    for arm in (TICKET, *controls):
        for level in range(1, levels + 1):
            runs += [graph_run(arm, level, seed, rates) for seed in range(seeds)]
    sparsities = [round(1 - (1 - rate) ** levels, 4) for rate in rates]
    recipe = {
        "model": "gcn-64",
        "task": "planetoid/cora",
        "finder": {"name": "graph-imp", "rate": rates[0], "edge_rate": rates[1], "levels": None},
        "training": {"iterations": 200, "batch_size": 140, "optimizer": "adam"},
        "sparsity": sparsities[0],
        "graph_sparsity": sparsities[1],
        "seeds": list(range(seeds)),
        "controls": list(controls),
        "compare": "paired",
        "name": f"gcn-cora {sparsities[0]:.2f} {sparsities[1]:.2f}",
        "paper": "Chen et al. 2021, A Unified Lottery Ticket Hypothesis for Graph Neural Networks",
        "expected": "dense 81.6 +- 1",
    }
    cost = {"search_dense_runs": levels + 1.0, "seconds_total": sum(r.seconds for r in runs)}
    kept = [a for a in (TICKET, "random-edges", "random-graph") if a in (TICKET, *controls)]
    drawn = small_graph(nodes, [*kept], range(1, levels + 1), rates[1])
    return Results(recipe, "accuracy", True, 1.5, runs, cost, drawn)


def small_graph(
    nodes: int, arms: Sequence[str], levels: Sequence[int], rate: float
) -> dict[str, object]:
    """Return the portrait of masks on a graph of three classes, hubs and strangers among them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, nodes)
    pull = rng.pareto(2.0, nodes) + 0.3
    alike = np.where(labels[:, None] == labels[None], 1.0, 0.12)
    chance = np.triu(np.outer(pull, pull) * alike, 1)
    chance = np.minimum(1.0, chance * (2.6 * nodes / chance.sum()))
    pairs = np.stack(np.nonzero(rng.random((nodes, nodes)) < chance))
    order = {
        arm: (-pull[pairs[0]] * pull[pairs[1]] if arm == TICKET else rng.random(pairs.shape[1]))
        for arm in arms
    }
    found = []
    for arm in arms:
        places = np.argsort(np.argsort(-order[arm]))
        for level in levels:
            mask = places < round((1 - rate) ** level * pairs.shape[1])
            found.append(Kept(arm, level, 0, "graph/edges", mask))
    return portrait(pairs, nodes, found, labels)
