"""The rows of the finders that prune before any training: see :mod:`contract_finders`."""

from __future__ import annotations

from typing import Any

from lth_zoo.finders import FORCE, SNIP, GraSP, RandomMask, SynFlow

FINDERS: dict[str, list[tuple[Any, ...]]] = {
    "snip": [
        (SNIP(), 0.9, [232], True),
        (SNIP(examples=20, scope="2:4"), 0.5, [1160], True),
        (SNIP(rewind="step=2"), 0.7, [696], True),
        (SNIP(), 0.0, [], True),
    ],
    "force": [
        (FORCE(rounds=4), 0.95, [116], True),
        (FORCE(variant="iterative-snip", rounds=5, schedule="linear"), 0.5, [1160], True),
        (FORCE(rounds=1, scope="layer"), 0.9, [232], True),
        (FORCE(), 0.0, [], True),
    ],
    "grasp": [
        (GraSP(), 0.9, [232], True),
        (GraSP(samples_per_class=3, parts=2, scope="erk"), 0.5, [1160], True),
        (GraSP(), 0.0, [], True),
    ],
    "synflow": [
        (SynFlow(rounds=10), 0.99, [23], True),
        (SynFlow(rounds=3, schedule="linear", scope="balanced"), 0.5, [1160], True),
        (SynFlow(rounds=2, rewind="step=2"), 0.7, [696], True),
        (SynFlow(), 0.0, [], True),
    ],
    "random-mask": [
        (RandomMask(), 0.9, [232], True),
        (RandomMask(scope="balanced"), 0.5, [1160], True),
        (RandomMask(scope="smart-ratio"), 0.95, [116], True),
        (RandomMask(scope="1:4", rewind="fresh"), 0.75, [580], True),
        (RandomMask(), 0.0, [], True),
    ],
}
