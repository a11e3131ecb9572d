"""The study of universal tickets: heads by hand, whose networks they are on, and what is said."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import HERE, tiny_recipe

from lth_zoo.adapters.cnn import CNN
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, SET, EdgePopup, FineTune
from lth_zoo.probes.heads import accuracy, features, head_layer, ridge
from lth_zoo.protocols import task_of
from lth_zoo.session import read_state
from lth_zoo.store import Store
from lth_zoo.studies.base import Measured
from lth_zoo.studies.universal import (
    INPUTS,
    RANDOM_DENSE,
    RANDOM_MASK,
    TRAINED_DENSE,
    TRAINED_TICKET,
    Universal,
)
from lth_zoo.terms import Yardstick

BY = Yardstick("accuracy", higher_is_better=True, margin=1.0)


def recipe(**fields):
    return tiny_recipe(**{"sparsity": 0.5, "finder": EdgePopup()} | fields)


# -- heads -----------------------------------------------------------------------------------------


def test_a_head_on_one_feature_by_hand():
    # x = 1, 3: standardised -1, 1. Targets less their mean: -+1/2 and +-1/2. z'z / n = 1 and
    # z'y / n = (-1/2, 1/2), so a strength of 1 halves the weights; sd is 1.
    x, y = torch.tensor([[1.0, 7.0], [3.0, 7.0]]).double(), torch.tensor([0, 1])
    weak, one = ridge(x, y, 2, (1e-12, 1.0))
    assert one[1].tolist() == [[-0.25, 0.25], [0.0, 0.0]]  # the feature that never varies has 0
    assert weak[1][0].tolist() == pytest.approx([-0.5, 0.5])
    assert one[2].tolist() == [0.5, 0.5]
    assert accuracy(one, x, y) == 100
    assert accuracy(one, x, torch.tensor([0, 0])) == 50


def test_ridge_solves_its_normal_equations():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=rng).double()
    y = torch.randint(0, 3, (50,), generator=rng)
    (head,) = ridge(x, y, 3, (0.3,))
    z = (x - x.mean(0)) / x.std(0, unbiased=False)
    targets = nn.functional.one_hot(y, 3).double()
    gram = z.T @ z + 50 * 0.3 * torch.eye(4)
    wanted = torch.linalg.solve(gram, z.T @ (targets - targets.mean(0)))
    assert torch.allclose(head[1] * x.std(0, unbiased=False)[:, None], wanted)


def test_features_are_what_the_last_layer_reads():
    task = task_of("digits")
    model = CNN().build("lenet-300-100x0.1", task.signature).eval()
    layer = head_layer(CNN(), model)
    x, y = features(model, layer, task, "test")
    images, labels = task.batch("test", torch.arange(300))
    head = model.get_submodule(layer)
    assert y.equal(labels)
    assert torch.allclose(head(x.float()), model(images), atol=1e-5)
    pixels, _ = features(nn.Identity(), "", task, "test")
    assert pixels.equal(images.flatten(1).double())


# -- networks --------------------------------------------------------------------------------------


def jobs_of(plain, **settings):
    found = Universal(**settings).lay_out(plain, None)
    return {(p.of["arm"], p.of["target"]): p.job for p in found}


def test_networks_are_the_recipes_own_and_frozen_ones_never_trained(tmp_path):
    plain = recipe()
    jobs = jobs_of(plain, targets=("digits", "digits@loops"))
    assert {arm for arm, _ in jobs} == {
        *("ticket", RANDOM_DENSE, RANDOM_MASK, TRAINED_DENSE, INPUTS)
    }
    state = {arm: job.inputs["state"] for (arm, t), job in jobs.items() if job.inputs and "@" in t}
    one = experiment(plain)
    assert state["ticket"] == one.tickets()[0].goal
    assert state[TRAINED_DENSE] == one.arms[0].goal
    store = Store(tmp_path)
    assert not run(list(jobs.values()), store, HERE).failed
    start = read_state(store.entry(one.tickets()[0].level.start)).state
    ends = {arm: read_state(store.entry(job)).state for arm, job in state.items()}
    for name, weight in start.items():
        assert ends[RANDOM_DENSE][name].equal(weight)
        kept = ends["ticket"][name] != 0
        assert ends["ticket"][name][kept].equal(weight[kept])
    counts = {
        arm: [int((ends[arm][n] != 0).sum()) for n in start if n.endswith("weight")]
        for arm in ("ticket", RANDOM_MASK)
    }
    assert counts["ticket"] == counts[RANDOM_MASK]
    assert any(not ends["ticket"][n].equal(ends[RANDOM_MASK][n]) for n in start)
    # Labels of another question are read off the same features.
    found = {key: store.entry(job).json() for key, job in jobs.items()}
    assert found[INPUTS, "digits@loops"]["features"] == 64
    assert found["ticket", "digits"]["features"] == found["ticket", "digits@loops"]["features"]
    assert found[INPUTS, "digits"]["accuracy"]["test"] > 85


def test_a_ticket_that_trains_is_there_trained_and_frozen():
    plain = recipe(finder=IMP(rate=0.3, rewind="step=4"))
    jobs = jobs_of(plain, targets=("digits",))
    ticket, trained = (jobs[arm, "digits"].inputs["state"] for arm in ("ticket", TRAINED_TICKET))
    assert trained == experiment(plain).tickets()[0].goal
    assert (ticket.config["begin"], ticket.config["end"]) == (4, 4)
    assert ticket.inputs["start"] == trained.inputs["start"]


# -- what is said ----------------------------------------------------------------------------------


def measured(arm, target, values):
    for seed, value in enumerate(values):
        result = {"accuracy": {"test": value}, "features": 4, "constant": 1, "majority": 10.0}
        yield Measured({"arm": arm, "target": target, "seed": seed}, result, None)


def test_differences_are_paired_and_corrected():
    found = [
        *measured("ticket", "a", (90.0, 91.0, 92.0)),
        *measured(RANDOM_MASK, "a", (80.0, 81.1, 81.9)),
        *measured(TRAINED_DENSE, "a", (90.0, 92.0, 91.0)),
    ]
    answer = Universal().answer(recipe(), BY, found)
    rows = {row["arm"]: row for row in answer.data["rows"]}
    # 10, 9.9, 10.1: sd 0.1, t(2) = 4.303, so 0.248 each way.
    assert rows[RANDOM_MASK]["interval"] == pytest.approx((9.752, 10.248), abs=1e-3)
    assert answer.findings == (
        "The frozen ticket against random mask: better on 1, worse on 0 of 1 targets, not told "
        "apart on 0 (paired, n = 3, 5 %, Holm over 2).",
        "The frozen ticket against trained dense: better on 0, worse on 0 of 1 targets, not told "
        "apart on 1 (paired, n = 3, 5 %, Holm over 2).",
        "a: accuracy of the ticket's head 91.00 ± 1.00; less random mask +10.00 [+9.75, +10.25], "
        "trained dense +0.00 [-2.48, +2.48].",
    )


def test_one_seed_claims_nothing():
    found = [*measured("ticket", "a", (90.0,)), *measured(RANDOM_MASK, "a", (80.0,))]
    answer = Universal().answer(recipe(), BY, found)
    assert answer.findings == (
        "a: accuracy of the ticket's head 90.00; less random mask +10.00. One seed: no spread is "
        "known.",
    )


def test_what_cannot_be_is_said_before_anything_runs():
    with pytest.raises(BadInput, match=r"strengths is \(0.0,\)"):
        Universal(strengths=(0.0,))
    with pytest.raises(BadInput, match=r"'karate' is none"):
        Universal().lay_out(tiny_recipe(model="gcn-4", task="karate"), None)
    with pytest.raises(BadInput, match=r"'generation/digits' is none"):
        Universal().lay_out(tiny_recipe(model="vae-8x0.1", task="generation/digits"), None)
    with pytest.raises(BadInput, match=r"'cifar10' has inputs of 3x32x32, and 'digits' of 1x8x8"):
        Universal(targets=("cifar10",)).lay_out(recipe(), None)
    with pytest.raises(BadInput, match=r"classes of 'cifar10' are no numerals"):
        Universal().lay_out(recipe(task="cifar10", model="conv-2x0.1"), None)
    with pytest.raises(BadInput, match="no ticket to look at"):
        Universal().lay_out(recipe(sparsity=0.0), None)
    for finder in (SET(every="2"), FineTune(rate=0.3)):
        with pytest.raises(BadInput, match="are 0 outside of it: they trained under it"):
            Universal().lay_out(tiny_recipe(finder=finder, sparsity=0.6), None)
