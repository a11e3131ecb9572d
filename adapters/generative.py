"""Autoencoders, VAEs and GANs for small images, by name: both networks in one module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lth_zoo.errors import BadInput, unknown
from lth_zoo.graph_models import ANSWERS
from lth_zoo.protocols import Adapter, Signature
from lth_zoo.prunable import Prunable, Units, channels_under, check_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from lth_zoo.adapters.generative_networks import Channels
    from lth_zoo.masks import Masks


@dataclass(frozen=True)
class Design:
    """What a name stands for; ``up`` and ``down`` are the channels of its two networks at width 1.

    ``body`` names the layers, ``loss`` a GAN's, ``beta`` the weight of a VAE's divergence.
    """

    kind: str
    body: str
    latent: int
    up: int = 0
    down: int = 0
    loss: str = ""
    critic_steps: int = 1
    beta: float = 1.0
    norm: bool = True
    spectral: bool = False


#: Sizes near those of Kalibhat et al. (2021, table 1). The latent size and ``up`` of vae are
#: those of dcgan, and of resnet-vae those of resnet-gan, so that their tickets fit each other.
DESIGNS: dict[str, Design] = {
    "ae-linear": Design("ae", "linear", 32),
    "ae-conv": Design("ae", "conv", 128, 64, 64),
    "vae": Design("vae", "conv", 64, 128, 128),
    "beta-vae": Design("vae", "conv", 64, 128, 128, beta=4.0),
    "resnet-vae": Design("vae", "resnet", 128, 128, 128),
    "dcgan": Design("gan", "conv", 64, 128, 128, "non-saturating"),
    "sngan": Design("gan", "resnet", 128, 256, 128, "hinge", 5, norm=False, spectral=True),
    "wgan-gp": Design("gan", "conv", 64, 128, 128, "wasserstein", 5, norm=False),
    "resnet-gan": Design("gan", "resnet", 128, 128, 128, "non-saturating", norm=False),
}
_NAME = re.compile(
    rf"({'|'.join(DESIGNS)})(?:-([1-9]\d*))?(?:x([1-9]\d*|(?:0|[1-9]\d*)\.\d*[1-9]))?"
)
#: The network that makes images, by kind of model: a ticket of one fits the other.
MAKERS = ("decoder", "generator")


class Generative(Adapter):
    """Models that make images: nine designs, each of two networks.

    A number is the latent size, a factor multiplies every hidden width: ``vae``, ``dcgan-100``,
    ``sngan-128x0.25``. Images are (channels, height, width), height and width multiples of 4 from
    8 up (8x8, 28x28, 32x32, 64x64); ``ae-linear`` takes any size.

    Parameters of both networks at width 1, in thousands:

    ==========  ====================================================  =====  =======  =======
    model       networks                                              1x8x8  1x28x28  3x32x32
    ==========  ====================================================  =====  =======  =======
    ae-linear   one hidden layer of 128 a side                           25      210      798
    ae-conv     as vae, of half the channels                            396    1,871    2,367
    vae         DCGAN's two (Kingma & Welling 2014), beta 1           1,251    3,463    6,832
    beta-vae    as vae (Higgins et al. 2017), beta 4                  1,251    3,463    6,832
    resnet-vae  residual blocks of 128 channels                       1,284    3,502    2,504
    dcgan       transposed convolutions (Radford et al. 2016)         1,121    1,869    5,791
    wgan-gp     dcgan, its critic without batch norm (Gulrajani 2017) 1,120    1,869    5,790
    sngan       residual, spectral norm (Miyato et al. 2018)          3,679    5,165    5,329
    resnet-gan  residual blocks of 128 channels                       1,742    2,485    2,257
    ==========  ====================================================  =====  =======  =======

    The decoder of ``vae`` is the generator of ``dcgan``, that of ``resnet-vae`` the one of
    ``resnet-gan``: a ticket of either fits the other.
    """

    models: Sequence[str] = tuple(DESIGNS)
    graphs: ClassVar[bool] = False
    widths: ClassVar[bool] = True
    generates: ClassVar[bool] = True
    shown_on: ClassVar[str] = "generation/digits"

    def owns(self, name: str) -> bool:
        """Say whether the name is one of ``models``, with or without sizes."""
        return _NAME.fullmatch(name) is not None

    def build(self, name: str, signature: Signature) -> nn.Module:
        """Return both networks, freshly drawn.

        A pixel is Bernoulli where images are grey, Gaussian where they are coloured.

        Raises:
            BadInput: no such model, the task asks for no images, or the size does not work.
        """
        design, latent, width = parse(name)
        _check(name, design, signature)
        from lth_zoo.adapters.generative_networks import GAN, AutoEncoder

        shape = signature.input
        down, up = _networks(design, shape, latent, width)
        if design.kind == "gan":
            return GAN(up, down, latent, design.loss, design.critic_steps)
        loss = "bernoulli" if shape[0] == 1 else "gaussian"
        return AutoEncoder(design.kind, down, up, latent, loss, design.beta)

    def prunable(self, model: nn.Module) -> dict[str, Prunable]:
        """Return every linear and convolution weight of both networks; the role is the network.

        Under spectral norm that is the raw weight, before it is divided by its norm.
        """
        found = super().prunable(model)
        return {n: replace(entry, role=n.partition(".")[0]) for n, entry in found.items()}

    def units(self, model: nn.Module) -> list[Units]:
        """Return the channels under batch norm that exactly one layer reads, of both networks."""
        prunable = self.prunable(model)
        return [channels_under(model, prunable, *channels) for channels in channels_of(model)]

    def head(self, model: nn.Module) -> frozenset[str]:  # noqa: ARG002 - none has one
        """Return nothing: both networks are rewound and carried whole."""
        return frozenset()

    def fit(self, masks: Masks, model: nn.Module) -> Masks:
        """Return the masks with a decoder's named as the model's generator, and the reverse."""
        from lth_zoo.masks import Masks

        ours = next((n for n, _ in model.named_children() if n in MAKERS), None)
        if ours is None:
            return masks
        return Masks({_moved(name, ours): mask for name, mask in masks.items()})

    def carry(self, masks: Masks, model: nn.Module) -> Masks:
        """Return the masks as they fit another model of the family.

        A decoder's land on a generator and the reverse (Kalibhat et al. 2021); those of an encoder
        or a discriminator are left out where the model has no such network.

        Raises:
            BadInput: another latent size or shape, or the model has none of the networks.
        """
        fitted = self.fit(masks, model)
        networks = [name for name, _ in model.named_children()]
        carried = fitted.without(*(n for n in fitted if n.partition(".")[0] not in networks))
        if not len(carried):
            theirs = sorted({n.partition(".")[0] for n in masks})
            raise BadInput(
                f"nothing of the ticket fits: it has masks of the {' and the '.join(theirs)}, the "
                f"model is made of the {' and the '.join(networks)}"
            )
        _check_latent(carried, model)
        check_fit(carried, model)
        return carried


def parse(name: str) -> tuple[Design, int, float]:
    """Return a model's design, latent size and width multiplier.

    >>> design, latent, width = parse("dcgan-100x0.25")
    >>> design.loss, latent, width
    ('non-saturating', 100, 0.25)

    Raises:
        BadInput: no such model.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise unknown("model", name, DESIGNS)
    design = DESIGNS[match[1]]
    return design, int(match[2] or design.latent), float(match[3] or 1)


def channels_of(model: nn.Module) -> Iterator[Channels]:
    """Yield the channels of both networks, by module names of the whole model."""
    for place, network in model.named_children():
        for channels in getattr(network, "channels", tuple)():
            yield type(channels)(*(f"{place}.{layer}" for layer in channels))


def _networks(design: Design, shape: Sequence[int], latent: int, width: float) -> tuple[Any, Any]:
    """Return the network that reads images and the one that makes them, drawn in this order."""
    from lth_zoo.adapters import generative_networks as plain
    from lth_zoo.adapters import generative_resnets as residual

    if design.body == "linear":
        return plain.LinearDown(shape, latent, width), plain.LinearUp(shape, latent, width)
    outputs = {"ae": latent, "vae": 2 * latent}.get(design.kind)
    if design.body == "conv":
        down: Any = plain.ConvDown(shape, outputs, design.down, width, design.norm)
        return down, plain.ConvUp(shape, latent, design.up, width)
    down = residual.ResNetDown(shape, outputs, design.down, width, design.norm, design.spectral)
    return down, residual.ResNetUp(shape, latent, design.up, width)


def _check(name: str, design: Design, signature: Signature) -> None:
    """Refuse a task that asks for no images, or for images that a design cannot make.

    Raises:
        BadInput: naming what the task asks for, or the size and those that work.
    """
    shape, answer = signature.input, signature.answer
    if answer != "images":
        family = "gnn" if answer in ANSWERS else "cnn" if len(shape) == 3 else "bert"
        raise BadInput(
            f"model {name!r} makes images, and the task asks for {answer}: choose a task "
            f"generation/..., or a model of the family {family}"
        )
    fits = len(shape) == 3 and all(side % 4 == 0 and side >= 8 for side in shape[1:])
    if not fits and (len(shape) != 3 or design.body != "linear"):
        raise BadInput(
            f"model {name!r} makes images (channels, height, width) whose height and width are "
            f"multiples of 4 from 8 up, such as 1x8x8, 1x28x28 and 3x32x32; the task's have shape "
            f"{shape}"
        )


def _check_latent(masks: Masks, model: nn.Module) -> None:
    """Refuse a ticket whose generator or decoder starts from another number of values.

    Raises:
        BadInput: naming both latent sizes.
    """
    for maker in MAKERS:
        name = f"{maker}.project.weight"
        if name in masks and masks[name].shape[1] != model.latent:
            raise BadInput(
                f"latent {masks[name].shape[1]} in the ticket, {model.latent} in the model: "
                f"a {maker} of another latent size reads other noise"
            )


def _moved(name: str, maker: str) -> str:
    """Return a tensor's name in a model whose images are made by its network ``maker``."""
    network, dot, rest = name.partition(".")
    return maker + dot + rest if network in MAKERS else name
