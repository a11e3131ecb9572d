"""One row for each registered thing: the smallest example that its contract is tested on.

Whoever adds an adapter, a task, a finder, a score or a control adds a row here; without one
``test_contracts.py`` fails. Rows take half a second or less.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_files
import pytest
import squad_forms
import tiny_gates
import tiny_graphs
import tiny_texts
import toy_units
from test_hub import write_parquet

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
from lth_zoo.judging import judged
from lth_zoo.protocols import Signature, Task, task_of
from lth_zoo.tasks.vision import HubImages

#: adapter -> (model, what the task feeds it)
ADAPTERS: dict[str, list[tuple[str, Signature]]] = {
    "bert": [(str(Path(__file__).with_name("tiny_bert.json")), Signature((12,), 10))],
    "cnn": [
        ("lenet-300-100x0.1", Signature((1, 8, 8), 10)),
        ("lenet-5x0.2", Signature((1, 16, 16), 10)),
        ("conv-2x0.1", Signature((3, 8, 8), 10)),
        ("vgg-11x0.05", Signature((3, 16, 16), 10)),
        ("resnet-20x0.25", Signature((3, 8, 8), 10)),
        ("judgex0.5", Signature((1, 8, 8), 10)),
    ],
    "custom": [("toys:custom", Signature((1, 4, 4), 10))],
    "gnn": [
        ("gcn-4", Signature((6,), 10, "nodes")),
        ("gin-4", Signature((6,), 10, "nodes")),
        ("gin-linear-4", Signature((6,), 10, "graphs")),
        ("gat-2x3", Signature((6,), 10, "nodes")),
        ("sage-4x3", Signature((3,), 10, "links")),
        ("gcnii-4x3", Signature((6,), 10, "nodes")),
        ("resgcn-3x8", Signature((6,), 10, "nodes")),
    ],
    "generative": [
        (f"{base}-8x0.1", Signature((1, 8, 8), 64, "images"))
        for base in ("ae-linear", "ae-conv", "vae", "resnet-vae", "dcgan", "sngan", "resnet-gan")
    ],
}

#: task -> a function (folder of real data or None, empty folder) that makes it, or skips
TASKS: dict[str, Callable[[Path | None, Path], Task]] = {
    "digits": lambda data, tmp: task_of("digits"),
    "mnist": lambda data, tmp: real("mnist", data),
    "fashion-mnist": lambda data, tmp: real("fashion-mnist", data),
    "cifar10-subset": lambda data, tmp: real("cifar10-subset", data),
    "cifar10": lambda data, tmp: small_cifar("cifar10", tmp),
    "cifar100": lambda data, tmp: small_cifar("cifar100", tmp),
    "image/": lambda data, tmp: pictures(tmp),
    "generation/": lambda data, tmp: judged("generation/digits"),
    "mlm/": lambda data, tmp: plain_text(tmp),
    "pydocs/mlm": lambda data, tmp: task_of("pydocs/mlm"),
    "pydocs/order": lambda data, tmp: task_of("pydocs/order"),
    "pydocs/shuffle": lambda data, tmp: task_of("pydocs/shuffle"),
    "pydocs/topic": lambda data, tmp: task_of("pydocs/topic"),
    "squad": lambda data, tmp: questions("squad", tmp),
    "squad-v2": lambda data, tmp: questions("squad-v2", tmp),
    "glue/cola": lambda data, tmp: glue("cola", tmp),
    "glue/mnli": lambda data, tmp: glue("mnli", tmp),
    "glue/mrpc": lambda data, tmp: glue("mrpc", tmp),
    "glue/qnli": lambda data, tmp: glue("qnli", tmp),
    "glue/qqp": lambda data, tmp: glue("qqp", tmp),
    "glue/rte": lambda data, tmp: glue("rte", tmp),
    "glue/sst2": lambda data, tmp: glue("sst2", tmp),
    "glue/stsb": lambda data, tmp: glue("stsb", tmp),
    "glue/wnli": lambda data, tmp: real("glue/wnli", data),
    "text/": lambda data, tmp: reviews(tmp),
    "karate": lambda data, tmp: task_of("karate"),
    "digits-knn": lambda data, tmp: task_of("digits-knn"),
    "motifs": lambda data, tmp: task_of("motifs"),
    "planetoid/cora": lambda data, tmp: real("planetoid/cora", data),
    "planetoid/citeseer": lambda data, tmp: tiny_graphs.task_in("planetoid/citeseer", tmp),
    "planetoid/pubmed": lambda data, tmp: tiny_graphs.task_in("planetoid/pubmed", tmp),
    "amazon/photo": lambda data, tmp: tiny_graphs.task_in("amazon/photo", tmp),
    "amazon/computers": lambda data, tmp: tiny_graphs.task_in("amazon/computers", tmp),
    "coauthor/cs": lambda data, tmp: tiny_graphs.task_in("coauthor/cs", tmp),
    "coauthor/physics": lambda data, tmp: tiny_graphs.task_in("coauthor/physics", tmp),
    "ogbn-arxiv": lambda data, tmp: tiny_graphs.task_in("ogbn-arxiv", tmp),
    "pyg/": lambda data, tmp: tiny_graphs.task_in("pyg/saved", tmp),
    "tu/": lambda data, tmp: tiny_graphs.task_in("tu/TOY", tmp),
    "links/": lambda data, tmp: task_of("links/karate"),
}


def real(name: str, data: Path | None) -> Task:
    if data is None:
        pytest.skip("no real data: set LTH_ZOO_DATA")
    return task_of(name, data)


def small_cifar(name: str, folder: Path) -> Task:
    """The published rules on 40 random images in the published file form."""
    fine = name == "cifar100"
    if not (folder / name).exists():
        parts = image_files.arrays(image_files.COLOUR, 100 if fine else 10)
        image_files.write_pickles(folder / name, parts, fine)
    kind = image_files.SmallCIFAR100 if fine else image_files.SmallCIFAR10
    return kind(name, folder)


def pictures(folder: Path) -> Task:
    """A Hugging Face data set in a local folder."""
    if not (folder / "cats").exists():
        write_parquet(folder / "cats", image_files.arrays(image_files.COLOUR))
    return HubImages("image/cats", folder)


def glue(name: str, folder: Path) -> Task:
    """The published rules on 100 random texts in the published file form."""
    if not (folder / "glue").exists():
        tiny_texts.write_glue(folder, name)
    return tiny_texts.small(name)(f"glue/{name}", folder)


def reviews(folder: Path) -> Task:
    """A table of texts in a local file."""
    texts = tiny_texts.sentences(60)
    lines = [f"{text},{'good' if 'cat' in text else 'bad'}" for text in texts]
    (folder / "reviews.csv").write_text("\n".join(["body,verdict", *lines]) + "\n")
    return task_of("text/reviews.csv:body:verdict", folder)


def plain_text(folder: Path) -> Task:
    """A text file of 400 different lines."""
    (folder / "lines.txt").write_text("\n".join(tiny_texts.sentences(400)))
    return task_of("mlm/lines.txt", folder)


def questions(name: str, folder: Path) -> Task:
    """Eight articles of questions in the original JSON; three in the test part."""
    version = {"squad": "1.1", "squad-v2": "2.0"}[name]
    squad_forms.write_json(folder / "squad", version, impossible=name == "squad-v2")
    return task_of(name, folder)


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

#: score -> what it needs: its figures by hand are in test_scores.py
SCORES: dict[str, tuple[str, ...]] = {
    "magnitude": (),
    "random": (),
    "wanda": (),
    "gradient": (),
    "large_final": ("final",),
    "small_final": ("final",),
    "large_init": ("init",),
    "movement": ("init", "final"),
    "magnitude_increase": ("init", "final"),
    "large_final_same_sign": ("init", "final"),
}

#: control -> what it leaves as it was: layer counts, the whole mask, kept values, or nothing
CONTROLS: dict[str, str] = {
    "reinit": "mask",
    "shuffle": "layers and start",
    "shuffle-weights": "mask and values",
    "random-global": "total and start",
    "random-erk": "total and start",
    "random-layer": "layers and start",
    "one-shot": "total and start",
    "shuffle-blocks": "mask",
    "inverted": "total and start",
    "random-scores": "total and start",
    "random-labels": "total and start",
}

#: The controls of tickets with edges -> which of the ticket's two halves each leaves as it is.
GRAPH_CONTROLS: dict[str, str] = {
    "random-edges": "neither",
    "random-graph": "neither",
    "graph-only": "edges",
    "weights-only": "weights",
}

#: The control that is another network -> what it shares with the ticket: test_equal_size.py.
MODEL_CONTROLS: dict[str, str] = {"equal-size": "parameters"}

TABLE: dict[str, dict[str, Any]] = {
    "adapters": ADAPTERS,
    "tasks": TASKS,
    "finders": FINDERS,
    "scores": SCORES,
    "controls": CONTROLS | GRAPH_CONTROLS | MODEL_CONTROLS,
}


def row(kind: str, name: str) -> Any:
    """Return the row of a registered thing; fail where there is none."""
    if name not in TABLE[kind]:
        pytest.fail(f"{kind[:-1]} {name!r} is registered: give it a row in tests/contract_table.py")
    return TABLE[kind][name]
