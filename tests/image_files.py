"""Small image data sets for the tests, written in every published file form."""

from __future__ import annotations

import gzip
import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest
import torch

from lth_zoo.protocols import SPLITS
from lth_zoo.tasks.vision import CIFAR10, CIFAR100, MNIST, FashionMNIST

RNG = np.random.default_rng(0)
GREY = {"train": (30, 28, 28), "test": (10, 28, 28)}
COLOUR = {"train": (30, 32, 32, 3), "test": (10, 32, 32, 3)}


class SmallMNIST(MNIST):
    """MNIST's rules on a handful of images."""

    counts: ClassVar = {"train": 30, "test": 10}
    held_out = 5


class SmallFashion(FashionMNIST):
    """Fashion-MNIST's rules on a handful of images."""

    counts = SmallMNIST.counts
    held_out = 5


class SmallCIFAR10(CIFAR10):
    """CIFAR-10's rules on a handful of images."""

    counts = SmallMNIST.counts
    held_out = 5


class SmallCIFAR100(CIFAR100):
    """CIFAR-100's rules on a handful of images."""

    counts = SmallMNIST.counts
    held_out = 5


@pytest.fixture
def nowhere_else(tmp_path, monkeypatch):
    """Let the tests see no data but their own, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTH_ZOO_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def arrays(shapes, classes=10):
    return {
        part: (RNG.integers(0, 256, shape, np.uint8), np.arange(shape[0]) % classes)
        for part, shape in shapes.items()
    }


def idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, parts, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in parts.items():
        prefix = {"train": "train", "test": "t10k"}[part]
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(array)
            path = folder / f"{prefix}-{kind}-ubyte{'.gz' * zipped}"
            path.write_bytes(gzip.compress(data) if zipped else data)
    return folder


def write_npz(path, parts):
    path.parent.mkdir(parents=True, exist_ok=True)
    (x, y), (x_test, y_test) = parts["train"], parts["test"]
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test)


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar_files(parts, fine=False):
    """Yield (name, images, labels) of each file of CIFAR-10 or, if fine, CIFAR-100."""
    (x, y), test = parts["train"], parts["test"]
    if fine:
        yield from (("train", x, y), ("test", *test))
        return
    pieces = zip(np.split(x, 5), np.split(y, 5), strict=True)
    yield from ((f"data_batch_{i}", *piece) for i, piece in enumerate(pieces, 1))
    yield ("test_batch", *test)


def write_pickles(folder, parts, fine=False):
    folder.mkdir(parents=True, exist_ok=True)
    key = b"fine_labels" if fine else b"labels"
    for name, x, y in cifar_files(parts, fine):
        batch = {b"data": planes(x), key: y.tolist(), b"coarse_labels": [0] * len(y)}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))


def write_binaries(folder, parts, fine=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, x, y in cifar_files(parts, fine):
        rows = [np.zeros((len(y), 1)), y[:, None], planes(x)][0 if fine else 1 :]
        (folder / f"{name}.bin").write_bytes(np.hstack(rows).astype(np.uint8).tobytes())


def check_holds(task, parts):
    """Assert that a task holds exactly these images, the validation ones from train."""
    held = [task.splits[split] for split in ("train", "validation")]
    assert [task.size(split) for split in SPLITS] == [25, 5, 10]
    images, labels = parts["train"]
    first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    expected = {picture.tobytes(): label for picture, label in zip(first, labels, strict=True)}
    pixels = torch.cat([h.pixels for h in held]).numpy()
    found = torch.cat([h.labels for h in held]).tolist()
    assert {p.tobytes(): n for p, n in zip(pixels, found, strict=True)} == expected
    assert task.labels("test").tolist() == parts["test"][1].tolist()
