"""Named random streams of one root seed.

Every draw in a run comes from a stream that is a pure function of (root seed, name,
position), so that dense, ticket and controls of one seed see the same data order, and
a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STREAMS = ("init", "head", "data", "dropout", "noise", "prune")


def derive(root: int, stream: str, *position: int | str) -> int:
    """Return a 63-bit seed for one place in one stream.

    >>> derive(0, "data", 1) == derive(0, "data", 1) != derive(0, "data", 2)
    True
    """
    assert stream in STREAMS, stream
    text = "/".join(map(str, (root, stream, *position)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def reordered(root: int, order: int) -> int:
    """Return the root of a training's noise: data order, augmentation, dropout.

    0 is the noise of every arm of that seed; another number draws all of it anew.

    >>> reordered(3, 0), reordered(3, 1) == reordered(3, 2)
    (3, False)
    """
    return derive(root, "data", "order", order) if order else root


def generator(root: int, stream: str, *position: int | str) -> torch.Generator:
    """Return a CPU generator at that place."""
    import torch

    return torch.Generator().manual_seed(derive(root, stream, *position))


@contextmanager
def seeded(root: int, stream: str, *position: int | str) -> Iterator[None]:
    """Seed torch's, Python's and numpy's global generators inside, restore them after.

    Module constructors draw from the global generator, so models are built in here.
    """
    import numpy as np
    import torch

    seed = derive(root, stream, *position)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - users' code draws from it
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
