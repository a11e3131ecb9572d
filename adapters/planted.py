"""ReLU networks with a known sparse solution of their task hidden inside, by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.errors import BadInput, unknown
from lth_zoo.protocols import Adapter, Signature

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from lth_zoo.masks import Masks

#: base -> (what its task feeds it and wants back, least width, least depth)
PLANTS: dict[str, tuple[Signature, int, int]] = {
    "planted-circle": (Signature((2,), 4), 20, 3),
    "planted-helix": (Signature((1,), 3, "value"), 30, 3),
    "planted-relu": (Signature((1,), 1, "value"), 1, 2),
}
#: Width of every hidden layer x number of linear layers, where a name says none.
SIZE = (100, 5)
#: One spelling a size: no leading zero.
_NAME = re.compile(rf"({'|'.join(PLANTS)})(?:-([1-9]\d*)x([1-9]\d*))?")
#: What a linear layer's buffer is called that says where the plant is.
BUFFER = "planted"


class PlantedNetworks(Adapter):
    """Networks that hide a ticket: ``planted-circle``, ``planted-helix``, ``planted-relu``.

    A suffix gives the width of every hidden layer and the number of linear layers:
    ``planted-helix-50x4``. Each fits the task of its name (Fischer & Burkholz, ICLR 2022).
    """

    models: Sequence[str] = tuple(PLANTS)
    graphs: ClassVar[bool] = False
    shown_on: ClassVar[str] = "planted/circle"

    def owns(self, name: str) -> bool:
        """Say whether the name is one of ``models``, with or without a size."""
        return _NAME.fullmatch(name) is not None

    def build(self, name: str, signature: Signature) -> nn.Module:
        """Return a network drawn by He's rule, its ticket planted.

        Raises:
            BadInput: no such network, another task's shapes, or a size that cannot hold the plant.
        """
        from lth_zoo.adapters.planting import PlantedNetwork

        base, width, depth = parse(name)
        expected = PLANTS[base][0]
        if signature != expected:
            task = base.replace("-", "/")
            raise BadInput(
                f"{name} hides a solution of task {task!r}, {expected.input} to {expected.output}, "
                f"not of {signature.input} to {signature.output}: give --task {task}"
            )
        return PlantedNetwork(base, width, depth)

    def planted(self, state: Mapping[str, Tensor]) -> Masks:
        """Return where the ticket is hidden: the masks of the planted weights."""
        from lth_zoo.masks import Masks

        places = {n: t for n, t in state.items() if n.endswith(f".{BUFFER}")}
        return Masks({f"{n.removesuffix(BUFFER)}weight": t.bool() for n, t in places.items()})


def parse(name: str) -> tuple[str, int, int]:
    """Split a model name into its base, the width and the number of linear layers.

    >>> parse("planted-helix-50x4"), parse("planted-relu")
    (('planted-helix', 50, 4), ('planted-relu', 100, 5))

    Raises:
        BadInput: no such network, or one that is too small for its plant.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise unknown("model", name, PLANTS)
    base, width, depth = match[1], int(match[2] or SIZE[0]), int(match[3] or SIZE[1])
    _, least_width, least_depth = PLANTS[base]
    if width < least_width or depth < least_depth:
        raise BadInput(
            f"{name} is {width} wide and {depth} deep, too small for its plant: {base} needs a "
            f"width of at least {least_width} and a depth of at least {least_depth}, as in "
            f"{base}-{max(width, least_width)}x{max(depth, least_depth)}"
        )
    return base, width, depth
