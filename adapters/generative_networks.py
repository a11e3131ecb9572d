"""Generators, decoders and what reads images, as plain modules; and the pair of two of them.

Images come in as values in [0, 1] and go out as logits: the image is their sigmoid. Every draw
comes from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

from lth_zoo.adapters.networks import scaled


class Channels(NamedTuple):
    """One set of channels inside a network, by module names.

    ``made`` is the layer that writes them, ``norm`` the batch norm over them and ``read`` the
    one layer that reads them. A linear layer at either end has as many rows or columns a channel
    as the feature map has places.
    """

    made: str
    norm: str
    read: str


class AutoEncoder(nn.Module):
    """An encoder and a decoder; ``kind`` is "ae", or "vae" where the encoder gives a Gaussian.

    ``encoder(x)`` is (n, latent), of a vae (n, 2 latent): mean, then log-variance.
    ``decoder(z)`` is (n, C, H, W). ``loss`` names the distribution of a pixel.
    """

    def __init__(
        self, kind: str, encoder: nn.Module, decoder: nn.Module, latent: int, loss: str, beta: float
    ) -> None:
        super().__init__()
        self.kind, self.latent, self.loss, self.beta = kind, latent, loss, beta
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, C, H, W) to the logits of their reconstruction, from the mean."""
        logits: Tensor = self.decoder(self.encoder(x)[:, : self.latent])
        return logits


class GAN(nn.Module):
    """A generator and a discriminator, trained against each other by ``loss``.

    ``generator(z)`` is (n, C, H, W), ``discriminator(x)`` is (n,). ``critic_steps`` counts the
    discriminator's steps to one of the generator.
    """

    kind = "gan"

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        loss: str,
        critic_steps: int,
    ) -> None:
        super().__init__()
        self.latent, self.loss, self.critic_steps = latent, loss, critic_steps
        self.generator, self.discriminator = generator, discriminator

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of as many images as there are in x, all made of zeros, (n,)."""
        image = self.generator(x.new_zeros(len(x), self.latent)).sigmoid()
        scores: Tensor = self.discriminator(image)
        return scores


def halvings(shape: Sequence[int]) -> int:
    """Return how often height and width halve: twice, and on while whole numbers from 4 up stay.

    >>> halvings((1, 8, 8)), halvings((1, 28, 28)), halvings((3, 32, 32)), halvings((3, 64, 64))
    (2, 2, 3, 4)
    """
    times = 2
    while all(side % 2 ** (times + 1) == 0 and side // 2 ** (times + 1) >= 4 for side in shape[1:]):
        times += 1
    return times


def smallest(shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of the smallest feature map, after every halving."""
    height, width = (side // 2 ** halvings(shape) for side in shape[1:])
    return height, width


def centred(x: Tensor) -> Tensor:
    """Map values in [0, 1] to [-1, 1]."""
    return 2 * x - 1


# -- linear ----------------------------------------------------------------------------------


class LinearDown(nn.Module):
    """Two linear layers from the pixels to the latent: 784-128-latent for 28x28 at width 1."""

    def __init__(self, shape: Sequence[int], latent: int, width: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(math.prod(shape), scaled(128, width))
        self.read = nn.Linear(scaled(128, width), latent)
        xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, C, H, W) to (n, latent)."""
        return self.read(F.relu(self.hidden(centred(x).flatten(1))))


class LinearUp(nn.Module):
    """The way back: latent-128-784."""

    def __init__(self, shape: Sequence[int], latent: int, width: float) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.project = nn.Linear(latent, scaled(128, width))
        self.image = nn.Linear(scaled(128, width), math.prod(shape))
        xavier(self)

    def forward(self, z: Tensor) -> Tensor:
        """Map (n, latent) to logits (n, C, H, W)."""
        return self.image(F.relu(self.project(z))).unflatten(1, self.shape)


# -- convolutions, as DCGAN has them -----------------------------------------------------------


class UpStage(nn.Module):
    """Batch norm, ReLU and a transposed convolution that doubles height and width."""

    def __init__(self, channels: int, wide: int, last: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.ConvTranspose2d(channels, wide, 4, 2, padding=1, bias=last)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, wide, 2h, 2w)."""
        return self.conv(F.relu(self.norm(x)))


class ConvUp(nn.Module):
    """DCGAN's generator, and a VAE's decoder (Radford et al. 2016, figure 1).

    ``channels`` before the image, twice as many before each doubling of its size. No bias where
    batch norm would cancel it. Weights normal(0, 0.02), batch norm scales normal(1, 0.02).
    """

    def __init__(self, shape: Sequence[int], latent: int, channels: int, width: float) -> None:
        super().__init__()
        times, self.size = halvings(shape), smallest(shape)
        wide = [scaled(channels * 2**i, width) for i in reversed(range(times))]
        self.project = nn.Linear(latent, wide[0] * math.prod(self.size), bias=False)
        nexts = [*wide[1:], shape[0]]
        self.stages = nn.Sequential(
            *(UpStage(wide[i], nexts[i], last=i == times - 1) for i in range(times))
        )
        radford(self)

    def forward(self, z: Tensor) -> Tensor:
        """Map (n, latent) to logits (n, C, H, W)."""
        return self.stages(self.project(z).unflatten(1, (-1, *self.size)))

    def channels(self) -> Iterator[Channels]:
        """Yield the channels that one layer writes and one reads."""
        made = "project"
        for i in range(len(self.stages)):
            yield Channels(made, f"stages.{i}.norm", f"stages.{i}.conv")
            made = f"stages.{i}.conv"


class DownStage(nn.Module):
    """A convolution that halves height and width, batch norm or none, and leaky ReLU."""

    def __init__(self, channels: int, wide: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, wide, 4, 2, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(wide) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, wide, h/2, w/2)."""
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


class ConvDown(nn.Module):
    """DCGAN's discriminator, and a VAE's encoder: :class:`ConvUp` mirrored.

    The first stage has no batch norm (Radford et al. 2016); ``norm=False`` leaves it out
    everywhere, as a gradient penalty an image needs (Gulrajani et al. 2017). ``outputs=None``
    is one score an image, of shape (n,).
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int | None,
        channels: int,
        width: float,
        norm: bool = True,
    ) -> None:
        super().__init__()
        wide = [shape[0], *(scaled(channels * 2**i, width) for i in range(halvings(shape)))]
        self.stages = nn.Sequential(
            *(DownStage(wide[i], wide[i + 1], norm and i > 0) for i in range(len(wide) - 1))
        )
        self.read = nn.Linear(wide[-1] * math.prod(smallest(shape)), outputs or 1)
        self.scores = outputs is None
        radford(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, C, H, W) to (n, outputs), or to (n,)."""
        answer = self.read(self.stages(centred(x)).flatten(1))
        return answer.flatten() if self.scores else answer

    def channels(self) -> Iterator[Channels]:
        """Yield the channels that one layer writes and one reads."""
        last = len(self.stages) - 1
        for i, stage in enumerate(self.stages):
            if isinstance(stage.norm, nn.BatchNorm2d):
                read = f"stages.{i + 1}.conv" if i < last else "read"
                yield Channels(f"stages.{i}.conv", f"stages.{i}.norm", read)


# -- draws -----------------------------------------------------------------------------------

_LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def radford(network: nn.Module) -> None:
    """Draw weights from normal(0, 0.02), batch norm scales from normal(1, 0.02); biases are 0."""
    for module in network.modules():
        if isinstance(module, (*_LAYERS, nn.BatchNorm2d)):
            mean = 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0
            nn.init.normal_(module.weight, mean, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def xavier(network: nn.Module) -> None:
    """Draw every weight by Glorot & Bengio's (2010) uniform rule; biases are 0."""
    for module in network.modules():
        if isinstance(module, _LAYERS):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class SpectralNorm(_SpectralNorm):
    """torch's own, but for a layer whose last weight is pruned: it stays 0, not 0 / 0."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight over its largest singular value."""
        empty = ~weight.detach().any()
        normed: Tensor = super().forward(weight + empty)
        return normed * ~empty


def spectral(network: nn.Module) -> None:
    """Put spectral norm on every layer (Miyato et al. 2018), one power iteration a forward pass.

    A layer's own weight is then ``parametrizations.weight.original``; the vectors of the power
    iteration are buffers, which a state dict holds.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            register_parametrization(module, "weight", SpectralNorm(module.weight))
