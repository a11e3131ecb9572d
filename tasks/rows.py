"""Texts with their labels, and the order in which they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lth_zoo.errors import DataError
from lth_zoo.protocols import SPLITS, Split
from lth_zoo.tasks.images import fixed_order, stratified

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

#: Batches of an epoch that are sorted by length together.
MEGABATCH = 50


@dataclass(frozen=True)
class Rows:
    """One split: ``texts``, ``pairs`` (the second text of each) or None, and ``labels``.

    ``labels`` has one row an example: (n,) int64 classes or (n,) float32 values, or what the
    task's own :meth:`TextTask.encode` makes something of. ``source`` is what an error names.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: np.ndarray
    source: str = ""

    def take(self, indices: np.ndarray) -> Rows:
        """Return the rows at the indices."""
        pairs = None if self.pairs is None else [self.pairs[i] for i in indices]
        return Rows([self.texts[i] for i in indices], pairs, self.labels[indices], self.source)

    def keys(self) -> list[tuple[str, str]]:
        """Return what makes two rows the same example: their texts."""
        return list(zip(self.texts, self.pairs or [""] * len(self), strict=True))

    def without(self, *others: Rows) -> Rows:
        """Return the rows whose texts stand in none of the others."""
        import numpy as np

        taken = {key for rows in others for key in rows.keys()}  # noqa: SIM118
        kept = [place for place, key in enumerate(self.keys()) if key not in taken]
        return self if len(kept) == len(self) else self.take(np.array(kept, np.int64))

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.texts)


@dataclass(frozen=True)
class Corpus:
    """The three splits of a task, read once a process."""

    rows: Mapping[Split, Rows]

    @cached_property
    def digest(self) -> str:
        """sha256 over texts, labels and splits."""
        import numpy as np

        digest = hashlib.sha256()
        for split in SPLITS:
            rows = self.rows[split]
            kind = (split, len(rows), str(rows.labels.dtype), rows.labels.shape)
            digest.update(repr(kind).encode())
            digest.update(np.ascontiguousarray(rows.labels).data)
            for texts in (rows.texts, rows.pairs or ()):
                for text in texts:
                    data = text.encode("utf-8", "surrogatepass")
                    digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def carve(rows: Rows, share: float = 0.1, most: int = 2000) -> tuple[Rows, Rows]:
    """Return (train, validation): a tenth of the rows, at most 2,000, taken out for selection.

    Classes keep their proportions; the rows taken are always the same, for given labels.

    Raises:
        DataError: there is no row to take.
    """
    size = min(most, int(len(rows) * share))
    if not size:
        raise DataError(f"{rows.source}: {len(rows)} train rows; expected {int(1 / share)} or more")
    if rows.labels.dtype.kind == "f":
        order = fixed_order(len(rows), seed=0)
        return rows.take(order[size:]), rows.take(order[:size])
    kept, taken = stratified(rows.labels, (len(rows) - size, size), seed=0)
    return rows.take(kept), rows.take(taken)


def apart(train: Rows, validation: Rows, test: Rows) -> dict[Split, Rows]:
    """Return the three splits without what they share, which stays in the later one only.

    A text that is labelled in both parts of a published set would else be learned by heart,
    or selected on.
    """
    validation = validation.without(test)
    return {"train": train.without(validation, test), "validation": validation, "test": test}


def bucketed(lengths: np.ndarray, batch_size: int, rng: torch.Generator) -> list[Tensor]:
    """Return shuffled batches of indices, each of similar lengths; the same number every time."""
    import torch

    order = torch.randperm(len(lengths), generator=rng)
    if batch_size >= len(order):
        return [order]
    order = order[: len(order) // batch_size * batch_size]
    size = torch.from_numpy(lengths)[order]
    run = torch.arange(len(order)) // (batch_size * MEGABATCH)
    order = order[(run * (int(size.max()) + 1) + size).argsort(stable=True)]
    batches = order.split(batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=rng).tolist()]


def chunks(lengths: np.ndarray, tokens: int) -> Iterator[Tensor]:
    """Yield indices, longest first, so that each chunk padded has at most so many tokens."""
    import torch

    order = torch.from_numpy(lengths).argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        count = max(1, tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + count]
        start += count
