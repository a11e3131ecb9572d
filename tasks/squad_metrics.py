"""SQuAD's official metrics: exact match and F1 over words, in percent.

As Rajpurkar et al. define them (2016, arXiv:1606.05250; 2018, arXiv:1806.03822, for questions
without an answer): a prediction counts with the gold answer that it fits best.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Return an answer in lower case, without punctuation, articles and needless spaces.

    >>> normalised("The  U.S. Army!")
    'us army'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact(predicted: str, gold: str) -> float:
    """Return 1 if two answers are equal once normalised, else 0."""
    return float(normalised(predicted) == normalised(gold))


def overlap(predicted: str, gold: str) -> float:
    """Return the F1 of the words of two normalised answers; 1 if both are empty.

    >>> overlap("the big red house", "red house")
    0.8
    """
    ours, theirs = normalised(predicted).split(), normalised(gold).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def scores(predicted: Sequence[str], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return ``exact_match`` and ``f1`` in percent; no gold answer means the empty text.

    Where some questions have no answer, ``f1_answerable`` and ``f1_unanswerable`` too.
    """

    def mean(values: Sequence[float]) -> float:
        return 100.0 * sum(values) / len(values)

    golds = [[g for g in known if normalised(g)] or [""] for known in gold]
    words = _best(overlap, predicted, golds)
    found = {"exact_match": mean(_best(exact, predicted, golds)), "f1": mean(words)}
    without = [known == [""] for known in golds]
    if any(without) and not all(without):
        for name, which in (("answerable", False), ("unanswerable", True)):
            own = [word for word, none in zip(words, without, strict=True) if none == which]
            found[f"f1_{name}"] = mean(own)
    return found


def _best(
    measure: Callable[[str, str], float], predicted: Sequence[str], golds: Sequence[Sequence[str]]
) -> list[float]:
    pairs = zip(predicted, golds, strict=True)
    return [max(measure(answer, gold) for gold in known) for answer, known in pairs]
