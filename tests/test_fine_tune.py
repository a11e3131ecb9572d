"""Fine-tuning and learning-rate rewinding: trained weights are kept, rates are what they say."""

from __future__ import annotations

import json

import pytest
from toys import HERE, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment, lay_out
from lth_zoo.finders import IMP, LRR, FineTune
from lth_zoo.session import LOG
from lth_zoo.store import Store

STEPS = {"learning_rate": 0.01, "schedule": "step", "milestones": (6,)}


def rates(store, level):
    rows = store.entry(level.train).read(LOG).decode().splitlines()
    return [json.loads(row)["learning_rate"] for row in rows]


def levels_of(finder, folder):
    recipe = tiny_recipe(finder=finder, sparsity=0.75, training=STEPS)
    store, laid = Store(folder), experiment(recipe)
    assert run(laid.goals, store, HERE).failed == {}
    return store, [arm.level for arm in laid.arms]


def test_fine_tuning_goes_on_from_the_level_before_at_a_tenth_of_the_rate(tmp_path):
    store, (dense, first, second) = levels_of(FineTune(rate=0.5, rewind="none=6"), tmp_path)
    assert rates(store, dense) == [0.01, 0.001]
    assert rates(store, first) == rates(store, second) == [0.001]  # a tenth of 0.01, constant
    assert first.start == dense.train
    assert second.start == first.train
    assert [first.train.config[k] for k in ("begin", "end")] == [12, 18]


def test_learning_rate_rewinding_repeats_the_schedule_from_the_level_before(tmp_path):
    store, (dense, first, second) = levels_of(LRR(rate=0.5), tmp_path)
    assert rates(store, first) == rates(store, second) == rates(store, dense) == [0.01, 0.001]
    assert first.start == dense.train
    assert second.start == first.train


def test_it_shares_every_job_with_imp():
    def keys(finder):
        return {job.key for job in lay_out(tiny_recipe(finder=finder), "data").jobs}

    assert keys(LRR()) == keys(IMP(rewind="learning-rate"))
    # At the whole rate, and this recipe's is constant, fine-tuning is IMP that rewinds nothing.
    assert keys(FineTune(learning_rate_factor=1)) == keys(IMP(rewind="none"))
    # Dense and the first mask do not depend on how survivors are trained.
    assert len(keys(FineTune()) & keys(IMP())) == 3


@pytest.mark.parametrize(
    ("finder", "values", "message"),
    [
        (LRR, {"rewind": "init"}, "choose learning-rate"),
        (FineTune, {"rewind": "learning-rate"}, "finder lrr"),
        (FineTune, {"learning_rate_factor": 0}, "is 0; it must be above 0 and at most 1"),
    ],
)
def test_what_they_are_not_is_refused(finder, values, message):
    with pytest.raises(BadInput, match=message):
        finder(**values)
