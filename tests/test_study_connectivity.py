"""Connectivity: lines and barriers worked out by hand, and noise streams that change alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import HERE, INPUTS, Blobs, mlp, same, tiny_recipe

from lth_zoo import jobs, kinds
from lth_zoo.chain import Chain
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.probes.line import along, barrier, between, settling, spaced
from lth_zoo.seeds import reordered
from lth_zoo.session import read_state
from lth_zoo.store import Store
from lth_zoo.studies.base import Measured
from lth_zoo.studies.connectivity import Connectivity
from lth_zoo.studies.connectivity_words import row_of, said
from lth_zoo.studies.shared import points_of


def errors(model: nn.Module, a: Any, b: Any, task: Any, alphas: int = 5) -> list[float]:
    rows = along(model, (a, b), spaced(alphas), task)
    return [100 - row["accuracy"] for row in rows]


def fitted() -> tuple[nn.Sequential, Blobs]:
    """A small network that has learned the clouds."""
    model, task = mlp(nn.ReLU()), Blobs()
    batch, optimizer = task.batch("train", torch.arange(40)), torch.optim.Adam(model.parameters())
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(model, batch, torch.Generator()).backward()
        optimizer.step()
    return model, task


# -- the line -----------------------------------------------------------------------------------


def test_identical_networks_have_no_barrier():
    model, task = fitted()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    found = errors(model, state, state, task, alphas=7)
    assert len(set(found)) == 1
    assert barrier(found) == 0


class Signs(Blobs):
    """Two classes, named 1 and 2, by the sign of the one input; nothing is of class 0."""

    def batch(self, split: str, indices: Tensor, rng: Any = None) -> Any:
        inputs = torch.tensor([[-1.0], [1.0]])
        return inputs, torch.tensor([1, 2])

    def size(self, split: str) -> int:
        return 2


def test_a_pair_by_hand_has_a_barrier_of_all_points():
    # Both networks answer x -> (0, -x, x) and are always right: one by weights 1 and (0, -1, 1),
    # the other by -1 and (0, 1, -1). Half way every weight is 0, and so is every answer: class 0.
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 3, bias=False))
    a = {"0.weight": torch.tensor([[1.0]]), "1.weight": torch.tensor([[0.0], [-1.0], [1.0]])}
    b = {name: -tensor for name, tensor in a.items()}
    assert errors(model, a, b, Signs()) == [0, 0, 100, 0, 0]
    assert barrier(errors(model, a, b, Signs())) == 100


def test_half_way_to_a_reordered_copy_there_is_a_barrier():
    model, task = fitted()
    a = {n: t.clone() for n, t in model.state_dict().items()}
    order = torch.arange(8).roll(1)
    b = {**a, "0.weight": a["0.weight"][order], "0.bias": a["0.bias"][order]}
    b["2.weight"] = a["2.weight"][:, order]
    found = errors(model, a, b, task)
    assert found[0] == found[-1]
    assert barrier(found) > 5
    half = between(a, b, 0.5)
    assert torch.allclose(half["0.bias"], (a["0.bias"] + a["0.bias"][order]) / 2)


def test_a_barrier_is_over_the_mean_of_the_ends_and_counts_are_no_numbers_to_mix():
    assert barrier([10.0, 30.0, 20.0]) == 15
    assert barrier([10.0, 12.0, 20.0]) == 5  # half of what the ends differ by
    a, b = ({"n": torch.tensor(k), "w": torch.tensor([float(k)])} for k in (3, 7))
    found = between(a, b, 0.25)
    assert found["n"] == 3
    assert found["w"] == 4


def test_running_statistics_are_those_of_the_weights_at_each_point():
    torch.manual_seed(0)
    model, task = mlp(nn.BatchNorm1d(8), nn.ReLU()), Blobs()
    a = {n: t.clone() for n, t in model.state_dict().items()}
    prepare = settling(task, {"seed": 0, "batches": 3, "batch_size": 20})
    list(along(model, (a, a), [0.0], task, "validation", prepare))
    hidden = model[0](task.points[:40]).detach()
    assert torch.allclose(model[1].running_mean, hidden.mean(0), atol=0.2)
    assert not torch.allclose(model[1].running_mean, a["1.running_mean"])
    list(along(model, (a, a), [0.5], task))
    assert model[1].running_mean.equal(a["1.running_mean"])


# -- noise streams ------------------------------------------------------------------------------


def test_an_order_draws_other_batches_and_leaves_keys_and_starts_alone(tmp_path):
    chain = Chain(tiny_recipe(), 0, "data")
    plain = chain.train(chain.initial())
    assert "order" not in plain.config
    assert chain.train(chain.initial(), order=1).key != plain.key
    assert reordered(5, 0) == 5
    assert len({reordered(5, order) for order in range(4)}) == 4

    study, store = Connectivity(points=("init",), alphas=3, orders=3), Store(tmp_path)
    probes = study.lay_out(tiny_recipe(sparsity=0.5), None)
    assert not run([probe.job for probe in probes], store, HERE).failed
    lines = [p.job for p in probes if p.of["what"] == "noise" and p.of["to"] == 0]
    assert [p.of["pair"] for p in probes if p.job in lines] == [(0, 1), (0, 2), (1, 2)]
    trained = {job.key: job for line in lines for job in line.inputs.values()}
    assert len(trained) == 3
    assert len({job.inputs["start"].key for job in trained.values()}) == 1
    states = [read_state(store.entry(job)).state for job in trained.values()]
    assert not any(same(states[0], other) for other in states[1:])


def test_tickets_of_every_copy_keep_their_mask_and_levels_are_compared(tmp_path):
    study = Connectivity(points=("init", "50%"), alphas=3, levels=(2,))
    probes = study.lay_out(tiny_recipe(sparsity=0.7), None)
    points = {p.of["point"] for p in probes}
    assert points == {0, 6}
    across = [(p.of["from"], p.of["to"]) for p in probes if p.of["what"] == "levels"]
    assert across == [(0, 2), (1, 2)] * 2
    noise = [p.job for p in probes if p.of["what"] == "noise" and p.of["to"] == 2]
    for line in noise:
        first, second = line.inputs.values()
        assert first.inputs["masks"].key == second.inputs["masks"].key
        assert (first.config.get("order"), second.config["order"]) == (None, 1)
    late = noise[1].inputs["state-0"]
    assert (late.config["begin"], late.config["fresh_optimizer"]) == (6, False)


def test_a_line_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    study = Connectivity(points=("init",), alphas=5, across=False)
    (line,) = (p.job for p in study.lay_out(tiny_recipe(sparsity=0), None) if "pair" in p.of)
    whole, broken = Store(tmp_path / "a"), Store(tmp_path / "b")
    assert not run([line], whole, HERE).failed
    often = type(HERE)(checkpoint_seconds=0)
    from lth_zoo.session import Session

    plain, count = Session.checkpoint, []

    def stops(self: Session, snapshot: Any) -> None:
        plain(self, snapshot)
        if "rows" in snapshot.extra and self.job.kind == "line":
            count.append(len(snapshot.extra["rows"]))
            if len(count) == 2:
                raise BadInput("stopped here")

    monkeypatch.setattr(Session, "checkpoint", stops)
    assert run([line], broken, often).failed
    assert not run([line], broken, often).failed
    assert count == [1, 2, 3, 4, 5]
    assert broken.entry(line).json() == whole.entry(line).json()


# -- words --------------------------------------------------------------------------------------


def measured(seed: int, errors: list[float], **of: Any) -> Measured:
    rows = [{"alpha": a, "accuracy": 100 - e} for a, e in zip((0, 0.5, 1), errors, strict=True)]
    return Measured({"seed": seed, **of}, {"rows": rows}, None)  # type: ignore[arg-type]


def test_verdicts_rest_on_seeds_and_pairs_of_a_seed_are_averaged_first():
    # Barriers of seed 0: 10 and 12, so 11; of seed 1: 9. Their mean is 10.
    lines = [measured(0, [2, 12, 2]), measured(0, [2, 14, 2]), measured(1, [4, 12, 2])]
    row = row_of(lines, 2.0)
    assert row["barriers"] == {0: 11, 1: 9}
    assert row["ends"] == {0: 2, 1: 3}
    assert row["line"][1][1] == 12.5
    # t interval: mean 10, sd sqrt 2, se 1, t of one degree at 97.5 % is 12.706
    assert row["interval"] == pytest.approx((10 - 12.706, 10 + 12.706), abs=1e-2)
    assert row["verdict"] == "undecided"  # p of (10 - 2) / 1 with 1 degree: 0.04 one-sided
    flat = [measured(seed, [2, 2.1 + seed / 100, 2]) for seed in range(5)]
    assert row_of(flat, 2.0)["verdict"] == "stable"
    high = [measured(seed, [2, 20.0 + seed, 2]) for seed in range(5)]
    assert row_of(high, 2.0)["verdict"] == "unstable"
    one = {"point": 0, "what": "noise", "from": 0, "to": 0, **row_of(lines[:1], 2.0)}
    assert "one seed decides nothing" in said(one, 2.0)


def test_what_cannot_be_is_said_before_anything_runs():
    with pytest.raises(BadInput, match=r"alphas is 2; it must be at least 3"):
        Connectivity(alphas=2)
    with pytest.raises(BadInput, match=r"norms 'settle'.*settled"):
        Connectivity(norms="settle")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"no pair"):
        Connectivity(orders=1, across=False)
    with pytest.raises(BadInput, match=r"point 'none' is no place"):
        points_of(tiny_recipe(), ["none"])
    with pytest.raises(BadInput, match=r"point '100%'"):
        points_of(tiny_recipe(), ["100%"])
    assert points_of(tiny_recipe(), ["50%", "init", "step=3"]) == {
        "init": 0,
        "step=3": 3,
        "step=6": 6,
    }
    images = tiny_recipe(model="vae-8x0.1", task="generation/digits")
    with pytest.raises(BadInput, match=r"error rate.*choose a classifier"):
        Connectivity().lay_out(images, None)


def test_nothing_of_the_older_jobs_moved():
    assert kinds.kind_of("line")[1] == ("result.json",)
    assert jobs.VERSIONS["train"] == 1
    assert INPUTS == 6
