"""ICPG: what the scorer of edges learns, and what it says of graphs that no search has seen."""

from __future__ import annotations

from fractions import Fraction

import pytest
import tiny_gates
import torch
from test_ugs import done, gates_of, masks_of
from tiny_gates import TinyGCN, TinyGraph, recipe, small_graph
from torch.nn import functional as F

import lth_zoo as lz
from lth_zoo.edge_scorer import SCORER, EdgeScorer, load
from lth_zoo.errors import BadInput, StoreError
from lth_zoo.finders import ICPG, FastGLT
from lth_zoo.graph import ARCS, EDGES, Graph
from lth_zoo.recipe import Training
from lth_zoo.searches.scorer_search import Scored
from lth_zoo.session import STATE, read_state

#: 0.7 and 0.9 of what is left, then the targets of 0.5 and 0.8.
FINDER = ICPG(rate=0.3, edge_rate=0.1, width=4)


@pytest.fixture(autouse=True)
def known():
    with tiny_gates.registered():
        yield


def renumbered(graph, seed=5):
    """The same graph under other numbers, and the new number of each node."""
    number = torch.randperm(graph.nodes, generator=torch.Generator().manual_seed(seed))
    return Graph.of(graph.x[number.argsort()], number[graph.edge_index]), number


@pytest.mark.parametrize("entry", [EDGES, ARCS])
def test_a_scorer_scores_a_renumbered_graph_the_same(entry):
    torch.manual_seed(0)
    graph, scorer = small_graph(), EdgeScorer(24, 6)
    other, number = renumbered(graph)
    scores, theirs = scorer.score(graph, entry), scorer.score(other, entry)
    ends = number[graph.elements(entry)]
    if entry == EDGES:
        ends = ends.sort(0).values
    place = {tuple(p): k for k, p in enumerate(other.elements(entry).T.tolist())}
    order = torch.tensor([place[tuple(p)] for p in ends.T.tolist()])
    assert torch.allclose(scores, theirs[order], atol=1e-6)
    assert scores.unique().numel() > 100
    assert 0 < scores.min() < scores.max() < 1


def test_tied_scores_are_the_mean_of_both_directions():
    torch.manual_seed(0)
    graph, scorer = small_graph(), EdgeScorer(24, 6)
    tied, single = scorer.score(graph), scorer.score(graph, ARCS)
    total = torch.zeros_like(tied).index_add(0, graph.edge_of, single)
    assert torch.allclose(tied, total / 2, atol=1e-6)
    assert not torch.allclose(single, tied[graph.edge_of], atol=1e-4)
    assert scorer.training


def test_the_loss_reaches_the_scorer_through_the_gates(monkeypatch):
    monkeypatch.setattr(F, "dropout", lambda x, *_: x)
    torch.manual_seed(0)
    graph = small_graph()
    scored = Scored(TinyGCN(), graph, EDGES, EdgeScorer(24, 6)).double()
    view, targets = TinyGraph().batch("train", torch.arange(15))

    def loss():
        return F.cross_entropy(scored(view.x.double(), view.edge_index)[view.rows], targets)

    loss().backward()
    for name, parameter in scored.scorer.named_parameters():
        place = int(parameter.grad.abs().argmax())
        slope = float(parameter.grad.flatten()[place])
        assert slope != 0, name
        with torch.no_grad():
            flat = parameter.view(-1)
            flat[place] += 1e-5
            up = loss()
            flat[place] -= 2e-5
            down = loss()
            flat[place] += 1e-5
        assert float(up - down) / 2e-5 == pytest.approx(slope, rel=1e-3), name
    assert "edges" not in scored.state_dict()


def test_the_lowest_scored_edges_and_smallest_weights_go(tmp_path):
    store, levels = done(recipe(FINDER), tmp_path)
    graph, before = small_graph(), None
    for level in levels:
        masks, entry = masks_of(store, level.masks), store.entry(level.masks)
        (tmp_path / "file").write_bytes(entry.read(SCORER))
        scorer = load(tmp_path / "file")
        left = graph.restricted(before.data) if before else graph
        scores = scorer.score(left)
        was = before[EDGES] if before else torch.ones(133, dtype=torch.bool)
        kept = masks[EDGES][was]
        assert not before or scores[kept].min() >= scores[~kept].max()
        state = read_state(entry).state
        flat = {
            k: torch.cat([state[n].abs()[m if k else ~m] for n, m in masks.weights.items()])
            for k in (True, False)
        }
        assert flat[True].min() >= flat[False].max()
        said = gates_of(store, level.masks)["scores"]
        assert said["least"] == pytest.approx(float(scores.min()), abs=1e-6)
        before = masks


def find(store, **fields):
    plain = {"finder": FINDER, "sparsity": 0.5, "graph_sparsity": 0.2}
    training = Training(iterations=6, batch_size=15, evaluate_every=6, learning_rate=0.02)
    names = {"model": tiny_gates.MODEL, "task": tiny_gates.TASK, "training": training}
    return lz.find(**names, store=store, **plain | fields)


def test_a_tickets_scorer_scores_a_graph_that_no_search_has_seen(tmp_path):
    ticket = find(tmp_path / "store")
    ticket.save_pretrained(tmp_path / "ticket")
    again = lz.Ticket.from_pretrained(tmp_path / "ticket")
    scorer = lz.edge_scorer.load(again, tmp_path / "store")
    unseen = Graph.of(torch.randn(30, 24), torch.randint(30, (2, 200)))
    scores = scorer.score(unseen)
    assert scores.shape == (unseen.pairs.shape[1],)
    path = scorer.save(tmp_path / "scorer.safetensors")
    assert load(str(path)).score(unseen).equal(scores)
    masks = scorer.masks(unseen, 0.7)
    keep = int(Fraction(7, 10) * len(scores) + Fraction(1, 2))
    assert masks[EDGES].sum() == keep
    assert scores[masks[EDGES]].min() >= scores[~masks[EDGES]].max()
    assert unseen.restricted(masks).pairs.shape[1] == keep
    with pytest.raises(BadInput, match="reads 24 features a node, the graph has 3"):
        scorer.score(Graph.of(torch.randn(30, 3), unseen.edge_index))


def test_where_there_is_no_scorer_it_is_said(tmp_path):
    ticket = find(tmp_path / "store")
    with pytest.raises(BadInput, match=r"is not in .*elsewhere; give the store"):
        load(ticket, tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="of finder 'fast-glt' has no edge scorer"):
        load(find(tmp_path / "store", finder=FastGLT()), tmp_path / "store")
    imported = lz.Ticket.from_masks(ticket.masks.weights, ticket.state, polarity="keep")
    with pytest.raises(BadInput, match="it was imported"):
        load(imported)
    with pytest.raises(BadInput, match="cannot read a scorer"):
        load(tmp_path / "nothing")
    (tmp_path / "odd").write_bytes(b"odd")
    with pytest.raises(StoreError, match="damaged"):
        load(tmp_path / "odd")
    with pytest.raises(StoreError, match="is no edge scorer"):
        load(next((tmp_path / "store").glob(f"init/*/{STATE}")))


def test_the_scorer_learns_at_its_own_rate(tmp_path):
    finder = ICPG(levels=1, width=4, scorer_learning_rate=1e-6)
    slow, (level,) = done(recipe(finder), tmp_path / "slow")
    spread = gates_of(slow, level.masks)["scores"]
    fast, (level,) = done(recipe(ICPG(levels=1, width=4)), tmp_path / "fast")
    other = gates_of(fast, level.masks)["scores"]
    assert other["most"] - other["least"] > 2 * (spread["most"] - spread["least"])


def test_an_averaged_search_writes_the_averaged_scorer(tmp_path):
    scorers = []
    for average in (None, 0.9):
        finder, folder = ICPG(levels=1, width=4), tmp_path / str(average)
        store, (level,) = done(recipe(finder, training={"average": average}), folder)
        (folder / "file").write_bytes(store.entry(level.masks).read(SCORER))
        scorers.append(load(folder / "file"))
    live, averaged = (s.last.weight for s in scorers)
    assert not torch.allclose(live, averaged, atol=1e-3)
