"""Every module imports by its installed name, and the examples in its docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import lth_zoo
import lth_zoo.adapters
import lth_zoo.tasks


def modules() -> Iterator[str]:
    # An editable install maps adapters and tasks in: walking lth_zoo alone misses them.
    for package in (lth_zoo, lth_zoo.adapters, lth_zoo.tasks):
        yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield found.name


@pytest.mark.parametrize("name", sorted(set(modules())))
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0
