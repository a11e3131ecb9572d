"""What the finders on frozen weights share: how scores are trained, how a ticket is laid out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from ..recipe import Training

#: Batches that running statistics are from, of the ticket and of each control alike.
SETTLE = 50


def scores_training(chain: Chain, iterations: int | None, **optimiser: Any) -> Training:
    """Return how scores are trained: batches and arithmetic of the recipe, its own optimiser."""
    recipe = chain.recipe.training
    return Training(
        iterations=iterations or recipe.iterations,
        batch_size=recipe.batch_size,
        evaluate_every=recipe.evaluate_every,
        accumulation=recipe.accumulation,
        precision=recipe.precision,
        threads=recipe.threads,
        deterministic=recipe.deterministic,
        **optimiser,
    )


def searched(chain: Chain, start: Job, training: Training, **config: Any) -> Job:
    """Return the job of kind ``supermask`` that learns which weights of a start stay."""
    plain = {"scope": "layer", "finish": "", "settle": SETTLE, "cool_down": 0.0}
    amount = {"density": str(chain.density), "first": str(chain.density)}
    config = plain | amount | {"overrides": {}, "total": None} | config
    return chain.search(
        "supermask",
        {"start": start},
        training=training.plain(),
        begin=0,
        end=training.iterations,
        **config,
    )


def untrained(chain: Chain, training: Training, **config: Any) -> Iterator[Level]:
    """Yield the dense level and the one of the ticket as it is found, measured without training."""
    dense = chain.dense("init")
    yield dense
    if chain.density == 1:
        return
    found = searched(chain, dense.start, training, **config)
    yield Level(1, found, found, chain.train(found, found, end=0, settle=SETTLE, settle_by="loss"))


def check_positive(finder: Any, *names: str) -> None:
    """Assert that fields are numbers above 0; iterations may be left out.

    Raises:
        BadInput: one is not.
    """
    if finder.iterations is not None and finder.iterations < 1:
        raise BadInput(f"finder.iterations is {finder.iterations}; it must be at least 1")
    for name in names:
        if not 0 < getattr(finder, name) < float("inf"):
            raise BadInput(f"finder.{name} is {getattr(finder, name)}; it must be above 0")


def check_least(finder: Any, *names: str) -> None:
    """Assert that fields are numbers of at least 0.

    Raises:
        BadInput: one is not.
    """
    for name in names:
        if not 0 <= getattr(finder, name) < float("inf"):
            raise BadInput(f"finder.{name} is {getattr(finder, name)}; it must be at least 0")
