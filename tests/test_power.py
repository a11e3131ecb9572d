"""The t tests against scipy's own, and their power against published and simulated figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lth_zoo.trials.compare import compare
from lth_zoo.trials.power import SEEDS_CAP, power_paired, power_table, power_welch, seeds_needed

A = {0: 98.1, 1: 98.3, 2: 97.9, 3: 98.2, 4: 98.0}
B = {0: 98.0, 1: 98.1, 2: 98.0, 3: 97.8, 4: 97.9}


def values(arm):
    return list(arm.values())


@pytest.mark.parametrize("bound", [-0.3, 0.0, 0.2])
def test_paired_equals_scipy(bound):
    ours = compare(A, B, paired=True)
    theirs = stats.ttest_rel(values(A), np.add(values(B), bound), alternative="greater")
    assert ours.p_gain_above(bound) == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.p_gain_below(bound) == pytest.approx(1 - theirs.pvalue, rel=1e-9)
    assert ours.df == pytest.approx(theirs.df)
    interval = stats.ttest_rel(values(A), values(B)).confidence_interval(0.95)
    assert ours.interval == pytest.approx(tuple(interval))


@pytest.mark.parametrize("bound", [-0.3, 0.0, 0.2])
def test_welch_equals_scipy(bound):
    short = {seed: B[seed] for seed in (0, 1, 3)}
    ours = compare(A, short, paired=False)
    theirs = stats.ttest_ind(
        values(A), np.add(values(short), bound), equal_var=False, alternative="greater"
    )
    assert ours.p_gain_above(bound) == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.df == pytest.approx(theirs.df)
    interval = stats.ttest_ind(values(A), values(short), equal_var=False).confidence_interval(0.95)
    assert ours.interval == pytest.approx(tuple(interval))
    assert ours.n == (5, 3)


def test_worse_and_better_follow_the_direction_of_the_metric():
    up, down = compare(A, B), compare(A, B, higher_is_better=False)
    assert up.p_better == pytest.approx(down.p_worse)
    assert up.p_better < 0.1 < up.p_worse
    assert up.difference == down.difference == pytest.approx(0.14)


def test_the_paired_test_matches_runs_by_seed_not_by_order():
    backwards = dict(reversed(B.items()))
    assert compare(A, backwards) == compare(A, B)


def test_diverged_runs_rank_last_and_exactly():
    gone = dict.fromkeys(range(3), math.nan)
    fine = {0: 1.0, 1: 2.0, 2: 3.0}
    found = compare(gone, fine, paired=False)
    assert found.p_worse == pytest.approx(1 / math.comb(6, 3))
    assert found.p_better == pytest.approx(1.0)
    assert found.difference is None
    one = compare({**A, 9: math.inf}, {**B, 9: 98.0})
    assert one.n == (5, 5)
    assert one.difference == pytest.approx(0.14)
    many = compare(dict.fromkeys(range(12), math.nan), {s: float(s) for s in range(12)})
    assert many.p_worse < 1e-4


@pytest.mark.parametrize(
    ("n", "margin", "percent"),
    [(3, 2, 58), (5, 2, 88), (10, 2, 99.6), (3, 1, 22), (5, 1, 41), (10, 1, 69)],
)
def test_power_agrees_with_the_figures_measured_before(n, margin, percent):
    (row,) = power_table([n], [margin])
    assert 100 * row.power == pytest.approx(percent, abs=2)


@pytest.mark.parametrize(
    ("sds", "ns", "margin"),
    [((1, 1), (3, 3), 2), ((1, 1), (10, 10), 1), ((1, 3), (3, 6), 4), ((2, 0), (5, 3), 2)],
)
def test_welch_power_agrees_with_a_simulation(sds, ns, margin):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(0, sd, (40_000, n)) for sd, n in zip(sds, ns, strict=True))
    p = stats.ttest_ind(a + margin, b, axis=1, equal_var=False, alternative="greater").pvalue
    assert power_welch(margin, sds, ns) == pytest.approx(np.mean(p <= 0.05), abs=0.01)


def test_paired_power_agrees_with_a_simulation_and_with_scipy():
    rng = np.random.default_rng(1)
    gaps = rng.normal(1.0, 1.5, (40_000, 6))
    p = stats.ttest_1samp(gaps, 0, axis=1, alternative="greater").pvalue
    found = power_paired(1.0, 1.5, 6)
    assert found == pytest.approx(np.mean(p <= 0.05), abs=0.01)
    exact = stats.nct.sf(stats.t.ppf(0.95, 5), 5, 1.0 * math.sqrt(6) / 1.5)
    assert found == pytest.approx(exact, rel=1e-9)


def test_at_no_margin_the_power_is_the_size():
    assert power_paired(1e-9, 1.0, 5) == pytest.approx(0.05, abs=1e-6)
    assert power_welch(1e-9, (1, 1), (20, 20)) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize("paired", [True, False])
def test_power_grows_with_seeds_and_margin(paired):
    rows = power_table((2, 3, 5, 10, 20), (0.5, 1, 2, 3), paired=paired)
    grid = np.array([row.power for row in rows]).reshape(5, 4)
    assert (np.diff(grid, axis=0) > 0).all()
    assert (np.diff(grid, axis=1) > 0).all()


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_seeds_needed_is_the_fewest(margin):
    def power(n):
        return power_welch(margin, (1, 1), (n, n))

    n = seeds_needed(power)
    assert power(n) >= 0.8 > power(n - 1)


def test_seeds_needed_knows_its_ends():
    assert seeds_needed(lambda n: power_paired(1.0, 0.0, n)) == 2
    assert seeds_needed(lambda n: power_paired(0.1, 1.0, n)) is None
    assert power_paired(0.1, 1.0, SEEDS_CAP) < 0.8


@pytest.mark.parametrize("sd", [1e-300, 1e-12, 1.0, 1e90])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 200])
def test_power_is_always_a_probability(sd, n):
    for power in (power_paired(0.5, sd, n), power_welch(0.5, (sd, 2 * sd), (n, n + 1))):
        assert 0 <= power <= 1
