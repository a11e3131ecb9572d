"""Verdicts over the levels of a recipe: the sequence, and what runs say of themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from lth_zoo.trials.results import Results, Run
from lth_zoo.trials.verdict import Outcome, judge_levels


def arm(mean, noise=(0.1, -0.1, 0.0, 0.05, -0.05)):
    return {seed: mean + e for seed, e in enumerate(noise)}


OTHER = (-0.02, 0.06, 0.03, -0.04, -0.03)
DENSE, TICKET = arm(98.0), arm(98.0, OTHER)
BEATEN = {"shuffle": arm(96.0), "reinit": arm(96.5), "random-erk": arm(95.0)}
GOOD = {"ticket": TICKET, **BEATEN}
BAD = {"ticket": arm(97.0, OTHER), **BEATEN}


def results(levels, margin=0.3, higher=True, spoil=None):
    """A recipe's results: ``levels`` maps level -> arm -> seed -> value."""
    runs = []
    for level, arms_of in levels.items():
        for arm_name, values in arms_of.items():
            for seed, value in values.items():
                metrics = {"test": {"accuracy": value}, "validation": {"accuracy": value}}
                kept = round(1000 * 0.8**level)
                runs.append(Run(arm_name, level, seed, kept, 1000, 1010, metrics))
    if spoil:
        runs = [spoil(run) for run in runs]
    return Results({}, "accuracy", higher, margin, runs)


def test_levels_are_a_fixed_sequence_from_dense_upward():
    found = judge_levels(results({0: {"dense": DENSE}, 1: GOOD, 3: GOOD, 2: BAD, 4: BAD}))
    assert [v.level for v in found] == [1, 2, 3, 4]
    assert [v.sparsity for v in found] == pytest.approx([0.2, 0.36, 0.488, 0.59])
    assert [v.name for v in found] == ["WINNING", "FAIL", "INCONCLUSIVE", "FAIL"]
    assert [v.claimed for v in found] == [True, False, False, False]
    assert found[2].verdict.name is Outcome.WINNING
    assert found[2].verdict.p_noninferior <= 0.05
    assert found[2].note == found[3].note == "sequence stopped at level 2"
    json.dumps([v.to_json() for v in found], allow_nan=False)


def test_levels_survive_the_round_trip_of_results():
    plain = results({0: {"dense": DENSE}, 1: GOOD})
    back = Results.from_json(json.loads(json.dumps(plain.to_json())))
    assert judge_levels(back) == judge_levels(plain)


def test_levels_pick_the_random_mask_on_validation():
    def spoil(run):
        shown = 80.0 if run.arm == "random-global" else 90.0
        return Run(**{**vars(run), "metrics": {**run.metrics, "validation": {"accuracy": shown}}})

    (found,) = judge_levels(
        results({0: {"dense": DENSE}, 1: {**GOOD, "random-global": TICKET}}, spoil=spoil)
    )
    assert found.verdict.rivals == ("random-erk",)
    assert found.name is Outcome.WINNING


@pytest.mark.parametrize("as_error", [True, False])
def test_a_diverged_or_failed_run_is_seen(as_error):
    def spoil(run):
        if run.arm != "ticket" or run.seed != 1:
            return run
        more = {"flags": ("diverged",)}
        if as_error:
            more |= {"metrics": {}, "error": "diverged at step 7"}
        return Run(**{**vars(run), **more})

    (found,) = judge_levels(results({0: {"dense": DENSE}, 1: GOOD}, spoil=spoil))
    assert found.name is Outcome.INCONCLUSIVE
    assert "ticket diverged: seed 1" in found.verdict.flags


def test_a_failed_run_is_missing_and_flags_are_carried():
    def spoil(run):
        if run.arm == "ticket" and run.seed == 1:
            return Run(**{**vars(run), "metrics": {}, "error": "disk full"})
        if run.arm == "reinit" and run.seed < 2:
            return Run(**{**vars(run), "flags": ("constant",)})
        return run

    (found,) = judge_levels(results({0: {"dense": DENSE}, 1: GOOD}, spoil=spoil))
    assert found.verdict.against.n == (4, 4)
    assert "ticket failed: seed 1" in found.verdict.flags
    assert "reinit constant: seed 0, 1" in found.verdict.flags


def test_the_sequence_keeps_false_claims_rare():
    # Ten levels, each truly worse by just the margin. Some level passes its own test in far
    # more than 5 % of studies; a claim must not.
    rng = np.random.default_rng(4)
    studies, any_match, any_claim = 300, 0, 0
    for _ in range(studies):
        levels = {0: {"dense": dict(enumerate(rng.normal(0, 1, 5)))}}
        for level in range(1, 11):
            levels[level] = {"ticket": dict(enumerate(rng.normal(-1.5, 1, 5)))}
        found = judge_levels(results(levels, margin=1.5))
        any_match += any(v.verdict.matches for v in found)
        any_claim += any(v.claimed for v in found)
    assert stats.binomtest(any_claim, studies, 0.05, alternative="greater").pvalue > 0.001
    assert any_match > 2 * any_claim


def test_the_sentence_of_a_level_claims_no_more_than_its_name():
    bad = {"dense": DENSE}, {"ticket": {s: v - 9 for s, v in DENSE.items()}}
    first, later = judge_levels(results({0: bad[0], 1: bad[1], 2: GOOD}))
    assert first.sentence.startswith("FAIL: ")
    assert later.verdict.matches
    assert later.name is Outcome.INCONCLUSIVE
    assert str(later).partition("sparsity: ")[2].startswith("INCONCLUSIVE: ")
    assert later.note
    assert later.sentence.endswith(later.note)
    assert later.to_json()["sentence"] == later.sentence
