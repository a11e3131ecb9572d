"""Data sets made of one: halves of its training images, and other questions of numerals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from lth_zoo.errors import unknown
from lth_zoo.protocols import Signature, Split
from lth_zoo.tasks.images import ImageClassification, Images, stratified

#: Halves of the training part, after those of CIFAR-10 in Morcos et al. 2019 (arXiv:1906.02773).
HALVES = ("half-1", "half-2")
#: What is asked of a numeral -> the answer for each of 0 to 9. Loops are as in print: 4 has one.
QUESTIONS: Mapping[str, tuple[int, ...]] = {
    "parity": (0, 1) * 5,
    "above-4": (0,) * 5 + (1,) * 5,
    "loops": (1, 0, 0, 0, 1, 0, 1, 0, 2, 1),
}


class Varied(ImageClassification):
    """Image classification whose name may end in a variant: ``mnist@half-1``, ``digits@parity``.

    A half has half of the training images, classes in proportion, and is measured on the same
    images. A question has all images and other labels, where the classes are ``numerals``.
    """

    variants: ClassVar[bool] = True
    #: Whether class k is the numeral k.
    numerals: ClassVar[bool] = False

    def __init__(self, name: str, data: Path | None = None) -> None:
        super().__init__(name, data)
        plain, at, self.variant = name.partition("@")
        known = self.known_variants()
        if at and self.variant not in known:
            raise unknown(f"variant of {plain!r}", self.variant, known)

    @classmethod
    def known_variants(cls) -> tuple[str, ...]:
        """Return what may stand after ``@``."""
        return (*HALVES, *(QUESTIONS if cls.numerals else ()))

    @property
    def signature(self) -> Signature:
        """Shape of an image, and the number of answers to what is asked of it."""
        plain = super().signature
        asked = QUESTIONS.get(self.variant)
        return replace(plain, output=max(asked) + 1) if asked else plain

    @cached_property
    def splits(self) -> dict[Split, Images]:
        """The three splits of the variant, read on the first use."""
        import torch

        found = dict(self.read())
        if self.variant in QUESTIONS:
            answers = torch.tensor(QUESTIONS[self.variant])
            return {n: replace(part, labels=answers[part.labels]) for n, part in found.items()}
        if self.variant in HALVES:
            train = found["train"]
            sizes = len(train) - len(train) // 2, len(train) // 2
            pieces = stratified(train.labels.numpy(), sizes, seed=0)
            found["train"] = train.take(pieces[HALVES.index(self.variant)])
        return found
