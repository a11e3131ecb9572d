"""Gates on edges and soft masks on weights: exact, differentiable, bounded, and kept in time."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tiny_gates import BLIND, TinyFamily, TinyGCN, TinyGraph, small_graph
from toys import Blobs, same

from lth_zoo.errors import BadInput, Diverged
from lth_zoo.gates import Best, Gated, Keeping, Learning
from lth_zoo.graph import ARCS, EDGES
from lth_zoo.masks import Masks
from lth_zoo.recipe import Training
from lth_zoo.searches.gate_losses import apart, transport, with_distance
from lth_zoo.searches.gate_search import TwoParts, ranked
from lth_zoo.seeds import generator, seeded
from lth_zoo.train import Loop

GRAPH = small_graph()
NAMES = ("first.weight", "second.weight")
ENTRIES = pytest.mark.parametrize("entry", [EDGES, ARCS])


def network():
    with seeded(0, "init"):
        return TinyGCN().eval()


def count(entry):
    return GRAPH.elements(entry).shape[1]


def gated(entry=EDGES, gates=None, soft=False, keep=False, inner=None):
    inner = inner or network()
    masks = {n: torch.ones_like(inner.get_parameter(n)) for n in NAMES} if soft else {}
    gates = torch.ones(count(entry)) if gates is None else gates
    return Gated(inner, GRAPH, entry, gates, masks, keep)


def some(entry, share=0.6):
    return torch.rand(count(entry), generator=generator(0, "prune")) < share


def answers(model, graph=GRAPH):
    return model(graph.x, graph.edge_index)


# -- the module -----------------------------------------------------------------------------


@ENTRIES
def test_gates_of_one_change_nothing_and_closed_ones_delete(entry):
    plain, keep = network(), some(entry)
    torch.testing.assert_close(answers(gated(entry, soft=True).eval()), answers(plain))
    closed = answers(gated(entry, keep.float()).eval())
    hard = answers(plain, GRAPH.restricted({entry: keep}))
    torch.testing.assert_close(closed, hard, atol=1e-5, rtol=0)
    assert (closed - answers(plain)).abs().max() > 0.01


@ENTRIES
def test_the_slope_of_a_gate_is_that_of_the_answers(entry):
    model = gated(entry, 0.5 + 0.5 * torch.rand(count(entry)), soft=True).double().eval()
    x = GRAPH.x.double()

    def value():
        return model(x, GRAPH.edge_index).square().sum()

    value().backward()
    for parameter in (model.edges, *model.masks):
        for place in (0, parameter.numel() // 2, parameter.numel() - 1):
            flat, step = parameter.data.view(-1), 1e-6
            flat[place] += step
            above = value().item()
            flat[place] -= 2 * step
            below = value().item()
            flat[place] += step
            slope = parameter.grad.view(-1)[place].item()
            assert slope == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-7)


def test_soft_masks_multiply_the_weights():
    model, plain = gated(soft=True).eval(), network()
    with torch.no_grad():
        for mask in model.masks:
            mask.copy_(torch.rand(mask.shape, generator=generator(1, "prune")))
        for name, mask in zip(model.names, model.masks, strict=True):
            plain.get_parameter(name).mul_(mask)
    torch.testing.assert_close(answers(model), answers(plain))
    assert same(model.inner_state(model.state()), dict(plain.state_dict()))


def test_another_graph_and_a_blind_network_are_refused():
    model = gated()
    with pytest.raises(BadInput, match=r"gates on 266 columns .* other ones \(133\).*batch_size"):
        model(GRAPH.x, GRAPH.edge_index[:, ::2])
    model(GRAPH.x, GRAPH.edge_index.clone())  # the same columns, elsewhere in memory
    with pytest.raises(BadInput, match=r"Blind.* takes no edge"):
        gated(inner=TinyFamily().build(BLIND, TinyGraph().signature))


# -- learning -------------------------------------------------------------------------------


class Flat(TinyGraph):
    """A task whose loss has no slope."""

    def objectives(self, model):
        (own,) = super().objectives(model)
        return [type(own)("flat", lambda *inputs: 0 * own.loss(*inputs))]


def pulls(bounds=None, strength=1e-2, soft=True):
    how = {"strength": strength, "bounds": bounds}
    return {"edges": how, "weights": how if soft else None}


def trained(model, iterations, rate=0.02, config=None, task=None, hooks=()):
    learning = Learning(config or pulls())
    training = Training(
        iterations=iterations, batch_size=15, learning_rate=rate, evaluate_every=1000
    )
    loop = Loop(model, task or TinyGraph(), training, seed=0, hooks=[learning, *hooks])
    return loop, learning


def test_without_a_slope_of_the_task_masks_fall_by_the_rate_a_step():
    model = gated(soft=True)
    before = {n: t.clone() for n, t in model.inner.state_dict().items()}
    loop, _ = trained(model, 10, task=Flat())
    loop.run()
    for parameter in (model.edges, *model.masks):
        assert (parameter - 0.8).abs().max() < 1e-4
    assert same(before, dict(model.inner.state_dict()))


def test_unbounded_gates_become_nan_near_one_over_the_rate_and_it_is_seen_at_once():
    loop, learning = trained(gated(ARCS, soft=True), 30, rate=0.1)
    with pytest.raises(Diverged, match="gates or weights at iteration"):
        loop.run()
    assert 10 <= learning.diverged == loop.iteration < 20


@pytest.mark.parametrize(("low", "high"), [(0.0, None), (0.0, 1.0)])
def test_bounded_gates_stay_within_bounds_and_finite(low, high):
    seen = []

    class Look(Learning):
        def on_step(self, loop):
            numbers = torch.cat([p.detach().flatten() for p in (model.edges, *model.masks)])
            seen.append((numbers.min().item(), numbers.max().item()))

    model = gated(soft=True)
    strength = 1e-4  # weak enough for the task to raise some gates
    loop, learning = trained(
        model, 30, 0.1, pulls([low, high], strength), hooks=[Look(pulls([low, high], strength))]
    )
    loop.run()
    assert learning.diverged is None
    assert min(least for least, _ in seen) == 0.0
    highest = max(most for _, most in seen)
    assert highest == 1.0 if high else highest > 1.0
    assert answers(model).isfinite().all()


def test_a_pull_on_the_gates_alone_leaves_weights_to_the_task():
    model = gated()
    config = pulls([0.0, None], 1e-2, soft=False)
    loop, _ = trained(model, 5, config=config)
    loop.run()
    assert (model.edges < 1).all()
    assert len(model.masks) == 0


# -- what is kept ---------------------------------------------------------------------------


def test_the_first_of_the_best_states_is_kept_as_a_copy():
    state = {"a": torch.zeros(2)}
    best = Best(state)
    for at, value in enumerate((0.1, 81.6, 81.6, 80.0), start=1):
        state["a"].fill_(at)
        best.offer(state, at, value)
    assert (int(best.at), best.value.item()) == (2, pytest.approx(81.6))
    assert best.state()["a"].tolist() == [2, 2]
    other = Best({"a": torch.ones(2)})
    other.load_state_dict(best.state_dict())
    assert same(other.state(), best.state())
    best.offer(state, 9, math.nan)
    assert int(best.at) == 2


class Scripted(TinyGraph):
    """A task whose validation value at each iteration is what it is told."""

    values, at = (9.0, 1.0, 3.0, 5.0, 5.0), 0

    def evaluate(self, model, split):
        return {"accuracy": self.values[self.at - 1], "loss": 1.0}


class Lowest(Scripted):
    higher_is_better = False


@pytest.mark.parametrize(
    ("kind", "earliest", "at"), [(Scripted, 1, 1), (Scripted, 2, 4), (Lowest, 1, 2), (Lowest, 3, 3)]
)
def test_the_snapshot_is_the_best_from_the_earliest_on(kind, earliest, at):
    task, states = kind(), {}

    class Note(Learning):
        def on_step(self, loop):
            super().on_step(loop)
            task.at, states[loop.iteration] = loop.iteration, copy.deepcopy(loop.model.state())

    model = gated(soft=True, keep=True)
    training = Training(iterations=5, batch_size=15, learning_rate=0.02, evaluate_every=1000)
    Loop(model, task, training, seed=0, hooks=[Note(pulls()), Keeping(earliest)]).run()
    assert int(model.best.at) == at
    assert same(model.best.state(), dict(states[at]))


def test_ranks_of_several_tensors_break_ties_at_random():
    scores = {"a": torch.zeros(2, 50), "b": torch.tensor([1.0, -1.0])}
    found = ranked(scores, generator(0, "prune"))
    assert found["b"].tolist() == [101, 0]
    assert found["a"].flatten().sort().values.tolist() == list(range(1, 101))
    assert not found["a"].flatten().sort().values.equal(found["a"].flatten())
    assert same(found, ranked(scores, generator(0, "prune")))
    assert not same(found, ranked(scores, generator(1, "prune")))


def test_distances_of_edges_and_weights_add_up():
    def masks(edges, weights):
        return TwoParts({EDGES: torch.tensor(edges) > 0, "w": torch.tensor(weights) > 0})

    one, other = masks([1, 0], [1, 1, 0, 0]), masks([0, 1], [1, 0, 1, 0])
    assert one.distance(other) == 1.0 + 0.5
    assert one.distance(one) == 0.0


# -- the distance between classes --------------------------------------------------------------


def points(n, dimensions=3, seed=0):
    return torch.rand(n, dimensions, generator=generator(seed, "noise"))


def test_with_little_regularisation_it_is_the_cheapest_assignment():
    a, b = points(12), points(12, seed=1)
    cost = torch.cdist(a, b)
    rows, columns = linear_sum_assignment(cost)
    expected = cost[rows, columns].mean().item()
    assert transport(a, b, 1e-3, 2000).item() == pytest.approx(expected, rel=1e-3)
    assert transport(a, b + 5, 1e-3, 50).item() == pytest.approx(
        (a.mean(0) - b.mean(0) - 5).norm().item(), rel=0.02
    )
    assert transport(a, a, 1e-3, 10).item() == pytest.approx(0, abs=1e-3)


def test_its_slope_moves_the_sets_apart():
    a, b = points(10).double().requires_grad_(), points(14, seed=1).double()
    value = transport(a, b, 1e-3, 3000)
    value.backward()
    with torch.no_grad():
        for place in range(3):
            moved = a.clone()
            moved[place, 1] += 1e-5
            slope = (transport(moved, b, 1e-3, 3000) - value) / 1e-5
            assert slope.item() == pytest.approx(a.grad[place, 1].item(), abs=2e-3)
        assert transport(a + 0.01 * a.grad, b, 1e-3, 3000) > value


def test_every_node_counts_and_few_are_drawn():
    how = {"epsilon": 1e-2, "rounds": 10}
    logits = (4 * points(60, 4)).requires_grad_()
    value = apart(logits, generator(0, "noise"), nodes=60, **how)
    value.backward()
    assert (logits.grad.abs().sum(1) > 0).all()
    parts = [logits.argmax(1) == c for c in range(4)]
    outputs = logits.softmax(1)
    by_hand = sum(transport(outputs[p], outputs[~p], 1e-2, 10) for p in parts)
    torch.testing.assert_close(value, by_hand)
    drawn = [apart(logits, generator(s, "noise"), nodes=8, **how).item() for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    alone = torch.zeros(5, 3) + torch.tensor([1.0, 0, 0])
    assert apart(alone, generator(0, "noise"), nodes=8, **how).item() == 0


def test_the_loss_gets_the_distance_and_every_gate_a_slope():
    config = {"strength": 0.1, "nodes": 64, "epsilon": 1e-2, "rounds": 10}
    task = TinyGraph()
    pushed, model = with_distance(task, config), gated(soft=True).train()
    view, targets = task.batch("train", torch.arange(15))
    # One node is all that the task's own loss sees.
    view, targets = replace(view, rows=view.rows[:1]), targets[:1]
    (own,), (more,) = task.objectives(model), pushed.objectives(model)
    slopes = []
    for objective in (own, more):
        torch.manual_seed(0)  # dropout
        model.edges.grad = None
        value = objective.loss(model, (view, targets), generator(0, "noise"))
        value.backward()
        slopes.append((model.edges.grad != 0).double().mean().item())
        if objective is own:
            plain = value.item()
    distance = apart(model.answers, generator(0, "noise"), nodes=64, epsilon=1e-2, rounds=10)
    assert value.item() == pytest.approx(plain - 0.1 * distance.item(), rel=1e-5)
    assert slopes[0] < 0.9
    assert slopes[1] == 1.0
    assert pushed.evaluate(network(), "test") == task.evaluate(network(), "test")
    with pytest.raises(BadInput, match="needs node classification; task 'blobs' asks for classes"):
        with_distance(Blobs(), config)


def test_masks_of_fixed_weights_reach_the_inner_model_by_its_names():
    model = gated(soft=True)
    keep = {n: torch.rand(model.inner.get_parameter(n).shape) < 0.5 for n in NAMES}
    loop, _ = trained(model, 3)
    loop.set_masks(Masks({f"inner.{n}": m for n, m in keep.items()}))
    loop.run()
    for name, mask in keep.items():
        assert (model.inner.get_parameter(name)[~mask] == 0).all()
