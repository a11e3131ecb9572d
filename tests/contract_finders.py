"""The rows of the finders in the table of contracts: what each must keep, by hand."""

from __future__ import annotations

from typing import Any

import tiny_gates
import toy_units

from lth_zoo.finders import (
    ICPG,
    IMP,
    UGS,
    WDGLT,
    ChannelEarlyBird,
    DualGraph,
    EarlyBird,
    FastGLT,
    GanIMP,
    GraphEarlyBird,
    GraphIMP,
    InstantSoup,
    MaskTraining,
    MomentMatching,
    Movement,
    OneShot,
    Structured,
)

#: finder -> (its settings, sparsity, kept weights of each level by hand, nested?); the model
#: has three tensors of 64 x 30, 30 x 10 and 10 x 10 weights: 2,320 in all. A fifth entry holds
#: fields of the recipe, for a finder that the model alone does not suit.
FINDERS: dict[str, list[tuple[Any, ...]]] = {
    "imp": [
        (IMP(rate=0.5), 0.875, [1160, 580, 290], True),
        (IMP(rate=0.3), 0.5, [1624, 1160], True),  # 0.7, then clipped at 0.5
        (IMP(rate=0.5, levels=2), 0.99, [1160, 580], True),
        (IMP(rate=0.3, of="original"), 0.95, [1624, 928, 232, 116], True),
        # fc3 at half the rate: 0.5 x 2220 + 0.75 x 100, then exactly a fifth of everything.
        (IMP(rate=0.5, rates=("fc3=0.25",)), 0.8, [1185, 611, 464], True),
        (IMP(rate=0.5, rates=("fc3=0.25",), scope="layer"), 0.8, [1185, 611, 464], True),
        (IMP(rate=0.5, rates=("fc3=0.4",), of="original"), 0.9, [1170, 232], True),
        (IMP(rate=0.5, scope="layer"), 0.75, [1160, 580], True),
        (IMP(rate=0.5, scope="group"), 0.75, [1160, 580], True),
        (IMP(rate=0.5, scope="erk"), 0.75, [1160, 580], True),
        (IMP(rate=0.5, scope="row", score="wanda"), 0.75, [1160, 580], True),
        (IMP(rate=0.05, scope="uniform", levels=2), 0.9, [2204, 2094], True),
        (IMP(rate=0.5, score="random", rewind="fresh"), 0.75, [1160, 580], True),
    ],
    "mask-training": [
        (MaskTraining(), 0.9, [232], True),
        (MaskTraining(scope="layer", scores="random", initial_density=1.0), 0.5, [1160], True),
        (MaskTraining(scope="erk", iterations=2, rewind="step=2"), 0.7, [696], True),
        (MaskTraining(), 0.0, [], True),
    ],
    "movement": [
        (Movement(), 0.9, [232], True),
        (Movement(scope="layer", iterations=3, rewind="none=2"), 0.5, [1160], True),
        (Movement(soft=True, rewind="learning-rate"), 0.7, [696], True),
    ],
    "one-shot": [
        (OneShot(), 0.9, [232], True),
        (OneShot(after="start", scope="layer"), 0.5, [1160], True),
        (OneShot(score="gradient", scope="row"), 0.9, [232], True),
        (OneShot(score="magnitude_increase", rewind="step=2"), 0.3, [1624], True),
        (OneShot(), 0.0, [], True),
    ],
}

#: Half of 30 and of 10 units: 64 x 15 + 15 x 5 + 5 x 10 weights.
UNITS = {"model": toy_units.MODEL}
FINDERS |= {
    "structured": [
        (Structured(), 0.5, [1085], True, UNITS),
        # 23 and 8 units, then 15 and 5.
        (Structured(levels=2, score="magnitude"), 0.5, [1736, 1085], True, UNITS),
        (Structured(after="start", neurons=0.2, rewind="step=2"), 0.5, [1706], True, UNITS),
        (Structured(score="random"), 0.0, [], True, UNITS),
    ],
    "instant-soup": [
        (InstantSoup(main="2", clone="1", clones=2, rate=0.3), 0.5, [1160], True),
        (InstantSoup(rounds=1, rewind="none=2"), 0.9, [232], True),
        (InstantSoup(), 0.0, [], True),
    ],
    "early-bird": [
        (EarlyBird(every="1", window=2), 0.9, [232], True),
        (EarlyBird(scope="row", rewind="step=2"), 0.5, [1160], True),
        (EarlyBird(structure=True, every="1"), 0.5, [1085], True, UNITS),
        (EarlyBird(), 0.0, [], True),
    ],
}

#: A channel of the 30 has 64 + 10 weights, one of the 10 whose scales are large 30 + 10: of the 30
#: as many go as it takes, 16 and 13, or but for the last all, and two of the 10 besides.
NORMS = {"model": toy_units.NORMED}
FINDERS |= {
    "channel-early-bird": [
        (ChannelEarlyBird(every="1", window=2), 0.5, [1136], True, NORMS),
        (ChannelEarlyBird(rewind="step=1", latest="3"), 0.4, [1358], True, NORMS),
        (ChannelEarlyBird(shrink=False, rewind="init"), 0.93, [152], True, NORMS),
        (ChannelEarlyBird(), 0.0, [], True, NORMS),
    ],
}

#: 1,760 weights of the generator and 1,396 of the discriminator.
GAN = {
    **{"model": "dcgan-8x0.05", "task": "generation/digits", "size": 3156},
    "training": {"iterations": 4, "batch_size": 8},
}
FINDERS |= {
    "gan-imp": [
        (GanIMP(rate=0.5), 0.75, [1578, 789], True, GAN),
        (GanIMP(scope="global", discriminator="fresh"), 0.2, [2525], True, GAN),
    ],
}

FINDERS |= {
    "moment-matching": [
        (MomentMatching(), 0.75, [440], True, GAN | {"size": 1760}),
        (MomentMatching(weights="init", scope="layer"), 0.5, [880], True, GAN | {"size": 1760}),
        (MomentMatching(), 0.0, [], True, GAN | {"size": 1760}),
    ],
}

#: Of the 133 edges 0.9 a level stay, then 0.8 in all; the network has 2,320 weights too.
GRAPH = tiny_gates.FIELDS | {"training": {"iterations": 4, "batch_size": 15}}
FINDERS |= {
    "graph-imp": [
        (GraphIMP(rate=0.3, edge_rate=0.1), 0.5, [1624, 1160, 1160], True, GRAPH),
        (GraphIMP(edges="dspar", tie_directions=False), 0.2, [1856] * 5, True, GRAPH),
        (GraphIMP(edges="random", rewind="step=2", levels=1), 0.5, [1856], True, GRAPH),
    ],
    "ugs": [
        (UGS(rate=0.3, edge_rate=0.1), 0.5, [1624, 1160, 1160], True, GRAPH),
        (UGS(mode="faithful", edge_rate=0.3, rewind="none=2"), 0.2, [1856], True, GRAPH),
        (UGS(edge_rate=0.1, rewind="step=2", iterations=2), 0.0, [2320] * 3, True, GRAPH),
    ],
    "wd-glt": [
        (WDGLT(rate=0.3, edge_rate=0.1), 0.5, [1624, 1160, 1160], True, GRAPH),
        (WDGLT(nodes=5, tie_directions=False, levels=1), 0.2, [1856], True, GRAPH),
    ],
    "graph-early-bird": [
        (GraphEarlyBird(), 0.5, [1160], True, GRAPH),
        (GraphEarlyBird(rewind="init", every="2", window=2), 0.9, [232], True, GRAPH),
    ],
    "fast-glt": [
        (FastGLT(every=1), 0.5, [1160], True, GRAPH),
        (FastGLT(scope="erk", rewind="step=2", tie_directions=False), 0.9, [232], True, GRAPH),
    ],
    "icpg": [
        (ICPG(rate=0.3, edge_rate=0.1, width=4), 0.5, [1624, 1160, 1160], True, GRAPH),
        (ICPG(rewind="none=2", tie_directions=False, levels=1), 0.2, [1856], True, GRAPH),
    ],
    "dual-graph": [
        (DualGraph(), 0.5, [1160], True, GRAPH),
        (DualGraph(scope="layer", rewind="init", tie_directions=False), 0.9, [232], True, GRAPH),
    ],
}
