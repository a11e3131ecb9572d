"""Masked language modelling: what is hidden, what is measured, and where text is read from."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hf_models import tiny_model, tiny_tokenizer
from tiny_texts import sentences
from toys import same

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.seeds import generator
from lth_zoo.tasks import mlm, text_files

LENGTH = 24


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LTH_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LTH_ZOO_DATA", raising=False)


@pytest.fixture
def task(tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(sentences(400)))
    return task_of("mlm/lines.txt", tmp_path).bound(tiny_tokenizer(), LENGTH)


def model(family="bert"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_model(family, "tokens", initializer_range=0.5).eval()


# -- masking ----------------------------------------------------------------------------------


def masked(rows=400, length=100):
    tokenizer = tiny_tokenizer()
    marks = mlm.Marks.of(tokenizer, torch.device("cpu"))
    rng = generator(0, "data")
    ids = torch.randint(0, len(tokenizer), (rows, length), generator=rng)
    draws = torch.rand(rows, length, 3, generator=rng)
    return tokenizer, ids, *mlm.mask_tokens(ids, draws, marks)


def test_fifteen_percent_of_the_ordinary_tokens_of_each_row_are_to_be_guessed():
    tokenizer, ids, _, labels = masked()
    chosen = labels != mlm.IGNORED
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    assert special.any()
    assert not (chosen & special).any()
    assert labels[chosen].equal(ids[chosen])
    wanted = [round(0.15 * n) for n in (~special).sum(1).tolist()]
    assert chosen.sum(1).tolist() == wanted


def test_of_these_80_10_10_are_masked_random_and_left_as_they_are():
    tokenizer, ids, hidden, labels = masked()
    chosen = labels != mlm.IGNORED
    assert hidden[~chosen].equal(ids[~chosen])
    count = int(chosen.sum())
    as_mask = (hidden == tokenizer.mask_token_id)[chosen]
    kept = (hidden == ids)[chosen]
    spread = 3 * math.sqrt(0.25 / count)
    assert as_mask.double().mean().item() == pytest.approx(0.8, abs=spread)
    random = hidden[chosen][~as_mask & ~kept]
    # A random token is the right one now and then.
    assert kept.double().mean().item() == pytest.approx(0.1 + 0.1 / len(tokenizer), abs=spread)
    assert not set(random.tolist()) & set(tokenizer.all_special_ids)
    assert len(set(random.tolist())) > 0.9 * (len(tokenizer) - 5)


def test_a_short_row_has_one_token_to_guess():
    marks = mlm.Marks.of(tiny_tokenizer(), torch.device("cpu"))
    ids = torch.tensor([[2, 9, 3, 0], [2, 9, 10, 3]])
    _, labels = mlm.mask_tokens(ids, torch.rand(2, 4, 3), marks)
    assert (labels != mlm.IGNORED).sum(1).tolist() == [1, 1]


def test_training_masks_anew_and_evaluation_always_the_same_in_any_chunk(task):
    at = torch.arange(6)
    one, again, other = (task.batch("train", at, generator(s, "data")) for s in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)
    inputs, labels = task.batch("validation", at)
    for place in range(6):
        own, label = task.batch("validation", torch.tensor([place, 0]))
        assert own["input_ids"][0].equal(inputs["input_ids"][place])
        assert label[0].equal(labels[place])
    assert not task.batch("train", at)[1].equal(labels), "each split has masks of its own"
    whole = task.evaluate(model(), "test")
    task.chunk_tokens = (LENGTH, LENGTH)
    assert task.evaluate(model(), "test") == pytest.approx(whole, rel=1e-6)


# -- measuring --------------------------------------------------------------------------------


def test_accuracy_and_perplexity_are_those_of_the_whole_answer(task):
    learner = model()
    inputs, labels = task.batch("test", torch.arange(task.size("test")))
    with torch.no_grad():
        scores = learner(**inputs).logits.double()[labels != mlm.IGNORED]
    wanted = labels[labels != mlm.IGNORED]
    loss = -scores.log_softmax(1).gather(1, wanted[:, None]).mean().item()
    hits = (scores.argmax(1) == wanted).double().mean().item()
    found = task.evaluate(learner, "test")
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert found["accuracy"] == pytest.approx(100 * hits)
    assert task.loss(learner, (inputs, labels), generator(0, "noise")).item() == (
        pytest.approx(loss, rel=1e-5)
    )


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "electra", "distilbert", "albert", "deberta-v2", "modernbert"]
)
def test_scores_are_made_where_they_are_needed_and_are_the_same(family):
    learner = model(family)
    ids = torch.randint(5, 60, (3, 11), generator=generator(0, "data"))
    chosen = torch.zeros(3, 11, dtype=torch.bool)
    chosen[0, 4] = chosen[2, 0] = chosen[2, 10] = True
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    shapes = []
    watch = learner.get_output_embeddings().register_forward_hook(
        lambda module, arguments, answer: shapes.append(tuple(answer.shape))
    )
    with torch.no_grad():
        found = mlm.vocabulary_logits(learner, inputs, chosen)
        whole = learner(**inputs).logits
    watch.remove()
    assert found.shape == (3, whole.shape[-1])
    torch.testing.assert_close(found, whole[chosen])
    assert shapes == [(3, whole.shape[-1]), tuple(whole.shape)], "and nothing stays hooked"


def test_a_model_without_an_output_embedding_is_read_too(task):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = torch.nn.Embedding(64, 64)

        def forward(self, input_ids, **_):
            return type("Said", (), {"logits": self.scores(input_ids)})

    assert 0 <= task.evaluate(Plain(), "test")["accuracy"] <= 100


def test_a_model_that_guesses_one_token_is_flagged(task):
    learner = model()
    assert task.flags(learner) == ()
    with torch.no_grad():
        learner.cls.predictions.decoder.bias[7] = 1e4
    assert task.flags(learner) == ("constant",)


# -- blocks -----------------------------------------------------------------------------------


def test_blocks_hold_the_stream_in_order_between_special_tokens(task):
    tokenizer, rows = tiny_tokenizer(), task.rows("test")
    stream = [i for t in rows.texts for i in tokenizer(t, add_special_tokens=False)["input_ids"]]
    encoded = task.encoded("test")
    pieces = [p.tolist() for p in np.split(encoded.ids, encoded.offsets[1:-1])]
    assert [len(p) for p in pieces[:-1]] == [LENGTH] * (len(pieces) - 1)
    assert {p[0] for p in pieces} == {tokenizer.cls_token_id}
    assert {p[-1] for p in pieces} == {tokenizer.sep_token_id}
    assert [i for p in pieces for i in p[1:-1]] == stream
    assert task.size("test") == len(pieces)
    assert task.signature.output == len(tokenizer)


def test_placeholders_are_unknown_words_and_a_block_of_nothing_else_is_left_out(tmp_path):
    lines = sentences(200)
    lines.insert(50, "<unk> " * 60)
    (tmp_path / "rare.txt").write_text("\n".join(lines))
    task = task_of("mlm/rare.txt", tmp_path).bound(tiny_tokenizer(), LENGTH)
    encoded = task.encoded("train")
    pieces = np.split(encoded.ids, encoded.offsets[1:-1])
    unknown = tiny_tokenizer().unk_token_id
    assert any(unknown in p for p in pieces)
    assert [len(p) for p in pieces[:-1]] == [LENGTH] * (len(pieces) - 1)
    assert all(set(p.tolist()) - set(tiny_tokenizer().all_special_ids) for p in pieces)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(BadInput, match="has no mask token"):
        task_of("mlm/x", tmp_path).bound(tokenizer)


# -- where text comes from --------------------------------------------------------------------


def parts(name, data):
    task = task_of(f"mlm/{name}", data)
    return {split: list(task.rows(split).texts) for split in SPLITS}


def test_one_file_is_cut_into_90_5_and_5_percent_of_its_characters(tmp_path):
    lines = sentences(400)
    (tmp_path / "a.txt").write_text("\n\n".join(lines) + "\n")
    found = parts("a.txt", tmp_path)
    assert [t for split in SPLITS for t in found[split]] == lines
    sizes = [sum(map(len, found[split])) for split in SPLITS]
    assert [s / sum(sizes) for s in sizes] == pytest.approx([0.9, 0.05, 0.05], abs=0.005)


def test_articles_stay_whole():
    lines = [
        line
        for number in range(40)
        for line in (f"= Bird {number} =", "= = Song = =", *["a bird sang"] * (1 + number % 5))
    ]
    pieces = text_files.cut(lines, [0.9, 0.05, 0.05])
    assert [line for piece in pieces for line in piece] == lines
    assert all(piece[0].startswith("= Bird") for piece in pieces)


def test_parts_are_told_by_the_names_of_files(tmp_path):
    folder = tmp_path / "wiki"
    folder.mkdir()
    for part, words in (("train", "one"), ("valid", "two"), ("test", "three")):
        (folder / f"wiki.{part}.raw").write_text(f" = {words} = \n \n {words} \n")
    (folder / "README.md").write_text("nothing to read")
    found = {"train": ["= one =", "one"], "validation": ["= two =", "two"]}
    assert parts("wiki", tmp_path) == found | {"test": ["= three =", "three"]}


def test_without_a_train_part_everything_is_one_text(tmp_path):
    lines = sentences(200)
    for part, own in (("valid", lines[:100]), ("test", lines[100:])):
        (tmp_path / f"{part}.txt").write_text("\n".join(own))
    found = parts(str(tmp_path), None)
    assert sorted(t for split in SPLITS for t in found[split]) == sorted(lines)
    assert len(found["train"]) > 160


def test_of_train_and_one_other_part_the_other_is_the_test():
    lines = {"train": sentences(100), "validation": ["the cat sat"]}
    found = text_files.three(lines, "x")
    assert list(found["test"].texts) == ["the cat sat"]
    assert [*found["train"].texts, *found["validation"].texts] == lines["train"]


def test_tables_are_read_by_their_column_of_text(tmp_path):
    from datasets import Dataset, DatasetDict

    lines = sentences(60)
    tables = {"train": Dataset.from_dict({"id": list(range(60)), "text": lines})}
    tables["test"] = Dataset.from_dict({"id": [1], "text": ["a bird\nsang"]})
    DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "hub").mkdir()
    for part, table in tables.items():
        table.to_parquet(str(tmp_path / "hub" / f"{part}-00000-of-00001.parquet"))
    rows = [json.dumps({"body": line}) for line in lines]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    saved = parts("saved", tmp_path)
    assert saved == parts("hub", tmp_path)
    assert saved["test"] == ["a bird", "sang"]
    assert [*saved["train"], *saved["validation"]] == lines
    assert [t for own in parts("rows.jsonl", tmp_path).values() for t in own] == lines
    one, other = (task_of(f"mlm/{name}", tmp_path).fingerprint() for name in ("saved", "hub"))
    assert one == other, "the form of the files does not count"


def test_what_is_not_there_or_no_text_is_said(tmp_path):
    with pytest.raises(DataError, match=r"nothing at .*From the hub"):
        task_of("mlm/nobody/nothing", tmp_path).rows("train")
    with pytest.raises(BadInput, match="names no text"):
        task_of("mlm/", tmp_path).rows("train")
    (tmp_path / "few.txt").write_text("the cat sat\n")
    with pytest.raises(DataError, match="1 lines of text are too few"):
        task_of("mlm/few.txt", tmp_path).rows("train")
    (tmp_path / "latin.txt").write_bytes("caf\xe9 \n".encode("latin-1") * 40)
    with pytest.raises(DataError, match="expected text in UTF-8"):
        task_of("mlm/latin.txt", tmp_path).rows("train")
    (tmp_path / "pairs.jsonl").write_text('{"a": "x", "b": "y"}\n')
    with pytest.raises(DataError, match="expected a column called text, found a, b"):
        task_of("mlm/pairs.jsonl", tmp_path).rows("train")


def test_the_speeches_and_wikipedia_articles_at_hand_are_found(data_dir):
    if not (data_dir / "text" / "state_union.txt").exists():
        pytest.skip("no text/state_union.txt")
    speeches = task_of("mlm/text/state_union.txt", data_dir)
    assert sum(len(speeches.rows(split)) for split in SPLITS) > 6_000
    articles = task_of("mlm/text/wikitext-2", data_dir)
    assert all(articles.rows(s).texts[0].startswith("= ") for s in SPLITS)
