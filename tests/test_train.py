"""The training loop: resumable to the bit, undisturbed by who looks on, exact about masks."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from cases import CASES, STEPS, Pair, looped, training_of
from torch import nn
from toys import Blobs, cross_entropy, mlp, pruned_are_zero, same, some_masks

from lth_zoo.errors import Diverged, LthZooError
from lth_zoo.formats import dump_snapshot, load_snapshot
from lth_zoo.hooks import Hook
from lth_zoo.protocols import Objective
from lth_zoo.recipe import Training
from lth_zoo.rewind import clone_state
from lth_zoo.train import Loop


class Keep(Hook):
    """Snapshots after every iteration, as a checkpoint would be taken."""

    def __init__(self):
        self.snapshots = []

    def on_iteration(self, loop):
        self.snapshots.append(loop.snapshot())


def outcome(loop):
    """All that a training leaves behind."""
    metrics = loop.evaluate("test") if not isinstance(loop.model, Pair) else {}
    return loop.snapshot().tensors(), loop.rows, loop.final_state(), metrics


@pytest.mark.parametrize("case", CASES)
def test_resuming_anywhere_ends_as_the_uninterrupted_run(case):
    keep = Keep()
    whole = looped(case, [keep])
    assert pruned_are_zero(whole.model, whole.masks)
    assert [row["iteration"] for row in whole.rows] == [3, 6, 9]
    assert len(keep.snapshots) == STEPS
    for k, snapshot in enumerate(keep.snapshots, 1):
        assert snapshot.iteration == k
        resumed = looped(case, start=load_snapshot(dump_snapshot(snapshot)))
        assert same(outcome(resumed), outcome(whole)), f"resumed at {k}"


class Noisy(Hook):
    """Looks at everything at every occasion, and draws from torch's generator."""

    def __init__(self):
        self.events = []

    def _look(self, event, loop):
        self.events.append(event)
        torch.rand(7)
        with torch.no_grad():
            loop.model.eval()(torch.randn(5, 6))
        loop.model.train()
        loop.evaluate("validation")

    def on_start(self, loop):
        self._look("start", loop)

    def on_step(self, loop):
        self._look("step", loop)

    def on_epoch(self, loop):
        self._look("epoch", loop)

    def on_row(self, loop, row):
        self._look("row", loop)

    def on_iteration(self, loop):
        self._look("iteration", loop)
        loop.snapshot()

    def on_end(self, loop):
        self._look("end", loop)


@pytest.mark.parametrize("case", sorted(set(CASES) - {"two objectives"}))
def test_looking_changes_no_bit(case):
    plain = looped(case, training=training_of(case, evaluate_every=STEPS))
    noisy = Noisy()
    watched = looped(case, [noisy], training=training_of(case, evaluate_every=1))
    assert same(watched.final_state(), plain.final_state())
    assert same(watched.snapshot().tensors(), plain.snapshot().tensors())
    epochs = ["epoch"] * (watched.iteration * watched._drawn // watched._per_epoch)
    counts = {event: noisy.events.count(event) for event in ("start", "step", "row", "end")}
    assert counts == {"start": 1, "step": STEPS, "row": STEPS, "end": 1}
    assert noisy.events.count("epoch") == len(epochs) > 0
    assert noisy.events[:4] == ["start", "step", "row", "iteration"]


def test_global_generators_modes_and_threads_are_as_before():
    settings = torch.get_num_threads, torch.are_deterministic_algorithms_enabled
    states = torch.get_rng_state, random.getstate, lambda: str(np.random.get_state())  # noqa: NPY002
    before = [f() for f in (*settings, *states)]
    looped("own noise", training=training_of("own noise", threads=2, deterministic=True))
    assert same(before, [f() for f in (*settings, *states)])
    with pytest.raises(Diverged):
        looped("sgd", training=training_of("sgd", learning_rate=1e30))
    assert same(before, [f() for f in (*settings, *states)])


def test_dense_ticket_and_every_level_see_the_same_batches():
    seen = []
    for masks, case in ((None, "augmentation"), (True, "augmentation"), (True, "dropout")):
        seen.append(looped(case, masks=masks).task.seen)
    assert seen[0] == seen[1] == seen[2]
    # Epochs are different shuffles of all examples; another seed shuffles otherwise.
    first, second = (torch.tensor(seen[0][i : i + 4]).reshape(-1) for i in (0, 5))
    assert first.unique().numel() == second.unique().numel() == 32
    assert not first.equal(second)
    other = Loop(mlp(), Blobs(), training_of("sgd"), seed=4)
    other.run()
    assert other.task.seen != seen[0]


def test_augmentation_and_dropout_are_paired_too():
    drawn = []

    def spy(model, batch, rng):
        drawn.append((batch[0].clone(), torch.rand(3), torch.rand(3, generator=rng)))
        return cross_entropy(model, batch, rng)

    for masks in (None, some_masks(mlp())):
        Loop(mlp(), Blobs(spy, noise=1.0), training_of("sgd"), seed=0, masks=masks).run()
    assert same(drawn[:STEPS], drawn[STEPS:])
    assert len({str(row) for row in drawn}) == STEPS


@pytest.mark.parametrize(("shared", "batches"), [("second", 2), ("first", 3), ("both", 1)])
def test_objectives_share_or_draw_batches(shared, batches):
    used = []

    class Two(Blobs):
        def objectives(self, model):
            def loss(name):
                def note(model, batch, rng):
                    used.append((name, batch[0][0].tolist()))
                    return cross_entropy(model, batch, rng)

                return note

            kinds = {"second": ("fresh", "shared"), "first": ("shared", "fresh")}
            a, b = kinds.get(shared, ("shared", "shared"))
            return [
                Objective("a", loss("a"), lambda m: m[0].parameters(), 2, a),
                Objective("b", loss("b"), lambda m: m[2].parameters(), 2 if a != b else 1, b),
            ]

    task = Two()
    Loop(mlp(), task, training_of("sgd"), seed=0, end=3).run()
    assert len(task.seen) == 3 * batches
    first = [place for _, place in used[: len(used) // 3]]
    distinct = [first.index(place) for place in first]
    assert distinct == {"second": [0, 1, 1, 1], "first": [0, 0, 2, 3], "both": [0, 0, 0]}[shared]


def test_two_objectives_train_their_own_parameters_under_masks():
    changed = []

    class Watch(Hook):
        def on_gradients(self, loop):
            changed.append([n for n, p in loop.model.named_parameters() if p.grad is not None])

    loop = looped("two objectives", [Watch()])
    judge, maker = changed[0], changed[2]
    assert all(n.startswith("judge") for n in judge)
    assert maker == ["maker.0.weight", "maker.0.bias"]
    assert changed == [judge, judge, maker] * STEPS
    assert pruned_are_zero(loop.model, loop.masks)
    assert any(n.startswith("maker") for n in loop.masks)
    assert all(p.requires_grad for p in loop.model.parameters())


def test_the_average_counts_iterations():
    seen = []

    class Note(Hook):
        def on_iteration(self, loop):
            seen.append(loop.model.judge[0].bias.detach().clone())

    loop = looped("two objectives", [Note()])
    expected = Pair().judge[0].bias.detach()
    for value in seen:
        expected = expected.lerp(value, 1 - 0.8)
    assert loop.average[loop.model.judge[0].bias].equal(expected)
    assert loop.final_state()["judge.0.bias"].equal(expected)


def test_the_average_is_what_is_evaluated():
    loop = looped("average")
    live = clone_state(loop.model)
    metrics, of_live = loop.evaluate("test"), loop.task.evaluate(loop.model, "test")
    assert same(clone_state(loop.model), live)
    loop.model.load_state_dict(loop.final_state())
    assert metrics == loop.task.evaluate(loop.model, "test") != of_live


def test_the_average_reaches_tied_weights():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    loop = Loop(model, Blobs(), training_of("average"), seed=0)
    loop.run()
    state = loop.final_state()
    assert state["0.weight"].equal(loop.average[model[0].weight])
    assert state["2.weight"].equal(state["0.weight"])


def test_masks_may_change_on_the_way():
    first, second = some_masks(mlp(), 0.9), some_masks(mlp(), 0.4, seed=5)

    class Switch(Hook):
        def on_step(self, loop):
            if loop.iteration == 4:
                loop.set_masks(second)
            checks.append(pruned_are_zero(loop.model, loop.masks))

    checks: list[bool] = []
    loop = looped("average", [Switch()], masks=first)
    assert checks == [True] * STEPS
    assert loop.masks == second
    state = loop.snapshot()
    for name, mask in second.items():
        assert not state.average[name][~mask].any()
        assert not state.optimizer[f"cross-entropy:{name}/exp_avg"][~mask].any()


def test_hooks_see_dense_gradients():
    dense = []

    class Look(Hook):
        def on_gradients(self, loop):
            grads = {n: loop.model.get_parameter(n).grad for n in loop.masks}
            dense.append(any(grads[n][~m].any() for n, m in loop.masks.items()))

    looped("clipping", [Look()])
    assert dense == [True] * STEPS


@pytest.mark.parametrize("at", [0, 4, 8])
def test_a_loss_that_is_not_finite_names_its_iteration(at):
    calls = iter(range(100))

    def loss(model, batch, rng):
        return cross_entropy(model, batch, rng) * (torch.nan if next(calls) == at else 1)

    with pytest.raises(Diverged, match=f"the loss is nan at iteration {at}$"):
        Loop(mlp(), Blobs(loss), training_of("sgd"), seed=0).run()


def test_a_pruned_weight_that_is_not_finite_is_divergence():
    model = mlp()
    masks = some_masks(model)
    place = (~masks["0.weight"]).nonzero()[0].tolist()
    with torch.no_grad():
        model[0].weight[*place] = torch.inf
    with pytest.raises(Diverged, match=r"(0\.weight|loss)"):
        Loop(model, Blobs(), training_of("sgd"), seed=0, masks=masks).run()


def test_a_pruned_weight_that_comes_back_is_an_error():
    class Revive(Hook):
        def on_step(self, loop):
            with torch.no_grad():
                loop.model[0].weight.add_(1)

    with pytest.raises(LthZooError, match="a pruned weight is not 0 at iteration 3"):
        looped("adam", [Revive()])


def test_bf16_arithmetic_keeps_fp32_weights_and_zeros():
    loop = looped("adam", training=training_of("adam", precision="bf16"))
    plain = looped("adam")
    assert pruned_are_zero(loop.model, loop.masks)
    assert {t.dtype for t in clone_state(loop.model).values()} == {torch.float32}
    assert not same(clone_state(loop.model), clone_state(plain.model))
    for name, value in clone_state(loop.model).items():
        torch.testing.assert_close(value, plain.model.state_dict()[name], rtol=0.1, atol=0.05)


SCHEDULES = [
    ({}, {0: 1.0, 99: 1.0, 100: 1.0}),
    ({"warmup": 4}, {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0}),
    (
        {"schedule": "step", "milestones": (10, 20), "gamma": 0.1},
        {9: 1.0, 10: 0.1, 19: 0.1, 20: 0.01},
    ),
    ({"schedule": "cosine"}, {0: 1.0, 25: 0.8535533905932737, 50: 0.5, 75: 0.14644660940672627}),
    # From the end on the last rate: at 0 `rewind none` would train nothing.
    (
        {"schedule": "cosine", "warmup": 20},
        {9: 0.5, 20: 1.0, 60: 0.5} | dict.fromkeys((99, 100, 120), 0.0003854818796385493),
    ),
]


@pytest.mark.parametrize(("changes", "expected"), SCHEDULES)
def test_learning_rates_by_hand(changes, expected):
    training = Training(iterations=100, learning_rate=2.0, **changes)
    found = {k: training.rate_at(k) for k in expected}
    assert found == pytest.approx({k: 2 * v for k, v in expected.items()}, abs=1e-12)


def test_the_optimiser_takes_the_scheduled_rate_and_the_row_tells_it():
    rates = []

    class Note(Hook):
        def on_gradients(self, loop):
            rates.append(loop.parts[0].optimizer.param_groups[0]["lr"])

    training = training_of("schedule")
    loop = looped("schedule", [Note()], training=training)
    assert rates == [training.rate_at(k) for k in range(STEPS)]
    assert [row["learning_rate"] for row in loop.rows] == [rates[2], rates[5], rates[8]]
