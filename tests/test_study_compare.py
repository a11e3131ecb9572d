"""Finders side by side: what is said, of what was measured and of what was not."""

from __future__ import annotations

import math

import pytest
from toys import HERE, tiny_recipe

from lth_zoo.finders import IMP
from lth_zoo.given import own_graph
from lth_zoo.jobs import DENSE, Job, graph
from lth_zoo.protocols import Yardstick
from lth_zoo.store import Store
from lth_zoo.studies.base import Measured
from lth_zoo.studies.compare import Compare
from lth_zoo.studies.run import run_study
from lth_zoo.studies.shared import cell, kept_share, mean_sd, sparse

MASKS = {"a.weight": (25, 100), "b.weight": (25, 100)}


def measured(finder, values, seconds=1.0, cost=2.0, masks=MASKS):
    """A finder's tickets, seed by seed; none of a seed whose value is None."""
    sparsity = 0.0 if finder == DENSE else 0.75
    of = {"finder": finder, "sparsity": sparsity} | ({"left_out": {}} if finder == DENSE else {})
    for seed, value in enumerate(values):
        if value is not None:
            result = {"metrics": {"test": {"score": value}}, "masks": masks, "flags": []}
            yield Measured({**of, "seed": seed}, result, None, seconds, cost)


def answer(*groups, higher=True, seeds=(0, 1, 2)):
    by = Yardstick("score", higher, 1.0)
    return Compare().answer(tiny_recipe(seeds=seeds), by, [m for group in groups for m in group])


def test_the_best_mean_is_the_lowest_where_lower_is_better():
    arms = [measured(DENSE, [2.0, 2.1, 2.2]), measured("imp", [3.0, 3.1, 3.3])]
    arms += [measured("random-mask", [9.0, 9.1, 9.4])]
    (said,) = answer(*(list(a) for a in arms), higher=False).findings
    assert "the best mean is imp's, score 3.13" in said
    assert "Better than a random mask (5 % over all finders): imp." in said
    assert "Worse than dense: imp, random-mask." in said


def test_what_was_not_tested_is_not_said():
    dense = list(measured(DENSE, [2.0, 2.1, 2.2]))
    (said,) = answer(dense, measured("imp", [1.0, 1.1, 1.3])).findings
    assert "random" not in said
    (said,) = answer(dense[:1], measured("imp", [1.0]), seeds=(0,)).findings
    assert "Worse than dense" not in said


def test_a_finder_that_did_not_end_on_every_seed_stands_behind():
    arms = measured(DENSE, [2, 2, 2]), measured("imp", [1, 1, 1]), measured("snip", [None, 9, None])
    found = answer(*arms)
    assert "the best mean is imp's" in found.findings[0]
    assert "Did not end on every seed: snip on 1." in found.findings[0]
    (table,) = (block for block in found.blocks if hasattr(block, "rows"))
    assert [row[2] for row in table.rows] == ["3 of 3", "1 of 3", "3 of 3"]


@pytest.mark.parametrize("failed", ["tickets", DENSE])
def test_a_study_of_which_every_ticket_or_dense_run_failed_is_a_page_and_no_traceback(
    failed, tmp_path, monkeypatch
):
    recipe, store = tiny_recipe(sparsity=0.5), Store(tmp_path)
    study = Compare(finders=("imp", "random-mask"))
    probes = [
        p for p in study.lay_out(recipe, None) if (p.of["finder"] == DENSE) is (failed != DENSE)
    ]
    monkeypatch.setattr(Compare, "lay_out", lambda *_: probes)
    found = run_study(study, recipe, store, HERE)
    assert found.page is not None
    assert found.answer is not None
    assert found.answer.data["rows"] == [] or failed == DENSE


def test_edges_are_not_blended_into_the_sparsity_of_weights():
    masks = {"lin.weight": (20, 100), "graph/edges": (80, 100)}
    runs = list(measured("graph-imp", [1.0], masks=masks))
    assert (kept_share(runs), kept_share(runs, edges=True)) == (0.2, 0.8)
    assert sparse(runs) == "80.00 % sparse, 20.00 % of the edges removed"
    assert (kept_share([]), sparse([])) == (None, "")
    found = answer(measured(DENSE, [2.0], masks={}), runs, seeds=(0,))
    assert found.data["rows"][0]["sparsity"] == pytest.approx(0.8)
    (table,) = (block for block in found.blocks if hasattr(block, "rows"))
    assert table.rows[0][1] == "80.0 %, edges 20.0 %"


def test_nothing_has_no_mean():
    assert all(math.isnan(x) for x in mean_sd([]))
    assert cell([]) == "nothing"


def test_what_all_are_given_costs_no_finder_anything():
    made = Job("train", {"what": "judge"}, {"start": Job("init", {"of": "judge"})})
    start = Job("init", {"seed": 0}, {"pretrained": Job("train", {"what": "language model"})})
    masks = Job("prune", {"seed": 0}, {"init": start})
    goal = Job("train", {"seed": 0}, {"start": start, "masks": masks, "judge-0": made})
    assert len(graph([goal])) == 6
    assert own_graph(goal) == [start, masks, goal]


def test_what_is_left_out_is_said_with_the_sparsity_at_which():
    two = Compare(sparsities=(0.5, 0.9999)).lay_out(tiny_recipe(finder=IMP()), None)
    (left,) = (p.of["left_out"] for p in two if p.of["finder"] == DENSE)
    assert "ugs at 50 %" in left
    assert "ugs at 99.99 %" in left
