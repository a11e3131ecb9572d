"""What a recipe prunes of a model, and how much of each tensor a level keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .allocate import Pool, allocate, exact
from .errors import BadInput, unknown
from .protocols import Adapter, Prunable
from .prunable import within

if TYPE_CHECKING:
    from torch import nn


def covered_of(
    config: Mapping[str, Any], adapter: Adapter, model: nn.Module
) -> dict[str, Prunable]:
    """Return what a recipe prunes of a model: see :func:`covered_by`."""
    return covered_by(config, adapter.prunable(model), adapter.optional(model))


def covered_by(
    config: Mapping[str, Any],
    prunable: Mapping[str, Prunable],
    optional: Mapping[str, Prunable] | None = None,
) -> dict[str, Prunable]:
    """Return what a recipe prunes: the family's set less first, last and excluded layers.

    ``only`` limits it to parts of the model.

    ``optional`` holds what the recipe's ``include`` may add.

    Raises:
        BadInput: an excluded or included layer or a part does not exist, or nothing is left.
    """
    more = {p.layer: n for n, p in (optional or {}).items()}
    for layer in config.get("include", ()):
        if layer not in more:
            raise unknown("optional layer", layer, more)
    layers = {p.layer for p in prunable.values()}
    for layer in config["exclude"]:
        if layer not in layers:
            raise unknown("layer", layer, layers)
    names = [n for n, p in prunable.items() if p.layer not in config["exclude"]]
    if only := config.get("only"):
        _check_parts(only, layers)
        names = [n for n in names if any(within(prunable[n].layer, part) for part in only)]
    order = list(prunable)
    skip = set()
    if not config["prune_first"]:
        skip.add(order[0])
    if not config["prune_last"]:
        skip.add(order[-1])
    covered = {n: prunable[n] for n in names if n not in skip}
    covered |= {more[p]: (optional or {})[more[p]] for p in config.get("include", ())}
    if not covered:
        raise BadInput("nothing is left to prune: every prunable layer is excluded")
    return covered


def _check_parts(parts: Iterable[str], layers: Iterable[str]) -> None:
    steps = [layer.split(".") for layer in layers]
    known = {".".join(names[:end]) for names in steps for end in range(1, len(names) + 1)}
    for part in parts:
        if part not in known:
            shown = sorted(known, key=lambda name: (name.count("."), name))
            raise unknown("part of the model", part, shown)


def pools_of(
    config: Mapping[str, Any],
    model: nn.Module,
    covered: Mapping[str, Prunable],
    caps: Mapping[str, int] | None = None,
) -> list[Pool]:
    """Return how many weights of which tensors a prune job keeps.

    Raises:
        BadInput: the amounts are out of reach.
    """
    return allocate(
        {n: tuple(model.get_parameter(n).shape) for n in covered},
        exact(config["density"]),
        config["scope"],
        _by_layer(config["overrides"], covered),
        None if config["total"] is None else exact(config["total"]),
        {name: p.role for name, p in covered.items()},
        caps,
        {name: p.axis for name, p in covered.items()},
    )


def _by_layer(overrides: Mapping[str, str], covered: Mapping[str, Prunable]) -> dict[str, Fraction]:
    layers = {p.layer: name for name, p in covered.items()}
    for layer in overrides:
        if layer not in layers:
            raise unknown("layer", layer, layers)
    return {layers[layer]: exact(density) for layer, density in overrides.items()}
