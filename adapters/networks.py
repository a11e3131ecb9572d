"""The networks of the lottery-ticket papers, as plain modules.

Sizes follow Frankle & Carbin (2019, figure 2) and, for VGG and ResNet, their code base
OpenLTH. Every draw comes from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

#: Width of every 3x3 convolution, "M" is 2x2 max pooling (Simonyan & Zisserman 2015, table 1).
#: The fifth pooling is left out, as in OpenLTH: a 32x32 image has shrunk to 2x2 by then.
VGG_PLANS: dict[int, str] = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512",
}


#: Modules that make units, layers that read them, and what returns them if no reader is given them.
Wires = tuple[tuple[str, ...], tuple[str, ...], str]


def scaled(channels: int, width: float) -> int:
    """Return a layer's width times the multiplier, rounded, at least 1."""
    return max(1, math.floor(channels * width + 0.5))


class LeNet300(nn.Module):
    """LeNet-300-100 (LeCun et al. 1998): three linear layers over the flattened input.

    266,610 parameters for 28x28 and 10 classes. Glorot normal, biases 0 (Frankle & Carbin).
    """

    def __init__(self, inputs: int, classes: int, width: float = 1) -> None:
        super().__init__()
        wide, narrow = scaled(300, width), scaled(100, width)
        self.fc1 = nn.Linear(inputs, wide)
        self.fc2 = nn.Linear(wide, narrow)
        self.fc3 = nn.Linear(narrow, classes)
        glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) to (batch, classes)."""
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))

    def wires(self) -> Iterator[Wires]:
        """Yield what makes each hidden layer's units, and what reads them."""
        yield from chained(("fc1",), ("fc2",), ("fc3",))


class LeNet5(nn.Module):
    """LeNet-5 as the pruning literature has it (Caffe's 20-50-500, Han et al. 2015).

    431,080 parameters for 1x28x28 and 10 classes. Glorot normal, biases 0.
    """

    def __init__(self, shape: Sequence[int], classes: int, width: float = 1) -> None:
        super().__init__()
        channels, *sides = shape
        first, second, hidden = (scaled(c, width) for c in (20, 50, 500))
        self.conv1 = nn.Conv2d(channels, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        left = [((side - 4) // 2 - 4) // 2 for side in sides]
        self.fc1 = nn.Linear(second * math.prod(left), hidden)
        self.fc2 = nn.Linear(hidden, classes)
        glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))

    def wires(self) -> Iterator[Wires]:
        """Yield what makes each hidden layer's units, and what reads them."""
        yield from chained(("conv1",), ("conv2",), ("fc1",), ("fc2",))


class LeNet5Same(nn.Module):
    """LeNet-5 with the sizes of 1998 and padded convolutions (da Cunha et al. 2022, section 5).

    2,572 parameters in the two convolutions, 107,786 in all for 1x28x28 and 10 classes. He's
    uniform initialisation, biases 0.
    """

    def __init__(self, shape: Sequence[int], classes: int, width: float = 1) -> None:
        super().__init__()
        channels, *sides = shape
        first, second, wide, narrow = (scaled(c, width) for c in (6, 16, 120, 84))
        self.conv1 = nn.Conv2d(channels, first, 5, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5, padding=2)
        self.fc1 = nn.Linear(second * math.prod(side // 4 for side in sides), wide)
        self.fc2 = nn.Linear(wide, narrow)
        self.fc3 = nn.Linear(narrow, classes)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_uniform_(parameter, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))

    def wires(self) -> Iterator[Wires]:
        """Yield what makes each hidden layer's units, and what reads them."""
        yield from chained(("conv1",), ("conv2",), ("fc1",), ("fc2",), ("fc3",))


class ConvNet(nn.Module):
    """Conv-2, -4, -6 (Frankle & Carbin 2019) and -8 (Ramanujan et al. 2020).

    Pairs of 3x3 convolutions of 64, 128, 256, 512 channels, each pair pooled, then
    linear layers of 256, 256 and the classes. Glorot normal, biases 0.
    """

    def __init__(self, depth: int, shape: Sequence[int], classes: int, width: float = 1) -> None:
        super().__init__()
        channels, *sides = shape
        convs = []
        for i in range(depth):
            wide = scaled(64 * 2 ** (i // 2), width)
            convs.append(nn.Conv2d(channels, wide, 3, padding=1))
            channels = wide
        self.convs = nn.ModuleList(convs)
        hidden = scaled(256, width)
        self.fc1 = nn.Linear(channels * math.prod(s // 2 ** (depth // 2) for s in sides), hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)
        glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        for i, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            x = F.max_pool2d(x, 2) if i % 2 else x
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))

    def wires(self) -> Iterator[Wires]:
        """Yield what makes each hidden layer's units, and what reads them."""
        convs = [(f"convs.{i}",) for i in range(len(self.convs))]
        yield from chained(*convs, ("fc1",), ("fc2",), ("fc3",))


class VGG(nn.Module):
    """VGG for small images: batch norm, average pooling, one linear layer (OpenLTH).

    The convolutions have no bias, which batch norm would cancel. He normal, batch norm
    weights uniform in [0, 1), as OpenLTH.
    """

    def __init__(self, depth: int, shape: Sequence[int], classes: int, width: float = 1) -> None:
        super().__init__()
        channels = shape[0]
        layers: list[nn.Module] = []
        for step in VGG_PLANS[depth].split():
            if step == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            wide = scaled(int(step), width)
            layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
            channels = wide
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        return self.fc(self.features(x).mean((2, 3)))

    def channels(self) -> Iterator[tuple[str, str, str]]:
        """Yield the layer that makes channels, their norm, and the one layer that reads them."""
        convs = [i for i, layer in enumerate(self.features) if isinstance(layer, nn.Conv2d)]
        readers = [*(f"features.{i}" for i in convs[1:]), "fc"]
        for i, reader in zip(convs, readers, strict=True):
            yield f"features.{i}", f"features.{i + 1}", reader

    def wires(self) -> Iterator[Wires]:
        """Yield what makes each hidden layer's units, and what reads them."""
        for conv, norm, reader in self.channels():
            yield (conv, norm), (reader,), ""

    def stages(self) -> list[list[tuple[str, ...]]]:
        """Return the layers between poolings, each a convolution and its norm."""
        found: list[list[tuple[str, ...]]] = [[]]
        for i, layer in enumerate(self.features):
            if isinstance(layer, nn.MaxPool2d):
                found.append([])
            elif isinstance(layer, nn.Conv2d):
                found[-1].append((f"features.{i}", f"features.{i + 1}"))
        return found


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut, projected by a 1x1 where the shape changes."""

    def __init__(self, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != wide:
            conv = nn.Conv2d(channels, wide, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, wide, height/stride, width/stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet for small images (He et al. 2016, 4.2): three stages of 16, 32, 64 channels.

    Shortcuts are 1x1 projections, as in OpenLTH and as the 270 K convolution weights that
    Frankle & Carbin print for ResNet-20 (their "Resnet-18") need; He's parameter-free
    shortcuts have 2,752 parameters fewer. He normal, batch norm weights uniform in [0, 1),
    as OpenLTH.
    """

    def __init__(self, depth: int, shape: Sequence[int], classes: int, width: float = 1) -> None:
        super().__init__()
        channels = scaled(16, width)
        self.conv = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        blocks = []
        for stage in range(3):
            wide = scaled(16 * 2**stage, width)
            for i in range((depth - 2) // 6):
                blocks.append(Block(channels, wide, stride=2 if stage and not i else 1))
                channels = wide
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))

    def channels(self) -> Iterator[tuple[str, str, str]]:
        """Yield what makes, scales and reads the channels inside each block.

        Those between blocks have several readers, and stay.
        """
        for i in range(len(self.blocks)):
            yield f"blocks.{i}.conv1", f"blocks.{i}.bn1", f"blocks.{i}.conv2"

    def wires(self) -> Iterator[Wires]:
        """Yield the channels inside each block, and those that all blocks of a stage add to."""
        made, read = ["conv", "bn"], list[str]()
        for i, block in enumerate(self.blocks):
            name = f"blocks.{i}"
            yield (f"{name}.conv1", f"{name}.bn1"), (f"{name}.conv2",), ""
            read.append(f"{name}.conv1")
            if not isinstance(block.shortcut, nn.Identity):  # a stage ends: its channels too
                yield tuple(made), (*read, f"{name}.shortcut.0"), f"blocks.{i - 1}"
                made, read = [f"{name}.shortcut.0", f"{name}.shortcut.1"], []
            made += [f"{name}.conv2", f"{name}.bn2"]
        yield tuple(made), (*read, "fc"), f"blocks.{len(self.blocks) - 1}"

    def stages(self) -> list[list[tuple[str, ...]]]:
        """Return the residual blocks of each of the three stages."""
        each = len(self.blocks) // 3
        return [[(f"blocks.{s * each + i}",) for i in range(each)] for s in range(3)]


class Judge(nn.Module):
    """A small classifier whose features say how far generated images are from real ones.

    Two 3x3 convolutions with batch norm and two linear layers: 105,914 parameters for 1x28x28 and
    10 classes. The 64 features (32 of images below 16x16: with few images more say nothing) are
    the layer before the last over its root mean square. That bounds them without a plateau: on
    tanh, a unit which hardly varies over real images makes the distance of a blurred one
    thousands, and another judge says something else. Glorot normal, biases 0.
    """

    def __init__(self, shape: Sequence[int], classes: int, width: float = 1) -> None:
        super().__init__()
        channels, *sides = shape
        first, second = scaled(16, width), scaled(32, width)
        wide = scaled(64 if min(sides) >= 16 else 32, width)
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.fc1 = nn.Linear(second * math.prod(side // 4 for side in sides), wide)
        self.fc2 = nn.Linear(wide, classes)
        glorot(self)

    def features(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, 64 or 32)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = self.fc1(x.flatten(1))
        return F.rms_norm(x, x.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, classes)."""
        return self.fc2(self.features(x))

    def wires(self) -> Iterator[Wires]:
        """Yield what makes each hidden layer's units, and what reads them."""
        yield from chained(("conv1", "bn1"), ("conv2", "bn2"), ("fc1",), ("fc2",))


def chained(*layers: tuple[str, ...]) -> Iterator[Wires]:
    """Yield the units of each layer but the last, where the next one alone reads them.

    A layer is what makes its units first, and its norm after it, if it has one.
    """
    for made, after in pairwise(layers):
        yield made, after[:1], ""


def glorot(model: nn.Module) -> None:
    """Draw every weight by Glorot & Bengio's (2010) normal rule; biases become 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def he(model: nn.Module) -> None:
    """Draw every weight by He et al.'s (2015) normal rule, batch norm weights in [0, 1)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
