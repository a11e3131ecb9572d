"""Moments of features: how far generated images are from real ones, without an adversary."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import BadInput
from lth_zoo.tasks import generation_losses as losses

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lth_zoo.tasks.generation import Generation

#: The judge whose features are matched: not the one (0) that the headline is measured by.
MATCHED = 2
CHUNK = 500
#: Halves of fewer images have no variance.
LEAST = 4


class Moments:
    """What a generator minimises: squared distances of means and variances from the real ones.

    Generative feature matching (dos Santos et al. 2019, arXiv:1904.02762) as the search of Yeo et
    al. (2023, arXiv:2212.08311) has it. The features are the pixels, what the batch norms of a
    judge return at every place, and the layer that it classifies by; each layer counts the same.
    What half a batch misses times what the other half does is an estimate without bias, but for
    what batch norm lets the halves share: noise of a small batch draws images neither together
    nor apart.
    """

    def __init__(self, task: Generation) -> None:
        self.task = task

    def __call__(self, model: Any, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Return the distance; of the batch only its size is used. Near 0 it may be below it."""
        import torch

        codes = losses.noise(max(LEAST, len(batch)), model, rng, batch.device)
        images = maker_of(model)(codes).sigmoid()
        distance = images.new_zeros(())
        for features, (mean, variance, scale) in zip(
            self._features(images), self._real, strict=True
        ):
            one, other = (
                torch.stack([half.mean(0) - mean, half.var(0) - variance])
                for half in (features / scale).chunk(2)
            )
            distance = distance + (one * other).sum(0).mean()
        return distance

    @cached_property
    def _real(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Mean and variance of the real train part's features, and the scale of each layer."""
        import torch

        with torch.no_grad():
            sums: list[Tensor] = []
            count = self.task.size("train")
            for part in torch.arange(count).split(CHUNK):
                found = [f.double() for f in self._features(self.task.batch("train", part))]
                now = [torch.stack([f.sum(0), f.square().sum(0)]) for f in found]
                sums = [a + b for a, b in zip(sums, now, strict=True)] if sums else now
            return [_moments(total / count) for total in sums]

    def _features(self, images: Tensor) -> list[Tensor]:
        """Return the features of images (n, channels, height, width), a layer each, (n, d)."""
        from torch import nn

        network, black, white = self._judge
        seen = [images.flatten(1)]

        def see(_: nn.Module, __: Any, answer: Tensor) -> None:
            seen.append(answer.flatten(1))

        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        handles = [norm.register_forward_hook(see) for norm in norms]
        try:
            last = network.features(black + images * (white - black))
        finally:
            for handle in handles:
                handle.remove()
        return [*seen, last]

    @cached_property
    def _judge(self) -> tuple[Any, Tensor, Tensor]:
        """A judge's network, and what it takes for black and for white.

        A judge looks at images that are rounded to the data's grey levels, which has no slope.
        """
        import torch

        task = self.task
        network = task.judge(MATCHED).network.eval().requires_grad_(False)
        ends = torch.tensor([0.0, 1.0], device=next(network.parameters()).device)
        black, white = task.images.scaled(ends[:, None, None, None].expand(2, *task.images.shape))
        return network, black, white


def _moments(means: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance and scale of features whose means and mean squares are (2, d)."""
    variance = (means[1] - means[0].square()).clamp(min=0)
    scale = variance.mean().sqrt()
    return (means[0] / scale).float(), (variance / scale.square()).float(), scale.float()


def maker_of(model: Any) -> nn.Module:
    """Return the network that makes images of noise.

    Raises:
        BadInput: the model has no distribution over codes that it could make images of.
    """
    if model.kind == "ae":
        raise BadInput(
            "a plain autoencoder draws no images, so there are no moments to match: choose a VAE "
            "or a GAN, such as vae or dcgan"
        )
    network: nn.Module = model.generator if model.kind == "gan" else model.decoder
    return network
