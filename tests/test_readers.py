"""Image files of every published form, whole and damaged."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import (
    COLOUR,
    GREY,
    SmallCIFAR10,
    SmallCIFAR100,
    SmallFashion,
    SmallMNIST,
    arrays,
    check_holds,
    idx,
    nowhere_else,  # noqa: F401
    write_binaries,
    write_idx,
    write_npz,
    write_pickles,
)

from lth_zoo.errors import DataError
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.tasks import readers

pytestmark = pytest.mark.usefixtures("nowhere_else")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw"])
def test_idx_files(tmp_path, folder, zipped):
    parts = arrays(GREY)
    write_idx(tmp_path / folder, parts, zipped)
    check_holds(SmallMNIST("mnist", tmp_path), parts)


def test_idx_files_with_a_dot_in_their_names(tmp_path):
    parts = arrays(GREY)
    for path in write_idx(tmp_path / "mnist", parts, zipped=False).iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    check_holds(SmallMNIST("mnist", tmp_path), parts)


@pytest.mark.parametrize("path", ["mnist/mnist.npz", "mnist.npz", "mnist/other.npz"])
def test_npz_files(tmp_path, path):
    parts = arrays(GREY)
    write_npz(tmp_path / path, parts)
    check_holds(SmallMNIST("mnist", tmp_path), parts)


@pytest.mark.parametrize("write", [write_pickles, write_binaries])
@pytest.mark.parametrize(
    ("task", "folder", "fine"),
    [
        (SmallCIFAR10, "cifar10", False),
        (SmallCIFAR10, "cifar-10-batches-py", False),
        (SmallCIFAR100, "cifar-100-python", True),
    ],
)
def test_cifar_files(tmp_path, write, task, folder, fine):
    parts = arrays(COLOUR, classes=100 if fine else 10)
    write(tmp_path / folder, parts, fine)
    check_holds(task("cifar", tmp_path), parts)


def test_every_form_has_one_fingerprint(tmp_path):
    parts, other = arrays(COLOUR), arrays(COLOUR)
    write_pickles(tmp_path / "a/cifar10", parts)
    write_binaries(tmp_path / "b/cifar10", parts)
    write_npz(tmp_path / "c/cifar10/x.npz", parts)
    write_npz(tmp_path / "d/cifar10/x.npz", other)
    prints = [SmallCIFAR10("cifar10", tmp_path / f).fingerprint() for f in "abcd"]
    assert len(set(prints[:3])) == 1
    assert prints[3] != prints[0]


def test_order_of_the_places(tmp_path, monkeypatch):
    places = {name: arrays(GREY) for name in ("data", "environment", "shared/data")}
    for name, parts in places.items():
        write_idx(tmp_path / name / "mnist", parts)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    check_holds(SmallMNIST("mnist"), places["shared/data"])
    monkeypatch.setenv("LTH_ZOO_DATA", str(tmp_path / "environment"))
    check_holds(SmallMNIST("mnist"), places["environment"])
    check_holds(SmallMNIST("mnist", tmp_path / "data"), places["data"])


def test_a_folder_may_be_the_data_set_itself_if_it_bears_its_name(tmp_path):
    parts = arrays(GREY)
    folder = write_idx(tmp_path / "mnist", parts)
    check_holds(SmallMNIST("mnist", folder), parts)
    with pytest.raises(DataError, match="fashion-mnist is not at hand"):
        SmallFashion("fashion-mnist", folder).fingerprint()


def test_missing_everywhere_says_where_it_looked(tmp_path):
    with pytest.raises(DataError) as caught:
        task_of("cifar10", tmp_path).fingerprint()
    message = str(caught.value)
    assert all(
        word in message
        for word in ("cifar10 is not", str(tmp_path / "cifar10"), "uoft-cs/cifar10", "LTH_ZOO_DATA")
    )


def test_a_folder_that_does_not_exist(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"the data folder is .*nowhere, which is no folder"):
        task_of("mnist", tmp_path / "nowhere").fingerprint()
    monkeypatch.setenv("LTH_ZOO_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"LTH_ZOO_DATA is .*gone, which is no folder"):
        task_of("mnist").fingerprint()


def damaged(folder, name, change):
    """Rewrite one gzipped file of a folder through a function of its bytes."""
    path = folder / f"{name}-ubyte.gz"
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3", lambda b: b"\0\0\x09\x03" + b[4:], "00000903; expected 00000803"),
        ("train-labels-idx1", lambda b: b"\0\0\x08\x03" + b[4:], "00000803; expected 00000801"),
        ("t10k-images-idx3", lambda b: b"", "magic number nothing; expected 00000803"),
        ("t10k-images-idx3", lambda b: b[:9], "0 bytes of data; its header says"),
        ("t10k-images-idx3", lambda b: b[:-1], r"7839 bytes of data; .* \(10, 28, 28\)"),
        ("t10k-images-idx3", lambda b: b + b"x", "7841 bytes of data"),
        ("t10k-labels-idx1", lambda b: b[:-1] + b"\x0a", "label 10; expected 0 to 9"),
        ("train-labels-idx1", lambda b: idx(np.zeros(29)), "30 images but 29 labels"),
        ("train-images-idx3", lambda b: idx(np.zeros((30, 8, 8))), "8x8 uint8; expected 28x28"),
    ],
)
def test_damaged_idx_files(tmp_path, name, change, message):
    folder = write_idx(tmp_path / "mnist", arrays(GREY))
    damaged(folder, name, change)
    with pytest.raises(DataError, match=message) as caught:
        SmallMNIST("mnist", tmp_path).fingerprint()
    assert f"{folder}/{name}" in str(caught.value)


def test_truncated_gzip(tmp_path):
    path = write_idx(tmp_path / "mnist", arrays(GREY)) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=rf"{path.name}: gzip data .* truncated after 500 bytes"):
        SmallMNIST("mnist", tmp_path).fingerprint()


def test_flipped_byte_in_gzip(tmp_path):
    path = write_idx(tmp_path / "mnist", arrays(GREY)) / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    data[1000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=path.name):
        SmallMNIST("mnist", tmp_path).fingerprint()


def test_a_missing_file(tmp_path):
    (write_idx(tmp_path / "mnist", arrays(GREY)) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="mnist: no t10k-labels-idx1-ubyte or"):
        SmallMNIST("mnist", tmp_path).fingerprint()


def test_too_few_images_are_not_the_published_set(tmp_path):
    write_idx(tmp_path / "mnist", arrays(GREY))
    with pytest.raises(DataError, match=r"train-images.*: 30 images; expected 60000"):
        task_of("mnist", tmp_path).fingerprint()


class Evil:
    """What a hostile pickle holds: it would make a folder while it loads."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": Evil(), b"labels": [0]}), r"the pickle names \w+\.mkdir"),
        (b"not a pickle", "expected a CIFAR batch"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}, 4), "KeyError: b'labels'"),
        (pickle.dumps({b"data": np.zeros((2, 9)), b"labels": [0, 1]}, 4), r"data of \(2, 9\)"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [0]}, 4), "and 1 labels"),
    ],
)
def test_damaged_and_hostile_pickles(tmp_path, content, message):
    write_pickles(tmp_path / "cifar10", arrays(COLOUR))
    (tmp_path / "cifar10/data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3: .*{message}"):
        SmallCIFAR10("cifar10", tmp_path).fingerprint()
    assert not Path("owned").exists()


def test_damaged_binaries(tmp_path):
    write_binaries(tmp_path / "cifar10", arrays(COLOUR))
    path = tmp_path / "cifar10/test_batch.bin"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        DataError, match=r"test_batch.bin: 30723 bytes; expected a multiple of 3073"
    ):
        SmallCIFAR10("cifar10", tmp_path).fingerprint()
    path.unlink()
    with pytest.raises(DataError, match=r"cifar10: no test_batch.bin"):
        SmallCIFAR10("cifar10", tmp_path).fingerprint()


def test_damaged_npz(tmp_path):
    path = tmp_path / "mnist/m.npz"
    write_npz(path, arrays(GREY))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"m.npz: .*expected a whole .npz"):
        SmallMNIST("mnist", tmp_path).fingerprint()
    np.savez(path, x=np.zeros(3))
    with pytest.raises(DataError, match=r"m.npz: has x; expected x_train, y_train"):
        SmallMNIST("mnist", tmp_path).fingerprint()
    np.savez(path, **dict.fromkeys(("x_train", "y_train", "x_test", "y_test"), np.array([Evil()])))
    with pytest.raises(DataError, match=r"m.npz: .*allow_pickle"):
        SmallMNIST("mnist", tmp_path).fingerprint()
    np.savez(tmp_path / "mnist/second.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"2 .npz files; expected one"):
        SmallMNIST("mnist", tmp_path).fingerprint()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mnist", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("fashion-mnist", [6000] * 10),
    ],
)
def test_real_files(data_dir, name, counts):
    task = task_of(name, data_dir)
    assert [task.size(split) for split in SPLITS] == [55000, 5000, 10000]
    train = torch.cat([task.labels("train"), task.labels("validation")])
    assert train.bincount().tolist() == counts
    images = task.batch("train", torch.arange(55000))[0]
    assert images.mean().item() == pytest.approx(0, abs=0.01)
    assert images.std().item() == pytest.approx(1, abs=0.01)


def test_the_subset_is_never_taken_for_cifar10(data_dir):
    from lth_zoo.tasks.vision import CIFAR10Subset

    task = CIFAR10Subset("cifar10-subset", data_dir)
    assert [task.size(split) for split in SPLITS] == [9000, 1000, 2000]
    assert task.labels("validation").bincount().tolist() == [100] * 10
    with pytest.raises(DataError, match="not at hand"):
        task_of("cifar10", data_dir).fingerprint()
    folder = data_dir / "cifar10_subset"
    with pytest.raises(DataError):
        readers.find([folder], [readers.npz_parts])
