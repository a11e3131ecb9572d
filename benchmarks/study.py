"""A study on the local engine with 2 worker processes against 1: wall time.

2 seeds x 4 levels x 4 arms (ticket and three controls) of LeNet-300-100 on scikit-learn's
digits, 34 trainings in all, from an empty store, start of the processes included. It needs
two free cores: on a busy machine it says more about the neighbours.
"""

from __future__ import annotations

import os
import tempfile
import time

from measure import Row, speedup

from lth_zoo.api import run_recipes
from lth_zoo.finders.imp import IMP
from lth_zoo.recipe import Recipe, Training
from lth_zoo.session import Execution
from lth_zoo.store import Store

ITERATIONS = 2500


def wall(workers: int) -> float:
    """Return the wall seconds of the study."""
    recipe = Recipe(
        finder=IMP(levels=4),
        training=Training(iterations=ITERATIONS),
        sparsity=0.99,
        seeds=(0, 1),
        controls=("reinit", "shuffle", "random-global"),
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        (finished,) = run_recipes([recipe], Store(folder), Execution(), workers)
        seconds = time.perf_counter() - began
    if finished.outcome.failed:
        raise RuntimeError(str(finished.outcome.failed))
    return seconds


def bench() -> list[Row]:
    """Measure both, one after the other."""
    before = os.getloadavg()[0]
    one, two = wall(1), wall(2)
    note = f"load before it started: {before:.1f}"
    return [speedup("2 workers, against 1", two, one, "s", 1.7, note)]
