"""Questions with contexts longer than a model reads: overlapping windows, and spans of text.

As Devlin et al. do it (2019, arXiv:1810.04805, sections 4.2 and 4.3): a question is read with
each window of its context; where a window has no answer, the answer is the first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lth_zoo.tasks import encoding
from lth_zoo.tasks.encoding import Encoded

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

#: Tokens that two windows next to each other share, and the most a question may have.
STRIDE, QUESTION = 128, 64
#: Tokens of the longest answer that is looked for.
ANSWER = 30


def windows(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    spans: np.ndarray,
    length: int,
) -> Encoded:
    """Tokenise questions with each window of their contexts, at most ``length`` tokens each.

    ``spans`` (n, 2) are the characters of the answers, -1 for none. Of the extra arrays,
    ``example`` (windows,) says which question a window belongs to, ``answer`` (windows, 2) the
    tokens of the answer, and ``first`` and ``last`` (tokens,) the characters of each token
    of a context, -1 for every other token.
    """
    import numpy as np

    shown = shortened(tokenizer, questions, min(QUESTION, length // 2))
    room = length - tokenizer.num_special_tokens_to_add(pair=True) - length // 2
    typed = "token_type_ids" in tokenizer.model_input_names
    ids: list[list[int]] = []
    types: list[list[int]] = []
    examples, characters = [], []
    for start in range(0, len(shown), encoding.CHUNK):
        stop = start + encoding.CHUNK
        found = tokenizer(
            list(shown[start:stop]),
            list(contexts[start:stop]),
            truncation="only_second",
            max_length=length,
            stride=max(0, min(STRIDE, room // 2)),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=typed,
        )
        ids += found["input_ids"]
        types += found["token_type_ids"] if typed else []
        examples += [start + sample for sample in found["overflow_to_sample_mapping"]]
        characters += [_characters(found, i) for i in range(len(found["input_ids"]))]
    answers = [
        positions(pairs, tokens, spans[example], tokenizer.cls_token_id)
        for pairs, tokens, example in zip(characters, ids, examples, strict=True)
    ]
    flat = np.concatenate(characters)
    extra = {
        "example": np.array(examples, np.int64),
        "answer": np.array(answers, np.int64).reshape(-1, 2),
        "first": flat[:, 0].copy(),
        "last": flat[:, 1].copy(),
    }
    return encoding.ragged(ids, types if typed else None, extra)


def _characters(found: Any, place: int) -> np.ndarray:
    """Return each token's characters in the context, (tokens, 2) int32, -1 outside it."""
    import numpy as np

    inside = np.array([part == 1 for part in found.sequence_ids(place)])
    pairs = np.array(found["offset_mapping"][place], np.int32).reshape(-1, 2)
    return np.where(inside[:, None], pairs, np.int32(-1))


def shortened(tokenizer: Any, questions: Sequence[str], most: int) -> list[str]:
    """Return the questions, each cut to so many tokens."""
    read = tokenizer(list(questions), add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(questions, read["offset_mapping"], strict=True)
    return [text if len(at) <= most else text[: at[most - 1][1]] for text, at in pairs]


def positions(
    characters: np.ndarray, ids: Sequence[int], span: Sequence[int], first: int | None
) -> tuple[int, int]:
    """Return the first and the last token of an answer; the first token's place if it has none.

    That is where the token ``first`` stands; a window that does not hold the whole answer
    has none.
    """
    import numpy as np

    nowhere = next((place for place, token in enumerate(ids) if token == first), 0)
    inside = np.flatnonzero(characters[:, 0] >= 0)
    begin, end = int(span[0]), int(span[1])
    if begin < 0 or not len(inside):
        return nowhere, nowhere
    starts, ends = characters[inside, 0], characters[inside, 1]
    if begin < starts[0] or end > ends[-1]:
        return nowhere, nowhere
    start = int(np.searchsorted(ends, begin, "right"))
    stop = int(np.searchsorted(starts, end, "left")) - 1
    return (int(inside[start]), int(inside[stop])) if start <= stop else (nowhere, nowhere)


@dataclass(frozen=True)
class Spans:
    """The best span of each window: its ``score``, its tokens, and the ``null`` score.

    Each is a tensor with one entry a window; the score is minus infinity where a window has
    no token of the context, and ``null`` is that of no answer.
    """

    score: Tensor
    start: Tensor
    end: Tensor
    null: Tensor


def best_spans(start: Tensor, end: Tensor, inside: Tensor, nowhere: Tensor) -> Spans:
    """Return the best span of each window: the two scores' sum, over at most 30 tokens.

    ``start`` and ``end`` are (n, length) scores, ``inside`` marks the context's tokens and
    ``nowhere`` (n,) is the place that stands for no answer. Every span is looked at.
    """
    import torch
    from torch.nn import functional as F

    lowest = float("-inf")
    begins, ends = (t.masked_fill(~inside, lowest) for t in (start, end))
    ahead = F.pad(ends, (0, ANSWER - 1), value=lowest).unfold(1, ANSWER, 1)
    totals = (begins[..., None] + ahead).flatten(1)
    score, place = totals.max(1)
    first = torch.div(place, ANSWER, rounding_mode="floor")
    null = (start + end).gather(1, nowhere[:, None])[:, 0]
    return Spans(score, first, first + place % ANSWER, null)


def texts_of(
    encoded: Encoded, spans: Spans, contexts: Sequence[str], threshold: float | None
) -> list[str]:
    """Return each question's answer: the best span over its windows.

    With a ``threshold`` the answer is empty where the smallest null score of the windows is
    above the best span's by more than that; None always answers.
    """
    import numpy as np

    examples = encoded.extra["example"]
    score, null = spans.score.double().numpy(), spans.null.double().numpy()
    start, end = spans.start.numpy(), spans.end.numpy()
    least = np.full(len(contexts), np.inf)
    np.minimum.at(least, examples, null)
    answers = [""] * len(contexts)
    # The best window of each question: the first of equals, in the order of the windows.
    order = np.lexsort((np.arange(len(score)), -score, examples))
    _, firsts = np.unique(examples[order], return_index=True)
    for window in order[firsts]:
        example = int(examples[window])
        silent = threshold is not None and least[example] - score[window] > threshold
        if silent or not np.isfinite(score[window]):
            continue
        begin = encoded.offsets[window]
        first = encoded.extra["first"][begin + start[window]]
        last = encoded.extra["last"][begin + end[window]]
        answers[example] = contexts[example][first:last]
    return answers
