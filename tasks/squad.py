"""SQuAD 1.1 and 2.0: find the span of a text that answers a question."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lth_zoo.errors import BadInput
from lth_zoo.protocols import SPLITS, Split
from lth_zoo.tasks import readers, squad_files
from lth_zoo.tasks.encoding import Encoded
from lth_zoo.tasks.evaluation import evaluating
from lth_zoo.tasks.rows import Rows
from lth_zoo.tasks.squad_features import QUESTION, STRIDE, Spans, best_spans, texts_of, windows
from lth_zoo.tasks.squad_files import Questions
from lth_zoo.tasks.squad_metrics import scores
from lth_zoo.tasks.text import LOOKED_AT, TextTask

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

#: The share of train's questions that validation has, in whole articles.
HELD_OUT = 0.06


class SQuAD(TextTask):
    """SQuAD 1.1: 87,599 train and 10,570 validation questions, each with an answer.

    The published validation part is the test; validation is some articles of train, about
    6 % of the questions, which no other article of train shares. A text longer than 384 tokens
    with its question is read in windows that share 128 tokens. Sizes and indices count
    windows; an evaluation counts questions. The headline is F1. The margin is the spread that
    Chen et al. (2020, table 2) print for dense BERT-base, 88.1 +- .6.
    """

    headline: ClassVar[str] = "f1"
    margin: ClassVar[float] = 0.6
    licence: ClassVar[str] = "CC BY-SA 4.0"
    source: ClassVar[str] = (
        "P. Rajpurkar et al., SQuAD: 100,000+ questions for machine comprehension of text, 2016"
    )
    #: A span is of use in its own text only: spans are not permuted.
    labelled: ClassVar[bool] = False
    augment: ClassVar[bool] = False
    answer: Literal["classes", "value", "span", "tokens"] = "span"
    outputs: int = 2
    length: int = 384
    measures: ClassVar[Sequence[str]] = ("exact_match", "f1")
    hub_id: ClassVar[str] = "rajpurkar/squad"
    version: ClassVar[str] = "1.1"
    folders: ClassVar[Sequence[str]] = ("squad", "SQuAD", "squad/plain_text", "squad_v1.1")
    #: How far no answer must be above the best one to be given; None: there always is one.
    threshold: ClassVar[float | None] = None

    def read(self) -> Mapping[Split, Rows]:
        """Return the three splits.

        Raises:
            DataError: damaged, or nowhere to be had.
        """
        roots = readers.roots(self.data)
        parts = squad_files.find(self.folders, self.hub_id, self.version, roots, self.name)
        train, validation = squad_files.by_article(parts["train"], HELD_OUT)
        return {"train": train, "validation": validation, "test": parts["validation"]}

    def bound(self, tokenizer: Any, length: int | None = None) -> TextTask:
        """Return a copy that reads with this tokenizer, in windows of ``length`` tokens.

        Raises:
            BadInput: the tokenizer does not say where its tokens stand, or pads on the left.
        """
        if not tokenizer.is_fast or tokenizer.padding_side != "right":
            raise BadInput(
                f"task {self.name!r} needs a fast tokenizer that pads on the right; "
                f"{type(tokenizer).__name__} is none"
            )
        return super().bound(tokenizer, length)

    def fingerprint(self) -> str:
        """Return sha256 over questions, contexts, answers and splits, and how they are read.

        Computed once.
        """
        if "whole" not in self._held:
            golds = [[list(known) for known in self.questions(s).golds] for s in SPLITS]
            said = repr((super().fingerprint(), golds, STRIDE, QUESTION)).encode()
            self._held["whole"] = hashlib.sha256(said).hexdigest()
        return str(self._held["whole"])

    def questions(self, split: Split) -> Questions:
        """Return the questions of a split with their answers."""
        rows = self.rows(split)
        assert isinstance(rows, Questions)
        return rows

    def size(self, split: Split) -> int:
        """Return the number of windows of a split."""
        return len(self.encoded(split))

    def encode(self, rows: Rows) -> Encoded:
        """Return every window of a split's contexts, with its question."""
        assert rows.pairs is not None
        return windows(self.tokenizer, rows.texts, rows.pairs, rows.labels, self.length)

    def targets(self, rows: Rows, encoded: Encoded) -> np.ndarray:  # noqa: ARG002
        """Return the first and the last token of each window's answer, (windows, 2)."""
        return encoded.extra["answer"]

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of start and end."""
        from torch.nn import functional as F

        start, end = logits.unbind(1)
        return (F.cross_entropy(start, labels[:, 0]) + F.cross_entropy(end, labels[:, 1])) / 2

    def answers(self, model: nn.Module, batch: Any, rng: Any = None) -> Tensor:  # noqa: ARG002
        """Return the scores of each token as start and as end, (n, 2, length) float32."""
        import torch

        return torch.stack(ends(model(**batch[0]), batch[0]["attention_mask"]), 1)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return ``f1`` and ``exact_match`` over questions in percent, ``loss`` over windows.

        The model's modes and the global generators are as before afterwards.
        """
        spans, loss = self._spans(model, split)
        rows = self.questions(split)
        answers = texts_of(self.encoded(split), spans, rows.pairs or (), self.threshold)
        return scores(answers, rows.golds) | {"loss": loss}

    def _spans(
        self, model: nn.Module, split: Split, count: int | None = None
    ) -> tuple[Spans, float]:
        """Return the best span of each window, in order, and the mean loss."""
        import torch
        from torch.nn import functional as F

        total, parts, places = 0.0, [], []
        with evaluating(model):
            for indices, said, labels in self.forward(model, split, count):
                inputs = self.inputs(split, indices)
                start, end = ends(said, inputs["attention_mask"])
                for scored, wanted in ((start, labels[:, 0]), (end, labels[:, 1])):
                    total += F.cross_entropy(scored.double(), wanted, reduction="sum").item() / 2
                inside = self._inside(split, indices, start.shape[1]).to(start.device)
                nowhere = self._nowhere(inputs["input_ids"])
                parts.append(best_spans(start, end, inside, nowhere))
                places.append(indices)
        order = torch.cat(places).argsort()
        columns = zip(*((s.score, s.start, s.end, s.null) for s in parts), strict=True)
        return Spans(*(torch.cat(list(c)).cpu()[order] for c in columns)), total / len(order)

    def _inside(self, split: Split, indices: Tensor, width: int) -> Tensor:
        """Say which tokens belong to the context, (n, width)."""
        import torch

        encoded = self.encoded(split)
        place = torch.arange(width)
        begins, counts = (
            torch.from_numpy(a)[indices][:, None] for a in (encoded.offsets[:-1], encoded.lengths)
        )
        source = (begins + place).clamp_(max=len(encoded.ids) - 1)
        context = torch.from_numpy(encoded.extra["first"])[source] >= 0
        return context & (place < counts)

    def _nowhere(self, ids: Tensor) -> Tensor:
        """Return where the token stands that means no answer, (n,); 0 where there is none."""
        import torch

        if self.tokenizer.cls_token_id is None:
            return torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        return (ids == self.tokenizer.cls_token_id).long().argmax(1)

    def flags(self, model: nn.Module) -> tuple[str, ...]:
        """Return ``("constant",)`` for a model that answers at one place, or never."""
        import torch

        count = min(LOOKED_AT, self.size("validation"))
        spans, _ = self._spans(model, "validation", count)
        width = int(self.encoded("validation").lengths[:count].max())
        first = self._inside("validation", torch.arange(count), width).long().argmax(1)
        silent = torch.zeros(count, dtype=torch.bool)
        if self.threshold is not None:
            silent = spans.null - spans.score > self.threshold
        said = torch.stack([spans.start - first, spans.end - first], 1).masked_fill(
            silent[:, None], -1
        )
        return ("constant",) if bool((said == said[0]).all()) else ()


class SQuAD2(SQuAD):
    """SQuAD 2.0: 130,319 train and 11,873 validation questions, a third to a half without answer.

    A question is left without an answer where that scores higher than every span (threshold
    0). The margin is SQuAD 1.1's; no spread is published for tickets.
    """

    source: ClassVar[str] = (
        "P. Rajpurkar, R. Jia and P. Liang, Know what you don't know: unanswerable questions for "
        "SQuAD, 2018"
    )
    hub_id: ClassVar[str] = "rajpurkar/squad_v2"
    version: ClassVar[str] = "2.0"
    folders: ClassVar[Sequence[str]] = ("squad_v2", "squad-v2", "SQuAD2", "squad_v2/squad_v2")
    threshold: ClassVar[float | None] = 0.0


def ends(said: Any, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Return a model's start and end scores, float32, padding far below every token."""
    import torch

    hidden, lowest = attention == 0, torch.finfo(torch.float32).min / 4
    start, end = (t.float() for t in (said.start_logits, said.end_logits))
    return start.masked_fill(hidden, lowest), end.masked_fill(hidden, lowest)
