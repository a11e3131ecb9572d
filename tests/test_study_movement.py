"""The study of criteria: what it lays out, known answers, and what it refuses."""

from __future__ import annotations

import pytest
from toys import HERE, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, LRR, Elastic, FineTune, OneShot
from lth_zoo.formats import load_masks
from lth_zoo.jobs import graph
from lth_zoo.session import MASKS
from lth_zoo.store import Store
from lth_zoo.studies.base import Measured
from lth_zoo.studies.movement import FLOOR, REFERENCE, Movement
from lth_zoo.terms import Yardstick

BY = Yardstick("accuracy", higher_is_better=True, margin=1.0)


def jobs_of(study, recipe):
    return {tuple(p.of.values()): p.job for p in study.lay_out(recipe, None)}


def test_large_final_is_the_recipes_own_ticket_and_shares_its_jobs():
    recipe = tiny_recipe(finder=IMP(rate=0.3), sparsity=0.6)
    own = {arm.goal for arm in experiment(recipe).arms}
    study = Movement(criteria=("movement",), levels=(1, 2, 3))
    jobs = jobs_of(study, recipe)
    found = {
        job for key, job in jobs.items() if key[0] in ("dense", REFERENCE) and key[1] != "one-shot"
    }
    assert found == own
    at_once = tiny_recipe(finder=OneShot(), sparsity=0.6)
    (ticket,) = (arm.goal for arm in experiment(at_once).arms if arm.name == "ticket")
    assert jobs[REFERENCE, "one-shot", 3, 0, "training"] == ticket


@pytest.mark.parametrize("finder", [FineTune(rate=0.3), LRR(rate=0.3)])
def test_the_floor_trains_as_long_and_at_the_rates_of_the_criteria(finder):
    recipe = tiny_recipe(finder=finder, sparsity=0.6)
    jobs = jobs_of(Movement(criteria=("movement",)), recipe)
    for way in ("iterative", "one-shot"):
        one, other = (jobs[arm, way, 3, 0, "training"] for arm in ("movement", "random"))
        assert len([j for j in graph([one]) if j.kind == "train"]) == (
            4 if way == "iterative" else 2
        )
        assert [j.config for j in graph([one]) if j.kind == "train"] == [
            j.config for j in graph([other]) if j.kind == "train"
        ]


def test_a_criterion_that_is_the_reference_has_its_masks_and_its_accuracy(tmp_path):
    recipe, store = tiny_recipe(finder=IMP(rate=0.5), sparsity=0.5), Store(tmp_path)
    study = Movement(criteria=("magnitude", "small_final"), ways=("one-shot",))
    probes = study.lay_out(recipe, None)
    assert not run([p.job for p in probes], store, HERE).failed
    measured = [Measured(p.of, store.entry(p.job).json(), store.entry(p.job)) for p in probes]
    rows = {row["criterion"]: row for row in study.answer(recipe, BY, measured).data["rows"]}
    assert rows["magnitude"]["jaccard"] == [1.0]
    assert rows["magnitude"]["difference"] == 0
    assert rows["small_final"]["jaccard"] == [0.0]  # at half, the others are all that is left
    assert 0.25 < rows[FLOOR]["jaccard"][0] < 0.4  # about a third by chance
    assert abs(rows[FLOOR]["chance"][0] - rows[FLOOR]["jaccard"][0]) < 0.02
    assert rows[REFERENCE]["kept"] == pytest.approx(0.5, abs=1e-3)
    masks = [p.job.inputs["masks-b"] for p in probes if p.of.get("what") == "overlap"]
    for job in masks:
        assert load_masks(store.entry(job).read(MASKS)).density == pytest.approx(0.5, abs=1e-3)


def test_sentences_have_intervals_and_a_correction():
    def trained(arm, seed, accuracy):
        result = {"metrics": {"test": {"accuracy": accuracy}}, "masks": {"w": [5, 10]}}
        of = {"arm": arm, "way": "one-shot", "level": 1, "seed": seed, "what": "training"}
        return Measured(of, result, None)

    values = {REFERENCE: (90, 91, 92), "movement": (80, 81, 82.5), "sanh": (90.5, 90.5, 92.2)}
    measured = [trained(arm, s, v) for arm, vs in values.items() for s, v in enumerate(vs)]
    study = Movement(criteria=("movement", "sanh"), ways=("one-shot",))
    said = study.answer(tiny_recipe(), BY, measured).findings
    # t(2) = 4.303; movement: -10, -10, -9.5, sd 0.2887, so 0.717 each way; sanh: sd 0.5132, 1.275.
    assert said == (
        "Level 1 (50 % kept), one-shot, worse in accuracy: movement -9.83 [-10.55, -9.12] "
        "(paired, n = 3, Holm over 2 criteria).",
        "Level 1 (50 % kept), one-shot, not told apart from it in accuracy: "
        "sanh +0.07 [-1.21, +1.34] (paired, n = 3, Holm over 2 criteria).",
    )


def test_what_cannot_be_is_said_before_anything_runs():
    with pytest.raises(BadInput, match="score 'movment'"):
        Movement(criteria=("movment",))
    with pytest.raises(BadInput, match="ways 'at-once'"):
        Movement(ways=("at-once",))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="at least one"):
        Movement(criteria=(REFERENCE,))
    with pytest.raises(BadInput, match=r"'one-shot' has its own way: take imp"):
        Movement().lay_out(tiny_recipe(finder=OneShot(), sparsity=0.5), None)
    with pytest.raises(BadInput, match=r"'elastic' has its own way: take imp"):
        Movement().lay_out(tiny_recipe(finder=Elastic(), sparsity=0.5), None)
