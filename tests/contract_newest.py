"""The rows of the newest finders in the table of contracts: what each must keep, by hand."""

from __future__ import annotations

from typing import Any

from lth_zoo.finders import AWS, CTS

#: See :data:`contract_finders.FINDERS`.
FINDERS: dict[str, list[tuple[Any, ...]]] = {
    "aws": [
        (AWS(rate=0.5), 0.75, [580], True),
        (AWS(rate=0.5, tickets="all", scope="row", each="2"), 0.75, [1160, 580], True),
        (AWS(rate=0.3, tickets="all", interpolate=False, signs=False), 0.5, [1624, 1160], True),
        (AWS(), 0.0, [], True),
    ],
    "cts": [
        (CTS(), 0.9, [232], True),
        (CTS(objective="fkl", length="100%", rewind="step=2"), 0.5, [1160], True),
        (CTS(objective="ce", length="3", rewind="none=2"), 0.7, [696], True),
        (CTS(), 0.0, [], True),
    ],
}
