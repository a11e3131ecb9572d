"""The tasks on Python's own documentation: what counts as a sentence, and what is made of it."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from toys import same

from lth_zoo.errors import DataError
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.tasks import pydocs, topics

NAMES = ("mlm", "order", "shuffle", "topic")

PAGE = """\
The "with" statement
********************

The "with" statement is used to wrap a *block* with methods [1]. It was
added (e.g. by Guido) for reuse.  A short one.

   with_stmt ::= "with" item ":" suite

The following code is not a whole sentence

   >>> with open(x) as f: pass

1. The context expression is evaluated to obtain a “manager”.

2. The "__enter__()" method of the manager is invoked
   before anything else.

+--------+--------+
| A table is no text at all. |
+--------+--------+

Strings
   A string is a sequence of values that stand for points.

Changed in version 3.1: Support for several context expressions was added.

See also:

  **PEP 343** - The “with” statement has a specification of its own.

[1] A footnote refers to what stands in the text above.
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LTH_ZOO_CACHE", str(tmp_path))


# -- sentences --------------------------------------------------------------------------------


def test_code_grammar_tables_notes_and_markup_are_left_out():
    assert topics.extract({"with": PAGE}) == {
        "with": (
            "The with statement is used to wrap a block with methods.",
            "It was added (e.g. by Guido) for reuse.",
            "The context expression is evaluated to obtain a manager.",
            "The __enter__() method of the manager is invoked before anything else.",
            "A string is a sequence of values that stand for points.",
        )
    }


def test_a_sentence_belongs_to_the_smallest_topic_that_has_it():
    shared = "Every value in a program has a type."
    found = topics.extract({"large": f"{shared} Some of them have another one.", "small": shared})
    assert found == {"small": (shared,), "large": ("Some of them have another one.",)}


def test_a_python_without_the_text_is_an_error_that_counts(monkeypatch):
    topics.sentences_by_topic.cache_clear()
    monkeypatch.setattr("pydoc_data.topics.topics", {"with": PAGE})
    try:
        with pytest.raises(DataError, match=r"pydoc_data.topics: 5 sentences; expected 200"):
            topics.sentences_by_topic()
    finally:
        topics.sentences_by_topic.cache_clear()


def test_this_python_has_plenty_of_sentences_and_each_once():
    found = [s for own in topics.sentences_by_topic().values() for s in own]
    assert len(found) > 1200
    assert len({s.lower() for s in found}) == len(found)
    assert all(topics.is_prose(s) and not set('"*`|=<>[]{}\n') & set(s[0]) for s in found)


# -- the tokenizer ----------------------------------------------------------------------------


def test_the_same_text_gives_the_same_vocabulary_in_another_process():
    code = (
        "from lth_zoo.tasks import pydocs, topics\n"
        "texts = [s for own in topics.sentences_by_topic().values() for s in own]\n"
        "print(list(pydocs.vocabulary(texts, 2000)))"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    texts = [s for own in topics.sentences_by_topic().values() for s in own]
    own, again = (pydocs.vocabulary(texts, 2000) for _ in range(2))
    assert said == f"{list(own)}\n"
    assert own == again == pydocs.tokenizer().get_vocab()


def test_the_tokenizer_reads_as_berts_does():
    tokenizer = pydocs.tokenizer()
    vocabulary = tokenizer.get_vocab()
    assert len(tokenizer) == pydocs.VOCABULARY == len(set(vocabulary.values()))
    assert [vocabulary[token] for token in pydocs.SPECIAL] == list(range(5))
    pair = tokenizer("The STRING", "is empty.")
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == (
        ["[CLS]", "the", "string", "[SEP]", "is", "empty", ".", "[SEP]"]
    )
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert tokenizer.decode(tokenizer("unhashable")["input_ids"][1:-1]) == "unhashable"
    texts = [s for own in topics.sentences_by_topic().values() for s in own]
    ids = [i for row in tokenizer(texts)["input_ids"] for i in row]
    assert ids.count(tokenizer.unk_token_id) < 0.001 * len(ids)
    assert "##a" not in tokenizer.all_special_tokens


# -- splits and tasks -------------------------------------------------------------------------


def sentences(split):
    return [s for _, run in pydocs.splits()[split] for s in run]


def test_every_sentence_is_in_one_split_and_the_tasks_share_them():
    counts = {split: len(sentences(split)) for split in SPLITS}
    whole = sum(counts.values())
    assert whole == sum(map(len, topics.sentences_by_topic().values()))
    assert len({s for split in SPLITS for s in sentences(split)}) == whole
    for split, share in pydocs.SHARES.items():
        assert counts[split] == pytest.approx(share * whole, abs=pydocs.RUN)
        known = set(sentences(split))
        assert set(task_of("pydocs/mlm").rows(split).texts) == known
        rows = task_of("pydocs/order").rows(split)
        assert known >= set(rows.texts) | set(rows.pairs)
        passages = {f"{a} {b}" for _, run in pydocs.splits()[split] for a, b in pairwise(run)}
        rows = task_of("pydocs/topic").rows(split)
        assert passages >= set(rows.texts) | set(rows.pairs)
        rows = task_of("pydocs/shuffle").rows(split)
        assert {t for t, label in zip(rows.texts, rows.labels, strict=True) if label} == known


@pytest.mark.parametrize("name", ["order", "shuffle", "topic"])
def test_classes_are_of_one_size_and_the_length_cuts_little_short(name):
    task = task_of(f"pydocs/{name}").bound(pydocs.tokenizer())
    for split in SPLITS:
        assert task.labels(split).double().mean() == 0.5
    assert task.size("test") >= 500
    lengths = task.encoded("test").lengths
    assert (lengths == task.length).mean() < (0.1 if name == "topic" else 0.01)


def test_neighbours_stand_both_ways_round():
    rows = task_of("pydocs/order").rows("test")
    pairs = list(zip(rows.texts, rows.pairs, rows.labels.tolist(), strict=True))
    after = {a: b for _, run in pydocs.splits()["test"] for a, b in pairwise(run)}
    assert all((after.get(a) == b) == bool(label) for a, b, label in pairs)
    assert {(b, a, 1 - label) for a, b, label in pairs} == set(pairs)


def test_a_shuffled_sentence_has_the_same_words_in_another_order():
    rows = task_of("pydocs/shuffle").rows("train")
    for text, other in zip(rows.texts[::2], rows.texts[1::2], strict=True):
        assert text != other
        assert text[-1] == other[-1]
        assert sorted(text[:-1].split()) == sorted(other[:-1].split())
    half = len(rows) // 2
    assert rows.texts[:half:2] == rows.texts[half::2]
    assert rows.texts[1:half:2] != rows.texts[half + 1 :: 2], "shuffled anew each time"


def test_passages_of_one_topic_are_told_from_those_of_two():
    home = {s: name for name, own in topics.sentences_by_topic().items() for s in own}
    passages = {
        f"{a} {b}": (home[a], {a, b})
        for runs in pydocs.splits().values()
        for _, run in runs
        for a, b in pairwise(run)
    }
    for split in SPLITS:
        rows = task_of("pydocs/topic").rows(split)
        found = set()
        for first, second, label in zip(rows.texts, rows.pairs, rows.labels, strict=True):
            (one, ours), (other, theirs) = passages[first], passages[second]
            assert (one == other) == bool(label)
            assert not ours & theirs
            found |= {one, other}
        assert found == pydocs.largest(pydocs.TOPICS)
        assert len(found) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_the_same_in_another_instance(name):
    one, other = (task_of(f"pydocs/{name}").bound(pydocs.tokenizer()) for _ in range(2))
    assert one.fingerprint() == other.fingerprint()
    at = torch.tensor([0, 5, 2])
    assert same(one.batch("test", at), other.batch("test", at))


def test_drawing_depends_on_the_generator_alone():
    runs = pydocs.splits()["validation"]
    for kind in (pydocs.Shuffle, pydocs.Topic):
        task = kind("any")
        first, again, other = (list(task.examples(runs, random.Random(s))) for s in (0, 0, 1))
        assert first == again != other
