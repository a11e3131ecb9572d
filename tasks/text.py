"""Text tasks: what they share between reading the rows and measuring a model.

A task reads its three splits as :class:`Rows` (:meth:`TextTask.read`). It becomes usable once
it is bound to a model's tokenizer (:meth:`TextTask.prepared`): each text is then tokenised
once, kept on disk, and padded batch by batch to the longest of the batch.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lth_zoo.errors import BadInput, unknown
from lth_zoo.protocols import SPLITS, Objective, Signature, Split, Task, adapter_of
from lth_zoo.tasks import encoding, metrics, readers
from lth_zoo.tasks.encoding import Encoded, Tokens
from lth_zoo.tasks.evaluation import evaluating
from lth_zoo.tasks.rows import Corpus, Rows, apart, bucketed, carve, chunks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

__all__ = ["Corpus", "Rows", "TextTask", "apart", "bucketed", "carve", "chunks"]

#: Tokens, padding included, of one forward pass of an evaluation: on a CPU, on other devices.
CHUNK_TOKENS = (4_096, 65_536)
#: Examples looked at before a model is said to be constant.
LOOKED_AT = 1000


class TextTask(Task):
    """Texts, or pairs of texts, to a class or a value.

    Subclasses write :meth:`read` and set ``outputs`` (the number of classes; 1 for a value),
    ``answer``, ``length`` (the most tokens of one example, unless a recipe says otherwise)
    and ``measures``, of which one is the headline. A batch is ``(inputs, labels)``: a
    dictionary for ``model(**inputs)`` and (n,) int64 classes or float32 values.
    """

    answer: Literal["classes", "value", "span", "tokens"] = "classes"
    length: int = 128
    outputs: int = 2
    #: Names of functions of :mod:`~lth_zoo.tasks.metrics` that an evaluation returns.
    measures: ClassVar[Sequence[str]] = ("accuracy",)
    #: See :data:`CHUNK_TOKENS`; lower where a model answers with a vocabulary for each token.
    chunk_tokens: ClassVar[tuple[int, int]] = CHUNK_TOKENS
    tokenizer: Any = None

    def __init__(self, name: str, data: Path | None = None) -> None:
        super().__init__(name, data)
        # Shared by copies of a task, so that moving one moves what it was copied from.
        self._held: dict[Any, Any] = {}

    # -- what subclasses write ---------------------------------------------------------------

    def read(self) -> Mapping[Split, Rows]:
        """Return the three splits; called once a process for each class, name and folder.

        Raises:
            DataError: the data is missing or damaged.
        """
        raise NotImplementedError

    def encode(self, rows: Rows) -> Encoded:
        """Return the rows of a split as token ids, an example each."""
        return encoding.encode(self.tokenizer, rows.texts, rows.pairs, self.length)

    def targets(self, rows: Rows, encoded: Encoded) -> np.ndarray:  # noqa: ARG002
        """Return the labels of the encoded examples of a split, an example a row."""
        return rows.labels

    # -- binding to a model ------------------------------------------------------------------

    def prepared(self, model: str, length: int | None = None) -> TextTask:
        """Return the task as a model of that name reads it: see :meth:`bound`.

        Raises:
            BadInput: the model reads no text, or the length leaves no room for any.
        """
        return self.bound(adapter_of(model).tokenizer(model), length)

    def bound(self, tokenizer: Any, length: int | None = None) -> TextTask:
        """Return a copy that reads with this tokenizer, at most ``length`` tokens an example.

        Without a length it is the task's own, or the tokenizer's if that is shorter.

        Raises:
            BadInput: the length leaves no room for any text.
        """
        most = min(self.length, int(tokenizer.model_max_length)) if length is None else length
        least = int(tokenizer.num_special_tokens_to_add(pair=True)) + 2
        if isinstance(most, bool) or not isinstance(most, int) or most < least:
            raise BadInput(f"max_length is {most!r}; expected a whole number from {least} on")
        other = copy.copy(self)
        other._held = {}
        other.tokenizer, other.length = tokenizer, most
        return other

    @property
    def signature(self) -> Signature:
        """The largest number of tokens and what the model answers with."""
        return Signature((self.length,), self.outputs, self.answer)

    # -- the data ----------------------------------------------------------------------------

    @property
    def corpus(self) -> Corpus:
        """The three splits, read on the first use in this process."""
        place = (os.environ.get(readers.VARIABLE), str(Path.cwd()))
        kind: Any = type(self)
        return _corpus(kind, self.name, self.data, place)

    def rows(self, split: Split) -> Rows:
        """Return the texts and labels of a split."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        return self.corpus.rows[split]

    def fingerprint(self) -> str:
        """Return sha256 over texts, labels and splits; bound, over tokenizer and length too.

        The same data in another file format has the same fingerprint. Computed once.
        """
        if self.tokenizer is None:
            return self.corpus.digest
        if "fingerprint" not in self._held:
            said = (self.corpus.digest, encoding.fingerprint_of(self.tokenizer), self.length)
            self._held["fingerprint"] = hashlib.sha256(repr(said).encode()).hexdigest()
        return str(self._held["fingerprint"])

    def encoded(self, split: Split) -> Encoded:
        """Return a split as token ids, from the cache on disk if it holds them.

        Raises:
            BadInput: the task is not bound to a tokenizer yet.
        """
        if self.tokenizer is None:
            raise BadInput(
                f"task {self.name!r} is not bound to a model: call prepared(model) or "
                "bound(tokenizer) first"
            )
        rows = self.rows(split)
        if ("encoded", split) not in self._held:
            key = f"{type(self).__qualname__}/{self.fingerprint()}/{split}"
            made = encoding.cached(key, lambda: self.encode(rows))
            self._held["encoded", split] = made
        return self._held["encoded", split]

    def size(self, split: Split) -> int:
        """Return the number of examples of a split."""
        return len(self.rows(split))

    def labels(self, split: Split) -> Tensor:
        """Return the labels of a split, an example a row, on the task's device."""
        import torch

        if ("labels", split) not in self._held:
            found = self.targets(self.rows(split), self.encoded(split))
            self._held["labels", split] = torch.from_numpy(found.copy()).to(self.device)
        return self._held["labels", split]

    def inputs(self, split: Split, indices: Tensor) -> dict[str, Tensor]:
        """Return what the model reads of these examples, padded to the longest of them."""
        if ("tokens", split) not in self._held:
            self._held["tokens", split] = Tokens(self.encoded(split), self.device)
        pad, left = encoding.padding_of(self.tokenizer)
        found: dict[str, Tensor] = self._held["tokens", split].inputs(indices, pad, left)
        return found

    def batch(
        self,
        split: Split,
        indices: Tensor,
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return (inputs, labels) at the indices; nothing is drawn.

        Raises:
            BadInput: the task is not bound to a tokenizer yet.
        """
        labels = self.labels(split)
        return self.inputs(split, indices), labels[indices.to(labels.device)]

    def epoch(self, batch_size: int, rng: torch.Generator) -> Sequence[Tensor]:
        """Return the train indices of one epoch in batches of similar lengths.

        A shuffle is cut into runs of fifty batches; each run is sorted by length and cut into
        batches, and these are shuffled. What does not fill a batch is left out, drawn anew
        each epoch.
        """
        return bucketed(self.encoded("train").lengths, batch_size, rng)

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        import torch

        return self._held.get("device") or torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Make batches on a device from now on."""
        if device != self.device:
            for key in [k for k in self._held if k[0] in ("tokens", "labels")]:
                del self._held[key]
            self._held["device"] = device

    # -- training and measuring --------------------------------------------------------------

    def objectives(self, model: nn.Module) -> Sequence[Objective]:  # noqa: ARG002
        """Return cross-entropy, or the squared error of a value, over every parameter."""
        name = "squared-error" if self.answer == "value" else "cross-entropy"
        return [Objective(name, self.loss)]

    def loss(
        self,
        model: nn.Module,
        batch: Any,
        rng: torch.Generator,
    ) -> Tensor:
        """Return the mean loss of a batch, a scalar in float32."""
        return self.criterion(self.answers(model, batch, rng), batch[1])

    def answers(
        self,
        model: nn.Module,
        batch: Any,
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the logits of the texts of a batch, (n, outputs) float32."""
        logits: Tensor = model(**batch[0]).logits.float()
        return logits

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of answers (n, outputs) to labels (n,)."""
        from torch.nn import functional as F

        if self.answer == "value":
            return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
        return F.cross_entropy(logits, labels)

    def forward(
        self, model: nn.Module, split: Split, count: int | None = None
    ) -> Iterator[tuple[Tensor, Any, Tensor]]:
        """Yield (indices, the model's answer, labels) in chunks of like length, longest first.

        ``count`` takes the first so many examples only. Call it under ``evaluating``.
        """
        lengths = self.encoded(split).lengths[:count]
        for chunk in chunks(lengths, self.chunk_tokens[self.device.type != "cpu"]):
            inputs, labels = self.batch(split, chunk)
            yield chunk, model(**inputs), labels

    def answered(
        self, model: nn.Module, split: Split, count: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the model's logits (n, outputs) float32 and the labels (n,), in order."""
        import torch

        with evaluating(model):
            parts = [(i, a.logits.float(), y) for i, a, y in self.forward(model, split, count)]
        indices, logits, labels = (torch.cat(list(p)) for p in zip(*parts, strict=True))
        order = indices.argsort()
        return logits.cpu()[order], labels.cpu()[order]

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the ``measures`` in percent, and ``loss``.

        A constant predictor has a correlation of 0, never not-a-number. The model's modes
        and the global generators are as before afterwards.
        """
        logits, labels = self.answered(model, split)
        predicted, known = self.predictions(logits), labels.numpy()
        found = {name: getattr(metrics, name)(predicted, known) for name in self.measures}
        return found | {"loss": self.criterion(logits.double(), labels).item()}

    def predictions(self, logits: Tensor) -> np.ndarray:
        """Return the class (n,) or value (n,) that logits (n, outputs) stand for."""
        found = logits.squeeze(-1) if self.answer == "value" else logits.argmax(-1)
        array: np.ndarray = found.numpy()
        return array

    def flags(self, model: nn.Module) -> tuple[str, ...]:
        """Return ``("constant",)`` for a model that gives a thousand texts one answer."""
        logits, _ = self.answered(model, "validation", LOOKED_AT)
        return ("constant",) if metrics.constant(self.predictions(logits)) else ()


@lru_cache(maxsize=8)
def _corpus(
    kind: Callable[[str, Path | None], TextTask],
    name: str,
    data: Path | None,
    place: tuple[str | None, str],  # noqa: ARG001
) -> Corpus:
    """Return what a task reads; ``place`` is what else it depends on where it looks."""
    return Corpus(dict(kind(name, data).read()))
