"""Every command, for people and as JSON."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny

from lth_zoo.adapters.bert import Bert
from lth_zoo.cli import COMMANDS
from lth_zoo.cli.demo import SOURCES
from lth_zoo.cli.options import Running, workers_of
from lth_zoo.cli.progress import Bar
from lth_zoo.errors import BadInput, TicketError
from lth_zoo.given import judges_of, pretrained_start
from lth_zoo.parse import load
from lth_zoo.recipe import shipped
from lth_zoo.runs import recipe_key

# -- help ----------------------------------------------------------------------------------


def test_the_commands_are_listed(capsys):
    for args in ((), ("--help",), ("-h",)):
        answer = tiny.cli(capsys, *args)
        assert answer.code == 0
        assert re.findall(r"^  (\w+) +\w", answer.out, re.M) == list(COMMANDS)
    assert re.fullmatch(r"lth-zoo \d+\.\d+\.\d+\n", tiny.cli(capsys, "--version").out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(capsys, command):
    answer = tiny.cli(capsys, command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert f"usage: lth-zoo {command}" in answer.out
    assert ("--json" in answer.out) == (command != "completion")  # a script is no JSON


@pytest.mark.parametrize("command", ["find", "plan"])
@pytest.mark.parametrize("name", ["lenet-mnist", "resnet20-cifar10", "quick"])
def test_help_shows_the_recipes_real_defaults(capsys, command, name):
    text = " ".join(tiny.cli(capsys, command, name, "--help").out.replace("│", " ").split())
    recipe = load(name)
    for flag, value in {
        "--training.iterations INT": recipe.training.iterations,
        "--training.learning-rate FLOAT": recipe.training.learning_rate,
        "--model STR": recipe.model,
        "--sparsity FLOAT": recipe.sparsity,
        "--finder.rate FLOAT": getattr(recipe.finder, "rate", None),
        "--seeds [INT [INT ...]]": " ".join(map(str, recipe.seeds)),
    }.items():
        assert re.search(re.escape(flag) + rf"[^-]*?.*?\(default: {re.escape(str(value))}\)", text)


def test_help_of_lenet_mnist_says_50000(capsys):
    text = " ".join(tiny.cli(capsys, "find", "lenet-mnist", "--help").out.replace("│", " ").split())
    assert re.search(r"--training\.iterations INT [^()]*\(default: 50000\)", text)


def test_help_of_another_finder_shows_its_own_flags(capsys):
    text = tiny.cli(capsys, "find", "--finder", "one-shot", "--help").out
    assert "--finder.after" in text
    assert "--finder.rate " not in text


# -- looking around ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("models", "lenet-300-100"),
        ("tasks", "digits"),
        ("finders", "imp"),
        ("scores", "magnitude"),
        ("controls", "reinit"),
        ("recipes", "quick"),
    ],
)
def test_ls(capsys, kind, name):
    rows = tiny.cli(capsys, "ls", kind, "--json").json
    assert name in [row["name"] for row in rows]
    assert len({row["name"] for row in rows}) == len(rows)
    text = tiny.cli(capsys, "ls", kind)
    assert (text.code, text.err) == (0, "")
    assert f"{len(rows)} {kind}" in text.out


def test_ls_takes_a_pattern(capsys):
    rows = tiny.cli(capsys, "ls", "models", "resnet-?[02468]", "--json").json
    assert [row["name"] for row in rows] == [f"resnet-{d}" for d in (14, 20, 26, 32, 44, 56)]
    assert tiny.cli(capsys, "ls", "models", "nothing*", "--json").json == []
    assert "0 models" in tiny.cli(capsys, "ls", "models", "nothing*").out


def test_ls_recipes_knows_every_file(capsys):
    rows = tiny.cli(capsys, "ls", "--json").json
    assert [row["name"] for row in rows] == sorted(shipped())
    assert all(row["paper"] for row in rows)


def test_show_a_recipe_and_run_the_copy(capsys, tmp_path):
    text = tiny.cli(capsys, "show", "quick").out
    (tmp_path / "mine.yaml").write_text(text)
    assert recipe_key(load(str(tmp_path / "mine.yaml"))) == recipe_key(load("quick"))
    answer = tiny.cli(capsys, "show", "quick", "--json").json
    assert answer["training"]["iterations"] == load("quick").training.iterations
    assert tiny.cli(capsys, "show", tmp_path / "mine.yaml", "--json").json == answer
    store = ("--store", tmp_path / "s", "--json")
    mine = tiny.cli(capsys, "plan", tmp_path / "mine.yaml", *store).json
    ours = tiny.cli(capsys, "plan", "quick", *store).json
    assert mine["by_kind"] == ours["by_kind"]


def test_show_a_model(capsys):
    answer = tiny.cli(capsys, "show", "lenet-300-100", "--json").json
    assert answer["prunable"] == 64 * 300 + 300 * 100 + 100 * 10
    assert answer["parameters"] == answer["prunable"] + 300 + 100 + 10
    assert [row["role"] for row in answer["tensors"]][-1] == "output"
    text = tiny.cli(capsys, "show", "lenet-300-100").out
    assert "50,610 parameters, 50,200 of them prunable" in text


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(capsys, shell, tmp_path):
    script = tiny.cli(capsys, "completion", shell).out
    for word in (*COMMANDS.keys() - {"completion"}, "--sparsity", "--checkpoint-seconds"):
        assert word in script
    (tmp_path / "script").write_text(script)
    if shell == "bash":
        checked = subprocess.run(["bash", "-n", tmp_path / "script"], capture_output=True)
        assert checked.returncode == 0, checked.stderr
    else:
        assert script.startswith("#compdef lth-zoo")


def test_show_asks_the_hub_for_what_looks_like_its_id(capsys, monkeypatch):
    asked = []

    def fetch(source, revision):
        asked.append(source)
        raise TicketError("no such repository")

    monkeypatch.setattr("lth_zoo.ticket.fetched", fetch)
    answer = tiny.cli(capsys, "show", "somebody/a-ticket")
    assert (answer.code, asked) == (2, ["somebody/a-ticket"])
    assert "no such repository" in answer.err
    assert "'lenet-5'" in tiny.cli(capsys, "show", "lenet-6").err
    assert len(asked) == 1


# -- flags ---------------------------------------------------------------------------------


def test_workers_are_the_usable_cpus_or_one_for_a_gpu(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert workers_of(Running()) == 3
    assert workers_of(Running(device="cuda:1")) == 1
    assert workers_of(Running(device="cuda", workers=4)) == 4
    assert workers_of(Running(workers=0)) == 0


# -- demo, tracking, progress --------------------------------------------------------------


def test_demo(capsys, tmp_path, monkeypatch):
    """The real command on its own recipes, shortened."""

    def short(name):
        count = 4 if name == "bert-mini-pydocs" else 30
        training = replace(load(name).training, iterations=count, evaluate_every=15, warmup=0)
        fields = {"training": training, "sparsity": 0.5, "controls": ("reinit",)}
        if name == "gcn-digits-knn":
            fields |= {"controls": ("random-edges", "graph-only"), "graph_sparsity": 0.3}
        fields["seeds"] = (0,) if name == "bert-mini-pydocs" else (0, 1)
        return replace(load(name), **fields)

    made = Bert().pretraining("bert-mini").training | {"iterations": 4, "warmup": 0}
    monkeypatch.setattr("lth_zoo.adapters.bert._MINI_TRAINING", made)
    monkeypatch.setattr("lth_zoo.tasks.generation.SMALL", (10, 64, 32))
    pretrained_start.cache_clear()
    judges_of.cache_clear()
    monkeypatch.setattr("lth_zoo.cli.demo.load", short)
    monkeypatch.chdir(tmp_path)
    answer = tiny.cli(capsys, "demo", "--workers", 0, "--json")
    pretrained_start.cache_clear()
    judges_of.cache_clear()
    assert answer.code == 0
    assert len(answer.json["runs"]) == 5
    assert {cell["source"] for cell in answer.json["transfer"]["judged"]} >= set(SOURCES)
    assert all(run["verdicts"] for run in answer.json["runs"])
    assert answer.json["failed"] == []
    assert (tmp_path / "report" / "index.html").stat().st_size > 50_000


def test_demo_looks_at_its_folder_before_any_work(capsys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    store = tmp_path / "store"
    for command in ("demo", "report"):
        answer = tiny.cli(capsys, command, "--out", tmp_path / "out", "--store", store)
        assert answer.code == 2
        assert "is not empty and holds no report" in answer.err
    assert not store.exists()


def test_progress_knows_what_is_left(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("lth_zoo.cli.progress.time.monotonic", lambda: now[0])
    bar = Bar("work")
    one, two = (
        tiny.Job("train", {"seed": s, "begin": 0, "end": 100, "keep": "metrics"}) for s in (0, 1)
    )
    bar.start([one, two], cached=3)
    assert bar.left() == float("inf")
    bar.began(one)
    now[0] += 10
    bar.progress(one, 50, 100)
    assert bar.left() == pytest.approx(30)
    bar.ended(one)
    bar.began(two)
    bar.ended(two, "why not")
    bar.stop()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "work: 0 %, 0/2 jobs (3 found done), left ?"
    assert "failed: train seed 1: why not" in lines
    assert lines[-1] == "work: 100 %, 1/2 jobs, 1 failed (3 found done), left 0:00"


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -m lth_zoo ls models --json | head -c 1"
    ran = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert ran.stderr == ""


def test_an_interrupt_says_how_to_go_on(capsys, monkeypatch):
    def interrupted(rest):
        raise KeyboardInterrupt

    monkeypatch.setattr("lth_zoo.cli.ls.run", interrupted)
    answer = tiny.cli(capsys, "ls")
    assert answer.code == 130
    assert "the same command goes on from here" in answer.err


def test_an_error_of_many_lines_is_printed_as_one(capsys, monkeypatch):
    def wrong(rest):
        raise BadInput("first\n  second\n\nthird")

    monkeypatch.setattr("lth_zoo.cli.ls.run", wrong)
    assert tiny.cli(capsys, "ls").err == "lth-zoo: first second third\n"
