"""Tiny text data for tests: rows in memory, GLUE's TSV files, small rules for their counts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from hf_models import WORDS

from lth_zoo import registry
from lth_zoo.tasks.glue import Glue
from lth_zoo.tasks.rows import Rows, apart, carve
from lth_zoo.tasks.text import TextTask

NAMES = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")
#: Most tokens of an example in tests: the tiny models have 48 positions.
LENGTH = 24
#: Every column of the TSV files that have a header, in the official order.
HEADERS = {
    "sst2": "sentence label",
    "mrpc": "Quality|#1 ID|#2 ID|#1 String|#2 String",
    "qqp": "id qid1 qid2 question1 question2 is_duplicate",
    "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
    "mnli": (
        "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse "
        "sentence1_parse sentence2_parse sentence1 sentence2 label1 gold_label"
    ),
    "qnli": "index question sentence label",
    "rte": "index sentence1 sentence2 label",
    "wnli": "index sentence1 sentence2 label",
}
#: Tasks whose TSV labels are words, the others' are the numbers of the classes.
WORDED = ("mnli", "qnli", "rte")


def sentences(count: int, seed: str = "") -> list[str]:
    """Return different random sentences of the tiny tokenizer's words."""
    rng = random.Random(f"sentences {seed}")
    words = [word for word in WORDS if not word.startswith("#")]
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(rng.choices(words, k=rng.randint(3, 14)))] = None
    return list(found)


class TinyText(TextTask):
    """200 pairs, two classes: does the word ``cat`` stand in the first; 30 as test."""

    margin: ClassVar[float] = 1.0

    def read(self) -> dict[Any, Rows]:
        first, second = sentences(230, "first"), sentences(230, "second")
        labels = np.array(["cat" in text.split() for text in first], np.int64)
        whole = Rows(first, second, labels, "tiny")
        train, validation = carve(whole.take(np.arange(200)))
        return apart(train, validation, whole.take(np.arange(200, 230)))


class TinyValue(TinyText):
    """The same with the number of words of the first text as a value."""

    answer = "value"
    outputs = 1
    headline: ClassVar[str] = "pearson"
    measures: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    def read(self) -> dict[Any, Rows]:
        found = super().read()
        return {
            split: Rows(r.texts, r.pairs, np.array([len(t.split()) for t in r.texts], np.float32))
            for split, r in found.items()
        }


def small(name: str) -> type[Glue]:
    """Return the class of a GLUE task without its official numbers of rows."""
    kind = registry.find("tasks", f"glue/{name}")
    counts = dict.fromkeys(kind.counts, 0)
    return type(f"Small{kind.__name__}", (kind,), {"counts": SmallCounts(counts)})


class SmallCounts(dict[str, int]):
    """The parts that are needed, without numbers to check."""

    def items(self) -> Any:
        return ()


def write_glue(folder: Path, name: str, train: int = 80, test: int = 20) -> Path:
    """Write a task's two TSV files in the original form; returns the folder they are in."""
    kind = registry.find("tasks", f"glue/{name}")
    below = folder / "glue" / kind.folder
    below.mkdir(parents=True, exist_ok=True)
    texts = iter(sentences(2 * (train + test), name))
    for part, count in (("train", train), ("validation", test)):
        rows = []
        for place in range(count):
            label = f"{place % 11 / 2:.3f}" if name == "stsb" else place % kind.outputs
            rows.append(_row(kind, name, place, next(texts), next(texts), label))
        header = HEADERS.get(name)
        lines = [_tabbed(header), *rows] if header else rows
        start = "\ufeff" if name == "mrpc" else ""
        path = below / f"{kind.stems[part]}.tsv"
        path.write_text(start + "\n".join(lines) + "\n", encoding="utf-8")
    return below


def _tabbed(header: str) -> str:
    return header.replace("|", "\t") if "|" in header else header.replace(" ", "\t")


def _row(kind: type[Glue], name: str, place: int, first: str, second: str, label: Any) -> str:
    if name in WORDED:
        label = kind.classes[label]
    if name == "cola":
        return f"gj04\t{label}\t*\t{first}"
    *texts, last = kind.tsv_columns
    said = {**dict(zip(texts, (first, second), strict=False)), last: str(label)}
    return "\t".join(said.get(column, str(place)) for column in _tabbed(HEADERS[name]).split("\t"))
