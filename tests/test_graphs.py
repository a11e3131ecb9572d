"""Node classification: data sets, splits, batches, evaluation and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_graphs
import torch
from tiny_graphs import Mixing
from toys import same

from lth_zoo.errors import BadInput, DataError
from lth_zoo.graph import EDGES, Graph
from lth_zoo.kinds import with_random_labels
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.recipe import Training, build
from lth_zoo.tasks import graph_data
from lth_zoo.tasks.graph_data import Nodes, Raw, nodes_of, random_split, row_normalised, variant_of
from lth_zoo.tasks.graph_nodes import NodeClassification
from lth_zoo.tasks.graphs import nearest
from lth_zoo.train import Loop


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    return task_of("digits-knn")


@pytest.fixture(scope="module")
def cora(data_dir):
    return task_of("planetoid/cora", data_dir)


def raw(nodes=60, classes=3, **changes):
    arrays = tiny_graphs.tensors(tiny_graphs.saved_arrays(nodes, classes))
    masks = [arrays.pop(name) for name in ("train_mask", "val_mask", "test_mask")]
    splits = {s: m.nonzero().flatten() for s, m in zip(SPLITS, masks, strict=True)}
    x, edges, labels = (arrays[name] for name in ("x", "edge_index", "y"))
    return replace(Raw(x, edges, labels, "here", splits), **changes)


# -- data sets ----------------------------------------------------------------------------------


def test_cora_is_the_published_one(cora):
    graph = cora.graph()
    assert (graph.nodes, graph.pairs.shape[1], graph.undirected) == (2708, 5278, True)
    assert [cora.size(split) for split in SPLITS] == [140, 500, 1000]
    assert cora.signature.input == (1433,)
    assert cora.labels("train").bincount().tolist() == [20] * 7
    assert cora.nodes.labels.bincount().tolist() == [351, 217, 418, 818, 426, 298, 180]
    torch.testing.assert_close(graph.x.sum(1), torch.ones(2708))
    assert (graph.x > 0).sum() == 31261 + 17955


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "classes"),
    [("amazon/photo", 7650, 119_081, 8), ("amazon/computers", 13_752, 245_861, 10)],
)
def test_the_amazon_graphs_are_the_published_ones(name, nodes, edges, classes, data_dir):
    task = task_of(name, data_dir)
    graph = task.graph()
    assert (graph.nodes, graph.pairs.shape[1], graph.undirected) == (nodes, edges, True)
    assert [task.size(s) for s in SPLITS] == [20 * classes, 30 * classes, nodes - 50 * classes]
    assert task.labels("validation").bincount().tolist() == [30] * classes
    assert graph.x.unique().tolist() == [0, 1]


def test_karate_is_the_club():
    task = task_of("karate")
    assert (task.graph().nodes, task.graph().pairs.shape[1]) == (34, 78)
    assert [task.size(split) for split in SPLITS] == [4, 10, 20]
    assert sorted(torch.cat([task.nodes.splits[s] for s in SPLITS]).tolist()) == list(range(34))


def test_digits_are_joined_to_the_nearest(digits):
    assert digits.graph().pairs.shape[1] == 12_339
    assert [digits.size(split) for split in SPLITS] == [200, 300, 1297]
    assert digits.labels("train").bincount().tolist() == [20] * 10
    assert digits.graph().x.max() == 1


def test_of_equally_near_points_the_first_counts():
    points = np.random.default_rng(0).integers(0, 3, (50, 3))
    found = nearest(torch.from_numpy(points), 4)
    for node, point in enumerate(points):
        far = ((points - point) ** 2).sum(1)
        order = sorted((int(far[n]), n) for n in range(50) if n != node)
        assert sorted(n for _, n in order[:4]) == sorted(found[1, found[0] == node].tolist())


def test_rows_sum_to_one_where_they_are_not_empty():
    x = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0.2, 0, 0.3]])
    expected = [[0.5, 0.5, 0], [0, 0, 0], [0.2, 0, 0.3]]
    torch.testing.assert_close(row_normalised(x), torch.tensor(expected))


# -- names and splits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits-knn@nonsense", "suffix @nonsense"),
        ("digits-knn@random-1@random-2", "suffix @random-2"),
        ("digits-knn@split-1", "suffix @split-1"),
        ("digits-knn@fanout-0", "suffix @fanout-0"),
        ("digits-knn@", "expected, once each"),
        ("karate@random-1", "suffix @random-1"),
        ("pyg/WikiCS@random-1@split-1", "expected one"),
        ("digits@random-1", "unknown variant of 'digits' 'random-1'.*half-1"),
        ("glue/cola@random-1", "has no variants"),
        ("planetoid/coar@random-1", "unknown task"),
    ],
)
def test_a_suffix_that_means_nothing_is_refused(name, message):
    with pytest.raises(BadInput, match=message):
        task_of(name)


def test_suffixes_are_read():
    variant = variant_of("a/b@inductive@fanout-15-all@split-2")
    assert (variant.base, variant.seed, variant.column) == ("a/b", None, 2)
    assert variant.inductive
    assert variant.fanouts == (15, -1)


def test_a_random_split_is_that_of_its_seed(digits):
    again, zero, one = (task_of(f"digits-knn{s}") for s in ("", "@random-0", "@random-1"))
    assert same(dict(digits.nodes.splits), dict(again.nodes.splits))
    assert same(dict(digits.nodes.splits), dict(zero.nodes.splits))
    assert not digits.nodes.splits["test"].equal(one.nodes.splits["test"])
    assert digits.fingerprint() != one.fingerprint()
    assert one.labels("train").bincount().tolist() == [20] * 10
    # Pinned: no version of a library may draw others.
    assert digits.nodes.splits["train"][:5].tolist() == [2, 3, 11, 13, 20]


def test_an_unlabelled_node_is_in_no_random_split():
    labels = torch.arange(120) % 2
    labels[7] = -1
    split = random_split(labels, 0)
    joined = torch.cat([split[s] for s in SPLITS])
    assert sorted(joined.tolist()) == [n for n in range(120) if n != 7]


def test_variants_of_the_sampling_have_fingerprints_of_their_own(digits):
    names = ("", "@inductive", "@fanout-5-5", "@fanout-5-5@inductive")
    assert len({task_of(f"digits-knn{suffix}").fingerprint() for suffix in names}) == 4


# -- batches ------------------------------------------------------------------------------------


def test_the_whole_train_part_sees_the_very_tensors(digits):
    order = torch.randperm(200, generator=generator())
    view, labels = digits.batch("train", order, generator())
    assert view.x is digits.graph().x
    assert view.edge_index is digits.graph().edge_index
    assert view.columns is None
    assert view.rows.equal(digits.nodes.splits["train"][order])
    assert labels.equal(digits.labels("train")[order])
    small, _ = digits.batch("train", order[:30])
    assert small.x is digits.graph().x, "without a generator nothing is drawn"


def test_a_small_batch_sees_a_part(digits):
    view, labels = digits.batch("train", torch.arange(20), generator())
    graph = digits.graph()
    assert len(view.x) < graph.nodes
    assert graph.x[graph.edge_index[:, view.columns]].equal(view.x[view.edge_index])
    assert graph.x[digits.nodes.splits["train"][:20]].equal(view.x[view.rows])
    assert labels.equal(digits.labels("train")[:20])


def test_a_task_on_another_graph_shares_everything_else(digits):
    graph = digits.graph()
    keep = torch.rand(graph.pairs.shape[1], generator=generator()) < 0.5
    left = graph.restricted({EDGES: keep})
    pruned = digits.on_graph(left)
    assert pruned.graph() is left
    view, labels = pruned.batch("validation", torch.arange(300))
    whole, same_labels = digits.batch("validation", torch.arange(300))
    assert view.x is whole.x
    assert view.edge_index is left.edge_index
    assert view.rows.equal(whole.rows)
    assert labels.equal(same_labels)
    assert whole.edge_index is graph.edge_index, "the task itself is as it was"
    assert pruned.fingerprint() == digits.fingerprint()
    assert pruned.nodes is digits.nodes
    with pytest.raises(BadInput, match="1,797 nodes"):
        digits.on_graph(Graph.of(graph.x[:5], graph.edge_index[:, :0]))


def test_evaluation_is_of_the_graph_it_is_on(digits):
    torch.manual_seed(0)
    model = Mixing(64, 10)
    empty = digits.graph().restricted({EDGES: torch.zeros(12_339, dtype=torch.bool)})
    before = copy.deepcopy(model.state_dict())
    found = digits.on_graph(empty).evaluate(model, "test")
    with torch.no_grad():
        logits = model(digits.graph().x, empty.edge_index)[digits.nodes.splits["test"]]
    right = (logits.argmax(1) == digits.labels("test")).sum().item()
    assert found["accuracy"] == 100 * right / 1297
    assert found != digits.evaluate(model, "test")
    assert same(before, model.state_dict())


def test_renumbering_nodes_changes_no_figure(digits):
    number = torch.randperm(1797, generator=generator(4))
    graph, held = digits.graph(), digits.nodes
    x, labels = graph.x[number.argsort()], held.labels[number.argsort()]
    splits = {s: number[held.splits[s]] for s in SPLITS}
    other = copy.copy(digits)
    other.__dict__["nodes"] = Nodes(Graph.of(x, number[graph.edge_index]), labels, splits)
    other._grounds, other._held = {}, {"device": None}
    torch.manual_seed(0)
    model = Mixing(64, 10)
    one, two = (task.evaluate(model, "test") for task in (digits, other))
    assert one["accuracy"] == two["accuracy"]
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert other.fingerprint() != digits.fingerprint()


def test_inductive_training_sees_no_held_out_node():
    task = task_of("digits-knn@inductive")
    held = torch.cat([task.nodes.splits[s] for s in ("validation", "test")])
    outside = torch.zeros(1797, dtype=torch.bool)
    outside[held] = True
    graph = task.graph()
    batches = [
        task.batch("train", torch.arange(200)),
        task.batch("train", torch.arange(9), generator()),
    ]
    for view, labels in batches:
        assert not outside[graph.edge_index[:, view.columns]].any()
        assert graph.x[graph.edge_index[:, view.columns]].equal(view.x[view.edge_index])
        assert graph.x[task.nodes.splits["train"][: len(labels)]].equal(view.x[view.rows])
    assert len(batches[0][0].x) == 200
    assert batches[0][0].edge_index.shape[1] == (~outside[graph.edge_index]).all(0).sum()
    view, _ = task.batch("test", torch.arange(5))
    assert view.edge_index is graph.edge_index
    keep = torch.arange(graph.pairs.shape[1]) % 2 == 0
    pruned = task.on_graph(graph.restricted({EDGES: keep}))
    view, _ = pruned.batch("train", torch.arange(200))
    assert keep[graph.edge_of].sum() > view.edge_index.shape[1] > 0
    edges = pruned.graph().edge_index[:, view.columns]
    assert graph.x[edges].equal(view.x[view.edge_index])


def test_permuted_labels_are_of_the_graph_that_is_left(digits):
    graph = digits.graph()
    left = graph.restricted({EDGES: torch.arange(12_339) % 3 == 0})
    corrupted = with_random_labels(digits.on_graph(left), 0)
    at = torch.arange(200)
    view, labels = corrupted.batch("train", at)
    assert view.edge_index is left.edge_index
    assert view.rows.equal(digits.nodes.splits["train"])
    assert labels.sort().values.equal(digits.labels("train").sort().values)
    assert not labels.equal(digits.labels("train"))
    sample, drawn = corrupted.batch("train", at[:20], generator())
    assert drawn.equal(labels[:20])
    assert len(sample.x) < 1797
    with pytest.raises(BadInput, match="are changed"):
        with_random_labels(digits, 0).on_graph(left)


def test_moving_a_copy_moves_the_task(digits):
    task = copy.copy(digits)
    task._held = dict(task._held)
    task._grounds = {}
    pruned = task.on_graph(task.graph())
    pruned.to(torch.device("meta"))
    for moved in (task, pruned):
        view, labels = moved.batch("train", torch.arange(200))
        devices = {t.device.type for t in (view.x, view.edge_index, view.rows, labels)}
        assert devices == {"meta"}
    assert pruned.graph().x.device.type == "cpu"
    assert digits.batch("train", torch.arange(3))[1].device.type == "cpu"


@pytest.mark.parametrize("batch_size", [1000, 60])
def test_training_is_repeatable_and_learns(digits, batch_size):
    values = {"iterations": 30, "batch_size": batch_size, "optimizer": "adam"}
    training = build(Training, {**values, "learning_rate": 0.01, "evaluate_every": 30})
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        model = Mixing(64, 10, hidden=32)
        loop = Loop(model, digits, training, seed=0)
        loop.run()
        losses.append(digits.evaluate(model, "validation"))
    assert losses[0] == losses[1]
    assert losses[0]["accuracy"] > 70


# -- what is refused ----------------------------------------------------------------------------


def some(*nodes):
    return torch.tensor(nodes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"train": some()}}, "the train part has no nodes"),
        ({"splits": {"test": some()}}, "the test part has no nodes"),
        ({"splits": {"train": some(0, 3, 1, 99)}}, "train names node 99 of 60"),
        ({"splits": {"train": some(0, 1)}}, "class 2 has no train node"),
        ({"splits": {"train": some(0, 1, 2, 3)}}, "node 3 is in the splits twice"),
        ({"splits": None}, "class 0 has 20 nodes; a random split takes 20"),
        ({"labels": torch.full((60,), -1)}, "no node has a label"),
        ({"labels": torch.zeros(59, dtype=torch.int64)}, "expected one class number a node"),
        ({"labels": torch.full((60,), 0.5)}, "expected one class number a node"),
        ({"labels": torch.zeros(60, 3, dtype=torch.int64)}, "expected one class number a node"),
        ({"edge_index": some(0, 60)[:, None]}, "names node 60"),
        ({"edge_index": some(-1, 0)[:, None]}, "names node -1"),
        ({"edge_index": torch.zeros(2, 3)}, "edge_index is torch.float32"),
        ({"edge_index": torch.zeros(3, 2, dtype=torch.int64)}, "must be"),
        ({"x": torch.full((60, 5), torch.nan)}, "of 60 nodes are not finite"),
        ({"x": torch.zeros(60)}, "x has shape"),
    ],
)
def test_a_graph_that_cannot_be_learned_is_refused(changes, message):
    given = raw()
    if changes.get("splits"):
        changes = {"splits": {**given.splits, **changes["splits"]}}
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        nodes_of(replace(given, **changes), None)


def test_a_split_without_labels_is_refused():
    given = raw()
    assert nodes_of(replace(given, labels=given.labels.double()), None).classes == 3
    labels = given.labels.clone()
    labels[given.splits["validation"][:2]] = -1
    with pytest.raises(DataError, match="2 validation nodes: no label"):
        nodes_of(replace(given, labels=labels), None)


def test_what_is_not_used_is_said_once(capsys):
    graph_data.say.cache_clear()
    for _ in range(2):
        found = nodes_of(raw(weighted=True), None, symmetric=False)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "weights or features of its edges are not used" in said[0]
    assert "directed" in said[1]
    assert not found.graph.undirected
    assert nodes_of(raw(), None).graph.undirected
    assert capsys.readouterr().err == ""


def test_an_unknown_split_is_refused(digits):
    with pytest.raises(BadInput, match="did you mean 'validation'"):
        digits.size("valid")


def test_a_task_of_ones_own_needs_only_read():
    class Mine(NodeClassification):
        """A graph in memory."""

        margin = 1.0

        def read(self):
            return raw()

    task = Mine("mine")
    assert [task.size(s) for s in SPLITS] == [21, 21, 18]
    assert Path(task.name).name == "mine"
