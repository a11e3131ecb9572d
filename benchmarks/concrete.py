"""Concrete ticket search against IMP with rewinding: resnet-20, CIFAR-10 subset, 98 % removed.

End to end, from an empty store to the trained ticket of each seed: the training to the rewind
point (6 %), the search and the rest of the training for `cts`; for `imp` every level, at 20 % a
level. The dense run is in neither unless the method needs it. Seconds are those of one process on
one thread (wall time on a GPU), a seed at a time; the interval is that of the seeds' differences.
The default is small, a narrow network and short trainings, and says what the search costs, not
what its tickets are worth; for that: `python benchmarks/concrete.py --model resnet-20
--iterations 3000 --seeds 3 --device cuda`. resnet-20 itself at 200 iterations is on the card of cts
(`docs/methods/cts.md`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass

import torch
from measure import Row, cpu_seconds, speedup

from lth_zoo.engines.local import run
from lth_zoo.errors import DataError
from lth_zoo.experiment import experiment
from lth_zoo.finders.cts import CTS
from lth_zoo.finders.imp import IMP
from lth_zoo.protocols import Finder, task_of
from lth_zoo.recipe import Recipe, Training
from lth_zoo.session import RESULT, Execution
from lth_zoo.store import Store
from lth_zoo.trials.compare import compare

TASK = "cifar10-subset"
ARMS: dict[str, Finder] = {"cts": CTS(), "imp": IMP(rewind="6%")}


@dataclass(frozen=True)
class Budget:
    """How much is run."""

    model: str = "resnet-20x0.25"
    iterations: int = 30
    batch: int = 64
    seeds: int = 2
    sparsity: float = 0.98
    device: str = "cpu"

    def recipe(self, finder: Finder, seed: int) -> Recipe:
        """Return a search as a recipe, by the rates of He et al. 2016 for CIFAR-10."""
        training = Training(
            iterations=self.iterations,
            batch_size=self.batch,
            optimizer="sgd",
            learning_rate=0.1,
            momentum=0.9,
            weight_decay=1e-4,
            schedule="step",
            milestones=(self.iterations // 2, self.iterations * 3 // 4),
            evaluate_every=self.iterations,
        )
        return Recipe(
            *(self.model, TASK, finder, training),
            sparsity=self.sparsity,
            seeds=(seed,),
            controls=(),
        )


def ticket(budget: Budget, arm: str, seed: int) -> tuple[float, float, float]:
    """Find one ticket in an empty store; return seconds, test accuracy and iterations."""
    laid = experiment(budget.recipe(ARMS[arm], seed))
    goals = [one.goal for one in laid.tickets()]
    with tempfile.TemporaryDirectory() as folder:
        store, how = Store(folder), Execution(device=budget.device, checkpoint_seconds=1e9)

        def search() -> None:
            if failed := run(goals, store, how).failed:
                raise RuntimeError(str(failed))

        began = time.perf_counter()
        seconds = cpu_seconds(search)
        if budget.device != "cpu":
            seconds = time.perf_counter() - began
        done = list(store.entries())
        iterations = sum(e.json(RESULT)["iterations"] for e in done if RESULT in e and trains(e))
        accuracy = store.entry(goals[0]).json(RESULT)["metrics"]["test"]["accuracy"]
    return seconds, accuracy, iterations


def trains(entry: object) -> bool:
    """Say whether a result is that of a training."""
    return "end" in entry.manifest["config"]  # type: ignore[attr-defined]


def bench(budget: Budget | None = None) -> list[Row]:
    """Measure both arms, a seed at a time."""
    budget = budget or Budget()
    try:
        task_of(TASK).fingerprint()
    except DataError as error:
        return [Row("resnet-20 on the CIFAR-10 subset", note=f"skipped: {error}")]
    found = {arm: {seed: ticket(budget, arm, seed) for seed in range(budget.seeds)} for arm in ARMS}
    sums = {arm: [sum(x) for x in zip(*runs.values(), strict=True)] for arm, runs in found.items()}
    accuracy = {arm: {s: run[1] for s, run in runs.items()} for arm, runs in found.items()}
    gap = compare(accuracy["cts"], accuracy["imp"])
    interval = "no interval of one seed"
    if gap.interval is not None:
        interval = f"95 % interval {gap.interval[0]:+.1f} to {gap.interval[1]:+.1f}"
    size = f"{budget.model}, {100 * budget.sparsity:g} % removed, {budget.iterations} iterations"
    mean = {arm: sums[arm][1] / budget.seeds for arm in ARMS}
    says = f"difference {mean['cts'] - mean['imp']:+.1f}, {interval}, {budget.seeds} seeds"
    return [
        speedup(f"cts against imp, {size}: time", sums["cts"][0], sums["imp"][0], "s"),
        speedup(f"cts against imp, {size}: iterations", sums["cts"][2], sums["imp"][2], ""),
        Row(f"cts and imp, {size}: test accuracy", mean["cts"], mean["imp"], "%", note=says),
    ]


def main() -> None:
    """Measure another budget and print the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in vars(Budget()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    torch.set_num_threads(1)
    for row in bench(Budget(**vars(parser.parse_args()))):
        print(row)


if __name__ == "__main__":
    main()
