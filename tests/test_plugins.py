"""A finder, task, family, score and control from outside: one short file each, by entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from lth_zoo.formats import load_masks, load_snapshot

FILES = {
    "toy_adapter.py": '''
"""A family of two-layer networks."""

from torch import nn

from lth_zoo.protocols import Adapter


class Toy(Adapter):
    """Networks of one hidden layer: toy-8, toy-32."""

    models = ("toy-8", "toy-32")

    def build(self, name, signature):
        width = int(name.partition("-")[2])
        first, last = nn.Linear(signature.input[0], width), nn.Linear(width, signature.output)
        return nn.Sequential(first, nn.ReLU(), last)
''',
    "toy_task.py": '''
import torch
from torch.nn.functional import cross_entropy as loss

from lth_zoo.protocols import SPLITS, Objective, Signature, Task

class Wave(Task):
    """Is the point above or below the wave?"""
    margin, signature = 2.0, Signature((2,), 2)
    points = torch.rand(900, 2, generator=torch.Generator().manual_seed(0)) * 6 - 3
    above = (points[:, 1] > points[:, 0].sin()).long()
    def fingerprint(self):
        return "wave of 900, seed 0"
    def size(self, split):
        return 300
    def batch(self, split, indices, rng=None):
        at = indices + 300 * SPLITS.index(split)
        return self.points[at], self.above[at]
    def objectives(self, model):
        return [Objective("loss", lambda model, batch, rng: loss(model(batch[0]), batch[1]))]
    def evaluate(self, model, split):
        points, above = self.batch(split, torch.arange(300))
        said = model(points)
        right = 100 * (said.argmax(1) == above).float().mean().item()
        return {"accuracy": right, "loss": loss(said, above).item()}
''',
    "toy_finder.py": '''
"""Halve the network, level by level."""

from dataclasses import dataclass
from fractions import Fraction

from lth_zoo.protocols import Finder


@dataclass(frozen=True)
class Halve(Finder):
    """Keep half of what is left."""

    score: str = "magnitude"
    """Criterion."""

    def search(self, chain):
        level, density = chain.dense("init"), Fraction(1)
        yield level
        while density > chain.density:
            density = max(density / 2, chain.density)
            masks = chain.prune(level.train, level.masks, density=density, score=self.score)
            level = chain.retrain("init", level.train, masks, level.index + 1)
            yield level
''',
    "toy_score.py": '''
"""Prefer positive weights."""


def positive(ctx):
    """Score a weight by its value, sign and all."""
    return {name: ctx.model.get_parameter(name).detach().clone() for name in ctx.masks}
''',
    "toy_control.py": '''
"""The ticket upside down."""

from dataclasses import replace


def negated(draft, seed):
    """Same mask, every weight with the other sign."""
    return replace(draft, state={name: -tensor for name, tensor in draft.state.items()})
''',
}
ENTRY_POINTS = """
[lth_zoo.adapters]
toy = toy_adapter:Toy
[lth_zoo.tasks]
wave = toy_task:Wave
[lth_zoo.finders]
halve = toy_finder:Halve
[lth_zoo.scores]
positive = toy_score:positive
[lth_zoo.controls]
negated = toy_control:negated
"""
ROWS = {
    "models": "toy-8",
    "tasks": "wave",
    "finders": "halve",
    "scores": "positive",
    "controls": "negated",
}
LISTS = """
import json
from lth_zoo.cli import main
for kind in ("models", "tasks", "finders", "scores", "controls"):
    assert main(["ls", kind, "--json"]) == 0
assert main(["find", "--finder", "halve", "--task", "wvae", "--model", "toy-8"]) == 2
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder as pip would have filled it."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        (folder / name).write_text(text.lstrip())
    info = folder / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture(scope="module")
def environment(site) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.fixture(scope="module")
def found(site, environment) -> dict:
    """What `find` with everything from outside answered, workers and all."""
    process = subprocess.run(
        [
            *(*tiny.PYTHON, "find", "--model", "toy-32", "--task", "wave", "--finder", "halve"),
            *("--finder.score", "positive", "--controls", "negated", "reinit", "--seeds", "0", "1"),
            *("--sparsity", "0.7", "--training.iterations", "300", "--workers", "1", "--json"),
            *("--training.learning-rate", "0.02"),
        ],
        cwd=site,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("name", FILES)
def test_each_is_under_25_lines(site, name):
    assert len((site / name).read_text().splitlines()) < 25


def test_a_run_of_nothing_but_plugins(found):
    runs = found["results"]["runs"]
    assert list(dict.fromkeys(r["arm"] for r in runs)) == ["dense", "ticket", "negated", "reinit"]
    assert {r["level"] for r in runs} == {0, 1, 2}
    # 2 x 32 + 32 x 2 weights; half, then 0.3 of 128 rounded half up
    kept = {(r["arm"], r["level"]): r["kept"] for r in runs}
    assert (kept["ticket", 1], kept["ticket", 2], kept["negated", 2]) == (64, 38, 38)
    dense = [r["metrics"]["test"]["accuracy"] for r in runs if r["arm"] == "dense"]
    assert min(dense) > 90, "the toy task was not learnt"
    assert found["failed"] == []
    assert len(found["verdicts"]) == 2


def test_the_score_and_the_control_did_what_they_say(site, found):
    store = site / "lth-store"
    config = {p.parent: json.loads(p.read_text()) for p in store.glob("*/*/manifest.json")}
    first = next(
        c
        for c in config.values()
        if c["kind"] == "prune" and c["config"]["density"] == "1/2" and c["config"]["seed"] == 0
    )
    masks = load_masks((store / "prune" / first["key"] / "masks.safetensors").read_bytes())
    trained = store / "train" / first["inputs"]["trained"]["key"] / "state.safetensors"
    state = load_snapshot(trained.read_bytes()).state
    kept = torch.cat([state[n][m] for n, m in masks.items()])
    removed = torch.cat([state[n][~m] for n, m in masks.items()])
    assert kept.min() >= removed.max()
    assert removed.abs().max() > kept.min(), "magnitude would have chosen the same"
    negated = [c for c in config.values() if c["config"].get("name") == "negated"]
    assert len(negated) == 4
    for control in negated:
        ours = load_snapshot(
            (store / "control" / control["key"] / "state.safetensors").read_bytes()
        )
        start = store / "init" / control["inputs"]["start"]["key"] / "state.safetensors"
        theirs = load_snapshot(start.read_bytes()).state
        assert all(t.equal(-theirs[n]) for n, t in ours.state.items())


def test_they_are_listed_and_suggested_like_our_own(environment, tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", LISTS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    for name in ROWS.values():
        assert f'"name": "{name}"' in process.stdout
    assert "unknown task 'wvae'; did you mean 'wave'?" in process.stderr


def test_without_the_package_they_are_unknown(capsys):
    for flags in (["--model", "toy-8"], ["--task", "wave"], ["--finder", "halve"]):
        assert tiny.cli(capsys, "find", *flags).code == 2
