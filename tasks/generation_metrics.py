"""How near generated images are to real ones, measured on their features: pure functions.

Features are float tensors (n, d), as a judge gives them; everything is computed in float64.
Distances between all pairs are computed in blocks, so that memory stays small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lth_zoo.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

#: Distances held at a time: 32 MB in float64.
CELLS = 4_000_000
#: Feature vectors whose moments are added up at a time: they stay in the processor's cache.
CACHED = 1000


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and unbiased covariance (d, d) of ``n`` feature vectors, float64 on the CPU."""

    mean: Tensor
    covariance: Tensor
    n: int

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Return the moments of features (n, d).

        The covariance of n vectors has rank n - 1 at most. With n > d it can be of full rank;
        with fewer it says of some directions that nothing varies there, whatever the images.

        Raises:
            BadInput: n does not exceed d, or a feature is not finite.
        """
        import torch

        features = features.detach().cpu()
        n, d = features.shape
        if n <= d:
            raise BadInput(f"{n} images are too few for {d} features: {d + 1} or more are needed")
        mean = features.mean(0, dtype=torch.float64)
        _check(mean)
        total = torch.zeros(d, d, dtype=torch.float64)
        for part in features.split(CACHED):
            # numpy computes half of a product with a matrix's own transpose, torch all of it.
            centred = (part.double() - mean).numpy()
            total += torch.from_numpy(centred.T @ centred)
        return cls(mean, total / (n - 1), n)


def frechet(real: Moments, fake: Moments) -> float:
    """Return the squared Frechet distance of two normal distributions (Heusel et al. 2017).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2). The matrix under the root is symmetric,
    so its eigenvalues are real, and a covariance of zeros (a collapsed generator) is no special
    case. Rounding may take the sum below 0, which a distance is not: then it is 0.
    """
    import torch

    values, vectors = torch.linalg.eigh(real.covariance)
    root = vectors * values.clamp(min=0).sqrt()  # root @ root.T is the covariance
    cross = torch.linalg.eigvalsh(root.T @ fake.covariance @ root).clamp(min=0).sqrt().sum()
    spread = real.covariance.trace() + fake.covariance.trace() - 2 * cross
    return max(0.0, ((real.mean - fake.mean).square().sum() + spread).item())


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Return the unbiased squared MMD under the kernel (x.y / d + 1)^3 (Binkowski et al. 2018).

    Over all pairs, not over random subsets. 0 on average for two samples of one distribution,
    so it may be negative.

    Raises:
        BadInput: one of the sets has fewer than two vectors, or a feature is not finite.
    """
    _enough(real, fake, 1)
    real, fake = _wide(real), _wide(fake)
    n, m, d = len(real), len(fake), real.shape[1]

    def total(a: Tensor, b: Tensor) -> float:
        blocks = a.split(_rows(b))
        return sum((block @ b.T).div_(d).add_(1).pow_(3).sum().item() for block in blocks)

    def others(a: Tensor) -> float:
        return total(a, a) - a.square().sum(1).div(d).add(1).pow(3).sum().item()

    within = others(real) / (n * (n - 1)) + others(fake) / (m * (m - 1))
    return within - 2 * total(real, fake) / (n * m)


def manifold(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Return ``precision``, ``recall``, ``density`` and ``coverage`` of the fakes.

    A set's manifold is the union of the balls around its points that reach to the k-th nearest
    other point. Precision is the share of fakes on the real manifold, recall the share of reals
    on that of the fakes (Kynkaanniemi et al. 2019); density is the number of real balls that a
    fake is in, over k, and coverage the share of real balls with a fake in them (Naeem et al.
    2020). Two samples of one distribution do not reach 1.

    Raises:
        BadInput: one of the sets has no more than k vectors, or a feature is not finite.
    """
    import torch

    _enough(real, fake, k)
    real, fake = _wide(real), _wide(fake)
    at = torch.arange(max(len(real), len(fake)), device=real.device)
    around_real, around_fake = (_radii(points, at[: len(points)], k) for points in (real, fake))
    covered, recalled = (torch.zeros_like(around_real, dtype=torch.bool) for _ in range(2))
    inside = precise = 0
    for start, block in _squared(fake, real):
        within = block <= around_real
        inside += int(within.sum())
        precise += int(within.any(1).sum())
        covered |= within.any(0)
        recalled |= (block <= around_fake[start : start + len(block), None]).any(0)
    return {
        "precision": precise / len(fake),
        "recall": recalled.double().mean().item(),
        "density": inside / (k * len(fake)),
        "coverage": covered.double().mean().item(),
    }


def memorised(train: Tensor, fake: Tensor, most: int = 2000) -> float:
    """Return the share of fakes that are copies rather than members of the distribution.

    One is, where it lies no farther from its nearest training example than that one lies from
    its own nearest other: 1 - authenticity (Alaa et al. 2022). About 1 for copies, and half or
    less for real images that were held out. The first ``most`` fakes are looked at, which
    leaves a standard error of 0.011 or less, against every training example.

    Raises:
        BadInput: there are fewer than two training examples, no fake, or a feature is not finite.
    """
    import torch

    _enough(train, train, 1)
    _enough(fake, fake, 0)
    train, fake = _wide(train), _wide(fake[:most])
    found = [block.min(1) for _, block in _squared(fake, train)]
    distances, nearest = (torch.cat(parts) for parts in zip(*found, strict=True))
    return (distances <= _radii(train, nearest, 1)).double().mean().item()


def class_entropy(probabilities: Tensor) -> float:
    """Return the entropy in nats of the histogram of predicted classes, (n, classes) given.

    The logarithm of the number of classes where all are met equally often, 0 for one alone.
    """
    import torch

    counts = _histogram(probabilities)
    return torch.special.entr(counts / counts.sum()).sum().item()


def class_divergence(real: Tensor, fake: Tensor) -> float:
    """Return KL(fake, real) in nats of the histograms of predicted classes.

    Half an image is added to every class, so that a class which one side lacks is finite.
    """
    p, q = (counts / counts.sum() for counts in (_histogram(x) + 0.5 for x in (fake, real)))
    return (p * (p / q).log()).sum().item()


def _histogram(probabilities: Tensor) -> Tensor:
    return probabilities.argmax(1).bincount(minlength=probabilities.shape[1]).double()


def _wide(features: Tensor) -> Tensor:
    wide = features.detach().double()
    _check(wide.sum())  # one number tells of all, and takes a tenth of the time
    return wide


def _check(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise BadInput("features are not finite, so there are no distances: look at the images")


def _enough(real: Tensor, fake: Tensor, k: int) -> None:
    if min(len(real), len(fake)) <= k:
        raise BadInput(f"{len(real)} and {len(fake)} images: {k + 1} or more are needed of each")


def _rows(b: Tensor) -> int:
    """Return how many rows of distances to all of ``b`` are held at a time."""
    return max(1, CELLS // len(b))


def _squared(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield squared distances between a (n, d) and b (m, d), (rows, m), with the first row."""
    import torch

    norms, start = b.square().sum(1), 0
    for part in a.split(_rows(b)):
        block = torch.addmm(norms, part, b.T, alpha=-2)
        yield start, block.add_(part.square().sum(1, keepdim=True)).clamp_(min=0)
        start += len(part)


def _radii(points: Tensor, at: Tensor, k: int) -> Tensor:
    """Return squared distances of the points at some indices to their k-th nearest other one."""
    import torch

    found = []
    for start, block in _squared(points[at], points):
        own = at[start : start + len(block), None]
        block.scatter_(1, own, torch.inf)
        found.append(block.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(found)
