"""The nine tasks of GLUE, each with its official metrics and one headline among them.

GLUE withholds the labels of its test part. Its official validation part is therefore the
``test`` split here, as in every published table of tickets; ``validation`` is carved from
train: a tenth of it, at most 2,000 rows, classes in proportion, always the same ones. No row
of the official validation part is seen in training or in any selection: the few that stand
in both official parts (16 sentences of CoLA, 6 pairs of STS-B) are left out of train, as are
those that stand twice in train and came to validation.

Source: A. Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform, ICLR 2019.
Margins follow the spread over seeds that papers on BERT tickets publish (up to 3.6 points
on RTE and 1.2 on WNLI, 0.1 to 1 elsewhere), rounded up for small test parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.errors import DataError
from lth_zoo.protocols import Split
from lth_zoo.tasks import readers
from lth_zoo.tasks.rows import Rows, apart, carve
from lth_zoo.tasks.text import TextTask
from lth_zoo.tasks.text_readers import (
    Table,
    Tables,
    classes_of,
    hub_tables,
    stored_tables,
    tsv_tables,
    values_of,
)

if TYPE_CHECKING:
    import numpy as np

HUB = "nyu-mll/glue"


class Glue(TextTask):
    """A task of GLUE: see the module for its splits.

    Looked for below the ``data`` folder, then ``LTH_ZOO_DATA``, then ``../shared/data``: as
    the original TSV files (``glue/CoLA/train.tsv``, ``dev.tsv``), in the hub's parquet
    layout (``glue/cola/train-00000-of-00001.parquet``) or as ``save_to_disk`` writes it;
    else on the hub.
    """

    #: Its config on the hub and its folder of TSV files.
    config: ClassVar[str]
    folder: ClassVar[str]
    #: The columns of its one or two texts and of its label: on the hub, in the TSV files.
    columns: ClassVar[Sequence[str]]
    tsv_columns: ClassVar[Sequence[str]]
    #: Every column of a TSV file that has no header line.
    header: ClassVar[Sequence[str] | None] = None
    #: File names, without ending, of the TSV parts.
    stems: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "dev"}
    #: Whether rows broken by a line end inside a text are left out, as they officially are.
    short: ClassVar[bool] = False
    #: What the classes stand for, in the official order; none for a value.
    classes: ClassVar[Sequence[str]]
    #: Rows of the official parts; another release of a file may differ by a few.
    counts: ClassVar[Mapping[str, int]]

    def read(self) -> Mapping[Split, Rows]:
        """Return the three splits.

        Raises:
            DataError: damaged, of another size than published, or nowhere to be had.
        """
        found = {part: self._rows(table) for part, table in self.find().items()}
        for part, count in self.counts.items():
            rows = found[part]
            if abs(len(rows) - count) > count // 100:
                raise DataError(f"{rows.source}: {len(rows)} rows; expected {count}")
        train, validation = carve(found["train"])
        return apart(train, validation, found["validation"])

    def find(self) -> Tables:
        """Return the official train and validation parts.

        Raises:
            DataError: they are nowhere to be had; the message says where was looked.
        """
        names = [f"{above}{self.folder}" for above in ("glue/", "GLUE/", "glue_data/", "")]
        names += [f"{above}{self.config}" for above in ("glue/", f"{HUB}/", "")]
        folders = [
            folder
            for root in readers.roots(self.data)
            for folder in readers.candidates(root, names)
            if folder.suffix != ".npz"
        ]
        halves = []
        for folder in folders:
            tables = self._local(folder) if folder.is_dir() else None
            missing = [part for part in self.counts if part not in (tables or {})]
            if tables and not missing:
                return {part: tables[part] for part in self.counts}
            if tables:
                halves.append(f"{folder} (no {missing[0]} part)")
        try:
            tables = hub_tables(HUB, self.config)
        except DataError as error:
            raise DataError(self._advice(halves, error)) from error
        return {part: tables[part] for part in self.counts}

    def _local(self, folder: Path) -> Tables | None:
        return tsv_tables(folder, self.stems, self.header, self.short) or stored_tables(folder)

    def _advice(self, halves: Sequence[str], error: DataError) -> str:
        files = " and ".join(f"{stem}.tsv" for stem in self.stems.values())
        looked = ", ".join(halves or map(str, readers.roots(self.data)))
        return (
            f"{self.name} is not at hand. Looked in {looked or 'no folder'} for "
            f"glue/{self.folder}/ with {files}, or glue/{self.config}/ with the hub's "
            f"train-*.parquet and validation-*.parquet; give --data or set "
            f"{readers.VARIABLE}. From the hub: {error}"
        )

    def _rows(self, table: Table) -> Rows:
        """Return an official part, its columns under the names of either layout."""
        *texts, label = self.columns
        if table.source.endswith(".tsv"):
            *texts, label = self.tsv_columns
        first, *second = (table.texts(name) for name in texts)
        return Rows(first, second[0] if second else None, self._labels(table, label), table.source)

    def _labels(self, table: Table, name: str) -> np.ndarray:
        return classes_of(table, name, self.classes)


class CoLA(Glue):
    """CoLA: is a sentence acceptable English; 8,551 and 1,043 sentences."""

    margin: ClassVar[float] = 2.0
    headline: ClassVar[str] = "matthews"
    measures: ClassVar[Sequence[str]] = ("matthews", "accuracy")
    source: ClassVar[str] = "A. Warstadt et al., Neural Network Acceptability Judgments, 2019"
    config: ClassVar[str] = "cola"
    folder: ClassVar[str] = "CoLA"
    columns: ClassVar[Sequence[str]] = ("sentence", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("sentence", "label")
    header: ClassVar[Sequence[str] | None] = ("source", "label", "mark", "sentence")
    classes: ClassVar[Sequence[str]] = ("unacceptable", "acceptable")
    counts: ClassVar[Mapping[str, int]] = {"train": 8551, "validation": 1043}


class SST2(Glue):
    """SST-2: is a phrase of a film review positive; 67,349 and 872 phrases.

    Train holds many phrases of one sentence, so validation, carved from it, flatters.
    """

    margin: ClassVar[float] = 1.0
    source: ClassVar[str] = "R. Socher et al., Recursive Deep Models, EMNLP 2013"
    config: ClassVar[str] = "sst2"
    folder: ClassVar[str] = "SST-2"
    columns: ClassVar[Sequence[str]] = ("sentence", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("sentence", "label")
    classes: ClassVar[Sequence[str]] = ("negative", "positive")
    counts: ClassVar[Mapping[str, int]] = {"train": 67349, "validation": 872}


class MRPC(Glue):
    """MRPC: does a sentence paraphrase another; 3,668 and 408 pairs."""

    margin: ClassVar[float] = 1.5
    measures: ClassVar[Sequence[str]] = ("accuracy", "f1")
    licence: ClassVar[str] = "Microsoft Research's terms"
    source: ClassVar[str] = "W. Dolan and C. Brockett, a Corpus of Sentential Paraphrases, 2005"
    config: ClassVar[str] = "mrpc"
    folder: ClassVar[str] = "MRPC"
    columns: ClassVar[Sequence[str]] = ("sentence1", "sentence2", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("#1 String", "#2 String", "Quality")
    classes: ClassVar[Sequence[str]] = ("not_equivalent", "equivalent")
    counts: ClassVar[Mapping[str, int]] = {"train": 3668, "validation": 408}


class QQP(Glue):
    """QQP: do two questions ask the same; 363,846 and 40,430 pairs."""

    margin: ClassVar[float] = 0.5
    measures: ClassVar[Sequence[str]] = ("accuracy", "f1")
    source: ClassVar[str] = "S. Iyer, N. Dandekar and K. Csernai, Quora Question Pairs, 2017"
    config: ClassVar[str] = "qqp"
    folder: ClassVar[str] = "QQP"
    columns: ClassVar[Sequence[str]] = ("question1", "question2", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("question1", "question2", "is_duplicate")
    short: ClassVar[bool] = True
    classes: ClassVar[Sequence[str]] = ("not_duplicate", "duplicate")
    counts: ClassVar[Mapping[str, int]] = {"train": 363846, "validation": 40430}


class STSB(Glue):
    """STS-B: how alike two sentences are, from 0 to 5; 5,749 and 1,500 pairs."""

    margin: ClassVar[float] = 1.0
    headline: ClassVar[str] = "pearson"
    measures: ClassVar[Sequence[str]] = ("pearson", "spearman")
    licence: ClassVar[str] = "scores CC BY-SA 4.0, texts under their own terms"
    source: ClassVar[str] = "D. Cer et al., SemEval-2017 Task 1, 2017"
    answer = "value"
    outputs = 1
    config: ClassVar[str] = "stsb"
    folder: ClassVar[str] = "STS-B"
    columns: ClassVar[Sequence[str]] = ("sentence1", "sentence2", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("sentence1", "sentence2", "score")
    classes: ClassVar[Sequence[str]] = ()
    counts: ClassVar[Mapping[str, int]] = {"train": 5749, "validation": 1500}

    def _labels(self, table: Table, name: str) -> np.ndarray:
        return values_of(table, name, 0.0, 5.0)


class MNLI(Glue):
    """MNLI: what a premise says of a hypothesis; 392,702 and 9,815 pairs, three classes.

    The test split is the matched validation part; the mismatched one is not read.
    """

    margin: ClassVar[float] = 0.5
    licence: ClassVar[str] = "its sources' own, mostly the OANC's"
    source: ClassVar[str] = "A. Williams, N. Nangia and S. Bowman, MultiNLI, NAACL 2018"
    outputs = 3
    config: ClassVar[str] = "mnli"
    folder: ClassVar[str] = "MNLI"
    columns: ClassVar[Sequence[str]] = ("premise", "hypothesis", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("sentence1", "sentence2", "gold_label")
    stems: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "dev_matched"}
    classes: ClassVar[Sequence[str]] = ("entailment", "neutral", "contradiction")
    counts: ClassVar[Mapping[str, int]] = {"train": 392702, "validation": 9815}


class QNLI(Glue):
    """QNLI: does a sentence answer a question; 104,743 and 5,463 pairs (second release)."""

    margin: ClassVar[float] = 1.0
    licence: ClassVar[str] = "CC BY-SA 4.0, as SQuAD"
    source: ClassVar[str] = "P. Rajpurkar et al., SQuAD, EMNLP 2016, recast by A. Wang et al."
    config: ClassVar[str] = "qnli"
    folder: ClassVar[str] = "QNLI"
    columns: ClassVar[Sequence[str]] = ("question", "sentence", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("question", "sentence", "label")
    classes: ClassVar[Sequence[str]] = ("entailment", "not_entailment")
    counts: ClassVar[Mapping[str, int]] = {"train": 104743, "validation": 5463}


class RTE(Glue):
    """RTE: does a text entail another; 2,490 and 277 pairs."""

    margin: ClassVar[float] = 3.0
    source: ClassVar[str] = "I. Dagan et al., 2006, to L. Bentivogli et al., 2009: RTE-1, 2, 3, 5"
    config: ClassVar[str] = "rte"
    folder: ClassVar[str] = "RTE"
    columns: ClassVar[Sequence[str]] = ("sentence1", "sentence2", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("sentence1", "sentence2", "label")
    classes: ClassVar[Sequence[str]] = ("entailment", "not_entailment")
    counts: ClassVar[Mapping[str, int]] = {"train": 2490, "validation": 277}


class WNLI(Glue):
    """WNLI: does a pronoun stand for a given noun; 635 and 71 pairs.

    Its test part is adversarial: the majority class, 56.3 %, is hard to beat.
    """

    margin: ClassVar[float] = 5.0
    source: ClassVar[str] = "H. Levesque, E. Davis and L. Morgenstern, Winograd Schemas, KR 2012"
    config: ClassVar[str] = "wnli"
    folder: ClassVar[str] = "WNLI"
    columns: ClassVar[Sequence[str]] = ("sentence1", "sentence2", "label")
    tsv_columns: ClassVar[Sequence[str]] = ("sentence1", "sentence2", "label")
    classes: ClassVar[Sequence[str]] = ("not_entailment", "entailment")
    counts: ClassVar[Mapping[str, int]] = {"train": 635, "validation": 71}
