"""The study of robustness: what it lays out, known answers, and what it refuses."""

from __future__ import annotations

import pytest
from toys import HERE, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, SET, OneShot
from lth_zoo.jobs import Job
from lth_zoo.store import Store
from lth_zoo.studies.base import Measured
from lth_zoo.studies.robustness import MATCHED, ONE_SHOT, RANDOM, STOPPED, Robustness
from lth_zoo.terms import Yardstick

BY = Yardstick("accuracy", higher_is_better=True, margin=1.0)
SMALL = {"steps": 3, "restarts": 2, "examples": 60}


def test_arms_are_the_recipes_own_networks_and_one_shot_keeps_as_much():
    recipe = tiny_recipe(finder=IMP(rate=0.3), sparsity=0.6)
    probes = Robustness(stops=(0.5,)).lay_out(recipe, None)
    jobs = {(p.of["arm"], p.of.get("level"), p.of["what"]): p.job for p in probes}
    own = {arm.name: arm.goal for arm in experiment(recipe).arms}
    assert jobs["dense", None, "training"] == own["dense"]
    assert jobs["ticket", 3, "training"] == own["ticket"]
    once = experiment(tiny_recipe(finder=OneShot(), sparsity=0.6)).tickets()[0].goal
    assert jobs[ONE_SHOT, 3, "training"] == once
    assert jobs[STOPPED, None, "training"].config["end"] == 6
    assert jobs["dense", None, "attack"].config["eps"] == [0.05, 0.1, 0.2, 0.3]
    assert jobs["ticket", 3, "to"].inputs == {
        "state-from": own["dense"],
        "state-to": own["ticket"],
    }
    masked = jobs[RANDOM, 3, "training"]
    assert masked.inputs["start"] == own["ticket"].inputs["start"]
    assert masked.config["keep"] == "weights"


def test_what_is_pruned_at_once_is_trained_also_beside_a_ticket_that_is_not():
    recipe = tiny_recipe(finder=SET(every="2"), sparsity=0.6)
    jobs = {p.of["arm"]: p.job for p in Robustness().lay_out(recipe, None) if "level" in p.of}
    train = jobs[ONE_SHOT].inputs["state-from"]
    assert (train.config["begin"], train.config["end"]) == (0, recipe.training.iterations)


def test_a_network_against_itself_is_fooled_by_its_own_attacks(tmp_path):
    recipe = tiny_recipe(sparsity=0.5, training={"iterations": 60})
    store = Store(tmp_path)
    probes = Robustness(eps=(0.1, 1.0), stops=(0.5,), **SMALL).lay_out(recipe, None)
    jobs = {(p.of["arm"], p.of["what"]): p.job for p in probes}
    attack, back = jobs["dense", "attack"], jobs["ticket", "to"]
    twin = Job(
        "attack-transfer", back.config, dict.fromkeys(back.inputs, back.inputs["state-from"])
    )
    assert not run([attack, twin], store, HERE).failed
    rows = store.entry(twin).json()["eps"]
    assert [row["own"] for row in rows] == [row["other"] for row in rows]
    found = store.entry(attack).json()
    small, large = found["eps"]
    assert found["clean"] >= small["noise"] > small["fgsm"] >= small["pgd"]
    assert large["pgd"] < 5
    assert 0 < found["distance"] < 0.5
    assert found["examples"] == 60


def measured(arm, seed, clean, distance, validation, **of):
    eps = [{"eps": 0.1, "noise": clean, "fgsm": clean - 10, "pgd": clean - 20}]
    result = {"clean": clean, "distance": distance, "still": 0.0, "eps": eps}
    result["corruptions"] = {"blur": [clean, clean - 3, clean - 6]}
    at = {"arm": arm, "seed": seed, **of}
    trained = {"metrics": {"validation": {"accuracy": validation}}, "masks": {"w": [1, 4]}}
    return [
        Measured(at | {"what": "training"}, trained, None),
        Measured(at | {"what": "attack"}, result, None),
    ]


def test_the_match_is_the_nearest_on_validation_and_words_have_intervals():
    found = []
    for seed, shift in enumerate((0.0, 0.002, 0.001)):
        found += measured("dense", seed, 98, 0.10, 98)
        found += measured(STOPPED, seed, 90, 0.05, 91, stop=10)
        found += measured(STOPPED, seed, 94, 0.07, 93, stop=50)
        found += measured("ticket", seed, 92, 0.06 + shift, 92.5, level=2)
    answer = Robustness().answer(tiny_recipe(), BY, found)
    rows = {row["arm"]: row for row in answer.data["rows"]}
    assert rows[MATCHED]["values"]["distance"] == {0: 0.07, 1: 0.07, 2: 0.07}
    assert rows["dense"]["difference"]["distance"] == pytest.approx(-0.039)
    assert rows["dense"]["values"]["corrupted"] == {0: 95.0, 1: 95.0, 2: 95.0}
    # sd 0.001, t(2) = 4.303: 0.0025 each way.
    assert answer.findings[0] == (
        "Level 2 (25 % kept): the ticket is easier to attack than dense: median smallest attack "
        "-0.0390 [-0.0415, -0.0365], accuracy under PGD of 0.1 -6.0 [-6.0, -6.0], corrupted "
        "-6.0 [-6.0, -6.0], clean -6.0 [-6.0, -6.0] (paired, n = 3; verdict on the first, Holm "
        "over 2)."
    )
    assert answer.findings[-1].startswith("Sanity: PGD fools at least as many as FGSM in 12 of 12")


def test_what_cannot_be_is_said_before_anything_runs():
    with pytest.raises(BadInput, match=r"eps holds 2\.0"):
        Robustness(eps=(2.0,))
    with pytest.raises(BadInput, match="restarts is 0"):
        Robustness(restarts=0)
    with pytest.raises(BadInput, match="loss 'hinge'"):
        Robustness(loss="hinge")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="'reinit', which is no other mask"):
        Robustness(random="reinit")
    with pytest.raises(BadInput, match=r"attacks images that are classified.*'karate'"):
        Robustness().lay_out(tiny_recipe(model="gcn-4", task="karate"), None)
    with pytest.raises(BadInput, match=r"attacks images that are classified.*'generation/digits'"):
        Robustness().lay_out(tiny_recipe(model="vae-8x0.1", task="generation/digits"), None)
