"""Real data that comes inside a dependency: nothing to download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lth_zoo.protocols import SPLITS, Split
from lth_zoo.tasks.images import Images, stratified
from lth_zoo.tasks.variants import Varied


class Digits(Varied):
    """1,797 handwritten digits of 8x8 pixels in 17 grey levels, inside scikit-learn.

    1,197 train, 300 validation and 300 test images, classes in proportion, always the
    same ones. A point is three test images; the margin is two points. Variants: @half-1,
    @half-2, @parity, @above-4, @loops.
    """

    margin: ClassVar[float] = 2.0
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = (
        "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 "
        "(the test part, as in sklearn.datasets.load_digits)"
    )
    numerals: ClassVar[bool] = True
    shape = (1, 8, 8)
    classes = 10
    scale = 16.0
    mean = (0.3051,)
    std = (0.3759,)

    def read(self) -> Mapping[Split, Images]:
        """Return the three splits."""
        import numpy as np
        import torch
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        whole = Images(
            torch.from_numpy(pixels.astype(np.uint8).reshape(-1, 1, 8, 8)),
            torch.from_numpy(labels.astype(np.int64)),
        )
        parts = stratified(labels, (1197, 300, 300), seed=0)
        return {name: whole.take(part) for name, part in zip(SPLITS, parts, strict=True)}
