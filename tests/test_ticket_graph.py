"""Tickets with edges: named by their nodes, whatever order a data set has them in."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import tiny
import torch
from forge import reseal

import lth_zoo as lz
from lth_zoo.errors import BadInput, TicketError
from lth_zoo.finders.graph_imp import GraphIMP
from lth_zoo.folder import META, STATE
from lth_zoo.formats import dump_tensors, load_tensors
from lth_zoo.graph import ARCS, EDGES, Graph
from lth_zoo.masks import Masks
from lth_zoo.recipe import Training
from lth_zoo.ticket import Ticket
from lth_zoo.ticket_graph import COLUMNS, PAIRS

TRAINING = Training(iterations=3, evaluate_every=3, batch_size=100)


@pytest.fixture(scope="module")
def ticket(tmp_path_factory) -> Ticket:
    return lz.find(
        "gcn-16",
        "karate",
        finder=GraphIMP(edge_rate=0.2),
        sparsity=0.36,
        graph_sparsity=0.3,
        training=TRAINING,
        store=tmp_path_factory.mktemp("graph") / "store",
    )


@pytest.fixture
def folder(ticket, tmp_path):
    return ticket.save_pretrained(tmp_path / "ticket")


@pytest.fixture
def karate():
    from torch_geometric.datasets import KarateClub

    return KarateClub()[0]


def codes(edge_index: torch.Tensor) -> set[tuple[int, int]]:
    return {(int(s), int(t)) for s, t in edge_index.T}


def made(graph: Graph, mask: list[bool], entry: str = EDGES) -> Ticket:
    """Return a ticket of one weight on a graph."""
    masks = Masks({"w": torch.tensor([True, False]), entry: torch.tensor(mask)})
    return Ticket(masks, {"w": torch.ones(2)}, {}, graph)


SQUARE = Graph.of(
    torch.zeros(5, 3), torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
)
ONE_WAY = Graph.of(torch.zeros(4, 3), torch.tensor([[0, 1, 2, 3], [1, 0, 1, 2]]))


# -- there and back ------------------------------------------------------------------------


def test_there_and_back_with_both_sparsities(ticket, folder):
    back = Ticket.from_pretrained(folder)
    assert back.id == ticket.id
    assert back.masks == ticket.masks
    assert back.graph.edge_index.equal(ticket.graph.edge_index)
    assert back.graph.fingerprint() == ticket.meta["graph"]["fingerprint"]
    assert back.meta == json.loads(json.dumps(ticket.meta))
    said = json.loads((folder / META).read_text())["ticket"]
    assert said["counts"] == {
        **{"kept": 389, "prunable": 608, "all": 628},
        **{"edges_kept": 55, "edges": 78},
    }
    assert said["graph"]["nodes"] == 34
    assert [(row["level"], round(row["edge_density"], 3)) for row in said["curve"]] == [
        *((0, 1.0), (1, 0.795), (2, 0.705)),
    ]
    assert ticket.graph_sparsity == pytest.approx(1 - 55 / 78)
    assert "sparsity 0.3602, graph sparsity 0.2949" in repr(ticket)


def test_the_state_is_the_models_alone(ticket, folder, tmp_path):
    tensors, _ = load_tensors((folder / STATE).read_bytes())
    assert tensors[PAIRS].shape == (2, 78)
    assert tensors[PAIRS].dtype == torch.int32
    assert not [name for name in Ticket.from_pretrained(folder).state if "graph" in name]
    model = Ticket.from_pretrained(folder).materialize()
    assert set(model.state_dict()) == set(ticket.state)
    assert set(ticket.masks_for(model)) == set(ticket.masks.weights)
    assert set(ticket.apply_to(model, start="any")) == set(ticket.masks.weights)
    with ticket.masks_for(model).enforced(model):
        pass
    from lth_zoo.export.weights import write

    write(ticket, tmp_path / "model.safetensors")
    assert set(safetensors.torch.load_file(tmp_path / "model.safetensors")) == set(ticket.state)


def test_the_card_and_show_say_both(folder, capsys):
    text = (folder / "README.md").read_text()
    assert "36.02% weight and 29.49% graph sparsity" in text
    assert "keeps 55 of 78 undirected edges, between 34 nodes" in text
    assert "| 2 | 63.98% | 70.51% |" in text
    assert "ticket.restrict(data)" in text
    shown = tiny.cli(capsys, "show", folder, "--json")
    assert shown.json["counts"]["edges_kept"] == 55
    assert shown.json["layers"]["graph/edges"] == [55, 78]


def test_the_edges_are_in_the_id_by_their_mask(ticket):
    edges = ticket.masks.data
    (name,) = edges
    moved = Masks({name: edges[name].roll(1)})
    other = Ticket(ticket.masks.joined(moved), ticket.state, ticket.meta, ticket.graph)
    assert other.id != ticket.id
    assert Ticket(ticket.masks, ticket.state, ticket.meta, ticket.graph).id == ticket.id


def test_a_ticket_without_edges_holds_no_graph(ticket):
    plain = Ticket(ticket.masks.weights, ticket.state, {}, ticket.graph)
    assert plain.graph is None
    assert plain.graph_sparsity == 0.0
    assert set(plain.counts()) == {"kept", "prunable", "all"}
    for use in (plain.edge_index, lambda: plain.restrict((torch.zeros(3, 1), torch.zeros(2, 0)))):
        with pytest.raises(BadInput, match="prunes weights alone"):
            use()


# -- what is damaged or does not fit ---------------------------------------------------------


def test_masks_of_edges_need_their_graph(ticket):
    with pytest.raises(TicketError, match="'graph/edges' is of a graph, and the ticket was given"):
        Ticket(ticket.masks, ticket.state, ticket.meta)
    with pytest.raises(TicketError, match="of a graph with 78 edges, not 4"):
        Ticket(ticket.masks, ticket.state, ticket.meta, SQUARE)
    odd = Masks({"graph/nodes": torch.ones(4, dtype=torch.bool)})
    with pytest.raises(TicketError, match="no prunable entry 'graph/nodes'"):
        Ticket(odd, {}, {}, SQUARE)


def test_edges_that_are_not_the_fingerprints_are_refused(folder):
    tensors, info = load_tensors((folder / STATE).read_bytes())
    for change, said in (
        (lambda t: {**t, PAIRS: t[PAIRS].flip(1)[:, :-1]}, "not those of the graph"),
        (lambda t: {**t, PAIRS: t[PAIRS] + 34}, "edge_index names node"),
        (lambda t: {**t, PAIRS: t[PAIRS].float()}, "not int32"),
        (lambda t: {n: v for n, v in t.items() if n != PAIRS}, "its graph is not whole"),
        (lambda t: {**t, COLUMNS: t[PAIRS]}, "its graph is not whole"),
    ):
        reseal(folder, state=dump_tensors(change(dict(tensors)), info))
        with pytest.raises(TicketError, match=said):
            Ticket.from_pretrained(folder)
    reseal(folder, state=dump_tensors(tensors, info))
    Ticket.from_pretrained(folder)
    reseal(folder, lambda data: data["ticket"]["graph"].update(nodes=10**15))
    with pytest.raises(TicketError, match="nodes"):
        Ticket.from_pretrained(folder)
    reseal(folder, lambda data: data["ticket"].pop("graph"))
    with pytest.raises(TicketError, match="its graph is not whole"):
        Ticket.from_pretrained(folder)


# -- use on data -----------------------------------------------------------------------------


def test_kept_edges_are_those_of_the_mask(ticket):
    found = ticket.edge_index()
    assert found.shape == (2, 110)
    kept = ticket.graph.pairs[:, ticket.masks[EDGES]]
    assert codes(found) == codes(kept) | codes(kept.flip(0))
    found.zero_()
    assert ticket.edge_index().any()


def test_any_order_of_the_columns_gives_the_same_edges(ticket, karate):
    order = torch.randperm(156, generator=torch.Generator().manual_seed(0))
    karate.edge_index = karate.edge_index[:, order]
    karate.edge_weight = torch.arange(156.0)
    karate.edge_attr = torch.arange(312.0).reshape(156, 2)
    karate.edge_label_index = torch.zeros(2, 156, dtype=torch.long)
    karate.edge_label = torch.ones(156)
    before = karate.clone()
    found = ticket.restrict(karate)
    assert codes(found.edge_index) == codes(ticket.edge_index())
    keep = found.edge_weight.long()
    assert karate.edge_index[:, keep].equal(found.edge_index)
    assert found.edge_attr.equal(karate.edge_attr[keep])
    # Targets of link prediction are no edges of the graph.
    assert found.edge_label_index.shape == (2, 156)
    assert found.edge_label.shape == (156,)
    assert found.x.equal(karate.x)
    assert all(karate[key].equal(before[key]) for key in karate.keys())  # noqa: SIM118
    assert ticket.restrict(found).edge_index.equal(found.edge_index)
    x, columns = ticket.restrict((karate.x, karate.edge_index))
    assert x is karate.x
    assert columns.equal(found.edge_index)


def test_a_restricted_graph_is_what_the_ticket_was_trained_on(ticket, karate):
    from lth_zoo.kinds import restricted
    from lth_zoo.protocols import task_of

    task = task_of("karate")
    trained = restricted(task, ticket.masks).graph()
    found = ticket.restrict(karate)
    model = ticket.materialize().eval()
    with torch.no_grad():
        ours = model(trained.x, found.edge_index)
        assert torch.allclose(ours, model(trained.x, trained.edge_index), atol=1e-5)


def test_loops_repeats_and_missing_edges_are_taken_as_they_are():
    found = made(SQUARE, [True, False, True, True])
    assert SQUARE.pairs.T.tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]
    columns = torch.tensor([[4, 3, 0, 1, 0, 1, 0], [4, 0, 1, 0, 1, 2, 3]])
    _, kept = found.restrict((torch.zeros(5, 1), columns))
    assert kept.T.tolist() == [[4, 4], [0, 1], [1, 0], [0, 1], [1, 2]]
    none = made(SQUARE, [False] * 4)
    assert none.edge_index().shape == (2, 0)
    _, kept = none.restrict((torch.zeros(5, 1), columns))
    assert kept.T.tolist() == [[4, 4]]
    empty = found.restrict((torch.zeros(5, 1), torch.zeros(2, 0, dtype=torch.long)))
    assert empty[1].shape == (2, 0)


def test_another_graph_is_refused_and_says_how_much_is_unknown(ticket, karate):
    columns = torch.cat([karate.edge_index, torch.tensor([[9, 4, 4], [4, 9, 4]])], 1)
    with pytest.raises(BadInput, match=r"another graph: 2 of 159 columns .* the first 9 to 4"):
        ticket.restrict((karate.x, columns))
    with pytest.raises(BadInput, match="has 34 nodes, the data 35"):
        ticket.restrict((torch.zeros(35, 1), karate.edge_index))
    with pytest.raises(BadInput, match="names nodes outside 0 to 33"):
        ticket.restrict((karate.x, karate.edge_index + 1))
    karate.edge_index = None
    with pytest.raises(BadInput, match="Data holds no edge_index"):
        ticket.restrict(karate)
    with pytest.raises(BadInput, match="not as 3 things"):
        ticket.restrict((1, 2, 3))


def test_directed_graphs_keep_their_directions(tmp_path):
    assert not ONE_WAY.undirected
    tied = made(ONE_WAY, [True, False, True])
    assert codes(tied.edge_index()) == {(0, 1), (1, 0), (3, 2)}
    folder = tied.save_pretrained(tmp_path / "tied")
    assert COLUMNS in load_tensors((folder / STATE).read_bytes())[0]
    assert Ticket.from_pretrained(folder).edge_index().equal(tied.edge_index())
    with pytest.raises(BadInput, match="1 of 1 columns"):
        tied.restrict((torch.zeros(4, 1), torch.tensor([[2], [3]])))


def test_one_bit_a_direction_gives_a_directed_graph(tmp_path):
    loose = made(SQUARE, [True, False] * 4, ARCS)
    assert loose.edge_index().equal(SQUARE.edge_index[:, ::2])
    folder = loose.save_pretrained(tmp_path / "loose")
    assert PAIRS in load_tensors((folder / STATE).read_bytes())[0]
    back = Ticket.from_pretrained(folder)
    assert back.edge_index().equal(loose.edge_index())
    assert "4 of 8 directed edges" in (folder / "README.md").read_text()


# -- foreign masks -----------------------------------------------------------------------------


def test_foreign_masks_of_edges_are_put_in_order():
    masks = {"w": torch.tensor([1, 0]), "graph/edges": torch.tensor([1, 0, 1])}
    pairs = torch.tensor([[3, 2, 0], [2, 0, 1]])
    found = Ticket.from_masks(masks, {"w": torch.ones(2), PAIRS: pairs}, polarity="keep")
    assert codes(found.edge_index()) == {(2, 3), (3, 2), (0, 1), (1, 0)}
    assert set(found.state) == {"w"}
    pruned = Ticket.from_masks(masks, {"w": torch.ones(2), PAIRS: pairs}, polarity="prune")
    assert codes(pruned.edge_index()) == {(0, 2), (2, 0)}
    arcs = {"graph/arcs": torch.tensor([0, 1, 1])}
    loose = Ticket.from_masks(arcs, {COLUMNS: pairs}, polarity="keep")
    assert codes(loose.edge_index()) == {(2, 0), (0, 1)}


def test_foreign_masks_of_unknown_edges_are_refused():
    masks = {"graph/edges": torch.tensor([1, 0, 1])}
    with pytest.raises(BadInput, match="the state must hold 'graph/pairs'"):
        Ticket.from_masks(masks, {}, polarity="keep")
    for pairs in ([[3, 2, 2], [2, 0, 3]], [[3, 2, 1], [2, 0, 1]]):
        with pytest.raises(BadInput, match="self-loops or names an edge twice"):
            Ticket.from_masks(masks, {PAIRS: torch.tensor(pairs)}, polarity="keep")
