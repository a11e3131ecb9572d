"""Amounts as finders' options write them, and how scores are trained."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

from ..errors import BadInput
from ..protocols import Finder
from ..recipe import Training


def iterations_in(text: str, whole: int, option: str) -> int:
    """Return the iterations that an option asks for, at least 1.

    ``text`` is a whole number of iterations, or a share of a ``whole`` training: 5%, 1/6.

    >>> iterations_in("20", 600, "main"), iterations_in("5%", 600, "main")
    (20, 30)
    >>> iterations_in("1/6", 600, "main")
    100

    Raises:
        BadInput: neither, or not above 0 and at most the whole.
    """
    try:
        share = "%" in text or "/" in text
        value = Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        share, value = False, Fraction(0)
    amount = value * whole if share else value
    if not 0 < amount <= whole or not (share or value.denominator == 1):
        raise BadInput(
            f"finder.{option} is {text!r}; it must be iterations (50) or a share of the training "
            f"(5%, 1/6), above 0 and at most {whole} iterations"
        )
    return max(1, floor(amount + Fraction(1, 2)))


def at_least(finder: Finder, least: int, *names: str) -> None:
    """Assert that fields of a finder are not below a whole number.

    Raises:
        BadInput: one is.
    """
    for name in names:
        if (value := getattr(finder, name)) < least:
            raise BadInput(f"finder.{name} is {value}; it must be at least {least}")


def with_adam(recipe: Training, iterations: int, learning_rate: float, **more: Any) -> Training:
    """Return how scores are trained: Adam, with the batches, looks and arithmetic of a recipe."""
    return Training(
        iterations=iterations,
        batch_size=recipe.batch_size,
        learning_rate=learning_rate,
        evaluate_every=recipe.evaluate_every,
        accumulation=recipe.accumulation,
        precision=recipe.precision,
        threads=recipe.threads,
        deterministic=recipe.deterministic,
        **more,
    )
