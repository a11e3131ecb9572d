"""Masked language modelling on any text: guess the tokens that were hidden.

A split is one stream of tokens, cut into blocks. 15 % of a block's tokens are to be guessed:
of these 80 % read as the mask, 10 % as a random token, 10 % as they are (Devlin et al., 2019,
arXiv:1810.04805, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import Signature, Split
from lth_zoo.seeds import derive
from lth_zoo.tasks import encoding, readers, text_files
from lth_zoo.tasks.encoding import Encoded
from lth_zoo.tasks.evaluation import evaluating
from lth_zoo.tasks.rows import Rows, chunks
from lth_zoo.tasks.text import TextTask

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

#: The share of tokens to be guessed, and of these the shares masked and masked or random.
SHARE, MASKED, CHANGED = 0.15, 0.8, 0.9
#: The label of a token that is not to be guessed.
IGNORED = -100
#: Blocks looked at before a model is said to be constant.
LOOKED_AT = 200


@dataclass(frozen=True)
class Marks:
    """What masking knows of a vocabulary: special ids, ordinary ids, and the mask's id."""

    special: Tensor
    ordinary: Tensor
    mask: int

    @classmethod
    def of(cls, tokenizer: Any, device: torch.device) -> Marks:
        """Return the marks of a tokenizer that has a mask."""
        import torch

        special = sorted(set(tokenizer.all_special_ids))
        ordinary = sorted(set(tokenizer.get_vocab().values()) - set(special))
        first, second = (torch.tensor(ids, device=device) for ids in (special, ordinary))
        return cls(first, second, int(tokenizer.mask_token_id))


def mask_tokens(ids: Tensor, draws: Tensor, marks: Marks) -> tuple[Tensor, Tensor]:
    """Return (ids with some hidden, labels): exactly 15 % of each row, and at least one token.

    ``draws`` are uniform in [0, 1), (n, length, 3): which tokens, what becomes of them, which
    token instead. Special tokens are never chosen. A label is the token, or -100.
    """
    import torch

    candidates = ~torch.isin(ids, marks.special)
    counts = (candidates.sum(1) * SHARE).round().long().clamp_(min=1)
    rank = draws[..., 0].masked_fill(~candidates, 2.0)
    last = rank.sort(1).values.gather(1, counts[:, None] - 1)
    chosen = (rank <= last) & candidates
    labels = ids.masked_fill(~chosen, IGNORED)
    fate = draws[..., 1]
    place = (draws[..., 2] * len(marks.ordinary)).long().clamp_(max=len(marks.ordinary) - 1)
    hidden = ids.masked_fill(chosen & (fate < MASKED), marks.mask)
    replaced = chosen & (fate >= MASKED) & (fate < CHANGED)
    return torch.where(replaced, marks.ordinary[place], hidden), labels


def vocabulary_logits(model: nn.Module, inputs: Mapping[str, Tensor], chosen: Tensor) -> Tensor:
    """Return the scores of the vocabulary at the chosen places only, (chosen, vocabulary).

    The output embedding reads only these places, in the order of ``chosen`` (n, length) bool:
    over 30,000 words it costs as much as a small model. A model whose output embedding is no
    module of its own computes all places, of which these are taken.
    """
    output = getattr(model, "get_output_embeddings", lambda: None)()

    def narrow(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden, *rest = arguments
        return (hidden[chosen], *rest) if hidden.shape[:2] == chosen.shape else None

    handle = output.register_forward_pre_hook(narrow) if output is not None else None
    try:
        logits: Tensor = model(**inputs).logits
    finally:
        if handle is not None:
            handle.remove()
    return logits if logits.dim() == 2 else logits[chosen]


def blocks(stream: np.ndarray, length: int, around: tuple[list[int], list[int]]) -> Encoded:
    """Cut a stream of token ids into blocks of ``length``, special tokens before and after.

    The last block may be shorter.
    """
    import numpy as np

    before, after = around
    room = length - len(before) - len(after)
    pieces = np.split(stream, range(room, len(stream), room)) if len(stream) else []
    counts = np.array([len(p) for p in pieces], np.int64) + len(before) + len(after)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]).astype(np.int64)
    parts = chain.from_iterable((before, piece, after) for piece in pieces)
    arrays = [np.asarray(part, np.int32) for part in parts]
    return Encoded(np.concatenate(arrays) if arrays else np.zeros(0, np.int32), offsets)


class MaskedLM(TextTask):
    """Masked language modelling over the texts of :meth:`read`, a line or a document a row.

    A batch is ``(inputs, labels)``, labels (n, length) int64 with -100 where there is nothing
    to guess. With an ``rng`` the masks are drawn from it, anew for each batch; without one
    they are a function of the split and the block alone. Sizes and indices count blocks.
    """

    margin: ClassVar[float] = 0.5
    labelled: ClassVar[bool] = False
    answer: Literal["classes", "value", "span", "tokens"] = "tokens"
    measures: ClassVar[Sequence[str]] = ("accuracy", "perplexity")
    #: A placeholder of some corpora for rare words, read as the tokenizer's unknown token.
    unknown: ClassVar[str] = "<unk>"
    chunk_tokens: ClassVar[tuple[int, int]] = (4_096, 65_536)

    def bound(self, tokenizer: Any, length: int | None = None) -> TextTask:
        """Return a copy that reads with this tokenizer, in blocks of ``length`` tokens.

        Raises:
            BadInput: the tokenizer has no mask, or the length leaves no room for any text.
        """
        if tokenizer.mask_token_id is None:
            raise BadInput(
                f"task {self.name!r} hides tokens behind a mask, and the tokenizer "
                f"({type(tokenizer).__name__}) has no mask token; take a model of the BERT kind"
            )
        return super().bound(tokenizer, length)

    @property
    def signature(self) -> Signature:
        """Length, and the size of the tokenizer's vocabulary (0 where there is none yet)."""
        words = 0 if self.tokenizer is None else len(self.tokenizer)
        return Signature((self.length,), words, self.answer)

    def size(self, split: Split) -> int:
        """Return the number of blocks of a split."""
        return len(self.encoded(split))

    def encode(self, rows: Rows) -> Encoded:
        """Return the rows of a split as one stream, in blocks.

        Raises:
            DataError: there is no token to guess.
        """
        import numpy as np

        found = blocks(self._stream(rows.texts), self.length, around(self.tokenizer))
        plain = ~np.isin(found.ids, self.tokenizer.all_special_ids)
        kept = np.add.reduceat(plain, found.offsets[:-1]) > 0 if len(found) else np.zeros(0)
        if not kept.any():
            raise DataError(f"{rows.source}: no token to guess in {len(rows)} lines")
        if not kept.all():  # a tail of nothing but unknown words
            ids = np.split(found.ids, found.offsets[1:-1])
            found = encoding.ragged([ids[place].tolist() for place in np.flatnonzero(kept)])
        typed = "token_type_ids" in self.tokenizer.model_input_names
        types = np.zeros(len(found.ids), np.uint8) if typed else None
        return Encoded(found.ids, found.offsets, types)

    def _stream(self, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        word = self.tokenizer.unk_token
        parts = [np.zeros(0, np.int32)]
        for start in range(0, len(texts), encoding.CHUNK):
            some = list(texts[start : start + encoding.CHUNK])
            if word is not None:
                some = [text.replace(self.unknown, word) for text in some]
            read = self.tokenizer(
                some, add_special_tokens=False, return_attention_mask=False, verbose=False
            )
            parts.append(np.fromiter(chain.from_iterable(read["input_ids"]), np.int32))
        return np.concatenate(parts)

    def batch(
        self, split: Split, indices: Tensor, rng: torch.Generator | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return (inputs, labels) at the indices, masked.

        Raises:
            BadInput: the task is not bound to a tokenizer yet.
        """
        inputs = self.inputs(split, indices)
        ids = inputs["input_ids"]
        draws = self._draws(split, indices, ids.shape[1], rng).to(ids.device)
        if "marks" not in self._held or self._held["marks"].special.device != ids.device:
            self._held["marks"] = Marks.of(self.tokenizer, ids.device)
        hidden, labels = mask_tokens(ids, draws, self._held["marks"])
        return inputs | {"input_ids": hidden}, labels

    def _draws(
        self, split: Split, indices: Tensor, width: int, rng: torch.Generator | None
    ) -> Tensor:
        """Return (n, width, 3) uniform numbers: of ``rng``, or of each block's own stream."""
        import torch

        if rng is not None:
            return torch.rand(len(indices), width, 3, generator=rng, device=rng.device)
        own, rows = torch.Generator(), []
        for index in indices.tolist():
            own.manual_seed(derive(0, "noise", "mask", split, index))
            rows.append(torch.rand(self.length, 3, generator=own)[:width])
        return torch.stack(rows) if rows else torch.zeros(0, width, 3)

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy over the tokens to be guessed."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, labels[labels != IGNORED])

    def answers(
        self,
        model: nn.Module,
        batch: Any,
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the scores of the vocabulary for each token to be guessed, float32."""
        inputs, labels = batch
        return vocabulary_logits(model, inputs, labels != IGNORED).float()

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return ``accuracy`` over the masked tokens in percent, ``perplexity`` and ``loss``.

        The model's modes and the global generators are as before afterwards.
        """
        from torch.nn import functional as F

        loss, hits, count = 0.0, 0, 0
        with evaluating(model):
            for logits, wanted in self._guesses(model, split):
                loss += F.cross_entropy(logits, wanted, reduction="none").double().sum().item()
                hits += int((logits.argmax(1) == wanted).sum())
                count += len(wanted)
        mean = loss / count
        perplexity = math.exp(min(mean, 700.0))  # finite, whatever a broken model says
        return {"accuracy": 100.0 * hits / count, "perplexity": perplexity, "loss": mean}

    def _guesses(self, model: nn.Module, split: Split, count: int | None = None) -> Any:
        """Yield (logits, tokens) of the masked places, chunk by chunk."""
        lengths = self.encoded(split).lengths[:count]
        for chunk in chunks(lengths, self.chunk_tokens[self.device.type != "cpu"]):
            inputs, labels = self.batch(split, chunk)
            chosen = labels != IGNORED
            yield vocabulary_logits(model, inputs, chosen).float(), labels[chosen]

    def flags(self, model: nn.Module) -> tuple[str, ...]:
        """Return ``("constant",)`` for a model that guesses one token everywhere."""
        with evaluating(model):
            found = {
                token
                for logits, _ in self._guesses(model, "validation", LOOKED_AT)
                for token in logits.argmax(1).unique().tolist()
            }
        return ("constant",) if len(found) == 1 else ()


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return list(whole[:start]), list(whole[start + len(bare) :])


class TextFiles(MaskedLM):
    """Any text: ``mlm/<hub id[@config], folder or file>``, below the data folders too.

    A .txt file, a folder of .txt files, or a table (parquet, JSON lines, CSV, what
    ``save_to_disk`` wrote, the hub) with a column ``text``. Parts named train, validation and
    test are used as they are; of train and one other, the other is the test. What is missing
    is cut from the end of train, a twentieth of it each, between lines, or between articles
    where there are 20 or more with headings (`` = Title = ``). Without a train part everything
    there is, in the order of the files' names, is one text. The margin of half a point is two
    to three times the spread that Chen et al. print for BERT-base (63.5 +- .1 dense, 63.2 +-
    .3 at 70 %).
    """

    source: ClassVar[str] = "named by the task"

    def read(self) -> Mapping[Split, Rows]:
        """Return the three splits, a line a row.

        Raises:
            DataError: it cannot be had, has no text, or too little.
        """
        wanted = self.name.removeprefix("mlm/")
        return text_files.three(text_files.lines(wanted, readers.roots(self.data)), self.name)
