"""Rows of the finders that keep trained weights, and of dual, disguised and elastic tickets."""

from __future__ import annotations

from typing import Any

from lth_zoo.finders import LRR, RST, FineTune, PeekABoo

#: As in contract_finders.py.
FINDERS: dict[str, list[tuple[Any, ...]]] = {
    "lrr": [
        (LRR(rate=0.5), 0.875, [1160, 580, 290], True),
        (LRR(rate=0.5, rewind="learning-rate=50%", scope="layer"), 0.75, [1160, 580], True),
        (LRR(), 0.0, [], True),
    ],
    "fine-tune": [
        (FineTune(rate=0.5), 0.75, [1160, 580], True),
        (FineTune(rate=0.3, rewind="none=2", scope="erk"), 0.5, [1624, 1160], True),
        (FineTune(), 0.0, [], True),
    ],
    "rst": [
        (RST(), 0.9, [232], True),
        (RST(pick="smallest", scope="global", schedule="cube", rewind="none=2"), 0.5, [1160], True),
        (RST(cycles=5, scope="erk", rewind="init"), 0.7, [696], True),
        (RST(), 0.0, [], True),
    ],
    "peek-a-boo": [
        (PeekABoo(), 0.9, [232], True),
        (PeekABoo(optimizer="prox", scope="layer", rewind="step=2"), 0.5, [1160], True),
        (PeekABoo(head="signs", score="random"), 0.7, [696], True),
        (PeekABoo(), 0.0, [], True),
    ],
}
