"""lth-zoo transfer, and what status and report know of it."""

from __future__ import annotations

import json

import parity
import pytest
import tiny

FLAGS = (
    *("--model", "lenet-300-100x0.1", "--sparsity", "0.5", "--finder.rate", "0.5", "--workers", 0),
    *("--training.iterations", 20, "--training.evaluate-every", 20, "--no-prune-last"),
)
WHAT = ("--from", "digits", "large", "one-shot", "random", "--to", "parity", "digits")


@pytest.fixture(scope="module", autouse=True)
def _tasks():
    with parity.registered():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture
def here(place, monkeypatch, capsys):
    """A folder with a store that holds one finished matrix and its answer."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("LTH_ZOO_STORE", "store")
    if not (place / "answer.json").exists():
        ran = tiny.cli(
            *(capsys, "transfer", *WHAT, *FLAGS, "--seeds", 0, 1, "--out", "report", "--json")
        )
        assert ran.code == 0, ran.err
        (place / "answer.json").write_text(json.dumps(ran.json))
    return json.loads((place / "answer.json").read_text())


def test_the_answer_is_json_alone_and_holds_every_cell(here, place):
    assert here.keys() == {"run", "store", "results", "judged", "skipped", "failed", "report"}
    cells = {(c["source"], c["target"]) for c in here["results"]["cells"]}
    assert cells == {(s, t) for s in WHAT[1:5] for t in WHAT[6:]} | {("parity", "parity")}
    assert len(here["judged"]) == 9
    assert all(len(c["runs"]) == 2 for c in here["results"]["cells"])
    assert (here["failed"], here["skipped"]) == ([], [])
    assert (place / here["report"]).stat().st_size > 50_000


@pytest.mark.usefixtures("here")
def test_again_is_found_done_and_another_seed_is_only_that_seed(capsys):
    again = tiny.cli(capsys, "transfer", *WHAT, *FLAGS, "--seeds", 0, 1)
    assert again.code == 0
    assert "0 jobs run in 0:00" in again.out
    for word in (
        "mask from",
        "one-shot",
        "same task",
        "Chen et al. 2020",
        "figures: lth-zoo report",
    ):
        assert word in again.out
    one = tiny.cli(capsys, "transfer", *WHAT, *FLAGS, "--seeds", 0)
    assert "0 jobs run in 0:00" in one.out
    assert "no cell has a mark" in one.out


def test_status_and_report_know_it(here, capsys, tmp_path):
    (row,) = tiny.cli(capsys, "status", here["run"], "--json").json
    assert (row["state"], row["failed"]) == ("done", 0)
    assert row["done"] == row["jobs"] > 40
    assert row["resume"].startswith("lth-zoo transfer --from digits large")
    assert tiny.cli(capsys, "find", *FLAGS, "--seeds", 0, "--controls").code == 0
    names = [r["run"] for r in tiny.cli(capsys, "status", "--json").json]
    assert here["run"] in names
    assert any(name.startswith("lenet") for name in names)
    answer = tiny.cli(capsys, "report", "--out", tmp_path / "r")
    assert answer.code == 0, answer.err
    data = json.loads((tmp_path / "r" / "report.json").read_text())
    assert len(data["recipes"]) == 1
    ours = next(t for t in data["transfers"] if len(t["results"]["recipe"]["seeds"]) == 2)
    assert ours["results"]["cells"] == here["results"]["cells"]
    assert tiny.cli(capsys, "report", here["run"], "--out", tmp_path / "one").code == 0
    assert json.loads((tmp_path / "one" / "report.json").read_text())["recipes"] == []


def test_the_recipes_hyper_parameters_are_flags_with_their_real_defaults(capsys):
    text = " ".join(tiny.cli(capsys, "transfer", "quick", "--help").out.replace("│", " ").split())
    carry = "--carry {mask,mask+state,mask+signs,mask+start}"
    for words in ("--from", "--to", carry, "--finder.rate"):
        assert words in text
    assert "--finder.after" in tiny.cli(capsys, "transfer", "--finder", "one-shot", "--help").out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "no sources"),
        (["--from", "digits", "--task", "parity"], "--task has no meaning here"),
        (["--from", "digits", "--controls=reinit"], "--controls has no meaning here"),
        (["--from", "digtis", "--to", "parity"], "unknown task 'digtis'; did you mean 'digits'"),
        (["--from", "digits", "--to", "pariti*"], "unknown task 'pariti*'; did you mean 'parity'?"),
        (["--from", "digits", "--to", "one-shot"], "'one-shot' is a source"),
        (["--from", "digits", "--carry", "weights"], "invalid choice 'weights'"),
        (["--from", "digits", "--to", "parity", "--out", "full"], "holds no report"),
    ],
)
def test_bad_input_is_one_line_before_any_work(capsys, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    answer = tiny.cli(capsys, "transfer", *FLAGS, *flags, "--store", "store")
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_a_failed_cell_ends_with_code_1_and_the_rest_is_there(capsys, tmp_path, monkeypatch):
    from lth_zoo.adapters.cnn import CNN
    from lth_zoo.errors import BadInput

    def misfit(self, masks, model):
        raise BadInput("nothing fits")

    monkeypatch.setattr(CNN, "carry", misfit)
    args = ("--from", "digits", "one-shot", "--to", "parity", "--seeds", 0, "--store", tmp_path)
    answer = tiny.cli(capsys, "transfer", *FLAGS, *args)
    assert answer.code == 1
    assert "nothing fits" in answer.out
    assert "1 run failed" in answer.out
    (row,) = [line for line in answer.out.splitlines() if line.lstrip().startswith("digits")]
    assert "failed" in row
    (row,) = tiny.cli(capsys, "status", "--store", tmp_path, "--json").json
    assert row["state"] == "failed"
