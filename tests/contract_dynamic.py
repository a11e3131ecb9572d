"""Rows of the contract for the finders that change masks while one network trains."""

from __future__ import annotations

from typing import Any

from lth_zoo.finders import SET, DeepR, Gradual, RigL

#: Two epochs of two iterations.
EPOCHS = {"training": {"iterations": 4, "batch_size": 500}}
#: SET and gradual pruning read no loss, so that two of them are no hindrance.
GAN = {
    **{"model": "dcgan-8x0.05", "task": "generation/digits", "size": 3156},
    "training": {"iterations": 4, "batch_size": 8},
}

DYNAMIC: dict[str, list[tuple[Any, ...]]] = {
    "rigl": [
        (RigL(), 0.9, [232], True),
        (RigL(scope="uniform", every="2", accumulate=2, rewind="init"), 0.1, [2088], True),
        (RigL(anneal="constant", reinit_when_same=True, rewind="none=2"), 0.5, [1160], True),
        (RigL(), 0.0, [], True),
    ],
    "set": [
        (SET(), 0.9, [232], True, EPOCHS),
        (SET(scope="layer", every="25%", rewind="step=2"), 0.5, [1160], True),
        (SET(every="1"), 0.5, [1578], True, GAN),
    ],
    "deep-r": [
        (DeepR(), 0.9, [232], True),
        (DeepR(scope="global", optimizer="recipe", rewind="init"), 0.5, [1160], True),
        (DeepR(variant="soft", scope="erk"), 0.7, [696], True),
    ],
    "gradual": [
        (Gradual(), 0.9, [232], True),
        (Gradual(scope="global", every="2", rewind="init"), 0.5, [1160], True),
        (Gradual(scope="erk", begin=0.5, end=1.0), 0.7, [696], True),
    ],
}
