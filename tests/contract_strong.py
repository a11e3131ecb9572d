"""The rows of the finders on frozen weights in the table of contracts: counts by hand."""

from __future__ import annotations

from typing import Any

from lth_zoo.finders import BernoulliGates, Biprop, EdgePopup, GemMiner, Supermask

#: 1,197 digits: an epoch is 11 batches of 100.
EPOCHS = {"training": {"iterations": 4, "batch_size": 100}}
HALF = ([1160], True, EPOCHS)

#: A layer of 64 x 30, 30 x 10 and 10 x 10 weights: a tenth of each is 192, 30 and 10.
FINDERS: dict[str, list[tuple[Any, ...]]] = {
    "edge-popup": [
        (EdgePopup(), 0.9, [232], True),
        (EdgePopup(scope="global", weights="kaiming", frozen_kept=0.1), 0.5, [1160], True),
        (EdgePopup(weights="init", frozen_pruned=0.3, frozen_kept=0.3), 0.3, [1624], True),
        (EdgePopup(), 0.0, [], True),
    ],
    "biprop": [
        (Biprop(), 0.5, [1160], True),
        (Biprop(scope="global", iterations=6, frozen_pruned=0.5), 0.9, [232], True),
        (Biprop(scope="erk", weights="signed-constant"), 0.7, [696], True),
        (Biprop(), 0.0, [], True),
    ],
    "supermask": [
        (Supermask(), 0.5, [1160], True),
        (Supermask(rescale=True, weights="signed-std", scope="layer"), 0.9, [232], True),
        (Supermask(), 0.0, [], True),
    ],
    "bernoulli-gates": [
        (BernoulliGates(), 0.9, [232], True),
        (BernoulliGates(scope="layer", weights="init", penalty=0.0), 0.5, [1160], True),
        (BernoulliGates(), 0.0, [], True),
    ],
    "gem-miner": [
        (GemMiner(iterations=24, period=1), 0.9, [232], True, EPOCHS),
        (GemMiner(iterations=36, period=1, scope="layer", weights="init"), 0.5, *HALF),
        (GemMiner(), 0.0, [], True),
    ],
}
