"""Rows of the finders that keep trained weights, and of dual, disguised and elastic tickets."""

from __future__ import annotations

from typing import Any

from lth_zoo.finders import LRR, RST, Elastic, FineTune, PeekABoo

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
        (PeekABoo(optimizer="prox", rounds=3, scope="layer", rewind="step=2"), 0.5, [1160], True),
        (PeekABoo(head="signs", score="random", rounds=1), 0.7, [696], True),
        (PeekABoo(), 0.0, [], True),
    ],
}

#: Of resnet-14 half and a quarter of each tensor; repeated blocks have the same, all 17,060 too.
DEEP = {"model": "resnet-20x0.25", "size": 17_060}
#: And of 36 + 4 x 144 weights, 288 + 32 + 3 x 576, 1,152 + 128 + 3 x 2,304, and 160.
FLAT = {"model": "resnet-14x0.25", "size": 11_012}
FINDERS |= {
    "elastic": [
        (Elastic(source="resnet-14x0.25", rate=0.5, scope="layer"), 0.75, [8530, 4265], True, DEEP),
        (
            *(Elastic(source="resnet-20x0.25", rate=0.5, scope="layer", rewind="step=2"), 0.5),
            *([5506], True, FLAT),
        ),
        (Elastic(source="resnet-14x0.25"), 0.0, [], True, DEEP),
    ],
}
