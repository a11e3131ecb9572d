"""SQuAD: the official metrics, windows over long texts, answers from scores, the file forms."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hf_models import tiny_model, tiny_tokenizer
from squad_forms import write_json, write_parquet
from toys import same

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.seeds import generator
from lth_zoo.tasks import squad_features, squad_files
from lth_zoo.tasks.squad_metrics import scores

LENGTH = 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LTH_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LTH_ZOO_DATA", raising=False)


@pytest.fixture(params=["squad", "squad-v2"])
def task(request, tmp_path):
    two = request.param == "squad-v2"
    write_json(tmp_path / "squad", "2.0" if two else "1.1", impossible=two, words=40)
    return task_of(request.param, tmp_path).bound(tiny_tokenizer(), LENGTH)


class Oracle(torch.nn.Module):
    """Scores the answers of a task's windows highest; ``shift`` moves the end that many tokens."""

    def __init__(self, task, split, shift=0):
        super().__init__()
        inputs, labels = task.batch(split, torch.arange(task.size(split)))
        widths = inputs["attention_mask"].sum(1).tolist()
        rows = zip(inputs["input_ids"].tolist(), widths, labels.tolist(), strict=True)
        self.known = {tuple(row[:width]): label for row, width, label in rows}
        self.shift = shift

    def forward(self, input_ids, attention_mask, **_):
        start, end = torch.zeros(2, *input_ids.shape)
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            first, last = self.known[tuple(ids[mask.bool()].tolist())]
            start[row, first] = 9.0
            end[row, last + self.shift * (last > 0)] = 9.0
        return SimpleNamespace(start_logits=start, end_logits=end)


# -- metrics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "gold", "match", "f1"),
    [
        ("the Eiffel Tower!", ["Eiffel tower"], 100, 100),
        ("Denver Broncos", ["Carolina Panthers", "The Denver  Broncos"], 100, 100),
        ("big red house", ["red house", "house"], 0, 80),  # 2 of 3 and 2 of 2 words
        ("house house", ["house"], 0, 200 / 3),  # a word counts as often as both have it
        ("theatre", ["tre"], 0, 0),
        ("", [], 100, 100),
        ("something", [], 0, 0),
        ("", ["something"], 0, 0),
        ("", ["the"], 100, 100),  # nothing is left of the gold answer
    ],
)
def test_exact_match_and_f1_by_hand(predicted, gold, match, f1):
    assert scores([predicted], [gold]) == pytest.approx({"exact_match": match, "f1": f1})


def test_questions_with_and_without_an_answer_are_also_told_apart():
    found = scores(["a b", "", "x"], [["b"], [], []])
    assert found["f1"] == pytest.approx(200 / 3)
    assert (found["f1_answerable"], found["f1_unanswerable"]) == (100, 50)


# -- windows ----------------------------------------------------------------------------------


def test_windows_cover_the_context_and_share_tokens():
    tokenizer, words = tiny_tokenizer(), "the cat sat on a mat and a dog ran under the big tree"
    context = " ".join([words] * 6)
    spans = np.array([[4, 7]])
    found = squad_features.windows(tokenizer, ["is the bird good ?"], [context], spans, 30)
    assert len(found) > 3
    assert found.lengths.max() == 30
    covered = []
    for window in range(len(found)):
        at = slice(found.offsets[window], found.offsets[window + 1])
        ids = tokenizer.convert_ids_to_tokens(found.ids[at].tolist())
        first, last = found.extra["first"][at], found.extra["last"][at]
        assert ids[:7] == ["[CLS]", "is", "the", "bird", "good", "?", "[SEP]"]
        assert (first[:7] == -1).all()
        assert first[-1] == -1
        assert ids[7:-1] == [context[a:b] for a, b in zip(first[7:-1], last[7:-1], strict=True)]
        assert found.types[at].tolist() == [0] * 7 + [1] * (len(ids) - 7)
        covered.append(set(first[7:-1].tolist()))
    assert all(a & b for a, b in pairwise(covered))
    assert set.union(*covered) == {
        i for i, c in enumerate(context) if i == 0 or context[i - 1] == " "
    }


def test_the_answer_is_where_a_window_has_it_whole_and_the_first_token_elsewhere():
    tokenizer, context = tiny_tokenizer(), " ".join(["cat"] * 30 + ["big red dog"] + ["mat"] * 30)
    begin = context.index("big")
    spans = np.array([[begin, begin + len("big red dog")], [-1, -1]])
    questions = ["is a dog big ?", "is a cat red ?"]
    found = squad_features.windows(tokenizer, questions, [context] * 2, spans, 30)
    held = 0
    for window, (start, end) in enumerate(found.extra["answer"].tolist()):
        at = slice(found.offsets[window], found.offsets[window + 1])
        ids = tokenizer.convert_ids_to_tokens(found.ids[at].tolist())
        whole = "big red dog" in " ".join(ids) and found.extra["example"][window] == 0
        held += whole
        assert ids[start : end + 1] == (["big", "red", "dog"] if whole else ["[CLS]"])
    assert 0 < held < (found.extra["example"] == 0).sum()


def test_an_answer_inside_words_takes_the_tokens_that_hold_it():
    characters = np.array([[-1, -1], [0, 3], [4, 9], [10, 12], [-1, -1]], np.int32)
    assert squad_features.positions(characters, [2, 7, 8, 9, 3], (5, 11), 2) == (2, 3)
    assert squad_features.positions(characters, [2, 7, 8, 9, 3], (0, 3), 2) == (1, 1)
    assert squad_features.positions(characters, [2, 7, 8, 9, 3], (10, 13), 2) == (0, 0)


def test_a_long_question_is_cut_and_leaves_room_for_the_text():
    questions = [" ".join(["cat"] * 50), "dog ?"]
    found = squad_features.windows(
        tiny_tokenizer(), questions, ["the mat"] * 2, np.array([[4, 7]] * 2), 20
    )
    assert found.lengths.tolist() == [3 + 10 + 2, 3 + 2 + 2]


# -- answers ----------------------------------------------------------------------------------


def test_the_best_span_is_the_best_of_all_spans():
    rng = generator(0, "data")
    start, end = torch.randn(2, 6, 50, generator=rng)
    inside = torch.rand(6, 50, generator=rng) < 0.8
    inside[0] = False
    found = squad_features.best_spans(start, end, inside, torch.zeros(6, dtype=torch.int64))
    assert found.score[0] == float("-inf")
    assert found.null.equal(start[:, 0] + end[:, 0])
    for row in range(1, 6):
        sums = {
            (s, e): (start[row, s] + end[row, e]).item()
            for s in range(50)
            for e in range(s, min(50, s + squad_features.ANSWER))
            if inside[row, s] and inside[row, e]
        }
        best = max(sums, key=sums.get)
        assert (found.start[row].item(), found.end[row].item()) == best
        assert found.score[row].item() == sums[best]


def test_windows_compete_and_no_answer_wins_by_the_smallest_null_score():
    # Two windows of the first question, one of the second; contexts of one-letter words.
    first = np.array([-1, 0, 2, -1] * 3, np.int32)
    encoded = squad_features.Encoded(
        np.zeros(12, np.int32),
        np.array([0, 4, 8, 12]),
        None,
        {
            "example": np.array([0, 0, 1]),
            "first": first,
            "last": np.where(first < 0, -1, first + 1),
        },
    )
    spans = squad_features.Spans(
        torch.tensor([1.0, 3.0, 2.0]),
        torch.tensor([1, 2, 1]),
        torch.tensor([1, 2, 2]),
        torch.tensor([5.0, 2.5, 2.5]),
    )
    contexts = ["a b", "c d"]
    assert squad_features.texts_of(encoded, spans, contexts, None) == ["b", "c d"]
    assert squad_features.texts_of(encoded, spans, contexts, 0.0) == ["b", ""]
    assert squad_features.texts_of(encoded, spans, contexts, 0.5) == ["b", "c d"]


def test_a_model_that_knows_the_answers_gets_them_all(task):
    for split in ("validation", "test"):
        assert task.size(split) > len(task.rows(split)), "windows, not questions"
        found = task.evaluate(Oracle(task, split), split)
        assert (found["f1"], found["exact_match"]) == (100, 100)
        worse = task.evaluate(Oracle(task, split, shift=1), split)
        assert worse["exact_match"] < 50 < worse["f1"] < 100
        assert worse["loss"] > found["loss"]
    both = {"f1_answerable", "f1_unanswerable"}
    assert (both <= found.keys()) == (task.name == "squad-v2")


def test_evaluation_does_not_depend_on_the_chunks(task):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny_model("bert", "span", initializer_range=0.5)
    whole = task.evaluate(model, "test")
    task.chunk_tokens = (LENGTH, LENGTH)
    assert task.evaluate(model, "test") == pytest.approx(whole, rel=1e-5)
    assert task.flags(model) == ()
    with torch.no_grad():
        model.qa_outputs.weight.zero_()
    assert task.flags(model) == ("constant",)


def test_a_training_step_lowers_the_loss(task):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny_model("bert", "span")
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    batch = task.batch("train", torch.arange(16))
    losses = []
    for _ in range(5):
        loss = task.loss(model, batch, generator(0, "noise"))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


# -- files ------------------------------------------------------------------------------------


def test_every_form_of_the_files_gives_the_same_questions(tmp_path):
    from datasets import load_dataset

    write_json(tmp_path / "one" / "squad")
    write_parquet(tmp_path / "two" / "squad" / "plain_text")
    files = {
        p: str(tmp_path / f"two/squad/plain_text/{p}-*.parquet") for p in ("train", "validation")
    }
    saved = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "hf"))
    saved.save_to_disk(str(tmp_path / "three" / "squad"))
    tasks = [task_of("squad", tmp_path / name) for name in ("one", "two", "three")]
    assert len({task.fingerprint() for task in tasks}) == 1
    assert tasks[0].rows("test").golds == [tuple(known) for known in tasks[1].rows("test").golds]
    assert task_of("squad", tmp_path / "one" / "squad").fingerprint() == tasks[0].fingerprint()


def test_both_versions_may_lie_in_one_folder(tmp_path):
    write_json(tmp_path / "squad", "1.1")
    write_json(tmp_path / "squad", "2.0", impossible=True)
    one, two = (task_of(name, tmp_path) for name in ("squad", "squad-v2"))
    assert all(known for split in SPLITS for known in one.rows(split).golds)
    assert not all(known for split in SPLITS for known in two.rows(split).golds)
    assert one.fingerprint() != two.fingerprint()


def test_a_gold_answer_more_is_another_task(tmp_path):
    folder = write_json(tmp_path / "squad")
    before = task_of("squad", tmp_path).fingerprint()
    path = folder / "dev-v1.1.json"
    data = json.loads(path.read_text())
    entry = data["data"][0]["paragraphs"][0]["qas"][0]
    entry["answers"].append(entry["answers"][0] | {"text": "or so"})
    path.write_text(json.dumps(data))
    other = task_of("squad", tmp_path / "squad" / ".." / "squad")
    assert other.fingerprint() != before


def test_validation_is_whole_articles_of_train_and_the_dev_file_the_test(task):
    titles = {split: set(task.questions(split).titles) for split in SPLITS}
    assert {t.split()[0] for t in titles["train"] | titles["validation"]} == {"train"}
    assert {t.split()[0] for t in titles["test"]} == {"dev"}
    assert not titles["train"] & titles["validation"]
    assert len(titles["train"]) == 7
    other = task_of(task.name, task.data).bound(tiny_tokenizer(), LENGTH)
    at = torch.tensor([0, 3])
    assert same(task.batch("validation", at), other.batch("validation", at))


def question(**more):
    plain = {"title": "t", "context": "a cat and a cat", "question": "?", "answers": ("cat",)}
    return squad_files.Question(**plain | {"starts": (2,)} | more)


def test_an_answer_off_its_place_is_found_at_the_nearest():
    assert squad_files.span(question(), "x") == (2, 5)
    assert squad_files.span(question(starts=(11,)), "x") == (12, 15)
    assert squad_files.span(question(answers=(), starts=()), "x") == (-1, -1)
    with pytest.raises(DataError, match="x: the context does not have the answer 'dog'"):
        squad_files.span(question(answers=("dog",)), "x")
    with pytest.raises(DataError, match="1 answers but 2 starts"):
        squad_files.span(question(starts=(2, 12)), "x")


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"squad is not at hand.*train-v1.1.json.*From the hub"):
        task_of("squad", tmp_path).rows("train")
    folder = write_json(tmp_path / "squad")
    (folder / "dev-v1.1.json").unlink()
    with pytest.raises(DataError, match="no validation part, only train"):
        task_of("squad", tmp_path).rows("train")
    data = json.loads((folder / "train-v1.1.json").read_text())
    del data["data"][1]["paragraphs"][0]["qas"][2]["question"]
    (folder / "dev-v1.1.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"after article 1, paragraph 0, question 2: no 'question'"):
        task_of("squad", tmp_path).rows("train")
    (folder / "dev-v1.1.json").write_text('{"data": [')
    with pytest.raises(DataError, match=r"dev-v1.1.json: .*expected SQuAD's JSON"):
        task_of("squad", tmp_path).rows("train")


def test_a_tokenizer_that_does_not_say_where_its_tokens_stand_is_refused(task):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    with pytest.raises(BadInput, match="needs a fast tokenizer that pads on the right"):
        task.bound(tokenizer)


def test_articles_set_aside_are_about_the_share_asked_for():
    rng = random.Random(0)
    found = [
        question(title=f"t{number}", question=f"{number} {nth}?")
        for number in range(100)
        for nth in range(rng.randint(1, 9))
    ]
    train, validation = squad_files.by_article(squad_files.questions(found, "x"), 0.1)
    assert len(train) + len(validation) == len(found)
    assert len(validation) / len(found) == pytest.approx(0.1, abs=0.03)
    with pytest.raises(DataError, match="1 article; expected 2"):
        squad_files.by_article(squad_files.questions([question()], "x"), 0.1)
