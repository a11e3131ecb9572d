"""Methods that yield tickets, one file each.

The classes are loaded on first use: ``lth_zoo.finders.IMP``.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    from .. import registry

    for row in registry.names("finders"):
        found = registry.find("finders", row)
        if found.__name__ == name:
            return found
    raise AttributeError(f"no finder class {name!r}")
