"""A grid as one job graph: what cells share runs once."""

from __future__ import annotations

from fractions import Fraction

import pytest
import tiny

from lth_zoo.cli.study import cells
from lth_zoo.finders import IMP, OneShot
from lth_zoo.parse import load

GRID = """
base:
  training: {iterations: 40, evaluate_every: 20}
  finder: {rate: 0.5}
  seeds: [0, 1]
  controls: [shuffle]
grid:
  sparsity: [0.5, 0.75]
  finder.score: [magnitude, random]
"""


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


def test_cells_are_the_product_named_by_what_differs(grid):
    found = cells(grid)
    assert [c.name for c in found] == [
        "grid: sparsity=0.5 finder.score=magnitude",
        "grid: sparsity=0.5 finder.score=random",
        "grid: sparsity=0.75 finder.score=magnitude",
        "grid: sparsity=0.75 finder.score=random",
    ]
    assert [c.density for c in found] == [Fraction(1, 2)] * 2 + [Fraction(1, 4)] * 2
    assert found[1].finder == IMP(rate=0.5, score="random")
    assert {c.training.iterations for c in found} == {40}


def test_a_base_may_be_a_recipe_and_a_value_need_not_be_a_list(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text("base: quick\ngrid: {model: conv-2, finder.name: [imp, one-shot]}\n")
    first, second = cells(path)
    quick = load("quick")
    assert first.finder == quick.finder
    assert second.finder == OneShot()
    assert {first.model, second.model} == {"conv-2"}
    assert first.training == second.training == quick.training


def test_shared_cells_run_once_and_the_plan_says_so(grid, tmp_path, capsys):
    flags = ("--store", tmp_path / "s", "--workers", 0)
    plan = tiny.cli(capsys, "plan", grid, *flags, "--json").json
    # A seed: init, dense, and for each score 2 masks, 2 tickets, 2 shuffles with trainings.
    assert plan["jobs"] == 2 * (2 + 2 * (2 + 2 + 4))
    assert not (tmp_path / "s").exists()
    answer = tiny.cli(capsys, "study", grid, *flags, "--json")
    assert answer.code == 0
    assert len(list((tmp_path / "s").glob("*/*/manifest.json"))) == plan["jobs"]
    assert [len(row["verdicts"]) for row in answer.json] == [1, 1, 2, 2]
    assert answer.json[0]["verdicts"][0] != answer.json[1]["verdicts"][0]
    text = tiny.cli(capsys, "study", grid, *flags)
    assert text.code == 0
    assert "4 cells" in text.out
    rows = tiny.cli(capsys, "status", "--store", tmp_path / "s", "--json").json
    assert [(row["state"], row["failed"]) for row in rows] == [("done", 0)] * 4
    assert [row["jobs"] for row in rows] == [2 * 6, 2 * 6, 2 * 10, 2 * 10]


def test_a_grid_without_a_base_starts_from_the_defaults(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text("grid: {seeds: [[0], [1, 2]]}\n")
    assert [c.seeds for c in cells(path)] == [(0,), (1, 2)]
