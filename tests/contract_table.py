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
import tiny_graphs
import tiny_texts
from contract_at_start import FINDERS as AT_START
from contract_dual import FINDERS as DUAL
from contract_dynamic import DYNAMIC
from contract_finders import FINDERS
from contract_newest import FINDERS as NEWEST
from contract_strong import FINDERS as STRONG
from contract_studies import STUDIES
from test_hub import write_parquet

from lth_zoo.judging import judged
from lth_zoo.protocols import Signature, Task, task_of
from lth_zoo.tasks.vision import HubImages

#: adapter -> (model, what the task feeds it)
ADAPTERS: dict[str, list[tuple[str, Signature]]] = {
    "bert": [(str(Path(__file__).with_name("tiny_bert.json")), Signature((12,), 10))],
    "cnn": [
        ("lenet-300-100x0.1", Signature((1, 8, 8), 10)),
        ("lenet-5x0.2", Signature((1, 16, 16), 10)),
        ("lenet-5-samex0.5", Signature((1, 8, 8), 10)),
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
    "planted": [
        ("planted-circle-20x3", Signature((2,), 4)),
        ("planted-helix-30x4", Signature((1,), 3, "value")),
        ("planted-relu-5x2", Signature((1,), 1, "value")),
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
    "planted/circle": lambda data, tmp: task_of("planted/circle"),
    "planted/helix": lambda data, tmp: task_of("planted/helix"),
    "planted/relu": lambda data, tmp: task_of("planted/relu"),
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


#: score -> what it needs: its figures by hand are in test_scores.py
SCORES: dict[str, tuple[str, ...]] = {
    "magnitude": (),
    "random": (),
    "wanda": (),
    "gradient": (),
    "snip": (),
    "grasp": (),
    "synflow": (),
    "large_final": ("final",),
    "small_final": ("final",),
    "large_init": ("init",),
    "movement": ("init", "final"),
    "magnitude_increase": ("init", "final"),
    "large_final_same_sign": ("init", "final"),
    "path_length": ("trace",),
    "sanh": ("trace",),
    "early_movement_1": ("trace",),
    "early_movement_2": ("trace",),
    "early_movement_5": ("trace",),
    "early_movement_10": ("trace",),
}

#: control -> what it leaves as it was: layer counts, the whole mask, kept values, or nothing
CONTROLS: dict[str, str] = {
    "reinit": "mask",
    "shuffle": "layers and start",
    "shuffle-weights": "mask and values",
    "random-global": "total and start",
    "random-erk": "total and start",
    "random-layer": "layers and start",
    "smart-ratio": "total and start",
    "hybrid": "total and start",
    "one-shot": "total and start",
    "shuffle-blocks": "mask",
    "inverted": "total and start",
    "random-scores": "total and start",
    "one-shot-init": "total and start",
    "one-shot-trained": "total and start",
    "random-labels": "total and start",
    "random-pixels": "total and start",
    "half-data": "total and start",
}

#: The controls of tickets with edges -> which of the ticket's two halves each leaves as it is.
GRAPH_CONTROLS: dict[str, str] = {
    "random-edges": "neither",
    "random-graph": "neither",
    "graph-only": "edges",
    "weights-only": "weights",
}

#: The control that is another network -> what it shares with the ticket: test_equal_size.py,
#: test_battery.py.
MODEL_CONTROLS: dict[str, str] = {"equal-size": "parameters", "equal-compute": "iterations"}

TABLE: dict[str, dict[str, Any]] = {
    "adapters": ADAPTERS,
    "tasks": TASKS,
    "finders": FINDERS | DUAL | DYNAMIC | STRONG | AT_START | NEWEST,
    "scores": SCORES,
    "controls": CONTROLS | GRAPH_CONTROLS | MODEL_CONTROLS,
    "studies": STUDIES,
}


def row(kind: str, name: str) -> Any:
    """Return the row of a registered thing; fail where there is none."""
    if name not in TABLE[kind]:
        pytest.fail(f"{kind[:-1]} {name!r} is registered: give it a row in tests/contract_table.py")
    return TABLE[kind][name]
