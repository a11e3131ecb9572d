"""Models of one architecture by their width: how many parameters, and which width has so many."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import registry
from .errors import BadInput
from .prunable import within
from .seeds import seeded

if TYPE_CHECKING:
    from torch import nn

    from .protocols import Adapter, Signature


def parameters_of(model: nn.Module, parts: Sequence[str] = ()) -> int:
    """Count a model's parameters, a shared tensor once; those of ``parts`` alone where given."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not parts or any(within(name, part) for part in parts)
    )


def widest(
    adapter: Adapter, name: str, signature: Signature, parameters: int, parts: Sequence[str] = ()
) -> str:
    """Return the name of the widest model that has at most so many parameters.

    Widths are hundredths, up to that of ``name``; of ``parts`` alone the parameters count, where
    any are given.

    Raises:
        BadInput: names of the family have no widths, or even the narrowest has more.
    """
    if not adapter.widths:
        able = [n for n in registry.names("adapters") if registry.find("adapters", n).widths]
        raise BadInput(
            f"model {name!r} comes in one width, so none of another size can be made; models of "
            f"{' and '.join(able)} can"
        )
    whole, width = re.fullmatch(r"(.*?)(?:x([\d.]+))?", name).groups()  # type: ignore[union-attr]

    def named(hundredths: int) -> str:
        return whole if hundredths == 100 else f"{whole}x{hundredths / 100:g}"

    def count(hundredths: int) -> int:
        # Not on the meta device: spectral norm takes seconds there, and milliseconds here.
        with seeded(0, "init"):
            return parameters_of(adapter.build(named(hundredths), signature), parts)

    # Parameters grow with the width, so half of the widths are ruled out at a time.
    fitting = bisect_right(range(1, round(100 * float(width or 1)) + 1), parameters, key=count)
    if not fitting:
        raise BadInput(
            f"no network of this architecture is so small: {named(1)!r} has {count(1):,} "
            f"parameters, and {parameters:,} were asked for"
        )
    return named(fitting)
