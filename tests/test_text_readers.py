"""Text data in the forms it is published in, and ``text/`` data sets made of it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from hf_models import tiny_tokenizer
from image_files import nowhere_else  # noqa: F401
from tiny_texts import sentences

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.tasks import hub, text_readers
from lth_zoo.tasks.hub_text import HubText, parse_name
from lth_zoo.tasks.text_readers import Table, classes_of, tsv_table, values_of

pytestmark = pytest.mark.usefixtures("nowhere_else")


# -- TSV ----------------------------------------------------------------------------------


def test_quotes_marks_and_line_ends_of_a_tsv_mean_nothing(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes('\ufefflabel\ttext\r\n1\t"He said\r\n0\tit\u2028is "odd"\textra\n'.encode())
    table = tsv_table(path)
    assert table.columns == {"label": ["1", "0"], "text": ['"He said', 'it\u2028is "odd"']}
    bare = tsv_table(path, names=("first", "second"))
    assert bare.columns["first"] == ["label", "1", "0"]


def test_a_row_of_too_few_fields_is_named_or_left_out(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("id\tone\ttwo\n1\ta\tb\n2\tbroken\noff\tc\n3\td\te\n")
    with pytest.raises(DataError, match=r"train.tsv: row 2 has 2 fields; expected 3"):
        tsv_table(path)
    assert tsv_table(path, short=True).columns["one"] == ["a", "d"]


@pytest.mark.parametrize(("data", "message"), [(b"", "empty"), (b"a\tb\n\xff\tc\n", "UTF-8")])
def test_a_file_that_is_no_table_is_named(data, message, tmp_path):
    (tmp_path / "train.tsv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        tsv_table(tmp_path / "train.tsv")


# -- labels ---------------------------------------------------------------------------------


def table(**columns):
    return Table(columns, "here.tsv", {})


def test_labels_are_names_or_their_numbers():
    names = ("entailment", "not_entailment")
    for labels in (["entailment", "not_entailment"], ["0", "1"], [0, 1], [False, True]):
        assert classes_of(table(label=labels), "label", names).tolist() == [0, 1]
    assert classes_of(table(label=[5, 1, 3]), "label", [1, 3, 5]).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (-1, r"here.tsv: row 2: label is -1, no label; expected one of no, yes"),
        ("-", "row 2: label is '-', no label"),
        (None, "row 2: label is None, no label"),
        (float("nan"), "row 2: label is nan, no label"),
        ("maybe", "row 2: label is 'maybe', an unknown label"),
        (2, "row 2: label is 2, an unknown label"),
        ([0, 1], r"row 2: label is \[0, 1\], an unknown label"),
    ],
)
def test_a_missing_or_unknown_label_is_named_with_its_row(label, message):
    with pytest.raises(DataError, match=message):
        classes_of(table(label=["no", label]), "label", ("no", "yes"))


def test_values_are_numbers_in_their_range():
    assert values_of(table(score=["5.000", 0, 2.5]), "score", 0, 5).dtype == np.float32
    for value in ("", None, "-", 5.1, float("nan"), "inf"):
        with pytest.raises(DataError, match=r"row 1: score is .*; expected a number from 0 to 5"):
            values_of(table(score=[value]), "score", 0, 5)


def test_a_column_that_is_not_there_has_near_matches():
    with pytest.raises(BadInput, match=r"column of here.tsv 'sentense'; did you mean 'sentence'"):
        table(sentence=["a"]).texts("sentense")
    with pytest.raises(DataError, match="row 2: sentence is missing; expected text"):
        table(sentence=["a", None]).texts("sentence")
    with pytest.raises(DataError, match="row 1: sentence is 3, a int"):
        table(sentence=[3]).texts("sentence")


# -- text/ ------------------------------------------------------------------------------------


def parts(train=60, test=20, **others):
    """Return part -> rows: a text, a title, a star from 1 to 3."""
    found = {}
    for part, count in {"train": train, "test": test, **others}.items():
        texts, titles = sentences(count, part), sentences(count, f"{part} titles")
        found[part] = {
            "body": texts,
            "title": titles,
            "stars": [place % 3 + 1 for place in range(count)],
        }
    return {part: columns for part, columns in found.items() if columns["body"]}


def write(folder, form, content):
    import datasets

    folder.mkdir(parents=True)
    sets = {part: datasets.Dataset.from_dict(columns) for part, columns in content.items()}
    if form == "save_to_disk":
        datasets.DatasetDict(sets).save_to_disk(str(folder))
    for part, rows in sets.items():
        if form == "parquet":
            rows.to_parquet(str(folder / f"{part}-00000-of-00001.parquet"))
        if form == "jsonl":
            (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if form in ("csv", "tsv"):
            with (folder / f"{part}.{form}").open("w", newline="") as file:
                writer = csv.writer(file, delimiter="\t" if form == "tsv" else ",")
                writer.writerows([rows.column_names, *(row.values() for row in rows)])


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv", "save_to_disk"])
def test_every_form_of_a_local_data_set_is_the_same_data(form, tmp_path):
    write(tmp_path / "data/reviews", form, parts())
    task = task_of("text/reviews:title,body:stars", tmp_path / "data")
    assert isinstance(task, HubText)
    assert {split: task.size(split) for split in SPLITS} == {
        "train": 54,
        "validation": 6,
        "test": 20,
    }
    assert task.signature.output == 3
    test = task.rows("test")
    assert (test.texts, test.pairs) == (parts()["test"]["title"], parts()["test"]["body"])
    assert test.labels.tolist() == [place % 3 for place in range(20)]
    write(tmp_path / "parquet/reviews", "parquet", parts())
    other = task_of("text/reviews:title,body:stars", tmp_path / "parquet")
    assert other.fingerprint() == task.fingerprint()


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_one_file_is_all_train_and_is_cut_in_three(form, tmp_path):
    write(tmp_path / "one", form, parts(train=100, test=0))
    (file,) = (tmp_path / "one").iterdir()
    task = task_of(f"text/{file}:body:stars")
    sizes = {split: task.size(split) for split in SPLITS}
    assert sizes == {"train": 81, "validation": 9, "test": 10}
    seen = {split: set(task.rows(split).texts) for split in SPLITS}
    assert len(set.union(*seen.values())) == 100
    inputs, _ = task.bound(tiny_tokenizer()).batch("test", torch.arange(10))
    assert inputs["input_ids"].shape[0] == 10


def test_three_parts_are_used_as_they_are_and_texts_of_two_are_left_out(tmp_path):
    content = parts(validation=15)
    content["train"]["body"][:2] = content["test"]["body"][:2]
    write(tmp_path / "reviews", "parquet", content)
    task = task_of("text/reviews:body:stars", tmp_path)
    assert {split: task.size(split) for split in SPLITS} == {
        "train": 58,
        "validation": 15,
        "test": 20,
    }


def test_a_test_part_without_labels_counts_as_absent(tmp_path):
    content = parts(validation=15)
    content["test"]["stars"] = [-1] * 20
    write(tmp_path / "reviews", "parquet", content)
    task = task_of("text/reviews:body:stars", tmp_path)
    assert task.rows("test").texts == content["validation"]["body"]
    assert task.size("validation") == 6


def test_named_and_worded_labels_are_classes(tmp_path):
    import datasets

    content = parts()
    content["train"]["stars"] = [("bad", "good")[i % 2] for i in range(60)]
    content["test"]["stars"] = [("bad", "good")[i % 2] for i in range(20)]
    write(tmp_path / "words", "csv", content)
    words = task_of("text/words:body:stars", tmp_path)
    assert words.rows("test").labels.tolist() == [0, 1] * 10
    assert words.signature.output == 2
    features = datasets.Features(
        {
            "body": datasets.Value("string"),
            "stars": datasets.ClassLabel(names=["b", "a", "never"]),
        }
    )
    rows = {"body": content["train"]["body"], "stars": [i % 2 for i in range(60)]}
    named = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": named}).save_to_disk(str(tmp_path / "named"))
    task = task_of("text/named:body:stars", tmp_path)
    assert set(task.rows("train").labels.tolist()) == {0, 1}, "in the order of their names"


def test_numbers_with_a_fraction_are_values_where_the_name_says_so(tmp_path):
    content = parts()
    for columns in content.values():
        columns["stars"] = [star + 0.5 for star in columns["stars"]]
    write(tmp_path / "reviews", "parquet", content)
    with pytest.raises(BadInput, match="add :value to the name"):
        task_of("text/reviews:body:stars", tmp_path).fingerprint()
    task = task_of("text/reviews:body:stars:value", tmp_path)
    assert (task.signature.answer, task.signature.output) == ("value", 1)
    assert task.headline == "pearson"
    assert task.rows("test").labels[:3].tolist() == [1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text/reviews:body:star", r"column of .* 'star'; did you mean 'stars'"),
        ("text/reviews:boddy:stars", r"column of .* 'boddy'; did you mean 'body'"),
        ("text/reviews@smal:body:stars", r"config of .* 'smal'; did you mean 'small'"),
        ("text/reviews", "is not of the form text/"),
        ("text/reviews:body", "is not of the form text/"),
        ("text/reviews:a,b,c:stars", "is not of the form text/"),
        ("text/reviews:a,:stars", "is not of the form text/"),
        ("text/:body:stars", "is not of the form text/"),
    ],
)
def test_a_wrong_name_says_what_is_there(name, message, tmp_path):
    write(tmp_path / "reviews", "parquet", parts())
    write(tmp_path / "reviews/small", "parquet", parts(train=30))
    with pytest.raises(BadInput, match=message):
        task_of(name, tmp_path).fingerprint()
    assert task_of("text/reviews@small:body:stars", tmp_path).size("train") == 27


def test_a_name_has_a_config_columns_and_a_kind_of_label(tmp_path, monkeypatch):
    named = parse_name("text/org/set@en:premise,hypothesis:label:value")
    assert (named.place, named.config, named.value) == ("org/set", "en", True)
    assert named.texts == ("premise", "hypothesis")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a@b").mkdir()
    assert parse_name("text/a@b:text:value").place == "a@b"
    assert parse_name("text/a@b:text:value").label == "value"


def test_rows_without_labels_or_texts_are_named(tmp_path):
    content = parts()
    content["train"]["stars"][7] = None
    write(tmp_path / "a/reviews", "parquet", content)
    with pytest.raises(DataError, match=r"reviews, part train: row 8: stars is None, no label"):
        task_of("text/reviews:body:stars", tmp_path / "a").fingerprint()
    content = parts(train=0)
    write(tmp_path / "b/reviews", "parquet", content)
    with pytest.raises(DataError, match="expected a labelled part called train, found test"):
        task_of("text/reviews:body:stars", tmp_path / "b").fingerprint()


def test_a_data_set_that_is_nowhere_says_where_was_looked(tmp_path):
    with pytest.raises(DataError, match=r"nothing at .*From the hub: cannot load no/such"):
        task_of("text/no/such:body:stars", tmp_path).fingerprint()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot load"):
        task_of("text/empty:body:stars", tmp_path).fingerprint()
    (tmp_path / "notes.md").write_text("hm")
    with pytest.raises(BadInput, match=r"expected a \.parquet, \.csv"):
        task_of("text/notes.md:body:stars", tmp_path).fingerprint()


def test_the_hub_is_asked_for_the_config_and_its_near_matches(monkeypatch):
    import datasets

    asked = []

    def load(path, source, name=None):
        asked.append((path, name))
        if name != "english":
            raise DataError(f"cannot load {source}: ValueError: BuilderConfig")
        sets = {part: datasets.Dataset.from_dict(c) for part, c in parts().items()}
        return datasets.DatasetDict(sets)

    monkeypatch.setattr(hub, "load", load)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda _: ["english", "french"])
    assert task_of("text/org/set@english:body:stars").size("test") == 20
    with pytest.raises(BadInput, match=r"config of org/set 'englsh'; did you mean 'english'"):
        text_readers.hub_tables("org/set", "englsh")
    assert asked == [("org/set", "english"), ("org/set", "englsh")]
