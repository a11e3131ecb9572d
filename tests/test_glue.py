"""The nine tasks of GLUE: their files, their rules, and the real data where it is."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from image_files import nowhere_else  # noqa: F401
from tiny_texts import NAMES, small, write_glue

from lth_zoo import registry
from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.tasks import glue as module
from lth_zoo.tasks.text_readers import tsv_tables

#: task -> rows and rows of class 1 (or the mean score) of the official train and validation
#: parts, as counted when the files were fetched.
REAL = {
    "cola": ((8551, 6023), (1043, 721)),
    "sst2": ((67349, 37569), (872, 444)),
    "mrpc": ((3668, 2474), (408, 279)),
    "stsb": ((5749, 2.7010), (1500, 2.3639)),
    "wnli": ((635, 312), (71, 31)),
}
#: Rows that are left out of train and validation because they stand in a later split too.
TWICE = {"cola": 20, "sst2": 22, "mrpc": 0, "stsb": 16, "wnli": 0}


def made(name, folder):
    return small(name)(f"glue/{name}", folder)


# -- tiny files in the official form -------------------------------------------------------------


@pytest.mark.usefixtures("nowhere_else")
@pytest.mark.parametrize("name", NAMES)
def test_the_official_files_are_read(name, tmp_path):
    folder = write_glue(tmp_path, name)
    task = made(name, tmp_path)
    assert {split: task.size(split) for split in SPLITS} == {
        "train": 72,
        "validation": 8,
        "test": 20,
    }
    lines = (folder / f"{task.stems['validation']}.tsv").read_text("utf-8-sig").splitlines()[-20:]
    test = task.rows("test")
    for place, line in enumerate(lines):
        fields = line.split("\t")
        assert test.texts[place] in fields
        assert test.pairs is None or test.pairs[place] in fields
    if name == "stsb":
        assert test.labels[:3].tolist() == [0.0, 0.5, 1.0]
    else:
        assert test.labels.tolist() == [place % task.outputs for place in range(20)]
    assert task.headline in task.measures
    assert task.source
    assert (test.pairs is None) == (name in ("cola", "sst2"))


@pytest.mark.usefixtures("nowhere_else")
@pytest.mark.parametrize("name", ["cola", "mnli", "stsb"])
@pytest.mark.parametrize("form", ["parquet", "save_to_disk"])
def test_the_hubs_layout_is_the_same_data(name, form, tmp_path):
    import datasets

    write_glue(tmp_path / "tsv", name)
    kind = registry.find("tasks", f"glue/{name}")
    tsv = made(name, tmp_path / "tsv")
    sets = {}
    for part, table in tsv.find().items():
        rows = tsv._rows(table)
        texts = {kind.columns[0]: rows.texts}
        if rows.pairs is not None:
            texts[kind.columns[1]] = rows.pairs
        part = "validation_matched" if (name, part) == ("mnli", "validation") else part
        sets[part] = datasets.Dataset.from_dict({**texts, "label": rows.labels, "idx": rows.labels})
    blind = datasets.Dataset.from_dict(
        {**sets["train"][:5], "label": [rows.labels.dtype.type(-1)] * 5}
    )
    sets |= {"test": blind, "validation_mismatched": blind} if name == "mnli" else {"test": blind}
    below = tmp_path / "hub/nyu-mll/glue" / name
    if form == "parquet":
        below.mkdir(parents=True)
        for part, rows in sets.items():
            rows.to_parquet(str(below / f"{part}-00000-of-00001.parquet"))
    else:
        datasets.DatasetDict(sets).save_to_disk(str(below))
    assert made(name, tmp_path / "hub").fingerprint() == tsv.fingerprint()


@pytest.mark.usefixtures("nowhere_else")
def test_broken_rows_of_qqp_are_left_out_and_elsewhere_named(tmp_path):
    for name in ("qqp", "rte"):
        path = write_glue(tmp_path, name) / "train.tsv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:4], "9\tcut", *lines[4:]]) + "\n")
    assert made("qqp", tmp_path).size("train") == 72
    with pytest.raises(DataError, match=r"RTE.train.tsv: row 4 has 2 fields; expected 4"):
        made("rte", tmp_path).fingerprint()


@pytest.mark.usefixtures("nowhere_else")
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cola", "\t1\t", "\t-1\t", r"CoLA.train.tsv: row 2: label is '-1', no label"),
        ("mnli", "\tneutral", "\t-", r"row 2: gold_label is '-', no label; .*neutral"),
        ("rte", "not_entailment", "entails", "row 2: label is 'entails', an unknown label"),
        ("stsb", "\t0.500", "\t5.500", "row 2: score is '5.500'; expected a number from 0 to 5"),
        ("stsb", "\t0.500", "\t", "row 2: score is ''; expected a number"),
        ("mrpc", "Quality", "Qualty", "column of .* 'Quality'; did you mean 'Qualty'"),
    ],
)
def test_damage_is_named_with_its_row(name, old, new, message, tmp_path):
    path = write_glue(tmp_path, name) / "train.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises((DataError, BadInput), match=message):
        made(name, tmp_path).fingerprint()


@pytest.mark.usefixtures("nowhere_else")
def test_a_file_of_another_size_is_not_taken_for_the_official_one(tmp_path):
    write_glue(tmp_path, "cola")
    with pytest.raises(DataError, match=r"CoLA.train.tsv: 80 rows; expected 8551"):
        task_of("glue/cola", tmp_path).fingerprint()


@pytest.mark.usefixtures("nowhere_else")
def test_without_data_the_layouts_are_named(tmp_path):
    layouts = r"glue/RTE/ with train.tsv and dev.tsv, or glue/rte/ .*train-\*.parquet"
    with pytest.raises(DataError, match=f"{layouts}.*--data.*LTH_ZOO_DATA.*From the hub") as error:
        task_of("glue/rte", tmp_path).fingerprint()
    assert str(tmp_path) in str(error.value)
    (write_glue(tmp_path, "rte") / "train.tsv").unlink()
    with pytest.raises(DataError, match=r"glue.RTE \(no train part\)"):
        task_of("glue/rte", tmp_path).fingerprint()
    with pytest.raises(DataError, match=r"dev_matched\.tsv"):
        task_of("glue/mnli", tmp_path).fingerprint()
    with pytest.raises(BadInput, match="did you mean 'glue/cola'"):
        task_of("glue/colla", tmp_path)


@pytest.mark.usefixtures("nowhere_else")
def test_the_hub_is_asked_last_and_its_blind_test_part_not_read(tmp_path, monkeypatch):
    write_glue(tmp_path, "wnli")
    local = made("wnli", tmp_path)
    monkeypatch.setattr(module, "hub_tables", lambda *_: pytest.fail("the files are there"))
    local.fingerprint()
    tables = dict(local.find())
    tables["test"] = copy.copy(tables["train"])
    tables["test"].columns["label"][:] = ["-1"] * 80
    fresh = tsv_tables(tmp_path / "glue/WNLI", local.stems, None, short=False)
    monkeypatch.setattr(module, "hub_tables", lambda *_: {**fresh, "test": tables["test"]})
    assert made("wnli", tmp_path / "glue" / "WNLI" / "..").fingerprint() == local.fingerprint()
    (tmp_path / "nothing").mkdir()
    assert made("wnli", tmp_path / "nothing").fingerprint() == local.fingerprint()


# -- the real data ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_real_counts_and_labels_are_the_official_ones(name, data_dir):
    task = task_of(f"glue/{name}", data_dir)
    official = {part: task._rows(table) for part, table in task.find().items()}
    for part, (count, marked) in zip(("train", "validation"), REAL[name], strict=True):
        labels = official[part].labels
        assert len(labels) == count
        if name == "stsb":
            assert labels.mean() == pytest.approx(marked, abs=5e-5)
        else:
            assert labels.sum() == marked


@pytest.mark.parametrize("name", REAL)
def test_no_row_of_the_official_validation_part_is_trained_or_selected_on(name, data_dir):
    task = task_of(f"glue/{name}", data_dir)
    official = {part: task._rows(table) for part, table in task.find().items()}
    train, validation, test = (task.rows(split) for split in SPLITS)
    assert test.texts == official["validation"].texts
    assert (test.labels == official["validation"].labels).all()
    keys = [set(rows.keys()) for rows in (train, validation, test)]
    assert not keys[2] & (keys[0] | keys[1])
    assert not keys[0] & keys[1]
    assert keys[0] | keys[1] <= set(official["train"].keys())
    assert len(official["train"]) - len(train) - len(validation) == TWICE[name]
    share = len(validation) / min(2000, len(official["train"]) // 10)
    assert 0.98 <= share <= 1
    if name != "stsb":
        difference = np.abs(validation.labels.mean() - train.labels.mean())
        assert difference < 0.01, "classes in proportion"


def test_a_real_part_without_its_train_file_is_not_enough(data_dir, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if (data_dir / "glue/QNLI/train.tsv").exists():
        pytest.skip("QNLI is complete here")
    with pytest.raises(DataError, match=r"QNLI \(no train part\)"):
        task_of("glue/qnli", data_dir).fingerprint()


def test_quotes_of_the_real_files_are_texts(data_dir):
    rows = task_of("glue/mrpc", data_dir).rows("test")
    assert rows.pairs[0].startswith('"The foodservice pie business')
    assert sum('"' in text for text in rows.texts) > 20
    cola = task_of("glue/cola", data_dir)
    assert cola.rows("test").texts[0] == "The sailors rode the breeze clear of the rocks."
