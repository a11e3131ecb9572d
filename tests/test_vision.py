"""Image tasks: splits, batches, augmentation and evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lth_zoo.errors import BadInput
from lth_zoo.protocols import SPLITS, adapter_of, task_of
from lth_zoo.tasks import images as module
from lth_zoo.tasks.images import (
    PAD,
    ImageClassification,
    Images,
    fixed_order,
    flip_and_crop,
    stratified,
)


class Noise(ImageClassification):
    """Random colour images of a given size; every pixel differs from black."""

    shape = (3, 12, 10)
    classes = 4
    mean = (0.1, 0.2, 0.3)
    std = (0.5, 0.25, 0.125)
    augment = True

    def read(self):
        """Return 40, 20 and 30 images."""
        rng = torch.Generator().manual_seed(0)
        return {split: self.draw(n, rng) for split, n in zip(SPLITS, (40, 20, 30), strict=True)}

    def draw(self, n, rng):
        """Return n images that show their own label in no way."""
        pixels = torch.randint(1, 256, (n, *self.shape), generator=rng, dtype=torch.uint8)
        return Images(pixels, torch.randint(0, self.classes, (n,), generator=rng))


class Many(Noise):
    """The same with enough classes for a top-5 accuracy."""

    classes = 100


@pytest.fixture
def task():
    return Noise("noise")


@pytest.fixture(scope="module")
def digits():
    return task_of("digits")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(task):
    """Return a model whose answers depend on mode and, in training, on global draws."""
    channels = task.signature.input[0]
    layers = [nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(task.classes))


def test_digits_are_split_for_good(digits):
    assert [digits.size(split) for split in SPLITS] == [1197, 300, 300]
    everything = torch.cat([digits.splits[split].pixels for split in SPLITS]).flatten(1)
    from sklearn.datasets import load_digits

    rows = sorted(map(tuple, load_digits().data.astype(int).tolist()))
    assert sorted(map(tuple, everything.tolist())) == rows
    for split in SPLITS:
        counts = digits.labels(split).bincount(minlength=10)
        assert counts.max() - counts.min() <= 6
    assert digits.fingerprint() == task_of("digits").fingerprint()
    assert digits.margin == 2.0


def test_digits_are_scaled(digits):
    pixels, labels = digits.batch("train", torch.arange(1197))
    assert pixels.shape == (1197, *digits.signature.input)
    assert pixels.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert pixels.mean().item() == pytest.approx(0, abs=1e-3)
    assert pixels.std().item() == pytest.approx(1, abs=1e-3)


def test_fixed_order_is_pinned():
    assert fixed_order(10, 0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    assert sorted(fixed_order(1000, 1)) == list(range(1000))


def test_stratified_parts_are_disjoint_and_in_proportion():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    parts = stratified(labels, (700, 200, 100), seed=0)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    for part, size in zip(parts, (700, 200, 100), strict=True):
        expected = np.array([0.6, 0.3, 0.1]) * size
        assert np.abs(np.bincount(labels[part]) - expected).max() <= 2
    again = stratified(labels, (700, 200, 100), seed=0)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    with pytest.raises(BadInput, match=r"parts \[1, 2\] do not add up to 1000"):
        stratified(labels, (1, 2), seed=0)


def test_a_batch_is_scaled_by_channel(task):
    at = torch.tensor([3, 1, 3])
    pixels, labels = task.batch("test", at)
    raw = task.splits["test"].pixels[at].double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (task.mean, task.std))
    torch.testing.assert_close(pixels.double(), (raw - mean) / std, rtol=1e-6, atol=1e-6)
    assert labels.equal(task.labels("test")[at])


def test_batches_are_copies(task):
    before = task.splits["train"].pixels.clone()
    for rng in (None, seeded()):
        pixels, labels = task.batch("train", torch.arange(40), rng)
        pixels.zero_()
        labels.zero_()
    assert task.splits["train"].pixels.equal(before)
    assert task.labels("train").any()


def test_only_the_generator_given_augments(task):
    at = torch.arange(40)
    plain = task.batch("train", at)[0]
    state = torch.get_rng_state()
    first, same, other = (task.batch("train", at, seeded(s))[0] for s in (0, 0, 1))
    assert torch.get_rng_state().equal(state)
    assert first.equal(same)
    assert not first.equal(other)
    assert not first.equal(plain)
    assert task.batch("train", at)[0].equal(plain)


def test_tasks_without_augmentation_draw_nothing(digits):
    rng = seeded()
    at = torch.arange(5)
    assert digits.batch("train", at, rng)[0].equal(digits.batch("train", at)[0])
    assert rng.get_state().equal(seeded().get_state())


def test_flip_and_crop_moves_whole_images(task):
    pixels = task.draw(400, seeded()).pixels
    moved = flip_and_crop(pixels, seeded())
    height, width = pixels.shape[2:]
    seen = set()
    for image, result in zip(pixels, moved, strict=True):
        options = {
            (flip, top, left): F.pad(image.flip(2) if flip else image, (PAD,) * 4)[
                :, top : top + height, left : left + width
            ]
            for flip in (False, True)
            for top in range(2 * PAD + 1)
            for left in range(2 * PAD + 1)
        }
        matches = [key for key, option in options.items() if option.equal(result)]
        assert len(matches) == 1
        seen.update(matches)
    flips, tops, lefts = (set(values) for values in zip(*seen, strict=True))
    assert flips == {False, True}
    assert tops == lefts == set(range(2 * PAD + 1))


def test_one_epoch_meets_every_image_once(digits):
    batches = digits.epoch(60, seeded())
    assert [len(batch) for batch in batches] == [60] * 19
    assert len(torch.cat(list(batches)).unique()) == 19 * 60


@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
def test_evaluation_does_not_depend_on_its_chunks(task, monkeypatch, chunk):
    torch.manual_seed(0)
    model = network(task)
    expected = task.evaluate(model, "test")
    monkeypatch.setattr(module, "CHUNK", chunk)
    assert task.evaluate(model, "test") == pytest.approx(expected, rel=1e-6)
    logits = model.eval()(task.batch("test", torch.arange(30))[0])
    labels = task.labels("test")
    right = (logits.argmax(1) == labels).float().mean().item()
    assert expected["accuracy"] == pytest.approx(100 * right)
    assert expected["loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
    assert set(expected) == {"accuracy", "loss"}


def test_evaluation_leaves_no_trace(task):
    model = network(task)
    task.evaluate(model, "test")  # gives the lazy layer its shape
    model.train()
    model[1].eval()
    modes = [m.training for m in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    model.register_forward_hook(lambda *_: print(torch.rand(3)))  # draws, as some models do
    task.evaluate(model, "validation")
    assert [m.training for m in model.modules()] == modes
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_evaluation_that_fails_restores_the_modes(task):
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuntimeError):
        task.evaluate(model, "test")
    assert all(m.training for m in model.modules())


def test_top5_from_a_hundred_classes_on():
    task = Many("many")
    torch.manual_seed(0)
    model = network(task)
    metrics = task.evaluate(model, "test")
    logits = model.eval()(task.batch("test", torch.arange(30))[0])
    hits = [label in logits[i].topk(5).indices for i, label in enumerate(task.labels("test"))]
    assert metrics["top5"] == pytest.approx(100 * sum(hits) / 30)
    assert metrics["top5"] >= metrics["accuracy"]


def test_fingerprint_follows_the_data_and_the_scaling(task):
    other = Noise("another name")
    assert other.fingerprint() == task.fingerprint()
    changes = []
    for split in SPLITS:
        changed = Noise("noise")
        changed.splits[split].pixels[0, 0, 0, 0] ^= 1
        relabelled = Noise("noise")
        relabelled.splits[split].labels[0] += 1
        changes += [changed, relabelled]
    scaled = Noise("noise")
    scaled.std = (1.0, 1.0, 1.0)
    prints = {t.fingerprint() for t in (task, scaled, *changes)}
    assert len(prints) == len(changes) + 2


def test_unknown_split(task):
    with pytest.raises(BadInput, match="unknown split 'tets'; did you mean 'test'"):
        task.size("tets")


def test_lenet_learns_the_digits(digits):
    torch.manual_seed(0)
    model = adapter_of("lenet-300-100").build("lenet-300-100", digits.signature)
    optimizer = torch.optim.Adam(model.parameters(), 1.2e-3)
    (objective,) = digits.objectives(model)
    before = digits.evaluate(model, "test")
    rng = seeded()
    for _ in range(8):
        for at in digits.epoch(60, rng):
            optimizer.zero_grad()
            objective.loss(model, digits.batch("train", at, rng), rng).backward()
            optimizer.step()
    after = digits.evaluate(model, "test")
    assert before["accuracy"] < 40
    assert after["accuracy"] > 93
    assert after["loss"] < before["loss"] / 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_batches_on_another_device(task):
    at, plain = torch.arange(8), task.batch("train", torch.arange(8), seeded())
    task.to(torch.device("cuda"))
    pixels, labels = task.batch("train", at, seeded())
    assert pixels.is_cuda
    torch.testing.assert_close(pixels.cpu(), plain[0])
    assert labels.cpu().equal(plain[1])
