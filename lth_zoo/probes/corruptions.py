"""Common corruptions of images in [0, 1], each at three strengths (after Hendrycks and Dietterich
2019, arXiv:1903.12261: the idea; the strengths here are for small images).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = 3


def gaussian_noise(x: Tensor, strength: int, rng: torch.Generator) -> Tensor:
    """Add noise of sd 0.1, 0.2, 0.3."""
    return x + (0.1, 0.2, 0.3)[strength] * torch.randn(x.shape, generator=rng).to(x)


def blur(x: Tensor, strength: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001 - as the others
    """Blur by a Gaussian of sd 0.5, 0.8, 1.2 pixels; edges are repeated."""
    sd = (0.5, 0.8, 1.2)[strength]
    radius = math.ceil(3 * sd)
    line = torch.arange(-radius, radius + 1).to(x)
    kernel = torch.exp(-line.square() / (2 * sd**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    wide = F.pad(x, (radius,) * 4, mode="replicate")
    across = F.conv2d(wide, kernel, groups=x.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=x.shape[1])


def contrast(x: Tensor, strength: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001
    """Draw every pixel to the image's mean, to 0.6, 0.4, 0.2 of its distance."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (0.6, 0.4, 0.2)[strength] * (x - mean)


def brightness(x: Tensor, strength: int, rng: torch.Generator) -> Tensor:  # noqa: ARG001
    """Add 0.1, 0.2, 0.3."""
    return x + (0.1, 0.2, 0.3)[strength]


def dropout(x: Tensor, strength: int, rng: torch.Generator) -> Tensor:
    """Set 10, 25, 50 % of the pixels to black, over all channels."""
    kept = torch.rand((len(x), 1, *x.shape[2:]), generator=rng) >= (0.1, 0.25, 0.5)[strength]
    return x * kept.to(x)


CORRUPTIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "gaussian noise": gaussian_noise,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
    "pixel dropout": dropout,
}


def corrupted(x: Tensor, name: str, strength: int, rng: torch.Generator) -> Tensor:
    """Return images of [0, 1] with a corruption of strength 0, 1 or 2, cut off at [0, 1]."""
    return CORRUPTIONS[name](x, strength, rng).clamp(0.0, 1.0)
