"""Attacks and corruptions: known answers, the ball and the range, and which attack is stronger."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lth_zoo.probes.attacks import (
    Space,
    fgsm,
    fooled_by_pgd,
    noised,
    pgd,
    smallest,
    uphill,
    wrong,
)
from lth_zoo.probes.corruptions import CORRUPTIONS, corrupted
from lth_zoo.protocols import task_of
from lth_zoo.seeds import seeded


def size(eps, x):
    return torch.full((len(x), 1, 1, 1), eps)


@pytest.fixture(scope="module")
def digits():
    """A small network trained on digits, and 200 test images."""
    task = task_of("digits")
    with seeded(0, "init"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    x, y = task.batch("train", torch.arange(1000))
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.requires_grad_(requires_grad=False)
    return model, *task.batch("test", torch.arange(200)), Space(*task.pixels())


def test_pixels_are_what_a_batch_holds_for_black_and_white():
    task = task_of("digits")
    black, white = task.pixels()
    ends = task.scaled(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8))
    assert torch.allclose(ends[0], black.expand(1, 8, 8))
    assert torch.allclose(ends[1], white.expand(1, 8, 8))
    x = task.batch("test", torch.arange(300))[0]
    assert x.min() == pytest.approx(black.item())
    assert x.max() == pytest.approx(white.item())


def test_a_linear_network_by_hand():
    """Scores w.x and 0 in a space from 0 to 4: the smallest eps is the distance over its way."""
    weight = torch.tensor([1.0, -2.0])

    def answers(x):
        score = x.flatten(1) @ weight
        return torch.stack([score, torch.zeros_like(score)], 1)

    x = torch.tensor([[2.0, 0.5], [3.0, 1.0], [0.0, 2.0]]).view(3, 1, 1, 2)
    y = torch.tensor([0, 0, 0])
    space = Space(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 4.0))
    # Scores 1, 1, -4. A way of 4 eps in both costs 12 eps: 1/12 is enough; the third is wrong.
    found = smallest(answers, x, y, space, steps=20)
    assert found.tolist() == pytest.approx([1 / 12, 1 / 12, 0.0], abs=2**-11)
    assert fgsm(answers, x, y, size(0.1, x), space)[0].view(-1).tolist() == pytest.approx(
        [1.6, 0.9]
    )
    slope = uphill(answers, x, y, "margin")
    assert slope.view(3, 2).tolist() == [[-1.0, 2.0]] * 3


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.5])
def test_attacks_stay_in_the_ball_and_are_images(eps, digits):
    model, x, y, space = digits
    rng = torch.Generator().manual_seed(0)
    way = space.white - space.black
    for found in (
        noised(x, size(eps, x), space, rng),
        fgsm(model, x, y, size(eps, x), space),
        pgd(model, x, y, size(eps, x), space, 10)[0],
        pgd(model, x, y, size(eps, x), space, 10, rng)[0],
    ):
        assert ((found - x).abs() <= eps * way + 1e-5).all()
        assert (found >= space.black).all()
        assert (found <= space.white).all()
        assert not found.equal(x)


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_stronger_attacks_fool_more_and_the_largest_fools_all(loss, digits):
    model, x, y, space = digits
    rng = torch.Generator().manual_seed(0)
    assert wrong(model, x, y).float().mean() < 0.15
    before = 0
    for eps in (0.05, 0.1, 0.2):
        noise = wrong(model, noised(x, size(eps, x), space, rng), y).sum()
        once = wrong(model, fgsm(model, x, y, size(eps, x), space, loss), y).sum()
        steps = fooled_by_pgd(model, x, y, size(eps, x), space, 20, 2, rng, loss).sum()
        assert noise < once <= steps
        assert before <= steps
        before = steps
    assert fooled_by_pgd(model, x, y, size(1.0, x), space, 20, 1, rng, loss).float().mean() > 0.99


def test_restarts_only_add_and_the_smallest_attack_agrees_with_pgd(digits):
    model, x, y, space = digits

    def fooled(restarts):
        rng = torch.Generator().manual_seed(0)
        return fooled_by_pgd(model, x, y, size(0.08, x), space, 10, restarts, rng)

    one, three = fooled(1), fooled(3)
    assert (one <= three).all()
    near = smallest(model, x, y, space, 10)
    assert (near[wrong(model, x, y)] == 0).all()
    assert (near[~wrong(model, x, y)] > 0).all()
    assert ((near <= 0.08) == one).float().mean() > 0.98


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_images_and_grow(name):
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(50, 3, 8, 8, generator=rng)
    gaps = []
    for strength in range(3):
        found = corrupted(x, name, strength, rng)
        assert found.shape == x.shape
        assert found.min() >= 0
        assert found.max() <= 1
        gaps.append((found - x).square().mean().item())
    assert 0 < gaps[0] < gaps[1] < gaps[2]


def test_corruptions_by_hand():
    rng = torch.Generator().manual_seed(0)
    x = torch.full((1, 1, 4, 4), 0.5)
    assert corrupted(x, "blur", 2, rng).allclose(x)  # a flat image has nothing to blur
    assert corrupted(x, "contrast", 2, rng).allclose(x)
    assert corrupted(x, "brightness", 1, rng).allclose(x + 0.2)
    dot = torch.zeros(1, 1, 9, 9)
    dot[0, 0, 4, 4] = 1.0
    assert corrupted(dot, "blur", 0, rng).sum().item() == pytest.approx(1.0)
    half = corrupted(torch.ones(100, 3, 8, 8), "pixel dropout", 2, rng)
    assert abs(half.mean() - 0.5) < 0.02
    assert (half.amin(1) == half.amax(1)).all()  # over all channels
