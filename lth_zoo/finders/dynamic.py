"""What the finders share that change masks while one network trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from ..chain import Chain
from ..errors import BadInput
from ..jobs import Level
from ..recipe import Training
from .amounts import iterations_in

#: Scopes that give every layer a density, so that no scores are needed to share weights out.
LayerScope = Literal["erk", "uniform", "layer", "balanced", "smart-ratio"]


def search_training(finder: Any, chain: Chain) -> Training:
    """Return the recipe's training at the length that the finder asks for."""
    training = chain.recipe.training
    return replace(training, iterations=finder.iterations or training.iterations)


def levels(
    finder: Any, chain: Chain, rule: str, training: Training, **config: Any
) -> Iterator[Level]:
    """Yield the dense level and, if anything is to be pruned, that of the changing mask.

    Its training starts from the initial state, wherever the survivors are rewound to.

    Raises:
        BadInput: the best look of a training is asked for, and the ticket has none of its own.
    """
    yield chain.dense(finder.rewind)
    if chain.density == 1:
        return
    masks = chain.search(
        "dynamic",
        {"start": chain.initial()},
        training=training.plain(),
        begin=0,
        end=training.iterations,
        rule=rule,
        density=str(chain.density),
        scope=finder.scope,
        overrides={},
        total=None,
        **config,
    )
    level = chain.retrain(finder.rewind, masks, masks, 1)
    assert level.train is not None
    if training.result == "best" and level.train.config["begin"] == level.train.config["end"]:
        raise BadInput(
            "training.result is 'best', and this ticket is the last state of the training in which "
            "its mask changed: leave it at last, or let the ticket train afterwards, such as with "
            "finder.rewind init"
        )
    yield level


def update_every(text: str | None, whole: int, parts: int, least: int = 1) -> int:
    """Return the iterations between two updates: as asked, or by default the papers' 100.

    In trainings of less than 100 times ``parts`` the default is one of so many parts of them.

    >>> [update_every(None, whole, parts=20, least=2) for whole in (32000, 1000, 12)]
    [100, 50, 2]

    Raises:
        BadInput: see :func:`lth_zoo.finders.amounts.iterations_in`.
    """
    if text is None:
        return min(100, max(least, whole // parts))
    return iterations_in(text, whole, "every")


def check_iterations(finder: Any) -> None:
    """Assert that a search has a length.

    Raises:
        BadInput: it has none.
    """
    if finder.iterations is not None and finder.iterations < 1:
        raise BadInput(f"finder.iterations is {finder.iterations}; it must be at least 1")


def check_within(finder: Any, name: str, low: float, high: float) -> None:
    """Assert that an option is above ``low`` and at most ``high``.

    Raises:
        BadInput: it is not.
    """
    value = getattr(finder, name)
    if not low < value <= high:
        raise BadInput(f"finder.{name} is {value}; it must be above {low:g} and at most {high:g}")
