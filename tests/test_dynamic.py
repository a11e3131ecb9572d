"""Masks that change while a network trains: by hand, exact at every update, resumable."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from interrupted import check_ends_alike
from torch.nn import functional as F
from toys import HERE, Blobs, mlp, pruned_are_zero, same, tiny_recipe

from lth_zoo.allocate import Pool
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import SET, DeepR, Gradual, RigL
from lth_zoo.formats import load_masks
from lth_zoo.hooks import Hook
from lth_zoo.masks import Masks
from lth_zoo.protocols import default_prunable
from lth_zoo.recipe import Training
from lth_zoo.searches.dynamic import RULES
from lth_zoo.searches.rewiring import away_from_zero, filled
from lth_zoo.seeds import generator
from lth_zoo.session import MASKS, RESULT
from lth_zoo.store import Store
from lth_zoo.train import Loop

#: What every rule reads: half of 48 and of 24 weights.
PLAIN = {"seed": 0, "density": "1/2", "scope": "layer", "overrides": {}, "total": None}
RIGL = {"every": 3, "stop": 9, "share": 0.5, "anneal": True, "accumulate": 1, "reset": False}
EVOLVE = {"every": 2, "share": 0.3}
FADE = {"every": 2, "first": 1, "last": 8}
DEEP = {"l1": 0.01, "noise": 0.1, "rate": 0.1}


class Seen(Hook):
    """Notes masks, weights, momenta and counts after every iteration."""

    def __init__(self, hook):
        self.hook, self.masks, self.weights, self.momenta = hook, [], [], []

    def on_iteration(self, loop):
        assert pruned_are_zero(loop.model, self.hook.masks)
        self.masks.append(self.hook.masks)
        self.weights.append({n: p.detach().clone() for n, p in loop.model.named_parameters()})
        state = loop.parts[0].optimizer.state
        momenta = {n: state[p].get("momentum_buffer") for n, p in loop.model.named_parameters()}
        self.momenta.append({n: m.clone() for n, m in momenta.items() if m is not None})


def rewiring(rule, config, task=None, model=None, **training):
    """A loop of ten iterations under a rule, and what was seen of it."""
    model = model or mlp(torch.nn.BatchNorm1d(8), torch.nn.Tanh())
    hook = RULES[rule](PLAIN | config, model, default_prunable(model))
    seen = Seen(hook)
    usual = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "iterations": 10}
    training = Training(**{"batch_size": 40, **usual, **training})
    loop = Loop(model, task or Blobs(), training, seed=0, hooks=[hook, seen])
    return hook, seen, loop


# -- RigL ---------------------------------------------------------------------------------------


def test_an_update_swaps_the_smallest_for_the_steepest_in_place_of_a_step():
    hook, seen, loop = rewiring("rigl", RIGL)
    loop.run()
    updates = [at for at in range(1, 10) if seen.masks[at] != seen.masks[at - 1]]
    assert updates == [3, 6], "every third iteration, counted from 0, below 9"
    assert hook.said["updates"] == 2
    # f(3) = 0.25 (1 + cos(pi / 3)) = 0.375 and f(6) = 0.125, of 24 and of 12 kept.
    for at, counts in ((3, (9, 4)), (6, (3, 1))):
        before, after, old = seen.masks[at - 1], seen.masks[at], seen.weights[at - 1]
        slopes, fresh, trained = gradients(old), 0, 0
        for (name, mask), count in zip(before.items(), counts, strict=True):
            ranked = old[name].abs()[mask].sort().values
            staying = mask & (old[name].abs() >= ranked[count])
            assert int(staying.sum()) == int(mask.sum()) - count
            steep = slopes[name].abs().masked_fill(staying, -1).flatten().topk(count).indices
            expected = staying.clone()
            expected.view(-1)[steep] = True
            assert after[name].equal(expected), name
            new = after[name] & ~mask
            fresh += int(new.sum())
            assert (seen.weights[at][name][new] == 0).all()
            assert (seen.momenta[at][name][new] == 0).all()
            trained += int((seen.weights[at + 1][name][new] != 0).sum())
        assert fresh == trained > 0, "they are trained from then on"
        for name, weight in seen.weights[at].items():  # no step: biases and norms stay too
            kept = after[name] if name in after else torch.ones_like(weight, dtype=torch.bool)
            assert weight[kept].equal((old[name])[kept]), name
    assert all(m.counts == {"0.weight": (24, 48), "3.weight": (12, 24)} for m in seen.masks)


def gradients(weights):
    """The dense gradients of a network with those weights over all examples."""
    model = mlp(torch.nn.BatchNorm1d(8), torch.nn.Tanh())
    model.load_state_dict(weights, strict=False)
    inputs, labels = Blobs().batch("train", torch.arange(40))
    F.cross_entropy(model.train()(inputs), labels).backward()
    return {n: p.grad for n, p in model.named_parameters()}


def test_what_goes_and_comes_in_one_update_keeps_its_value_unless_asked():
    # All but everything is swapped, so that many come back at once.
    config = RIGL | {"share": 1.0, "anneal": False, "stop": 4}
    _, kept, loop = rewiring("rigl", config)
    loop.run()
    _, reset, other = rewiring("rigl", config | {"reset": True})
    other.run()
    both = {n: kept.masks[2][n] & kept.masks[3][n] for n in kept.masks[2]}
    assert kept.masks[3] == reset.masks[3]
    for name, mask in both.items():
        assert mask.any()
        assert kept.weights[3][name][mask].equal(kept.weights[2][name][mask])
        assert kept.momenta[3][name][mask].any()
        assert not reset.weights[3][name].any()
        assert not reset.momenta[3][name].any()


def test_gradients_are_averaged_over_the_iterations_before():
    # The loss is a wave that turns with the iteration: w . (slope if even, 3 x -slope if odd).
    slope = torch.arange(1.0, 49).view(8, 6)
    turn = iter(range(100))

    def loss(model, batch, rng):
        factor = (1.0, -3.0)[next(turn) % 2]
        return factor * (model[0].weight * slope).sum() + 0 * model[3].weight.sum()

    config = RIGL | {"accumulate": 2, "every": 2, "stop": 3}
    hook, seen, loop = rewiring("rigl", config, Blobs(loss), iterations=3)
    held = []
    seen.on_iteration = lambda loop: held.append(dict(hook.held))
    loop = Loop(loop.model, loop.task, loop.training, seed=0, hooks=[hook, seen])
    loop.run()
    assert held[0] == {}
    assert held[1]["0.weight"].equal(-3 * slope), "iteration 1 is the first of two"
    assert held[2] == {}


def test_a_dense_layer_is_left_alone_and_a_constant_share_stays():
    config = RIGL | {"scope": "uniform", "density": "5/6", "anneal": False, "share": 0.25}
    hook, seen, loop = rewiring("rigl", config | {"every": 2})
    loop.run()
    assert hook.masks.counts == {"0.weight": (48, 48), "3.weight": (12, 24)}
    assert hook.said["updates"] == 4
    changes = [(a["3.weight"] & ~b["3.weight"]).sum() for a, b in pairwise(seen.masks)]
    assert all(int(c) <= 3 for c in changes)


# -- SET ----------------------------------------------------------------------------------------


def test_the_signs_are_weighed_apart():
    weight = torch.tensor([0.1, 0.4, -0.3, 0.2, 0.3, -0.1, 0.0, 9.0])
    mask = Masks({"w": torch.tensor([1, 1, 1, 1, 1, 1, 1, 0], dtype=torch.bool)})
    # Of four positive ones two, of two negative ones one, and the one at 0; 9.0 is pruned.
    left = away_from_zero({"w": weight}, mask, 0.5)["w"]
    assert left.tolist() == [False, True, True, False, True, False, False, False]
    # floor(0.3 x 4) = 1 and floor(0.3 x 2) = 0.
    left = away_from_zero({"w": weight}, mask, 0.3)["w"]
    assert left.tolist() == [False, True, True, True, True, True, False, False]


def test_what_lacks_is_drawn_from_all_that_is_pruned():
    mask = Masks({"w": torch.tensor([True, False, False, False, False])})
    pool = Pool(("w",), 3)
    drawn = [filled(mask, [pool], generator(s, "prune"))["w"] for s in range(200)]
    assert all(int(d.sum()) == 3 and d[0] for d in drawn)
    shares = torch.stack(drawn).double().mean(0)[1:]
    assert ((shares - 0.5).abs() < 0.12).all()
    assert filled(mask, [Pool(("w",), 1)], generator(0, "prune")) == mask


def test_evolution_starts_new_weights_at_zero_and_spares_the_end():
    hook, seen, loop = rewiring("set", EVOLVE)
    loop.run()
    changed = [at for at in range(1, 10) if seen.masks[at] != seen.masks[at - 1]]
    assert changed == [1, 3, 5, 7], "after 2, 4, 6 and 8 iterations; 10 is the end"
    assert hook.said["updates"] == 4
    assert all(m.counts == {"0.weight": (24, 48), "3.weight": (12, 24)} for m in seen.masks)
    for at in changed:
        for name, mask in seen.masks[at].items():
            new = mask & ~seen.masks[at - 1][name]
            assert new.any()
            assert not seen.weights[at][name][new].any()
            assert not seen.momenta[at][name][new].any()


def test_an_epoch_is_the_usual_time():
    # 40 examples by 10: an epoch is four iterations.
    hook, _, loop = rewiring("set", EVOLVE | {"every": "epoch"}, batch_size=10)
    loop.run()
    assert hook.said["updates"] == 2


# -- gradual ------------------------------------------------------------------------------------


def test_the_density_falls_on_a_cubic_to_the_exact_count():
    hook, seen, loop = rewiring("gradual", FADE)
    loop.run()
    # After 3, 5, 7 and 8: 1/2 + 1/2 (1 - t/7)^3 for t = 2, 4, 6, 7, of 48 and 24 weights.
    kept = [sum(c for c, _ in m.counts.values()) for m in seen.masks]
    assert kept[:2] == [72, 72]
    assert kept[2:4] == [49, 49]  # 0.6822 x 72 = 49.12
    assert kept[4:6] == [39, 39]  # 0.5394 x 72 = 38.83
    assert kept[6:] == [36] * 4  # 0.5015 x 72 = 36.10
    assert hook.masks.counts == {"0.weight": (24, 48), "3.weight": (12, 24)}
    for wide, narrow in pairwise(seen.masks):
        assert (narrow & wide) == narrow
    for at in (2, 4):
        for name, mask in seen.masks[at].items():
            gone = seen.masks[at - 1][name] & ~mask
            assert (seen.weights[at][name][gone] == 0).all()


# -- DEEP R -------------------------------------------------------------------------------------


def slopes_of(model, slope):
    """A task whose loss is linear in the first weights: their gradient is known."""

    def loss(network, batch, rng):
        return (network[0].weight * slope).sum() + 0 * network[2].weight.sum()

    return Blobs(loss)


def test_a_step_of_deep_r_by_hand():
    model, slope = mlp(), torch.zeros(8, 6)
    with torch.no_grad():
        model[0].weight.fill_(-0.5)
        model[0].weight[0] = 0.5
    slope[0] = 4.0  # 0.5 - 0.1 x 4 - 0.1 x 0.2 = 0.08; then it would pass 0
    config = DEEP | {"l1": 0.2, "noise": 0.0}
    options = {"momentum": 0.0, "iterations": 2}
    hook, seen, loop = rewiring("deep-r", config, slopes_of(model, slope), model, **options)
    first = hook.masks["0.weight"].clone()
    loop.run()
    one, two = (w["0.weight"] for w in seen.weights)
    assert seen.masks[0]["0.weight"].equal(first)
    torch.testing.assert_close(one[0][first[0]], torch.full((int(first[0].sum()),), 0.08))
    torch.testing.assert_close(one[1:][first[1:]], torch.full((int(first[1:].sum()),), -0.48))
    gone = first.clone()
    gone[1:] = False
    now = seen.masks[1]["0.weight"]
    woken = now & (~first | gone)
    assert gone.any()
    assert int(woken.sum()) == int(gone.sum()), "as many wake as died, at once"
    assert int(now.sum()) == 24
    signs = torch.ones(8, 6)
    signs[1:] = -1
    assert two[woken].equal(1e-12 * signs[woken])
    torch.testing.assert_close(two[now & ~woken], torch.full((24 - int(gone.sum()),), -0.46))


def test_hard_counts_hold_in_every_step_and_signs_never_change():
    for scope, expected in (("layer", {(24, 12)}), ("global", None)):
        model = mlp(torch.nn.BatchNorm1d(8), torch.nn.Tanh())
        signs = {n: model.get_parameter(n).detach() < 0 for n in default_prunable(model)}
        config = DEEP | {"scope": scope, "noise": 1.0}
        hook, seen, loop = rewiring("deep-r", config, model=model, momentum=0.0)
        loop.run()
        assert all(m.kept == 36 for m in seen.masks)
        counts = {tuple(kept for kept, _ in m.counts.values()) for m in seen.masks}
        assert counts == expected if expected else len(counts) > 1
        assert hook.said["dropped"] > 10
        for weights, masks in zip(seen.weights, seen.masks, strict=True):
            for name, mask in masks.items():
                assert (weights[name] != 0).equal(mask)
                assert ((weights[name] < 0) == signs[name])[mask].all()


def test_without_a_loss_soft_connections_settle_at_their_density():
    model = torch.nn.Sequential(torch.nn.Linear(6, 300))
    task = Blobs(lambda network, batch, rng: 0 * network[0].weight.sum())
    config = {"density": "1/5", "l1": 0.1, "noise": 1.0, "rate": 0.1}
    options = {"momentum": 0.0, "iterations": 800, "evaluate_every": 10_000}
    hook, seen, loop = rewiring("soft-deep-r", config, task, model, **options)
    loop.run()
    active = [m.kept / m.size for m in seen.masks[400:-1]]
    assert abs(sum(active) / len(active) - 0.2) < 0.03
    floor = -4 * 0.1 / 0.2  # -(1 - p)/p x rate x noise^2 / (2 l1)
    lowest = min(float(t.min()) for t in hook.held.values())
    assert floor - 1e-6 <= lowest < 0.8 * floor
    assert hook.masks.kept == 360, "the last step makes the exact count"
    assert hook.said["relaxed"] != 360


def test_soft_hardens_to_the_largest():
    hook, seen, loop = rewiring("soft-deep-r", DEEP, momentum=0.0)
    loop.run()
    assert hook.masks.counts == {"0.weight": (24, 48), "3.weight": (12, 24)}
    assert len({m.kept for m in seen.masks}) > 1
    assert seen.masks[-1] == hook.masks


# -- jobs ---------------------------------------------------------------------------------------

SEARCHES = {
    "rigl": RigL(every="3", accumulate=3, anneal="constant"),
    "set": SET(every="2"),
    "gradual": Gradual(scope="global", every="2"),
    "deep-r": DeepR(noise=0.1),
    "soft-deep-r": DeepR(variant="soft", scope="global", noise=0.1, optimizer="recipe"),
}


def done(recipe, folder):
    store, laid = Store(folder), experiment(recipe)
    (search,) = (job for job in laid.jobs if job.kind == "dynamic")
    assert run([search], store, HERE).failed == {}
    return store, search


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("average", [None, 0.9])
def test_interrupted_anywhere_it_ends_with_the_same_masks(name, average, tmp_path, monkeypatch):
    recipe = tiny_recipe(finder=SEARCHES[name], training={"average": average})
    whole, search = done(recipe, tmp_path / "whole")
    check_ends_alike(search, whole, Store(tmp_path / "store"), {2, 5, 8, 11}, monkeypatch)


def test_the_network_is_measured_as_it_is_or_its_mask_from_the_start(tmp_path):
    for rewind in ("none=0", "init"):
        recipe = tiny_recipe(finder=RigL(rewind=rewind), sparsity=0.7)
        store, level = Store(tmp_path), experiment(recipe).tickets()[0].level
        assert run([level.train], store, HERE).failed == {}
        found = store.entry(level.masks).json(RESULT)
        measured = store.entry(level.train).json(RESULT)
        assert found["kept"] == load_masks(store.entry(level.masks).read(MASKS)).kept == 696
        assert 0 < found["new"] < 1
        assert found["updates"] == 4, "of 12 iterations 2, 4, 6 and 8 are below 9"
        equal = same(found["metrics"]["validation"], measured["metrics"]["validation"])
        assert equal is (rewind == "none=0")
        assert measured["iterations"] == (0 if rewind == "none=0" else 12)


def test_controls_of_a_grown_network_train_from_the_start_the_whole_training():
    finder = RigL(every="2")
    names = ("shuffle", "reinit", "random-labels")
    one = experiment(tiny_recipe(finder=finder, sparsity=0.5, controls=names))
    (ticket,) = one.tickets()
    assert ticket.goal.config["begin"] == ticket.goal.config["end"] == 12
    for arm in (a for a in one.arms if a.name in names):
        assert (arm.goal.config["begin"], arm.goal.config["end"]) == (0, 12)
        assert arm.goal.inputs["start"].kind in ("init", "control")
        assert arm.goal.inputs["masks"] != ticket.level.masks or arm.name == "reinit"


@pytest.mark.parametrize(
    ("finder", "fields", "message"),
    [
        (RigL(every="9"), {}, "finder.every is 9: of 12 iterations it must be from 2, .* to 8"),
        (RigL(every="1"), {}, "the place of a training step"),
        (RigL(every="2", accumulate=3), {}, "at most that"),
        (SET(every="100%"), {}, "would never update"),
        (SET(), {"training": {"batch_size": 64}}, "give iterations"),
        (RigL(scope="layer"), {"sparsity": 0.999}, "keeps 0 of 300 weights of fc2"),
        (Gradual(end=0.11, begin=0.0), {"training": {"iterations": 4}}, "nothing comes before"),
        (RigL(), {"model": "dcgan-8x0.05", "task": "generation/digits"}, "choose finder set"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(finder, fields, message):
    with pytest.raises(BadInput, match=message):
        experiment(tiny_recipe(finder=finder, **fields))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RigL(share=0), "finder.share is 0; it must be above 0 and at most 1"),
        (lambda: RigL(stop=1.5), "finder.stop is 1.5"),
        (lambda: RigL(accumulate=0), "at least 1"),
        (lambda: SET(iterations=0), "finder.iterations is 0"),
        (lambda: SET(share=float("nan")), "finder.share is nan"),
        (lambda: Gradual(begin=0.5, end=0.5), "the first below the second"),
        (lambda: DeepR(noise=-1), "finder.noise is -1"),
        (lambda: DeepR(variant="soft", l1=0), "connections wake by it"),
        (lambda: DeepR(learning_rate=0), "above 0"),
        (lambda: DeepR(optimizer="recipe", learning_rate=0.1), "leave one of them out"),
    ],
)
def test_options_are_checked_when_a_finder_is_made(make, message):
    with pytest.raises(BadInput, match=message):
        make()
