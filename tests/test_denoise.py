"""FastGLT's swaps: by hand, by brute force, and exact at every moment."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import tiny_gates
import torch
from test_ugs import done, gates_of, masks_of
from tiny_gates import TinyGCN, TinyGraph, recipe, small_graph
from torch.nn import functional as F
from toys import same

from lth_zoo import kinds
from lth_zoo.allocate import Pool
from lth_zoo.finders import FastGLT
from lth_zoo.graph import ARCS, EDGES
from lth_zoo.hooks import Hook
from lth_zoo.masks import Masks
from lth_zoo.recipe import Training
from lth_zoo.searches import denoise
from lth_zoo.searches.denoise import Swapping, Switched, edge_scores, share_at, swapped
from lth_zoo.train import Loop


@pytest.fixture(autouse=True)
def known():
    with tiny_gates.registered():
        yield


def coarse(graph, weights=0.5, edges=0.6, entry=EDGES):
    """A model and random masks of it and of a graph's edges."""
    rng = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    model = TinyGCN()
    masks = {n: torch.rand(p.shape, generator=rng) < weights for n, p in model.named_parameters()}
    masks[entry] = torch.rand(graph.elements(entry).shape[1], generator=rng) < edges
    return model, Masks(masks)


def denoising(model, masks, graph, hooks=(), entry=EDGES, average=None, **config):
    """A loop over four iterations that swaps by a config."""
    config = {"every": 1, "share": 0.5, "degree_weight": 1.0, "seed": 0} | config
    keep = sum(masks.weights.counts[n][0] for n in masks.weights)
    swapping = Swapping(config, [Pool(tuple(masks.weights), keep)], graph)
    switched = Switched(model, graph, entry, masks)
    training = Training(
        iterations=4, batch_size=15, learning_rate=0.02, clip_norm=0.1, average=average
    )
    return swapping, Loop(switched, TinyGraph(), training, seed=0, hooks=[swapping, *hooks])


class Seen(Hook):
    """Notes the masks, the gates and the weights after every iteration."""

    def __init__(self):
        self.masks, self.gates, self.weights = [], [], []

    def on_iteration(self, loop):
        self.masks.append(loop.model.found())
        self.gates.append(loop.model.edges.detach().clone())
        self.weights.append({n: p.detach().clone() for n, p in loop.model.inner.named_parameters()})


@pytest.mark.parametrize(("entry", "average"), [(EDGES, None), (ARCS, 0.9)])
def test_counts_are_exact_at_every_moment_and_edges_plain(entry, average):
    graph, seen = small_graph(), Seen()
    model, masks = coarse(graph, entry=entry)
    _, loop = denoising(model, masks, graph, [seen], entry=entry, average=average, share=0.6)
    loop.run()
    assert loop.final_state()["edges"].equal(seen.gates[-1])
    assert len(seen.masks) == 4
    for found, gates, weights in zip(seen.masks, seen.gates, seen.weights, strict=True):
        assert (found.kept, found.counts[entry]) == (masks.kept, masks.counts[entry])
        assert gates.unique().tolist() == [0, 1]
        assert all((weights[n][~m] == 0).all() for n, m in found.weights.items())
    assert any(a != b for a, b in pairwise(seen.masks))
    first = seen.masks[0]
    back = {n: m & ~masks[n] for n, m in first.items()}
    assert back[entry].any()
    for name in first.weights:  # a weight comes back at 0, its optimiser state too
        assert back[name].any()
        assert (seen.weights[0][name][back[name]] == 0).all()


def highest(scores, among, count):
    """The places of the highest scores, by brute force."""
    order = sorted(among.nonzero().flatten().tolist(), key=lambda i: -float(scores[i]))
    return set(order[:count])


def flat(tensors, names):
    return torch.cat([tensors[n].flatten() for n in names])


def test_what_goes_and_comes_back_by_brute_force(monkeypatch):
    monkeypatch.setattr(F, "dropout", lambda x, *_: x)
    monkeypatch.setattr(denoise, "share_at", lambda *_: 0.25)
    ranked = []

    def noted(masks, pool, count, keep, regain):
        ranked.append(keep)
        return swapped(masks, pool, count, keep, regain)

    monkeypatch.setattr(denoise, "swapped", noted)
    graph, seen = small_graph(), Seen()
    model, masks = coarse(graph)
    swapping, loop = denoising(model, masks, graph, [seen], every=4)
    loop.run()
    assert seen.masks[2] == masks != seen.masks[3]
    # What the loss says before the step, on the network as it was then.
    plain = TinyGCN().double()
    plain.load_state_dict(seen.weights[2])
    view, targets = TinyGraph().batch("train", torch.arange(15))

    def loss(gates):
        columns = gates[graph.edge_of]
        answers = plain(view.x.double(), view.edge_index, edge_weight=columns)
        return F.cross_entropy(answers[view.rows], targets)

    gates, step = masks[EDGES].double(), 1e-4
    loss(gates).backward()
    slopes = torch.zeros_like(gates)
    with torch.no_grad():
        for place, to in enumerate(step * torch.eye(len(gates), dtype=torch.float64)):
            slopes[place] = (loss(gates + to) - loss(gates - to)).abs() / (2 * step)
    assert torch.allclose(swapping._gates.double(), slopes, rtol=1e-3, atol=1e-6)
    # Edges, with the degrees of the kept graph, at least 1.
    degrees = torch.zeros(graph.nodes, dtype=torch.float64)
    for i, j in graph.pairs[:, masks[EDGES]].T.tolist():
        degrees[i] += 1
        degrees[j] += 1
    i, j = graph.pairs
    rare = (degrees.clamp(min=1)[i] * degrees.clamp(min=1)[j]) ** -1.5
    slopes = swapping._gates.double()
    scores = slopes / slopes.mean() + rare / rare.mean()
    assert torch.allclose(edge_scores(graph, EDGES, masks, swapping._gates, 1.0), scores)
    expected = after(masks[EDGES], scores, scores)
    assert set(seen.masks[3][EDGES].nonzero().flatten().tolist()) == expected
    # Weights: the smallest after the step go, the steepest before it come back.
    names = sorted(masks.weights)
    for name in names:
        steep = plain.get_parameter(name).grad.abs()
        assert torch.allclose(swapping._slopes[name].double(), steep, rtol=1e-3, atol=1e-7)
    sizes, slopes = flat(ranked[0], names), flat(swapping._slopes, names)
    assert sizes[flat(masks, names)].min() > 0
    expected = after(flat(masks, names), sizes, slopes)
    assert set(flat(seen.masks[3], names).nonzero().flatten().tolist()) == expected


def after(kept, keep, regain):
    """What a quarter's swap leaves, by brute force."""
    count = int(0.25 * int(kept.sum()))
    stay = highest(keep, kept, int(kept.sum()) - count)
    gone = torch.tensor([place not in stay for place in range(len(kept))])
    return stay | highest(regain, gone, count)


def test_a_swap_by_hand():
    sizes = torch.tensor([5.0, 1.0, 4.0, 2.0, 0.0, 0.0])
    slopes = torch.tensor([0.0, 0.1, 0.0, 0.3, 0.2, 0.4])
    masks = Masks({"w": torch.tensor([1, 1, 1, 1, 0, 0]).bool()})

    def after(count, regain=slopes):
        found = swapped(masks, Pool(("w",), 4), count, {"w": sizes}, {"w": regain})
        return found["w"].int().tolist()

    assert after(0) == [1, 1, 1, 1, 0, 0]
    assert after(1) == [1, 0, 1, 1, 0, 1]  # 1.0 goes, the steepest comes back
    assert after(2) == [1, 0, 1, 1, 0, 1]  # 2.0 goes too, and is the second steepest
    assert after(4) == [0, 1, 0, 1, 1, 1]
    assert after(1, -slopes) == [1, 1, 1, 1, 0, 0]  # what has just gone is the best of the rest


def test_looking_at_gates_changes_nothing():
    states = []
    graph = small_graph()
    for every in (1, 100):
        model, masks = coarse(graph)
        _, loop = denoising(model, masks, graph, every=every, share=0.0)
        loop.run()
        states.append(model.state_dict())
    assert same(*states)


def test_gates_of_one_and_zero_are_plain_edges():
    graph = small_graph()
    model, masks = coarse(graph)
    plain = copy.deepcopy(model)
    _, loop = denoising(model, masks, graph, share=0.0)
    loop.run()
    task = kinds.restricted(TinyGraph(), masks)
    other = Loop(plain, task, loop.training, seed=0, masks=masks)
    other.run()
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(model.state_dict()[name], tensor, atol=1e-5)


def test_the_share_of_swaps_falls_to_nothing():
    found = [share_at(0.3, t, 10) for t in range(11)]
    assert found[0] == pytest.approx(0.3)
    assert found[5] == pytest.approx(0.15)
    assert found[10] == 0
    assert found == sorted(found, reverse=True)


def test_without_swaps_the_coarse_masks_stay(tmp_path):
    store, (level,) = done(recipe(FastGLT(share=0.0)), tmp_path / "a")
    assert masks_of(store, level.masks) == masks_of(store, level.masks.inputs["masks"])
    assert gates_of(store, level.masks)["new"] == {"weights": 0, "edges": 0}
    store, (level,) = done(recipe(FastGLT(every=1)), tmp_path / "b")
    assert min(gates_of(store, level.masks)["new"].values()) > 0
    assert level.masks.inputs["start"] == level.masks.inputs["masks"].inputs["trained"]
    assert level.start.kind == "init"
