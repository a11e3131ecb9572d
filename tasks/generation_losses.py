"""What generative models minimise: evidence bounds, reconstruction, and the games of GANs.

Models follow the family ``generative``: networks that return logits, images in [0, 1]. All noise
is drawn from the generator that the training loop hands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    #: Scores of a discriminator to a loss: of real and fake ones, and of the generator's own.
    Game = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]

#: Standard deviation of a pixel under the Gaussian likelihood, images in [0, 1].
SIGMA = 0.1
#: Weight of the gradient penalty (Gulrajani et al. 2017, arXiv:1704.00028, section 4).
PENALTY = 10.0


def noise(count: int, model: Any, rng: torch.Generator, device: Any) -> Tensor:
    """Return standard normal codes, (count, latent), drawn on the CPU whatever the device."""
    import torch

    return torch.randn(count, model.latent, generator=rng).to(device)


# -- autoencoders --------------------------------------------------------------------------------


def reconstruction(likelihood: str, logits: Tensor, images: Tensor) -> Tensor:
    """Return -log p(image | code) of each image in nats, summed over its pixels, (n,).

    ``bernoulli`` takes grey values as probabilities; ``gaussian`` has a fixed sigma of 0.1.
    """
    from torch.nn import functional as F

    if likelihood == "bernoulli":
        entropies = F.binary_cross_entropy_with_logits(logits, images, reduction="none")
        return entropies.flatten(1).sum(1)
    squares = (logits.sigmoid() - images).square().flatten(1).sum(1)
    pixels = images[0].numel()
    return squares / (2 * SIGMA**2) + pixels * math.log(SIGMA * math.sqrt(2 * math.pi))


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(q(z | x) || N(0, 1)) of each example in nats, (n,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def drawn(mean: Tensor, log_variance: Tensor, rng: torch.Generator) -> Tensor:
    """Return one code of each posterior, differentiable in its mean and variance."""
    import torch

    normal = torch.randn(mean.shape, generator=rng).to(mean.device)
    return mean + normal * (0.5 * log_variance).exp()


def evidence(
    model: Any, likelihood: str, images: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return reconstruction and KL of each image in nats, (n,) both, and the posterior means."""
    mean, log_variance = model.encoder(images).chunk(2, 1)
    logits = model.decoder(drawn(mean, log_variance, rng))
    return reconstruction(likelihood, logits, images), divergence(mean, log_variance), mean


@dataclass(frozen=True)
class Bound:
    """The negative ELBO in nats, the KL times beta (Kingma & Welling 2014; Higgins et al. 2017)."""

    likelihood: str
    beta: float = 1.0

    def __call__(self, model: Any, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Return the mean over a batch of images."""
        lost, kl, _ = evidence(model, self.likelihood, batch, rng)
        return (lost + self.beta * kl).mean()


@dataclass(frozen=True)
class Restoration:
    """The reconstruction loss of a plain autoencoder, in nats an image."""

    likelihood: str

    def __call__(self, model: Any, batch: Tensor, _: torch.Generator) -> Tensor:
        """Return the mean over a batch of images."""
        return reconstruction(self.likelihood, model(batch), batch).mean()


def weighted_bound(
    model: Any, likelihood: str, images: Tensor, samples: int, rng: torch.Generator
) -> Tensor:
    """Return the importance-weighted bound on -log p(x) in nats, (n,) (Burda et al. 2016)."""
    import torch

    mean, log_variance = model.encoder(images).chunk(2, 1)
    weights = []
    for _ in range(samples):
        code = drawn(mean, log_variance, rng)
        prior = -0.5 * code.square().sum(1)
        scaled = (code - mean).square() / log_variance.exp()
        posterior = -0.5 * (scaled + log_variance).sum(1)
        weights.append(prior - posterior - reconstruction(likelihood, model.decoder(code), images))
    return math.log(samples) - torch.stack(weights).logsumexp(0)


# -- games ---------------------------------------------------------------------------------------


def games() -> dict[str, Game]:
    """Return loss -> what the discriminator minimises, and what the generator does."""
    from torch.nn.functional import relu, softplus

    return {
        "hinge": (lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(), lambda f: -f.mean()),
        "non-saturating": (
            lambda r, f: softplus(-r).mean() + softplus(f).mean(),
            lambda f: softplus(-f).mean(),
        ),
        "wasserstein": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    }


@dataclass(frozen=True)
class Critic:
    """What a discriminator minimises on a batch of real images and as many fakes.

    ``teacher`` is a trained model whose discriminator it should agree with, too (Chen et al.
    2021, arXiv:2106.00134): KL of their verdicts, sigmoid of the scores, on the same images.
    ``step`` above 0 adds the loss at the worst change of the last layer's input (Chen et al.
    2021, arXiv:2103.00397), one signed gradient step of that length.
    """

    loss: str
    teacher: Any = None
    step: float = 0.0

    def __call__(self, model: Any, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Return the loss of the discriminator alone."""
        import torch

        with torch.no_grad():
            fake = model.generator(noise(len(batch), model, rng, batch.device)).sigmoid()
        judged, _ = games()[self.loss]

        def game() -> Tensor:
            return judged(model.discriminator(batch), model.discriminator(fake))

        found = worst(model.discriminator, -1, game, self.step) if self.step else game()
        if self.loss == "wasserstein":
            found = found + PENALTY * penalty(model.discriminator, batch, fake, rng)
        if self.teacher is not None:
            found = found + self._disagreement(model, torch.cat([batch, fake]))
        return found

    def _disagreement(self, model: Any, images: Tensor) -> Tensor:
        """Return KL(teacher || student) of their verdicts, a Bernoulli an image."""
        import torch
        from torch.nn import functional as F

        with torch.no_grad():
            known = self.teacher.to(images.device).eval().discriminator(images)
        scores = model.discriminator(images)
        crossed = F.binary_cross_entropy_with_logits(scores, known.sigmoid())
        return crossed - F.binary_cross_entropy_with_logits(known, known.sigmoid())


@dataclass(frozen=True)
class Maker:
    """What a generator minimises; ``step`` is as in :class:`Critic`, after its first layer."""

    loss: str
    step: float = 0.0

    def __call__(self, model: Any, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Return the loss of the generator alone; of the batch only its size is used."""
        _, own = games()[self.loss]
        codes = noise(len(batch), model, rng, batch.device)

        def game() -> Tensor:
            return own(model.discriminator(model.generator(codes).sigmoid()))

        return worst(model.generator, 0, game, self.step) if self.step else game()


def penalty(critic: Any, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """Return the mean squared distance from 1 of the slope between real and fake images.

    Gulrajani et al. 2017, arXiv:1704.00028, equation 3.
    """
    import torch

    share = torch.rand(len(real), 1, 1, 1, generator=rng).to(real.device)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # The norm of an exact zero has no slope of its own: without the floor it would be NaN.
    norms = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()
    return (norms - 1).square().mean()


def worst(network: nn.Module, place: int, loss: Callable[[], Tensor], step: float) -> Tensor:
    """Return a loss plus the same one at the worst change of a network's inner features.

    The change is one step of ``step`` along the sign of the gradient, of what comes out of the
    first prunable layer (``place`` 0) or goes into the last (-1): Chen et al. 2021,
    arXiv:2103.00397, algorithm 1 with one step and weight 1.
    """
    import torch

    from lth_zoo.prunable import default_prunable

    layers = list(dict.fromkeys(p.layer for p in default_prunable(network).values()))
    layer = network.get_submodule(layers[place])
    seen: list[Tensor] = []
    with _touched(layer, place, lambda features: seen.append(features)):
        clean = loss()
    slopes = iter(torch.autograd.grad(clean, seen, retain_graph=True))
    with _touched(layer, place, lambda features: features + step * next(slopes).sign()):
        return clean + loss()


@contextmanager
def _touched(
    layer: nn.Module, place: int, change: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Let ``change`` see, and replace, what comes out of a layer (place 0) or goes into it."""
    if place == 0:
        handle = layer.register_forward_hook(lambda _m, _i, answer: change(answer))
    else:

        def before(_: nn.Module, inputs: Any) -> Any:
            changed = change(inputs[0])
            return None if changed is None else (changed,)

        handle = layer.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()
