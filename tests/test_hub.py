"""Hugging Face image data sets: parquet, folders of pictures, what the hub would send."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import (
    GREY,
    RNG,
    SmallMNIST,
    arrays,
    check_holds,
    nowhere_else,  # noqa: F401
    write_idx,
)

from lth_zoo.errors import DataError
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.tasks import hub
from lth_zoo.tasks.vision import HubImages

pytestmark = pytest.mark.usefixtures("nowhere_else")


def dataset(images, labels, names=None, label="label"):
    """Return a ``datasets.Dataset`` with an image and a label column and one more."""
    import datasets
    from PIL import Image

    kind = datasets.ClassLabel(names=names or [f"class {i}" for i in range(10)])
    features = {"image": datasets.Image(), label: kind, "id": datasets.Value("int64")}
    rows = {"image": [Image.fromarray(i) for i in images], label: labels, "id": range(len(labels))}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def write_parquet(folder, parts):
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in parts.items():
        dataset(images, labels).to_parquet(str(folder / f"{part}-00000-of-00001.parquet"))


def test_mnist_as_the_hubs_parquet(tmp_path):
    parts = arrays(GREY)
    write_parquet(tmp_path / "mnist/mnist", parts)
    write_idx(tmp_path / "idx/mnist", parts)
    task = SmallMNIST("mnist", tmp_path)
    check_holds(task, parts)
    assert task.fingerprint() == SmallMNIST("mnist", tmp_path / "idx").fingerprint()


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({"train": 40, "validation": 12, "test": 11}, [40, 12, 11]),
        ({"train": 40, "test": 11}, [36, 4, 11]),
        ({"train": 40, "validation": 12}, [36, 4, 12]),
        ({"train": 40}, [32, 4, 4]),
    ],
)
def test_any_parquet_folder(tmp_path, given, sizes):
    parts = arrays({part: (n, 6, 5, 3) for part, n in given.items()})
    write_parquet(tmp_path / "cats", parts)
    task = task_of("image/cats", tmp_path)
    assert task.signature.input == (3, 6, 5)
    assert task.signature.output == 10
    assert [task.size(split) for split in SPLITS] == sizes
    seen = [p.tobytes() for s in SPLITS for p in task.splits[s].pixels.numpy()]
    assert len(set(seen)) == sum(sizes)
    whole = task.batch("train", torch.arange(sizes[0]))[0]
    assert whole.mean((0, 2, 3)).numpy() == pytest.approx(np.zeros(3), abs=1e-5)
    assert whole.std((0, 2, 3), correction=0).numpy() == pytest.approx(np.ones(3), abs=1e-5)
    again = HubImages("image/cats", tmp_path)
    assert again.fingerprint() == task.fingerprint()


def test_folder_of_pictures(tmp_path):
    from PIL import Image

    for split, n in (("train", 12), ("test", 4)):
        for i in range(n):
            path = tmp_path / "pets" / split / ("cat", "dog")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4), 10 * i, np.uint8)).save(path)
    task = task_of(f"image/{tmp_path / 'pets'}")
    assert task.signature.input == (1, 4, 4)
    assert task.signature.output == 2
    assert [task.size(split) for split in SPLITS] == [11, 1, 4]


def test_hidden_test_labels_count_as_absent(tmp_path):
    import datasets

    images = RNG.integers(0, 256, (40, 4, 4), np.uint8)
    hidden = dataset(images[:6], [-1] * 6)
    parts = {"train": dataset(images, np.arange(40) % 10), "test": hidden}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    task = task_of("image/saved", tmp_path)
    assert [task.size(split) for split in SPLITS] == [32, 4, 4]


def test_plain_parquet_columns_are_found_by_shape():
    import datasets

    plain = {
        "picture": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        "labels": datasets.Value("int64"),
        "width": datasets.Value("int64"),
    }
    assert hub.columns(plain, "x", None) == ("picture", "labels")


def test_two_label_columns_need_a_choice():
    import datasets

    label = datasets.ClassLabel(num_classes=3)
    features = {"img": datasets.Image(), "coarse": label, "fine": label}
    assert hub.columns(features, "x", "fine") == ("img", "fine")
    with pytest.raises(DataError, match="expected one label column, found coarse, fine"):
        hub.columns(features, "x", None)
    with pytest.raises(DataError, match="expected one image column, found none among fine"):
        hub.columns({"fine": label}, "x", None)


def test_images_of_several_sizes(tmp_path):
    images = [np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 6), np.uint8)]
    folder = tmp_path / "mixed"
    folder.mkdir()
    dataset(images, [0, 1, 2]).to_parquet(str(folder / "train.parquet"))
    with pytest.raises(DataError, match="image 2 is 4x6, the first 4x4; all images must have one"):
        task_of("image/mixed", tmp_path).fingerprint()


def test_grey_and_colour_pictures_become_colour():
    images = [np.full((2, 2), 9, np.uint8), np.zeros((2, 2, 3), np.uint8)]
    part = hub.part_of(dataset(images, [0, 1]), "x")
    assert part.pixels.shape == (2, 2, 2, 3)
    assert (part.pixels[0] == 9).all()


@pytest.mark.parametrize("name", ["image/no-such/set", "image/"])
def test_a_hub_data_set_that_cannot_be_had(name, tmp_path):
    with pytest.raises(DataError, match="cannot load"):
        task_of(name, tmp_path).fingerprint()
