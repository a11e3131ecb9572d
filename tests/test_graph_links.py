"""Link prediction: what is held out, what is drawn, and what is measured."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_graphs
import torch
from sklearn.metrics import roc_auc_score
from tiny_graphs import Mixing
from toys import same

from lth_zoo.errors import BadInput, DataError
from lth_zoo.graph import ARCS, EDGES, Graph
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.tasks.graph_links import drawn_apart, hits, split_links


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def task():
    return task_of("links/digits-knn")


def as_set(pairs):
    return set(map(tuple, pairs.T.tolist()))


def test_every_edge_is_in_one_part(task):
    whole = task.base.graph()
    count = whole.pairs.shape[1]
    sizes = [task.size(s) for s in SPLITS]
    assert sizes[1:] == [count * 5 // 100, count // 10]
    assert sum(sizes) == count
    parts = [as_set(task.links.joined[s]) for s in SPLITS]
    assert sum(map(len, parts)) == count
    assert set.union(*parts) == as_set(whole.pairs)


def test_messages_pass_along_train_edges_only(task):
    graph = task.graph()
    assert graph.undirected
    assert as_set(graph.pairs) == as_set(task.links.joined["train"])
    assert graph.x is task.base.graph().x
    for split in SPLITS:
        view, _ = task.batch(split, torch.arange(task.size(split)))
        assert view.edge_index is graph.edge_index
        assert view.x is graph.x
        held_out = as_set(task.links.joined["test"]) | as_set(task.links.joined["validation"])
        assert not held_out & as_set(view.edge_index)


def test_pairs_apart_are_no_edges_and_of_one_part(task):
    edges = as_set(task.base.graph().pairs)
    for split in SPLITS:
        apart = task.links.apart[split]
        assert apart.shape[1] == task.size(split)
        assert not as_set(apart) & edges
        assert (apart[0] < apart[1]).all()
    held = [as_set(task.links.apart[s]) for s in ("validation", "test")]
    assert sum(map(len, held)) == task.size("validation") + task.size("test")
    assert not held[0] & held[1]


def test_the_split_is_that_of_its_seed(task):
    again, other = task_of("links/digits-knn"), task_of("links/digits-knn@random-5")
    assert same(task.links.joined, again.links.joined)
    assert same(task.links.apart, again.links.apart)
    assert not same(task.links.joined, other.links.joined)
    assert task.fingerprint() == again.fingerprint() != other.fingerprint()
    # Pinned: no version of a library may draw others.
    assert task.links.joined["validation"][:, :3].T.tolist() == [[574, 620], [69, 1660], [76, 1037]]
    assert task.links.apart["validation"][:, :3].T.tolist() == [
        [1436, 1644],
        [901, 1299],
        [131, 1057],
    ]


def test_training_draws_new_pairs_from_the_generator_alone(task):
    at = torch.randperm(task.size("train"), generator=generator(9))
    edges = as_set(task.base.graph().pairs)
    drawn = [task.batch("train", at, generator(s)) for s in (0, 0, 1)]
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])
    for view, targets in drawn:
        half = len(at)
        assert view.rows.shape == (2, 2 * half)
        assert view.rows[:, :half].equal(task.links.joined["train"][:, at])
        assert not as_set(view.rows[:, half:]) & edges
        assert targets.tolist() == [1] * half + [0] * half


def test_a_small_batch_sees_the_surroundings_of_its_pairs(task):
    view, targets = task.batch("train", torch.arange(5), generator())
    graph = task.graph()
    assert len(view.x) < graph.nodes
    assert view.rows.shape == (2, 10)
    assert targets.tolist() == [1] * 5 + [0] * 5
    assert graph.x[task.links.joined["train"][:, :5]].equal(view.x[view.rows[:, :5]])
    assert graph.x[graph.edge_index[:, view.columns]].equal(view.x[view.edge_index])


def test_whole_neighbourhoods_give_the_scores_of_the_whole_graph():
    task = task_of("links/digits-knn@fanout-all-all")
    torch.manual_seed(0)
    model = Mixing(64, task.signature.output)
    view, _ = task.batch("train", torch.arange(4), generator())
    nodes = view.x[view.rows]
    whole = task.ground.whole(torch.zeros(2, 8, dtype=torch.int64))
    # The drawn pairs' numbers, looked up by their features.
    where = (task.graph().x[:, None] == nodes.flatten(0, 1)).all(2).int().argmax(0)
    with torch.no_grad():
        expected = model(whole.x, whole.edge_index)[where.reshape(2, -1)].prod(0).sum(1)
        torch.testing.assert_close(task.answer(model, view), expected, rtol=1e-4, atol=1e-3)


def test_pruning_leaves_what_is_asked(task):
    graph = task.graph()
    keep = torch.rand(graph.pairs.shape[1], generator=generator()) < 0.3
    pruned = task.on_graph(graph.restricted({EDGES: keep}))
    assert pruned.graph().pairs.shape[1] == keep.sum()
    for split in SPLITS:
        at = torch.arange(task.size(split))
        one, labels = task.batch(split, at, generator())
        two, same_labels = pruned.batch(split, at, generator())
        assert one.rows.equal(two.rows)
        assert labels.equal(same_labels)
        assert two.edge_index is pruned.graph().edge_index
    assert pruned.links is task.links
    assert pruned.fingerprint() == task.fingerprint()


def test_metrics_are_those_of_the_scores(task):
    torch.manual_seed(0)
    model = Mixing(64, task.signature.output)
    found = task.evaluate(model, "test")
    assert found.keys() == {"auc", "hits@50", "loss"}
    view, targets = task.batch("test", torch.arange(task.size("test")))
    with torch.no_grad():
        z = model(view.x, view.edge_index)
    scores = (z[view.rows[0]] * z[view.rows[1]]).sum(1).double()
    assert found["auc"] == pytest.approx(100 * roc_auc_score(targets, scores))
    high = scores[targets == 0].sort(descending=True).values[49]
    assert found["hits@50"] == pytest.approx(100 * (scores[targets == 1] > high).double().mean())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, targets.double())
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_scores_that_are_not_numbers_are_no_skill(task):
    model = Mixing(64, task.signature.output)
    with torch.no_grad():
        model.layers[0].weight.fill_(torch.nan)
    found = task.evaluate(model, "validation")
    assert (found["auc"], found["hits@50"]) == (50, 0)
    assert task.flags(model) == ("constant",)


def test_a_small_graph_looks_at_fewer_pairs():
    task = task_of("links/karate")
    assert [task.size(s) for s in SPLITS] == [68, 3, 7]
    model = Mixing(34, task.signature.output)
    assert task.evaluate(model, "test").keys() == {"auc", "hits@1", "loss"}


def test_hits_by_hand():
    scores = np.array([5.0, 3.0, 1.0, 4.0, 2.0, 0.0])
    truth = np.array([1, 1, 1, 0, 0, 0])
    assert [round(hits(scores, truth, k)) for k in (1, 2, 3)] == [33, 67, 100]
    assert hits(np.ones(6), truth, 1) == 0, "a tie is no hit"


def test_a_directed_graph_keeps_its_directions():
    arrays = tiny_graphs.tensors(tiny_graphs.saved_arrays())
    graph = Graph.of(arrays["x"], arrays["edge_index"])
    assert not graph.undirected
    links = split_links(graph, 0)
    assert as_set(links.graph.edge_index) <= as_set(graph.edge_index)
    assert as_set(links.graph.pairs) == as_set(links.joined["train"])
    assert links.graph.restricted({ARCS: torch.ones(links.graph.edge_index.shape[1]) > 0})


def test_the_last_free_pairs_are_found():
    nodes, free = 12, {(0, 5), (3, 4), (7, 11)}
    pairs = [(a, b) for a in range(nodes) for b in range(a + 1, nodes) if (a, b) not in free]
    known, rng = torch.tensor([a * nodes + b for a, b in pairs]), generator()

    def draw(count):
        return torch.randint(nodes, (2, count), generator=rng)

    assert as_set(drawn_apart(known, nodes, 3, draw, different=True)) == free
    assert as_set(drawn_apart(known, nodes, 100, draw)) == free


@pytest.mark.parametrize("count", [5, 19])
def test_a_graph_too_small_to_split_is_refused(count):
    path = torch.arange(count)
    graph = Graph.of(torch.zeros(count + 1, 1), torch.stack([path, path + 1]))
    with pytest.raises(DataError, match=f"^here: {count} edges .*expected 20 edges or more"):
        split_links(graph, 0, "here")


def test_a_complete_graph_is_refused():
    graph = Graph.of(torch.zeros(9, 1), torch.ones(9, 9).nonzero().T)
    with pytest.raises(DataError, match="36 edges and 0 pairs without one"):
        split_links(graph, 0, "here")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("links/", "unknown task ''"),
        ("links/kerate", "did you mean 'karate'"),
        ("links/digits", "'digits' is not a task on the nodes"),
        ("links/motifs", "'motifs' is not a task on the nodes"),
        ("links/karate@inductive", "suffix @inductive"),
    ],
)
def test_what_has_no_links_is_refused(name, message):
    with pytest.raises(BadInput, match=message):
        task_of(name)
