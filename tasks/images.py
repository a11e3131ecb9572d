"""Image classification held in memory: batches, augmentation, evaluation.

A data set is three :class:`Images`; pixels stay uint8 until a batch is drawn. A subclass
says how to read them (:meth:`ImageClassification.read`) and how to scale them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.errors import BadInput, unknown
from lth_zoo.protocols import SPLITS, Objective, Signature, Split, Task
from lth_zoo.tasks.evaluation import evaluating

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

PAD = 4
CHUNK = 1000


@dataclass(frozen=True)
class Images:
    """One split: ``pixels`` (n, channels, height, width) uint8, ``labels`` (n,) int64."""

    pixels: Tensor
    labels: Tensor

    def take(self, indices: np.ndarray) -> Images:
        """Return a copy of the examples at the indices."""
        import torch

        at = torch.from_numpy(indices)
        return Images(self.pixels[at], self.labels[at])

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.labels)


class ImageClassification(Task):
    """Images to one of ``classes`` labels, by cross-entropy.

    Subclasses write :meth:`read`. A batch is (images float32, labels int64); a pixel is
    divided by ``scale``, then ``mean`` and ``std`` of each channel are taken out. With
    ``augment`` and an ``rng``, images are flipped and cropped after padding by 4.
    """

    margin: ClassVar[float]
    shape: tuple[int, ...]
    classes: int
    scale: float = 255.0
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    augment: ClassVar[bool] = False

    def read(self) -> Mapping[Split, Images]:
        """Return the three splits.

        Raises:
            DataError: the data is missing or damaged.
        """
        raise NotImplementedError

    @cached_property
    def splits(self) -> dict[Split, Images]:
        """The three splits, read on the first use."""
        return dict(self.read())

    @property
    def signature(self) -> Signature:
        """(channels, height, width) and the number of classes."""
        return Signature(self.shape, self.classes)

    def size(self, split: Split) -> int:
        """Return the number of images of a split."""
        return len(self._split(split))

    def labels(self, split: Split) -> Tensor:
        """Return the labels of a split, (n,) int64."""
        return self._split(split).labels

    def fingerprint(self) -> str:
        """Return sha256 over pixels, labels, splits and scaling.

        The same data in another file format has the same fingerprint. Computed once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        splits = self.splits
        rule = (self.scale, tuple(self.mean), tuple(self.std), self.augment and PAD)
        digest = hashlib.sha256(repr(rule).encode())
        for name in SPLITS:
            images = splits[name]
            digest.update(repr((name, tuple(images.pixels.shape))).encode())
            digest.update(images.pixels.cpu().numpy().data)
            digest.update(images.labels.cpu().numpy().data)
        return digest.hexdigest()

    def batch(
        self, split: Split, indices: Tensor, rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (images, labels) at the indices, flipped and cropped if ``rng`` is given."""
        images = self._split(split)
        indices = indices.to(images.labels.device)
        pixels = images.pixels.index_select(0, indices)
        if rng is not None and self.augment:
            pixels = flip_and_crop(pixels, rng)
        multiply, add = self._affine
        return pixels.float().mul_(multiply).add_(add), images.labels.index_select(0, indices)

    def scaled(self, images: Tensor) -> Tensor:
        """Return images in [0, 1], (n, channels, height, width), as a batch holds them.

        They are rounded to the data's grey levels, as if they had been saved: a copy of an
        image is then the same to the last bit.
        """
        multiply, add = self._affine
        return images.mul(self.scale).round_().mul_(multiply).add_(add)

    def pixels(self) -> tuple[Tensor, Tensor]:
        """Return what a batch holds for black and for white, (channels, 1, 1) each."""
        multiply, add = self._affine
        return add, multiply * self.scale + add

    def objectives(self, model: nn.Module) -> Sequence[Objective]:  # noqa: ARG002
        """Return cross-entropy over every parameter."""
        return [Objective("cross-entropy", self.loss)]

    def loss(
        self,
        model: nn.Module,
        batch: tuple[Tensor, Tensor],
        rng: torch.Generator,
    ) -> Tensor:
        """Return the mean cross-entropy of a batch."""
        from torch.nn import functional as F

        return F.cross_entropy(self.answers(model, batch, rng), batch[1])

    def answers(
        self,
        model: nn.Module,
        batch: tuple[Tensor, Tensor],
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the logits of the images of a batch, (n, classes)."""
        logits: Tensor = model(batch[0])
        return logits

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return ``accuracy`` in percent and ``loss``; ``top5`` from 100 classes on.

        The model's modes and the global generators are as before afterwards.
        """
        import torch
        from torch.nn import functional as F

        device = self._split(split).labels.device
        total = dict.fromkeys(("accuracy", "loss"), 0.0)
        if self.classes >= 100:
            total["top5"] = 0.0
        with evaluating(model):
            for chunk in torch.arange(self.size(split), device=device).split(CHUNK):
                _, labels = batch = self.batch(split, chunk)
                logits = self.answers(model, batch)
                total["loss"] += F.cross_entropy(logits.double(), labels, reduction="sum").item()
                total["accuracy"] += 100.0 * (logits.argmax(1) == labels).sum().item()
                if "top5" in total:
                    hits = (logits.topk(5).indices == labels[:, None]).sum()
                    total["top5"] += 100.0 * hits.item()
        return {name: value / self.size(split) for name, value in total.items()}

    def flags(self, model: nn.Module) -> tuple[str, ...]:
        """Return ``("constant",)`` for a model that gives a thousand images one answer."""
        import torch

        batch = self.batch("validation", torch.arange(min(CHUNK, self.size("validation"))))
        with evaluating(model):
            answers = self.answers(model, batch).argmax(1)
        return ("constant",) if bool((answers == answers[0]).all()) else ()

    def to(self, device: torch.device) -> None:
        """Move every split to a device."""
        for name, images in self.splits.items():
            self.splits[name] = Images(images.pixels.to(device), images.labels.to(device))
        self.__dict__.pop("_affine", None)

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        """Scaling as one multiply and one add, (channels, 1, 1) each, in float32."""
        import torch

        std = torch.tensor(self.std, dtype=torch.float64)
        mean = torch.tensor(self.mean, dtype=torch.float64)
        device = self.splits["train"].pixels.device
        pair = (1 / (self.scale * std), -mean / std)
        multiply, add = (t.float().view(-1, 1, 1).to(device) for t in pair)
        return multiply, add

    def _split(self, split: Split) -> Images:
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        return self.splits[split]


def flip_and_crop(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror half of the images, then shift each by up to 4 pixels over black.

    Vectorised over the batch (n, channels, height, width), and drawing from ``rng`` only.
    Rows are copied whole from overlapping windows, which is five times faster than
    picking pixels.
    """
    import torch
    from torch.nn import functional as F

    n, channels, height, width = pixels.shape
    drawn = torch.randint(0, 2 * PAD + 1, (2, n), generator=rng, device=rng.device)
    mirror = torch.randint(0, 2, (n,), generator=rng, device=rng.device)
    device = pixels.device
    (top, left), mirror = drawn.to(device), mirror.to(device)

    padded = F.pad(pixels, (PAD,) * 4)
    source = torch.cat((padded, padded.flip(3)))
    image = torch.arange(n, device=device) + n * mirror
    plane = image[:, None] * channels + torch.arange(channels, device=device)
    rows = top[:, None] + torch.arange(height, device=device)
    row = plane[:, :, None] * padded.shape[2] + rows[:, None]
    start = row * padded.shape[3] + left[:, None, None]
    windows = source.view(-1).unfold(0, width, 1)
    return windows.index_select(0, start.view(-1)).view(pixels.shape)


def fixed_order(n: int, seed: int) -> np.ndarray:
    """Return a permutation of range(n) that no library version changes.

    numpy promises the raw stream of a bit generator, and not what ``shuffle`` makes of it.

    >>> fixed_order(5, 0).tolist() == fixed_order(5, 0).tolist()
    True
    """
    import numpy as np

    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


def stratified(labels: np.ndarray, parts: Sequence[int], seed: int) -> list[np.ndarray]:
    """Split indices into parts of the given sizes, each with the classes in proportion.

    The classes are dealt out evenly along one line, which is then cut; every part is within
    one or two examples of proportion. Indices of a part are in ascending order.

    Raises:
        BadInput: the sizes do not add up to the number of labels.
    """
    import numpy as np

    if sum(parts) != len(labels):
        raise BadInput(f"parts {list(parts)} do not add up to {len(labels)} examples")
    order = fixed_order(len(labels), seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    line = order[np.argsort(place[order], kind="stable")]
    return [np.sort(part) for part in np.split(line, np.cumsum(parts)[:-1])]
