"""Tasks over scikit-learn's digits with the same images: what tickets are brought between."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

from lth_zoo import registry
from lth_zoo.cli import main
from lth_zoo.protocols import Split
from lth_zoo.session import cached_task
from lth_zoo.tasks.embedded import Digits
from lth_zoo.tasks.images import Images


class Parity(Digits):
    """Is the digit odd?"""

    classes = 2

    def read(self) -> Mapping[Split, Images]:
        return {
            name: replace(part, labels=part.labels % 2) for name, part in super().read().items()
        }


class Large(Digits):
    """Is the digit five or more?"""

    classes = 2

    def read(self) -> Mapping[Split, Images]:
        return {
            name: replace(part, labels=(part.labels > 4).long())
            for name, part in super().read().items()
        }


class Errors(Parity):
    """The same question, asked for the share of wrong answers."""

    higher_is_better: ClassVar[bool] = False
    headline: ClassVar[str] = "error"

    def evaluate(self, model, split):
        found = super().evaluate(model, split)
        return {"error": 100 - found.pop("accuracy"), **found}


@contextmanager
def registered() -> Iterator[None]:
    """Know the tasks by name, for a while."""
    tasks = {"parity": Parity, "large": Large, "errors": Errors}
    for name, task in tasks.items():
        registry.register("tasks", name, task)
    try:
        yield
    finally:
        for name in tasks:
            registry.unregister("tasks", name)
        cached_task.cache_clear()


if __name__ == "__main__":  # the command line, with these tasks
    with registered():
        sys.exit(main(sys.argv[1:]))
