"""Commands around a run: find, plan, status, store, export, verify, report."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny
from safetensors import safe_open
from safetensors.torch import load_file

from lth_zoo.ticket import Ticket


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a store that holds one finished run, made by the command itself."""
    folder = tmp_path_factory.mktemp("cli")
    args = [*tiny.PYTHON, "find", *tiny.FLAGS, "--store", "store", "--json"]
    ran = subprocess.run(args, cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    (folder / "find.json").write_text(ran.stdout)
    (folder / "find.err").write_text(ran.stderr)
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("LTH_ZOO_STORE", "store")
    return place


@pytest.fixture
def ticket(here) -> str:
    return json.loads((here / "find.json").read_text())["tickets"][0]


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


# -- find, plan, status --------------------------------------------------------------------


def test_find_answers_with_json_alone(place):
    answer = tiny.Answer(0, (place / "find.json").read_text(), "").json
    assert set(answer) == {"run", "store", "tickets", "verdicts", "results", "failed"}
    assert answer["failed"] == []
    assert {r["arm"] for r in answer["results"]["runs"]} == {"dense", "ticket", "reinit", "shuffle"}
    assert [v["level"] for v in answer["verdicts"]] == [1]
    tickets = [Ticket.from_pretrained(place / t) for t in answer["tickets"]]
    assert [t.meta["seed"] for t in tickets] == [0, 1]
    assert "16/16 jobs" in (place / "find.err").read_text()


def test_find_again_is_found_done(here, capsys):
    before = snapshot(here / "store" / "train")
    answer = tiny.cli(capsys, "find", *tiny.FLAGS)
    assert answer.code == 0
    assert "0 jobs run in 0:00, 8 found done" in answer.out
    for word in ("dense", "reinit", "shuffle", "ticket", "50.00%", "seed-0 and 1 more"):
        assert word in answer.out
    assert snapshot(here / "store" / "train") == before


def test_one_seed_is_strict_json_too(here, capsys):
    answer = tiny.cli(capsys, "find", *tiny.FLAGS, "--seeds", 0, "--json")
    assert answer.code == 0
    assert answer.json["verdicts"][0]["level"] == 1


def test_find_goes_on_from_a_ticket(here, capsys, ticket, tmp_path):
    store = shutil.copytree(here / "store", tmp_path / "store")
    answer = tiny.cli(
        *(capsys, "find", ticket, "--sparsity", "0.75", "--workers", 0, "--json"),
        *("--controls", "--store", store, "--out", tmp_path / "deeper"),
    )
    assert answer.code == 0, answer.err
    assert "0/4 jobs (8 found done)" in answer.err  # a mask and a training a seed
    deeper = [Ticket.from_pretrained(t) for t in answer.json["tickets"]]
    assert all(t.sparsity == 0.75 for t in deeper)
    first = Ticket.from_pretrained(ticket)
    same = next(t for t in deeper if t.meta["seed"] == first.meta["seed"])
    assert all(not (same.masks[n] & ~first.masks[n]).any() for n in first.masks)


def test_plan_counts_and_writes_nothing(here, capsys, tmp_path):
    before = snapshot(here)
    new = tiny.cli(capsys, "plan", *tiny.FLAGS, "--store", tmp_path / "new", "--json").json
    assert (new["jobs"], new["cached"]) == (16, 0)
    assert new["by_kind"] == {"init": 2, "train": 8, "prune": 2, "control": 4}
    assert new["iterations"] == 8 * 40
    assert "probe" in new["estimated_from"]
    assert new["seconds"] > 0
    assert not (tmp_path / "new").exists()
    done = tiny.cli(capsys, "plan", *tiny.FLAGS, "--json").json
    assert (done["jobs"], done["cached"], done["seconds"]) == (0, 8, 0)
    more = tiny.cli(capsys, "plan", *tiny.FLAGS, "--sparsity", "0.75", "--json").json
    assert more["estimated_from"] == "from earlier jobs of this store"
    assert more["by_kind"] == {"prune": 2, "train": 6, "control": 4}
    text = tiny.cli(capsys, "plan", *tiny.FLAGS, "--sparsity", "0.75").out
    assert "to run: 12 jobs" in text
    assert "with 0 workers" in text
    assert snapshot(here) == before


def test_plan_is_right_about_the_work(here, capsys, tmp_path):
    """What it says is missing is what the run then does, and the disk it takes is near."""
    flags = [*tiny.FLAGS, "--controls", "shuffle", "--store", tmp_path / "s"]
    plan = tiny.cli(capsys, "plan", *flags, "--json").json
    ran = tiny.cli(capsys, "find", *flags)
    assert f"{plan['jobs']} jobs run" in ran.out
    taken = sum(p.stat().st_size for p in (tmp_path / "s").glob("*/*/*"))
    assert taken / 3 < plan["disk_bytes"] < taken * 3


def test_status(here, capsys):
    name = json.loads((here / "find.json").read_text())["run"]
    (row,) = [r for r in tiny.cli(capsys, "status", "--json").json if r["run"] == name]
    assert (row["state"], row["done"], row["jobs"], row["working"]) == ("done", 16, 16, 0)
    assert tiny.cli(capsys, "status", name).code == 0
    assert tiny.cli(capsys, "status", "quick", "--json").json
    missing = tiny.cli(capsys, "status", "quikc-0")
    assert missing.code == 2
    assert "unknown run 'quikc-0'" in missing.err


def test_status_of_no_store_is_an_empty_list(capsys, tmp_path):
    assert tiny.cli(capsys, "status", "--store", tmp_path / "none", "--json").json == []
    assert not (tmp_path / "none").exists()


# -- store, export, verify -----------------------------------------------------------------


def test_store_ls_and_a_dry_gc(here, capsys):
    rows = {r["kind"]: r for r in tiny.cli(capsys, "store", "--json").json}
    assert rows["init"]["jobs"] >= 2
    assert rows["train"]["jobs"] >= 8
    files = (here / "store" / "train").glob("*/[!m]*")
    assert rows["train"]["bytes"] == sum(p.stat().st_size for p in files)
    before = snapshot(here)
    dry = tiny.cli(capsys, "store", "gc", "--dry-run", "--json").json
    assert dry["weights"] >= 4
    assert dry["bytes"] > 4 * 200_000
    assert "would free" in tiny.cli(capsys, "store", "gc", "--dry-run").out
    assert snapshot(here) == before
    assert tiny.cli(capsys, "store", "ls").code == 0


def test_export_is_read_by_plain_safetensors(here, capsys, ticket, tmp_path):
    path = tmp_path / "model.safetensors"
    answer = tiny.cli(capsys, "export", ticket, "--out", path, "--json").json
    tensors, whole = load_file(path), Ticket.from_pretrained(ticket)
    assert tensors.keys() == whole.materialize().state_dict().keys()
    assert all(tensors[n].equal(t) for n, t in whole.materialize().state_dict().items())
    weights = sum(int((tensors[n] != 0).sum()) for n in whole.masks)
    assert weights == answer["kept"] == 25_100
    with safe_open(path, "pt") as file:
        assert file.metadata()["ticket"] == whole.id
    assert "25,100 of 50,200" in tiny.cli(capsys, "export", ticket, "--out", path).out


def test_verify(here, capsys, ticket):
    flags = ("--seeds", 0, 1, "--controls", "reinit", "--workers", 0)
    before = snapshot(here / "store" / "train")
    answer = tiny.cli(capsys, "verify", ticket, *flags, "--json").json
    assert [row["id"] for row in answer] == [Ticket.from_pretrained(ticket).id]
    assert answer[0]["verdict"]["level"] == 1
    assert answer[0]["failed"] == []
    assert snapshot(here / "store" / "train") == before  # all of it was found done
    assert "n=2" in tiny.cli(capsys, "verify", ticket, *flags).out


def test_report(here, capsys, tmp_path):
    answer = tiny.cli(capsys, "report", "quick", "--out", tmp_path / "r", "--json")
    assert answer.code == 0
    assert answer.json
    page = (tmp_path / "r" / "index.html").read_text()
    assert "reinit" in page
    assert 'src="http' not in page


def test_tracking_writes_the_curves(tmp_path, capsys):
    flags = [*tiny.FLAGS, "--seeds", "0", "--controls", "--store", tmp_path]
    assert tiny.cli(capsys, "find", *flags, "--track", "tensorboard").code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = sorted((tmp_path / "tracking").glob("*/events*"))
    assert len(events) == 2
    for path in events:
        log = EventAccumulator(str(path)).Reload()
        rows = [(e.step, e.value) for e in log.Scalars("validation_accuracy")]
        assert [step for step, _ in rows] == [20, 40]
        assert all(10 < value <= 100 for _, value in rows)


def test_tracking_changes_no_result(tmp_path, capsys, here):
    flags = [*tiny.FLAGS, "--store", tmp_path, "--track", "tensorboard"]
    assert tiny.cli(capsys, "find", *flags).code == 0
    names = ("masks.safetensors", "result.json", "log.jsonl")
    ours, theirs = tiny.files_of(tmp_path, *names), tiny.files_of(here / "store", *names)
    assert ours.items() <= theirs.items()


def test_show_a_ticket(here, capsys, ticket):
    answer = tiny.cli(capsys, "show", ticket, "--json").json
    assert answer["id"] == Ticket.from_pretrained(ticket).id
    assert answer["counts"]["kept"] == 25_100
    assert sum(kept for kept, _ in answer["layers"].values()) == 25_100
    text = tiny.cli(capsys, "show", ticket).out
    assert "25,100 of 50,200 prunable weights" in text
    assert "fc1.weight" in text
