"""Metrics of generated images: equal to plain formulas, whatever the size of the blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from torch.nn import functional as F

from lth_zoo.errors import BadInput
from lth_zoo.tasks import generation_metrics as metrics
from lth_zoo.tasks.generation_metrics import Moments, frechet


def drawn(n, d, seed=0, shift=0.0, dtype=torch.float64):
    """Correlated features, some directions a thousand times as wide as others."""
    rng = torch.Generator().manual_seed(seed)
    spread = torch.randn(d, d, generator=rng, dtype=torch.float64) * torch.logspace(0, -3, d)
    points = torch.randn(n, d, generator=rng, dtype=torch.float64) @ spread + shift
    return points.to(dtype)


def plain_frechet(real, fake):
    """As published, with a matrix root that may leave the real numbers."""
    (m, a), (n, b) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (real.numpy(), fake.numpy()))
    root = sqrtm(a @ b)
    return float(((m - n) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(root).real)


@pytest.mark.parametrize(("d", "shift"), [(1, 0.0), (8, 0.0), (64, 0.0), (64, 3.0)])
def test_frechet_is_the_published_form(d, shift):
    real, fake = drawn(300, d, seed=1), drawn(300, d, seed=2, shift=shift)
    expected = plain_frechet(real, fake) if d > 1 else one_dimension(real, fake)
    found = frechet(Moments.of(real), Moments.of(fake))
    assert found == pytest.approx(expected, rel=1e-6)
    assert frechet(Moments.of(fake), Moments.of(real)) == pytest.approx(found, rel=1e-6)


def one_dimension(real, fake):
    """(m1 - m2)^2 + (s1 - s2)^2."""
    return float((real.mean() - fake.mean()) ** 2 + (real.std() - fake.std()) ** 2)


def test_frechet_of_a_set_with_itself_is_0():
    moments = Moments.of(drawn(200, 32))
    assert 0 <= frechet(moments, moments) < 1e-9 * float(moments.covariance.trace())


def test_frechet_to_a_single_point_is_that_of_a_spread_and_a_shift():
    real, point = Moments.of(drawn(200, 16)), Moments.of(torch.full((200, 16), 2.0))
    expected = (real.mean - 2).square().sum() + real.covariance.trace()
    for found in (frechet(real, point), frechet(point, real)):
        assert found == pytest.approx(expected.item(), rel=1e-9)
    assert frechet(point, point) == 0


def test_moments_need_more_images_than_features():
    with pytest.raises(BadInput, match=r"8 images are too few for 8 features: 9 or more"):
        Moments.of(drawn(8, 8))
    moments = Moments.of(drawn(9, 8, dtype=torch.float32))
    assert moments.covariance.dtype == moments.mean.dtype == torch.float64
    assert torch.linalg.matrix_rank(moments.covariance) == 8
    assert moments.n == 9


def test_moments_are_unbiased(monkeypatch):
    points = drawn(50, 4)
    monkeypatch.setattr(metrics, "CACHED", 7)
    moments = Moments.of(points)
    assert np.allclose(moments.covariance, np.cov(points.numpy(), rowvar=False))
    assert np.allclose(moments.mean, points.numpy().mean(0))


def plain_kernel_distance(real, fake):
    """The U-statistic, pair by pair."""
    d = real.shape[1]
    mean = {}
    for name, a, b in (("rr", real, real), ("ff", fake, fake), ("rf", real, fake)):
        pairs = [(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if a is not b or i != j]
        mean[name] = np.mean([(float(x @ y) / d + 1) ** 3 for x, y in pairs])
    return mean["rr"] + mean["ff"] - 2 * mean["rf"]


def test_kernel_distance_is_the_formula():
    real, fake = drawn(30, 6, seed=1), drawn(20, 6, seed=2, shift=0.5)
    expected = plain_kernel_distance(real, fake)
    assert metrics.kernel_distance(real, fake) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased():
    found = [metrics.kernel_distance(*torch.randn(2, 20, 4).double()) for _ in range(300)]
    error = np.std(found) / math.sqrt(300)
    assert abs(np.mean(found)) < 4 * error
    assert min(found) < 0


def plain_manifold(real, fake, k):
    """From whole matrices of distances, as the four are defined."""
    real, fake = real.numpy(), fake.numpy()
    around_real = np.sort(cdist(real, real), 1)[:, k]  # column 0 is the point itself
    around_fake = np.sort(cdist(fake, fake), 1)[:, k]
    between = cdist(real, fake)
    in_real = between <= around_real[:, None]
    return {
        "precision": in_real.any(0).mean(),
        "recall": (between <= around_fake).any(1).mean(),
        "density": in_real.sum(0).mean() / k,
        "coverage": (between.min(1) <= around_real).mean(),
    }


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_manifold_is_the_definition(k, shift):
    real, fake = drawn(120, 5, seed=1), drawn(90, 5, seed=2, shift=shift)
    found = metrics.manifold(real, fake, k)
    assert found == pytest.approx(plain_manifold(real, fake, k), abs=1e-12)
    assert 0 < found["coverage"] < 1


def test_memorised_is_the_definition():
    train, fake = drawn(80, 4, seed=1), drawn(60, 4, seed=2)
    fake[:10] = train[:10] + 1e-9
    between, own = cdist(fake, train), cdist(train, train)
    np.fill_diagonal(own, np.inf)
    expected = np.mean(between.min(1) <= own.min(1)[between.argmin(1)])
    assert metrics.memorised(train, fake) == pytest.approx(expected)
    assert metrics.memorised(train, fake, most=10) == 1


def test_blocks_change_nothing(monkeypatch):
    real, fake = drawn(60, 8, seed=1), drawn(50, 8, seed=2, shift=0.3)

    def everything():
        found = {"kid": metrics.kernel_distance(real, fake), **metrics.manifold(real, fake)}
        return {**found, "memorised": metrics.memorised(real, fake)}

    whole = everything()
    for cells in (1, 130, 1000):
        monkeypatch.setattr(metrics, "CELLS", cells)
        assert everything() == pytest.approx(whole, rel=1e-9)


def test_classes_by_hand():
    def of(*classes):
        return F.one_hot(torch.tensor(classes), 4) * 0.4 + 0.15

    assert metrics.class_entropy(of(0, 1, 2, 3)) == pytest.approx(math.log(4))
    assert metrics.class_entropy(of(0, 0, 1, 1)) == pytest.approx(math.log(2))
    assert metrics.class_entropy(of(2, 2, 2)) == 0
    even = of(0, 1, 2, 3)
    assert metrics.class_divergence(even, even) == 0
    # 2.5 and 0.5, twice each, of 6 against a quarter each.
    expected = 5 / 6 * math.log(5 / 3) + 1 / 6 * math.log(1 / 3)
    assert metrics.class_divergence(even, of(1, 1, 0, 0)) == pytest.approx(expected)
    assert math.isfinite(metrics.class_divergence(of(1, 1, 1, 1), even))


def test_bad_features_are_named():
    few, many, odd = drawn(5, 3), drawn(20, 3), drawn(20, 3)
    odd[3, 1] = math.nan
    with pytest.raises(BadInput, match=r"20 and 5 images: 6 or more are needed of each"):
        metrics.manifold(many, few)
    with pytest.raises(BadInput, match=r"20 and 1 images: 2 or more"):
        metrics.kernel_distance(many, few[:1])
    with pytest.raises(BadInput, match=r"1 or more"):
        metrics.memorised(many, few[:0])
    for broken in (
        lambda: Moments.of(odd),
        lambda: metrics.kernel_distance(many, odd),
        lambda: metrics.manifold(many, odd),
        lambda: metrics.memorised(many, odd),
    ):
        with pytest.raises(BadInput, match="not finite"):
            broken()
