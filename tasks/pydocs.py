"""Four small tasks on the documentation that ships with Python: text with no download.

The sentences of each topic are cut into runs of about ten neighbours, and every run belongs
to one split: the tasks share the splits, so that a start pre-trained on ``pydocs/mlm`` has
seen no sentence of another task's validation or test. The text changes with the Python
version; so do the tasks' fingerprints, and figures are comparable within one version only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from lth_zoo.protocols import SPLITS, Split
from lth_zoo.seeds import derive
from lth_zoo.tasks.mlm import MaskedLM
from lth_zoo.tasks.rows import Rows
from lth_zoo.tasks.text import TextTask
from lth_zoo.tasks.topics import sentences_by_topic

if TYPE_CHECKING:
    import numpy as np

#: Neighbouring sentences that stay in one split, and the splits' shares of all sentences.
RUN, SHARES = 10, {"train": 0.6, "validation": 0.15, "test": 0.25}
#: Words and pieces of words that the tokenizer knows, and the most tokens its model reads.
VOCABULARY, POSITIONS = 2000, 128
#: Topics, the largest ones, that ``pydocs/topic`` tells apart.
TOPICS = 3

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

#: Neighbouring sentences with the name of their topic.
Run = tuple[str, tuple[str, ...]]
#: Two texts (the second may be missing) and a label.
Example = tuple[str, str | None, int]


@lru_cache(maxsize=1)
def splits() -> Mapping[Split, tuple[Run, ...]]:
    """Return the runs of each split, always the same ones for one Python version.

    Each run goes, in an order drawn by its place, to the split that lacks most.

    Raises:
        DataError: this Python comes without the text.
    """
    runs: list[Run] = []
    for topic, sentences in sorted(sentences_by_topic().items()):
        parts = max(1, round(len(sentences) / RUN))
        cuts = [len(sentences) * i // parts for i in range(parts + 1)]
        runs += [(topic, sentences[a:b]) for a, b in pairwise(cuts)]
    order = sorted(range(len(runs)), key=lambda place: derive(0, "data", "pydocs", place))
    found: dict[Split, list[Run]] = {split: [] for split in SPLITS}
    count: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for place in order:
        split = min(SPLITS, key=lambda s: count[s] / SHARES[s])
        found[split].append(runs[place])
        count[split] += len(runs[place][1])
    return {split: tuple(sorted(own)) for split, own in found.items()}


# -- the tokenizer ----------------------------------------------------------------------------


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    """Return the word-piece tokenizer of 2,000 entries trained on the sentences, as BERT reads.

    The same text gives the same vocabulary, id by id. Takes a fifth of a second.
    """
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = vocabulary([s for t in sentences_by_topic().values() for s in t], VOCABULARY)
    fast = _like_bert(Tokenizer(models.WordPiece(words, unk_token="[UNK]")))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **dict(zip(names, SPECIAL, strict=True)),
    )


def vocabulary(texts: Sequence[str], size: int) -> dict[str, int]:
    """Train a word-piece vocabulary in lower case; entry to id, special tokens first.

    The trainer numbers continuing letters (``##a``) in the order of a hash table and breaks
    ties by number. Here they are given beforehand, sorted, so that nothing is left to chance.
    """
    from tokenizers import Tokenizer, models, trainers

    blank = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    fast = _like_bert(blank, special={name: place for place, name in enumerate(SPECIAL)})
    letters = sorted({letter for text in texts for letter in _letters(fast, text)})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL, *(f"##{letter}" for letter in letters)],
        initial_alphabet=letters,
        show_progress=False,
    )
    fast.train_from_iterator(texts, trainer)
    return dict(sorted(fast.get_vocab().items(), key=lambda entry: entry[1]))


def _letters(fast: Any, text: str) -> Iterator[str]:
    for word, _ in fast.pre_tokenizer.pre_tokenize_str(fast.normalizer.normalize_str(text)):
        yield from word


def _like_bert(fast: Any, special: Mapping[str, int] | None = None) -> Any:
    """Give a tokenizer BERT's cleaning, its cut at punctuation, and its two special tokens."""
    from tokenizers import decoders, normalizers, pre_tokenizers, processors

    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    ids = special or fast.get_vocab()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return fast


# -- the tasks --------------------------------------------------------------------------------

LICENCE = "PSF License Agreement (Python's documentation)"
SOURCE = "pydoc_data.topics, the language reference inside Python's standard library"


class Pydocs(TextTask):
    """Two classes in equal parts, made of the sentences by :meth:`examples`.

    A split of 630 to 870 test examples has a standard error of 1.5 to 2 points; the margin of
    three points is one and a half to two of them.
    """

    margin: ClassVar[float] = 3.0
    licence: ClassVar[str] = LICENCE
    source: ClassVar[str] = SOURCE
    length: int = POSITIONS
    #: How often each sentence of train, and of the other splits, is drawn.
    draws: ClassVar[int] = 1
    held_out_draws: ClassVar[int] = 1

    def examples(self, runs: Sequence[Run], rng: random.Random) -> Iterator[Example]:
        """Yield the examples of a split, a 1 and a 0 each time."""
        raise NotImplementedError

    def read(self) -> Mapping[Split, Rows]:
        """Return the three splits.

        Raises:
            DataError: this Python comes without the text.
        """
        return {split: self._rows(split, runs) for split, runs in splits().items()}

    def _rows(self, split: Split, runs: Sequence[Run]) -> Rows:
        rng = random.Random(derive(0, "data", self.name, split))
        draws = self.draws if split == "train" else self.held_out_draws
        found = [one for _ in range(draws) for one in self.examples(runs, rng)]
        firsts, seconds, labels = zip(*found, strict=True)
        paired = seconds[0] is not None
        return Rows(list(firsts), list(seconds) if paired else None, _classes(labels), self.name)


class Order(Pydocs):
    """Are two neighbouring sentences in their order: each pair both ways round."""

    def examples(self, runs: Sequence[Run], rng: random.Random) -> Iterator[Example]:  # noqa: ARG002
        """Yield every pair of neighbours as it is, 1, and turned round, 0."""
        for _, run in runs:
            for first, second in pairwise(run):
                yield first, second, 1
                yield second, first, 0


class Shuffle(Pydocs):
    """Is the word order of a sentence intact: each sentence as it is, and shuffled.

    All words change places among themselves; the stop at the end stays. Every sentence of
    train stands in it twice as it is, and shuffled in two ways.
    """

    draws: ClassVar[int] = 2

    def examples(self, runs: Sequence[Run], rng: random.Random) -> Iterator[Example]:
        """Yield every sentence as it is, 1, and shuffled, 0."""
        for _, run in runs:
            for sentence in run:
                yield sentence, None, 1
                yield shuffled(sentence, rng), None, 0


class Topic(Pydocs):
    """Are two passages of the same topic: each passage with one of its topic, and a stranger.

    A passage is two neighbouring sentences; the two never share one. Only the three largest
    topics take part: a model of this size learns what few topics are about, and no more. One
    pair in thirty is cut at 128 tokens. The test examples are drawn from some 90 passages, so
    their accuracy is less certain than their number says.
    """

    draws: ClassVar[int] = 6
    held_out_draws: ClassVar[int] = 4

    def examples(self, runs: Sequence[Run], rng: random.Random) -> Iterator[Example]:
        """Yield every passage with one of its topic, 1, and with one of another topic, 0."""
        chosen = largest(TOPICS)
        pool = [(topic, pair) for topic, run in runs if topic in chosen for pair in pairwise(run)]
        home = {topic: [pair for name, pair in pool if name == topic] for topic, _ in pool}
        for topic, pair in pool:
            friends = [other for other in home[topic] if not set(pair) & set(other)]
            if friends and len(home) > 1:
                yield " ".join(pair), " ".join(rng.choice(friends)), 1
                yield " ".join(pair), " ".join(stranger(topic, pool, rng)), 0


class PydocsMLM(MaskedLM):
    """Masked language modelling on the sentences, in blocks of 64 tokens."""

    margin: ClassVar[float] = 1.5
    licence: ClassVar[str] = LICENCE
    source: ClassVar[str] = SOURCE
    length: int = 64

    def read(self) -> Mapping[Split, Rows]:
        """Return the three splits, a sentence a row.

        Raises:
            DataError: this Python comes without the text.
        """
        texts = {split: [s for _, run in runs for s in run] for split, runs in splits().items()}
        return {s: Rows(t, None, _classes([0] * len(t)), self.name) for s, t in texts.items()}


def shuffled(sentence: str, rng: random.Random) -> str:
    """Return a sentence with its words in another order; what ends it stays where it is.

    >>> shuffled("go go go.", random.Random(0))
    'go go go.'
    """
    words = sentence[:-1].split()
    changed = words
    for _ in range(100):
        changed = rng.sample(words, len(words))
        if changed != words:
            break
    return " ".join(changed) + sentence[-1]


def largest(count: int) -> frozenset[str]:
    """Return the names of the topics with the most sentences."""
    found = sentences_by_topic()
    return frozenset(sorted(found, key=lambda name: (-len(found[name]), name))[:count])


def stranger(
    topic: str, pool: Sequence[tuple[str, tuple[str, str]]], rng: random.Random
) -> tuple[str, str]:
    """Draw a passage of another topic than this one."""
    while True:
        other, pair = rng.choice(pool)
        if other != topic:
            return pair


def _classes(labels: Sequence[int]) -> np.ndarray:
    import numpy as np

    return np.array(labels, np.int64)
