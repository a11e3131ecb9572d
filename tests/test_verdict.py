"""Every verdict is reached for its reason, errs at most as often as it says, and is never NaN."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lth_zoo.errors import BadInput
from lth_zoo.trials.verdict import Outcome, field_rules, judge

NOISE = (0.1, -0.1, 0.0, 0.05, -0.05)
OTHER = (-0.02, 0.06, 0.03, -0.04, -0.03)


def arm(mean, noise=NOISE):
    return {seed: mean + e for seed, e in enumerate(noise)}


DENSE, TICKET = arm(98.0), arm(98.0, OTHER)
BEATEN = {"shuffle": arm(96.0), "reinit": arm(96.5), "random-erk": arm(95.0)}


def name(ticket=TICKET, controls=(), **more):
    return judge(DENSE, ticket, dict(controls), margin=0.3, **more).name


@pytest.mark.parametrize("paired", [True, False])
def test_every_outcome(paired):
    more = {"paired": paired}
    assert name(**more) is Outcome.MATCHING
    assert name(controls=BEATEN, **more) is Outcome.WINNING
    assert name(controls={**BEATEN, "reinit": TICKET}, **more) is Outcome.INIT_FREE
    assert name(controls={**BEATEN, "shuffle": TICKET}, **more) is Outcome.LAYERWISE_ONLY
    assert name(ticket=arm(97.0, OTHER), controls=BEATEN, **more) is Outcome.FAIL
    wide = judge(DENSE, arm(97.9, (1.0, -1.0, 0.5, -0.5, 0.0)), BEATEN, margin=0.3, **more)
    assert wide.name is Outcome.INCONCLUSIVE
    assert f"p={wide.p_noninferior:.3f}" in wide.sentence


@pytest.mark.parametrize("left_out", ["shuffle", "reinit", "random-erk"])
def test_winning_needs_each_control_run_and_beaten(left_out):
    others = {k: v for k, v in BEATEN.items() if k != left_out}
    found = judge(DENSE, TICKET, others, margin=0.3)
    assert found.name is Outcome.MATCHING
    assert "not run, so it cannot be WINNING" in found.sentence
    wide = arm(97.5, (2.0, -2.0, 1.0, -1.0, 0.0))
    unsure = judge(DENSE, TICKET, {**others, left_out: wide}, margin=0.3)
    assert unsure.name is Outcome.MATCHING
    assert f"neither shown: {left_out}" in unsure.notes


def test_the_least_flattering_name_wins_and_both_are_noted():
    both = judge(DENSE, TICKET, {**BEATEN, "shuffle": TICKET, "reinit": TICKET}, margin=0.3)
    assert both.name is Outcome.LAYERWISE_ONLY
    assert "as good as the ticket: shuffle, reinit" in both.notes
    # Surely beaten, but by less than the margin: the ticket's own allowance.
    near = judge(DENSE, TICKET, {**BEATEN, "shuffle": arm(97.9, OTHER)}, margin=0.3)
    assert near.controls[0].better
    assert near.controls[0].as_good
    assert near.name is Outcome.LAYERWISE_ONLY


def test_a_small_sure_loss_within_the_margin_matches():
    found = judge(DENSE, arm(97.9), margin=0.3)
    assert found.against.p_worse <= 0.05
    assert found.name is Outcome.MATCHING


def test_the_best_random_mask_is_picked_on_validation_not_on_test():
    # On test random-global is as good as the ticket, but validation prefers random-erk.
    controls = {**BEATEN, "random-global": TICKET}
    validation = {"random-erk": arm(90.0), "random-global": arm(80.0)}
    picked = judge(DENSE, TICKET, controls, margin=0.3, validation=validation)
    assert picked.rivals == ("random-erk",)
    assert picked.name is Outcome.WINNING
    lower = judge(
        DENSE, TICKET, controls, margin=0.3, validation=validation, higher_is_better=False
    )
    assert lower.rivals == ("random-global",)
    all_of_them = judge(DENSE, TICKET, controls, margin=0.3)
    assert set(all_of_them.rivals) == {"random-erk", "random-global"}
    assert all_of_them.name is Outcome.MATCHING
    assert "all must be beaten" in all_of_them.sentence


def test_other_controls_are_reported_but_do_not_decide():
    found = judge(DENSE, TICKET, {**BEATEN, "inverted": TICKET, "mine": TICKET}, margin=0.3)
    assert found.name is Outcome.WINNING
    assert [c.name for c in found.controls if c.as_good] == ["inverted", "mine"]


def test_numbers_equal_scipy_and_the_sentence_says_them():
    found = judge(DENSE, arm(98.1, OTHER), margin=0.3)
    gaps = [t - d for t, d in zip(arm(98.1, OTHER).values(), DENSE.values(), strict=True)]
    theirs = stats.ttest_1samp(gaps, -0.3, alternative="greater")
    assert found.p_noninferior == pytest.approx(theirs.pvalue, rel=1e-6)
    low, high = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert found.against.interval == pytest.approx((low, high))
    assert theirs.pvalue < 0.001
    assert found.sentence.startswith(
        "MATCHING: ticket 98.10 ± 0.04 (n=5) against dense 98.00 ± 0.08 (n=5); "
        f"difference +0.10 [{low:+.2f}, {high:+.2f}], margin 0.30, p<0.001"
    )


def test_inconclusive_says_how_many_seeds():
    noisy = arm(98.0, (0.5, -0.6, 0.1, 0.4, -0.4))
    found = judge(DENSE, noisy, margin=0.3)
    assert found.name is Outcome.INCONCLUSIVE
    assert found.power < 0.8
    assert f"{found.seeds_needed} seeds an arm would decide" in found.sentence
    assert judge(DENSE, noisy, margin=0.01).seeds_needed is None
    assert "more than 200 seeds" in judge(DENSE, noisy, margin=0.01).sentence


def test_inconclusive_with_enough_seeds_says_so():
    se = judge(DENSE, TICKET, margin=1).against.se
    # Half-way to a margin of four standard errors: neither end can be told apart.
    found = judge(DENSE, arm(98.0 - 2 * se, OTHER), margin=4 * se)
    assert found.name is Outcome.INCONCLUSIVE
    assert found.seeds_needed <= 5
    assert f"would have matched in {found.power:.0%} of such studies" in found.sentence


def test_a_diverged_ticket_cannot_match():
    for bad in (math.nan, math.inf, -math.inf, 1e200):
        found = judge(DENSE, {**TICKET, 4: bad}, BEATEN, margin=0.3)
        assert found.p_noninferior <= 0.05
        assert not found.matches
        assert found.name is Outcome.INCONCLUSIVE
        assert "ticket diverged: seed 4" in found.flags
        assert found.field_rules.within_one_dense_sd is False
    gone = judge(DENSE, dict.fromkeys(range(5), math.nan), margin=0.3)
    assert gone.name is Outcome.FAIL
    assert gone.against.p_worse == pytest.approx(1 / math.comb(10, 5))


def test_a_diverged_control_is_beaten_not_as_good():
    found = judge(DENSE, TICKET, {**BEATEN, "shuffle": {**TICKET, 0: math.nan}}, margin=0.3)
    shuffle = found.controls[0]
    assert shuffle.p_as_good <= 0.05
    assert not shuffle.as_good
    gone = {**BEATEN, "shuffle": dict.fromkeys(range(5), math.nan)}
    assert judge(DENSE, TICKET, gone, margin=0.3).name is Outcome.WINNING


def test_zero_variance_is_decided_by_the_difference():
    flat = arm(0.7, (0.0,) * 5)
    for ticket, expected, p in [(0.7, "MATCHING", 0), (0.6, "FAIL", 1), (0.65, "MATCHING", 0)]:
        for paired in (True, False):
            found = judge(flat, arm(ticket, (0.0,) * 5), margin=0.1, paired=paired)
            assert found.name == expected
            assert found.p_noninferior == p
            assert any("zero variance" in flag for flag in found.flags)
    same = judge(DENSE, TICKET, {"reinit": TICKET, "mine": {0: 98.0}}, margin=0.3)
    assert "reinit: zero variance, decided by the difference itself" in same.flags
    assert "mine: fewer than two usable runs an arm" in same.flags
    # Rounding noise of the subtraction is no variance: a constant gap of exactly the margin.
    constant = judge(DENSE, {s: v - 0.3 for s, v in DENSE.items()}, margin=0.3)
    assert constant.against.se == 0
    assert constant.name is Outcome.FAIL


def test_paired_uses_the_common_seeds_and_says_so():
    found = judge(DENSE, {s: v for s, v in TICKET.items() if s != 2} | {7: 0.0}, margin=0.3)
    assert found.against.n == (4, 4)
    assert found.name is Outcome.MATCHING
    assert "paired on 4 common seeds of 5 dense, 5 ticket" in found.flags
    apart = judge(DENSE, {s + 9: v for s, v in TICKET.items()}, margin=0.3)
    assert apart.name is Outcome.INCONCLUSIVE
    assert judge(DENSE, {s + 9: v for s, v in TICKET.items()}, margin=0.3, paired=False).matches


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("n", [0, 1])
def test_too_few_runs_decide_nothing(n, paired):
    few = dict.fromkeys(range(n), 98.0)
    for dense, ticket in ((few, few), (DENSE, few), (few, TICKET)):
        found = judge(dense, ticket, margin=0.3, paired=paired)
        assert found.name is Outcome.INCONCLUSIVE
        assert found.p_noninferior == 1
        assert "fewer than two usable runs an arm" in found.sentence


@pytest.mark.parametrize(
    "bad", [{"margin": 0}, {"margin": -1}, {"margin": math.nan}, {"alpha": 0.9}]
)
def test_bad_input_is_named(bad):
    (key,) = bad
    with pytest.raises(BadInput, match=key):
        judge(DENSE, TICKET, **{"margin": 0.3, **bad})


def test_field_rules():
    dense = {0: 1.0, 1: 2.0, 2: 3.0}
    assert field_rules(dense, {0: 1.0}) == field_rules(dense, {0: 3.0}, higher_is_better=False)
    rules = field_rules(dense, {0: 1.0})
    assert (rules.within_one_dense_sd, rules.at_least_dense) == (True, False)
    assert field_rules(dense, {0: 0.99}).within_one_dense_sd is False
    assert field_rules({0: 1.0}, {0: 1.0}).within_one_dense_sd is None


@pytest.mark.parametrize("paired", [True, False])
def test_the_size_is_at_most_alpha_at_a_gap_of_the_margin(paired):
    rng = np.random.default_rng(2)
    draws, hits = 2000, 0
    for _ in range(draws):
        a, b = rng.normal(0, 1, 5), rng.normal(-1.5, 1, 5)
        found = judge(dict(enumerate(a)), dict(enumerate(b)), margin=1.5, paired=paired)
        hits += found.name is Outcome.MATCHING
    assert stats.binomtest(hits, draws, 0.05, alternative="greater").pvalue > 0.001
    assert hits > 0.03 * draws  # a test that never passes anything would pass the line above


def test_the_one_sd_rule_passes_a_worse_ticket_half_of_the_time():
    rng = np.random.default_rng(3)
    dense, worse = rng.normal(0, 1, (4000, 5)), rng.normal(-1, 1, (4000, 5))
    rules = [
        field_rules(dict(enumerate(d)), dict(enumerate(t)))
        for d, t in zip(dense, worse, strict=True)
    ]
    assert np.mean([r.within_one_dense_sd for r in rules]) == pytest.approx(0.46, abs=0.03)


# Multiples of 1/8, so that adding or negating them is exact.
eighths = st.integers(-80, 80).map(lambda k: k / 8)
arms = st.dictionaries(st.integers(0, 5), eighths, max_size=6)
controls = st.dictionaries(
    st.sampled_from(["shuffle", "reinit", "random-erk", "random-global", "mine"]), arms, max_size=5
)


def strip(found):
    """What must not change: the name, what is said of each control, the rivals, the rules."""
    ps = [(c.name, c.better, c.as_good) for c in found.controls]
    return found.name, ps, found.rivals, found.field_rules.at_least_dense


@settings(deadline=None, max_examples=150)
@given(arms, arms, controls, st.integers(-1000, 1000), st.booleans())
def test_a_constant_added_to_all_changes_nothing(dense, ticket, others, shift, paired):
    def moved(values):
        return {seed: value + shift for seed, value in values.items()}

    before = judge(dense, ticket, others, margin=1.0, paired=paired)
    after = judge(
        moved(dense),
        moved(ticket),
        {k: moved(v) for k, v in others.items()},
        margin=1.0,
        paired=paired,
    )
    assert after.p_noninferior == pytest.approx(before.p_noninferior, rel=1e-6, abs=1e-9)
    assert strip(after)[:3] == strip(before)[:3]


@settings(deadline=None, max_examples=150)
@given(arms, arms, controls, st.booleans())
def test_the_sign_of_the_metric_changes_nothing(dense, ticket, others, paired):
    def flipped(values):
        return {seed: -value for seed, value in values.items()}

    up = judge(dense, ticket, others, margin=1.0, paired=paired)
    down = judge(
        flipped(dense),
        flipped(ticket),
        {k: flipped(v) for k, v in others.items()},
        margin=1.0,
        paired=paired,
        higher_is_better=False,
    )
    assert down.p_noninferior == pytest.approx(up.p_noninferior, rel=1e-9)
    assert strip(down) == strip(up)


wild = st.dictionaries(
    st.integers(0, 4),
    st.one_of(
        st.sampled_from([0.0, 0.5, 98.0, 1e-300, 1e99, math.nan, math.inf, -math.inf]),
        st.floats(allow_nan=True, allow_infinity=True),
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=300)
@given(wild, wild, wild, st.booleans(), st.booleans())
def test_nothing_is_ever_nan(dense, ticket, control, paired, higher):
    found = judge(
        dense, ticket, {"shuffle": control}, margin=0.5, paired=paired, higher_is_better=higher
    )
    back = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert back["name"] == found.name
    ps = [found.p_noninferior, found.against.p_worse, found.against.p_better]
    ps += [p for c in found.controls for p in (c.p_as_good, c.against.p_better)]
    assert all(0 <= p <= 1 for p in ps)
    assert found.power is None or 0 <= found.power <= 1
