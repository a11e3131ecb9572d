"""A judge of generated images: credible on spoilt real ones, and not to be fooled by copies."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance

from lth_zoo.errors import BadInput
from lth_zoo.protocols import adapter_of, task_of
from lth_zoo.recipe import Training
from lth_zoo.seeds import seeded
from lth_zoo.tasks.generation_judge import Judge
from lth_zoo.tasks.generation_metrics import Moments, frechet
from lth_zoo.train import Loop


@pytest.fixture(scope="module")
def digits():
    return task_of("digits")


@pytest.fixture(scope="module")
def judges(digits):
    """Three judges, trained for a second each."""
    training = Training(iterations=150, evaluate_every=150, batch_size=64, learning_rate=1e-3)
    networks = []
    for seed in range(3):
        with seeded(seed, "init"):
            networks.append(adapter_of("judge").build("judge", digits.signature))
        Loop(networks[-1], digits, training, seed=seed).run()
    return [Judge(network, digits) for network in networks]


@pytest.fixture(scope="module")
def judge(judges):
    return judges[0]


def pictures(digits, split, keep=lambda labels: labels >= 0, n=300, seed=0):
    """Return n real images in [0, 1] of some classes, as a generator would make them: mixed."""
    images = digits.splits[split]
    found = keep(images.labels).nonzero()[:, 0]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return images.pixels[found[order[:n]]].float() / digits.scale


def noise(images, amount):
    rng = torch.Generator().manual_seed(1)
    return (images + amount * torch.randn(images.shape, generator=rng)).clamp(0, 1)


def blur(images, amount):
    """Under a normal kernel of that width in pixels."""
    kernel = torch.exp(-(torch.arange(-3, 4) ** 2) / (2 * amount**2))
    kernel = kernel[:, None] * kernel / kernel.sum() ** 2
    return F.conv2d(F.pad(images, (3, 3, 3, 3)), kernel[None, None])


def dropout(images, share):
    rng = torch.Generator().manual_seed(2)
    return images * (torch.rand(images.shape, generator=rng) >= share)


def ladders(digits):
    """Return what is ever further from the test part, by what is done to train images."""
    real = pictures(digits, "train")
    without = {n: pictures(digits, "train", lambda y, n=n: y >= n) for n in (1, 3, 5)}
    return {
        "noise": [real, *(noise(real, a) for a in (0.15, 0.3, 0.6))],
        "blur": [real, *(blur(real, a) for a in (0.5, 0.7, 1.0))],
        "dropout": [real, *(dropout(real, a) for a in (0.1, 0.3, 0.6))],
        "modes": [real, *without.values()],
    }


def test_real_images_are_near_and_shifted_ones_are_far(judges, digits):
    shifted = pictures(digits, "train").roll(1, 3)
    for judge in judges:
        floor = judge.floor("test", 300)
        assert floor < 2
        assert judge.distance(pictures(digits, "train"), "test") < 2
        assert judge.distance(shifted, "test") > 5 * floor
        assert judge.distance(digits.splits["test"].pixels / digits.scale, "test") < 1e-9


@pytest.mark.parametrize("what", ["noise", "blur", "dropout", "modes"])
def test_distances_grow_with_what_is_spoilt(judges, digits, what):
    steps = ladders(digits)[what]
    for judge in judges:
        found = [judge.distance(images, "test") for images in steps]
        assert all(a < b for a, b in pairwise(found)), found
    scores = [judges[0].score(images, "test") for images in (steps[0], steps[-1])]
    for key, better in (("kid", -1), ("coverage", 1)):
        assert better * scores[0][key] > better * scores[1][key]


def test_judges_agree_on_the_order(judges, digits):
    images = [step for ladder in ladders(digits).values() for step in ladder]
    found = [[judge.distance(step, "test") for step in images] for judge in judges]
    assert min(spearmanr(a, b).statistic for a, b in combinations(found, 2)) >= 0.9


def test_copies_are_memorised_and_held_out_images_are_not(judges, digits):
    for judge in judges:
        copies, held_out = (
            judge.score(pictures(digits, s), "validation") for s in ("train", "test")
        )
        assert copies["memorised"] == 1
        assert held_out["memorised"] < 0.55
        nearly = noise(pictures(digits, "train"), 0.02)
        assert judge.score(nearly, "validation")["memorised"] > 0.9
        assert copies["cfd"] < 2  # the distance alone would praise it


def test_missing_classes_show_in_entropy(judge, digits):
    whole, half = (
        judge.score(pictures(digits, "train", lambda y, n=n: y >= n), "test")["entropy"]
        for n in (0, 5)
    )
    assert whole == pytest.approx(math.log(10), abs=0.02)
    assert half == pytest.approx(math.log(5), abs=0.1)


def test_a_collapsed_generator_has_a_finite_distance(judge):
    for value in (0.0, 0.5):
        found = judge.score(torch.full((300, 1, 8, 8), value), "test")
        assert all(math.isfinite(x) for x in found.values())
        assert found["cfd"] > 10 * found["cfd_floor"]
        assert found["recall"] == found["entropy"] == 0


def test_a_score_has_its_keys_and_takes_equal_numbers(judge, digits):
    images = noise(pictures(digits, "train", n=500), 0.1)
    found = judge.score(images, "test")
    assert list(found) == [
        *("cfd", "cfd_floor", "kid", "precision", "recall", "density", "coverage"),
        *("entropy", "memorised"),
    ]
    assert found == judge.score(images[:300], "test")
    few = judge.score(images[:100], "test")
    assert few["cfd_floor"] == judge.floor("test", 100) > 2 * found["cfd_floor"]
    real, fake = judge.real("test")[:100], judge.features(images[:100])
    assert few["cfd"] == frechet(Moments.of(real), Moments.of(fake))
    assert len(judge.real("test").unique(dim=0)) == 300
    with pytest.raises(BadInput, match="20 images are too few for 32 features: 33 or more"):
        judge.score(images[:20], "test")


def test_the_floor_compares_as_many_different_images(judge):
    test, train = judge.real("test"), judge.real("train")
    moments = Moments.of(test[:80]), Moments.of(train[-80:])
    assert judge.floor("test", 80) == frechet(*moments)
    assert judge.floor("test", 400) == judge.floor("test", 300)
    halves = Moments.of(train[:598]), Moments.of(train[-598:])
    assert judge.floor("train", 1197) == frechet(*halves) > 0.1


def test_real_images_are_looked_at_once(judge, digits, monkeypatch):
    images = pictures(digits, "train")
    before = judge.score(images, "test")
    monkeypatch.setattr(digits, "batch", None)
    assert judge.score(images, "test") == before


def test_features_are_standardised_and_scaled_as_batches_are(judge, digits):
    train = judge.real("train")
    assert train.shape == (1197, 32)
    assert train.mean(0).abs().max() < 1e-9
    assert (train.std(0) - 1).abs().max() < 1e-9
    at = torch.arange(300)
    images = digits.splits["test"].pixels / digits.scale
    assert digits.scaled(images).equal(digits.batch("test", at)[0])
    assert digits.scaled(images + 0.4 / digits.scale).equal(digits.scaled(images))
    for row in judge.features(images)[:5]:
        assert (judge.real("test") - row).abs().sum(1).min() < 1e-9


def test_accuracy_is_that_of_the_classifier(judges, digits):
    images, labels = digits.splits["test"].pixels / digits.scale, digits.labels("test")
    for judge in judges:
        expected = digits.evaluate(judge.network, "test")["accuracy"]
        assert judge.accuracy(images, labels) == pytest.approx(expected)
        assert expected > 90
        assert judge.accuracy(images, (labels + 1) % 10) < 5
        assert judge.probabilities(images).sum(1).allclose(torch.ones(300).double())


def test_a_judge_leaves_no_trace(judge, digits):
    judge.network.train()
    before = {n: t.clone() for n, t in judge.network.state_dict().items()}
    images = pictures(digits, "train").requires_grad_()
    found = judge.features(images)
    assert judge.network.training
    assert not found.requires_grad
    assert all(t.equal(before[n]) for n, t in judge.network.state_dict().items())
    judge.network.eval()
    assert judge.features(images).equal(found)


def test_images_that_cannot_be_compared_are_refused(judge):
    with pytest.raises(BadInput, match=r"\(1, 28, 28\) cannot be compared with digits's \(1, 8"):
        judge.score(torch.zeros(300, 1, 28, 28), "test")
    with pytest.raises(BadInput, match="not finite"):
        judge.score(torch.full((300, 1, 8, 8), math.nan), "test")


def test_torchmetrics_says_the_same_of_this_extractor(judge, digits):
    class Extractor(nn.Module):
        num_features = 32

        def forward(self, images):
            return judge.features(images)

    real, fake = digits.splits["test"].pixels / digits.scale, pictures(digits, "train")
    other = FrechetInceptionDistance(feature=Extractor())
    for images, is_real in ((real, True), (noise(fake, 0.2), False)):
        for batch in images.split(70):
            other.update(batch, real=is_real)
    found = judge.distance(noise(fake, 0.2), "test")
    assert found == pytest.approx(other.compute().item(), rel=1e-6)
