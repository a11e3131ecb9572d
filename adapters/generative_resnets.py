"""Residual generators and discriminators for small images (Miyato et al. 2018, tables 3 and 4).

Every draw comes from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from lth_zoo.adapters.generative_networks import (
    Channels,
    centred,
    halvings,
    smallest,
    spectral,
    xavier,
)
from lth_zoo.adapters.networks import scaled


def _norm(channels: int, norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm else nn.Identity()


class UpBlock(nn.Module):
    """Two 3x3 convolutions behind batch norm and ReLU; height and width double before the first.

    The shortcut's 1x1 convolution runs before the doubling: the same values at a quarter of the
    work.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, channels, 2h, 2w)."""
        out = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2))
        out = self.conv2(F.relu(self.norm2(out)))
        return out + F.interpolate(self.shortcut(x), scale_factor=2)


class ResNetUp(nn.Module):
    """A linear layer, one :class:`UpBlock` a doubling, batch norm, ReLU and a 3x3 convolution.

    Glorot uniform, as GAN-LTH draws it; biases 0.
    """

    def __init__(self, shape: Sequence[int], latent: int, channels: int, width: float) -> None:
        super().__init__()
        wide, self.size = scaled(channels, width), smallest(shape)
        self.project = nn.Linear(latent, wide * math.prod(self.size))
        self.blocks = nn.Sequential(*(UpBlock(wide) for _ in range(halvings(shape))))
        self.norm = nn.BatchNorm2d(wide)
        self.image = nn.Conv2d(wide, shape[0], 3, padding=1)
        xavier(self)

    def forward(self, z: Tensor) -> Tensor:
        """Map (n, latent) to logits (n, C, H, W)."""
        x = self.blocks(self.project(z).unflatten(1, (-1, *self.size)))
        return self.image(F.relu(self.norm(x)))

    def channels(self) -> Iterator[Channels]:
        """Yield the channels inside each block; those between blocks have two readers."""
        return _inside("blocks", len(self.blocks))


class DownBlock(nn.Module):
    """Two 3x3 convolutions behind ReLU, batch norm or none before it; ``halve`` pools after.

    The ``first`` block reads the image itself: nothing comes before its first convolution.
    """

    def __init__(self, channels: int, wide: int, halve: bool, first: bool, norm: bool) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.norm1 = _norm(channels, norm and not first)
        self.conv1 = nn.Conv2d(channels, wide, 3, padding=1, bias=not norm)
        self.norm2 = _norm(wide, norm)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if halve or channels != wide:
            self.shortcut = nn.Conv2d(channels, wide, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, wide, h, w), halved where it pools."""
        out = self.conv1(x if self.first else F.relu(self.norm1(x)))
        out = self.conv2(F.relu(self.norm2(out)))
        if not self.halve:
            return out + self.shortcut(x)
        # A 1x1 convolution and a mean commute: pooling first is a quarter of the work.
        return F.avg_pool2d(out, 2) + self.shortcut(F.avg_pool2d(x, 2))


class ResNetDown(nn.Module):
    """Residual blocks, ReLU and one linear layer: an encoder, or a discriminator.

    An encoder (``outputs`` a number) halves as often as :class:`ResNetUp` doubles and reads every
    place of the last map. A discriminator (``outputs=None``) halves twice, goes on with two
    blocks of that size, and reads the sum over the places; ``spectral_norm`` puts spectral norm
    on each of its layers. Batch norm suits the encoder alone: a discriminator that sees real and
    made images in batches of their own tells the batches apart, and a generator of digits learned
    nothing against it.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int | None,
        channels: int,
        width: float,
        norm: bool = True,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.scores, wide = outputs is None, scaled(channels, width)
        halve = [True, True, False, False] if self.scores else [True] * halvings(shape)
        self.blocks = nn.Sequential(
            *(
                DownBlock(wide if i else shape[0], wide, half, not i, norm)
                for i, half in enumerate(halve)
            )
        )
        self.norm = _norm(wide, norm)
        places = 1 if self.scores else math.prod(smallest(shape))
        self.read = nn.Linear(wide * places, outputs or 1)
        xavier(self)
        if spectral_norm:
            spectral(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, C, H, W) to (n, outputs), or to (n,)."""
        x = F.relu(self.norm(self.blocks(centred(x))))
        return self.read(x.sum((2, 3))).flatten() if self.scores else self.read(x.flatten(1))

    def channels(self) -> Iterator[Channels]:
        """Yield the channels inside each block that batch norm is over."""
        blocks = len(self.blocks) if isinstance(self.norm, nn.BatchNorm2d) else 0
        return _inside("blocks", blocks)


def _inside(place: str, blocks: int) -> Iterator[Channels]:
    for i in range(blocks):
        at = f"{place}.{i}"
        yield Channels(f"{at}.conv1", f"{at}.norm2", f"{at}.conv2")
