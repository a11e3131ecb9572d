"""Subset sums: the best subset by trying all, and what it does to a network."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from toys import HERE, tiny_recipe

from lth_zoo.errors import BadInput
from lth_zoo.probes.subset_sum import nearest_sums, sums
from lth_zoo.store import Store
from lth_zoo.studies.run import run_study
from lth_zoo.studies.subset_sum import SubsetSum


def test_the_sums_of_all_subsets_by_hand():
    assert sorted(sums(np.array([1.0, 2.0, 4.0]))) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert sums(np.array([])).tolist() == [0]


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_no_subset_is_nearer_than_the_one_found(n):
    rng = np.random.default_rng(n)
    targets, samples = rng.normal(size=20), rng.uniform(-1, 1, (20, n))
    found = nearest_sums(targets, samples)
    for target, row, near in zip(targets, samples, found, strict=True):
        every = [sum(s) for k in range(n + 1) for s in combinations(row, k)]
        best = min(every, key=lambda value: abs(value - target))
        assert abs(near - target) == pytest.approx(abs(best - target), abs=1e-12)


def test_more_samples_come_nearer_and_outputs_follow(tmp_path):
    recipe = tiny_recipe(model="lenet-5-same")
    found = run_study(SubsetSum(samples=(4, 12, 20)), recipe, Store(tmp_path), HERE)
    rows = found.answer.data["rows"]
    worst = [row["weights"][0] for row in rows]
    outputs = [row["outputs"]["test"][0] for row in rows]
    assert worst[0] > 2 * worst[1] > 40 * worst[2]
    assert outputs[0] > outputs[1] > outputs[2]
    assert outputs[2] < 1e-2
    assert "2,572 parameters" in found.answer.findings[0]


def test_what_has_no_convolution_is_refused_before_anything_runs():
    with pytest.raises(BadInput, match=r"'lenet-300-100x0.1' on 'digits' has none; choose"):
        SubsetSum().lay_out(tiny_recipe(), None)
    with pytest.raises(BadInput, match=r"'ae-convx0.1' on 'generation/digits' has none; choose"):
        SubsetSum().lay_out(tiny_recipe(model="ae-convx0.1", task="generation/digits"), None)
    with pytest.raises(BadInput, match="samples holds 41; it must be between 1 and 40"):
        SubsetSum(samples=(41,))
