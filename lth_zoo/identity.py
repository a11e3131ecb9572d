"""What makes a model of the user's own the same model: its code, its settings."""

from __future__ import annotations

import inspect
from typing import Any


def source_of(model: Any) -> str:
    """Return the code of every class in a model but torch's own; empty where one has none."""
    kinds = {
        kind
        for module in model.modules()
        for kind in type(module).__mro__[:-1]
        if not kind.__module__.startswith("torch.")
    }
    try:
        own = [inspect.getsource(k) for k in sorted(kinds, key=lambda k: k.__qualname__)]
    except (OSError, TypeError):
        return ""
    return "".join(own) or type(model).__qualname__


def settings_of(model: Any) -> list[Any]:
    """Return each module's place, class and plain attributes: what its state does not hold."""
    plain = (bool, int, float, str, tuple, list, dict)
    return [
        (
            place,
            type(m).__qualname__,
            {k: repr(v) for k, v in vars(m).items() if k[0] != "_" and isinstance(v, plain)},
        )
        for place, m in model.named_modules()
    ]
