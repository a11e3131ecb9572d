"""What a look at a generative model measures and shows, by the model's kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lth_zoo.errors import BadInput
from lth_zoo.protocols import Split, Yardstick
from lth_zoo.seeds import generator
from lth_zoo.tasks import generation_losses as losses
from lth_zoo.tasks.evaluation import evaluating
from lth_zoo.tasks.generation_metrics import Moments
from lth_zoo.tasks.generation_metrics import frechet as frechet_distance

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from lth_zoo.tasks.generation import Generation

CHUNK = 500
#: Images that are made to measure: at most so many, and as many real ones.
MOST = {"train": 2000, "validation": 2000, "test": 10_000}
#: Test images, and codes of each, of the importance-weighted bound.
WEIGHTED = (500, 100)
#: Codes whose posterior mean varies by more are in use (Burda et al. 2016, section 5.1).
ACTIVE = 0.01
#: Pixels that vary by less over samples are one picture.
SAME = 1e-8


#: Kind of model -> what judges it.
YARDSTICKS = {
    # Of an FID of 15.7, published tickets spread by 0.5 to 1.5 over runs (Chen et al. 2021).
    "gan": Yardstick("cfd", higher_is_better=False, margin=0.1, relative=True),
    "vae": Yardstick("nelbo", higher_is_better=False, margin=0.01, relative=True),
    "ae": Yardstick("reconstruction", higher_is_better=False, margin=0.05, relative=True),
}


def measured(task: Generation, model: Any, split: Split) -> dict[str, float]:
    """Return the metrics of a model in evaluation mode, ``loss`` among them."""
    measure = {"gan": samples, "vae": bound, "ae": restored}[model.kind]
    found = measure(task, model, split)
    return {**found, "loss": found[YARDSTICKS[model.kind].headline]}


def samples(task: Generation, model: Any, split: Split) -> dict[str, float]:
    """Return how far new images are from a split's, by one judge; of the test by every one."""
    images = made(model, min(task.size(split), MOST[split]))
    found = task.judge().score(images, split)
    for number in range(1, len(task.judges())) if split == "test" else ():
        found[f"cfd_{number}"] = task.judge(number).distance(images, split)
    return found


def bound(task: Generation, model: Any, split: Split) -> dict[str, float]:
    """Return the negative ELBO of a VAE with both parts; of the test its samples as well."""
    import torch

    rng, likelihood = generator(0, "noise", "posterior"), task.settings(model).loss
    parts = [losses.evidence(model, likelihood, x, rng) for x in chunks(task, split)]
    lost, kl, means = (torch.cat(found).double() for found in zip(*parts, strict=True))
    found = {
        "nelbo": float((lost + kl).mean()),
        "reconstruction": float(lost.mean()),
        "kl": float(kl.mean()),
        "active_units": float((means.var(0) > ACTIVE).sum()),
    }
    if split != "test":
        return found
    few = task.batch(split, torch.arange(min(WEIGHTED[0], task.size(split))))
    weighted = losses.weighted_bound(model, likelihood, few, WEIGHTED[1], rng)
    return found | {"iwae": float(weighted.mean())} | samples(task, model, split)


def restored(task: Generation, model: Any, split: Split) -> dict[str, float]:
    """Return what an autoencoder loses of a split, and whether a judge still knows the classes."""
    import torch

    lost, squares, answers = [], [], []
    for images in chunks(task, split):
        logits = model(images)
        answers.append(logits.sigmoid())
        lost.append(losses.reconstruction(task.settings(model).loss, logits, images).double())
        squares.append((answers[-1] - images).double().square().flatten(1).mean(1))
    return {
        "reconstruction": float(torch.cat(lost).mean()),
        "mse": float(torch.cat(squares).mean()),
        "accuracy": task.judge().accuracy(torch.cat(answers), task.images.labels(split)),
    }


def frechet(
    task: Generation, model: Any, features: Callable[[Tensor], Tensor], count: int
) -> dict[str, float]:
    """Return the Frechet distance of new images to test images, and that of train images to them.

    Raises:
        BadInput: the model draws no images, or there are not more of them than features.
    """
    import torch

    if model.kind == "ae":
        raise BadInput("an autoencoder without a prior draws no images; choose a VAE or a GAN")
    count = min(count, task.size("test"), task.size("train"))
    rows = torch.arange(count)
    real = Moments.of(features(task.batch("test", rows)))
    fake = Moments.of(features(made(model, count)))
    train = Moments.of(features(task.batch("train", rows)))
    found = {"fid": frechet_distance(real, fake), "floor": frechet_distance(real, train)}
    return found | {"images": float(count)}


def chunks(task: Generation, split: Split) -> list[Tensor]:
    """Return the images of a split in batches, in order."""
    import torch

    return [task.batch(split, part) for part in torch.arange(task.size(split)).split(CHUNK)]


# -- new images ----------------------------------------------------------------------------------


def made(model: Any, count: int) -> Tensor:
    """Return images of fixed noise, (count, channels, height, width) in [0, 1]."""
    rng = generator(0, "noise", "samples")
    return drawn_from(model, losses.noise(count, model, rng, _at(model)))


def drawn_from(model: Any, codes: Tensor) -> Tensor:
    """Return the images of codes (n, latent)."""
    import torch

    network = model.generator if model.kind == "gan" else model.decoder
    return torch.cat([network(part).sigmoid() for part in codes.split(CHUNK)])


def interpolated(model: Any) -> Tensor:
    """Return (4, 8, channels, height, width): four lines between two codes each."""
    import torch

    first, last = losses.noise(8, model, generator(0, "noise", "line"), _at(model)).chunk(2)
    # Along a great circle: a straight line would pass near 0, where the prior has no codes.
    angle = torch.linspace(0, torch.pi / 2, 8, device=first.device)[:, None, None]
    codes = (angle.cos() * first + angle.sin() * last).transpose(0, 1)
    images = drawn_from(model, codes.flatten(0, 1))
    return images.reshape(4, 8, *images.shape[1:])


def pictures(task: Generation, model: Any) -> dict[str, Tensor]:
    """Return samples and interpolations at fixed noise, and reconstructions, as uint8.

    ``samples`` (32, channels, height, width), ``interpolation`` (4, 8, ...); of autoencoders
    ``originals`` and ``reconstructions`` (16, ...) of test images. One without a prior over its
    codes has no samples.
    """
    import torch

    found: dict[str, Tensor] = {}
    if model.kind != "ae":
        found |= {"samples": made(model, 32), "interpolation": interpolated(model)}
    if model.kind != "gan":
        originals = task.batch("test", torch.arange(min(16, task.size("test"))))
        found |= {"originals": originals, "reconstructions": model(originals).sigmoid()}
    return {n: (255 * t).round().to(torch.uint8).cpu() for n, t in found.items()}


def _at(model: nn.Module) -> Any:
    return next(model.parameters()).device


# -- what is degenerate --------------------------------------------------------------------------


def flags(task: Generation, model: Any) -> tuple[str, ...]:
    """Return ``collapsed`` for new images all alike, ``dead-LOSS`` for a loss without slope."""
    import torch

    found = []
    with evaluating(model):
        if model.kind != "ae" and float(made(model, 64).var(0).max()) < SAME:
            found.append("collapsed")
    batch = task.batch("train", torch.arange(min(16, task.size("train"))))
    for part in task.objectives(model):
        own = list(part.parameters(model) if part.parameters else model.parameters())
        with evaluating(model), torch.enable_grad():
            loss = part.loss(model, batch, generator(0, "noise", "flags"))
            slopes = torch.autograd.grad(loss, own, allow_unused=True)
        if not any(bool(slope.any()) for slope in slopes if slope is not None):
            found.append(f"dead-{part.name}")
    return tuple(found)
