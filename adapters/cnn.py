"""Convolutional networks (and LeNet-300-100) for images, by name."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.errors import BadInput, unknown
from lth_zoo.permutations import Permutable, permutable
from lth_zoo.protocols import Adapter, Signature
from lth_zoo.prunable import Units, channels_under

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

_MODELS = (
    *("lenet-300-100", "lenet-5", "lenet-5-same", "judge"),
    *(f"conv-{depth}" for depth in (2, 4, 6, 8)),
    *(f"vgg-{depth}" for depth in (11, 13, 16, 19)),
    *(f"resnet-{depth}" for depth in (8, 14, 20, 26, 32, 44, 56, 110)),
)
#: One spelling a width: no leading or trailing zero, so that one model has one name.
_BASE = "|".join(sorted(_MODELS, reverse=True))  # lenet-5-same before lenet-5
_NAME = re.compile(rf"({_BASE})(?:x([1-9]\d*|(?:0|[1-9]\d*)\.\d*[1-9]))?")


class CNN(Adapter):
    """LeNet, Conv-N, VGG and ResNet for small images, as in the lottery-ticket papers.

    ``judge`` is the classifier that generated images are measured with.
    A suffix multiplies every hidden width: ``resnet-20x4``, ``conv-4x0.5``. The input is
    (channels, height, width); LeNet-300-100 flattens any shape.
    """

    models: Sequence[str] = _MODELS
    graphs: ClassVar[bool] = False
    widths: ClassVar[bool] = True

    def owns(self, name: str) -> bool:
        """Say whether the name is one of ``models``, with or without a width."""
        return _NAME.fullmatch(name) is not None

    def build(self, name: str, signature: Signature) -> nn.Module:
        """Return the network with its published initialisation.

        Raises:
            BadInput: no such network, or the input is too small for it.
        """
        from lth_zoo.adapters import networks

        base, width = parse(name)
        shape, classes = signature.input, signature.output
        family, _, depth = base.partition("-")
        if base == "lenet-300-100":
            return networks.LeNet300(math.prod(shape), classes, width)
        check_image(name, shape, smallest(base))
        plain = {
            "lenet-5": networks.LeNet5,
            "lenet-5-same": networks.LeNet5Same,
            "judge": networks.Judge,
        }
        if base in plain:
            return plain[base](shape, classes, width)
        kinds = {"conv": networks.ConvNet, "vgg": networks.VGG, "resnet": networks.ResNet}
        return kinds[family](int(depth), shape, classes, width)

    def units(self, model: nn.Module) -> list[Units]:
        """Return the channels of VGG and ResNet that one layer reads; others have no batch norm."""
        from lth_zoo.adapters import networks

        if not isinstance(model, networks.VGG | networks.ResNet):
            return []
        prunable = self.prunable(model)
        return [channels_under(model, prunable, *modules) for modules in model.channels()]

    def permutations(self, model: nn.Module) -> list[Permutable]:
        """Return every hidden layer's units, and of ResNet each stage's: shortcuts add them."""
        return [permutable(model, *wires) for wires in model.wires()]  # type: ignore[operator]

    def blocks(self, model: nn.Module) -> Sequence[Sequence[tuple[str, ...]]]:
        """Return VGG's layers between poolings, with their norms, and ResNet's residual blocks."""
        from lth_zoo.adapters import networks

        return model.stages() if isinstance(model, networks.VGG | networks.ResNet) else ()


def parse(name: str) -> tuple[str, float]:
    """Split a model name into its base and its width multiplier.

    >>> parse("resnet-20x4")
    ('resnet-20', 4.0)

    Raises:
        BadInput: no such network.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise unknown("model", name, _MODELS)
    return match[1], float(match[2] or 1)


def smallest(base: str) -> int:
    """Return the least height and width that survives a network's pooling.

    >>> smallest("conv-4"), smallest("vgg-16"), smallest("judge")
    (4, 16, 4)
    """
    family, _, depth = base.partition("-")
    if family == "conv":
        return 2 ** (int(depth) // 2)
    return 4 if family in ("resnet", "judge") or base == "lenet-5-same" else 16


def check_image(name: str, shape: tuple[int, ...], least: int) -> None:
    """Refuse an input that is no image, or too small a one, for the network.

    Raises:
        BadInput: naming the shape and the smallest that works.
    """
    if len(shape) != 3:
        raise BadInput(f"{name} takes images (channels, height, width), not inputs of {shape}")
    if min(shape[1:]) < least:
        size = "x".join(map(str, shape[1:]))
        raise BadInput(f"{name} needs images of at least {least}x{least}, the task's are {size}")
