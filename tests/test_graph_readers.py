"""Graphs read from files: every layout, against PyG's own readers; and what is refused."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_graphs
import torch
from image_files import nowhere_else  # noqa: F401 - a fixture
from scipy.sparse import csr_matrix

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import SPLITS, task_of
from lth_zoo.tasks.graph_files import tu_set
from lth_zoo.tasks.graph_pyg import plain_pickles, read_saved
from lth_zoo.tasks.graph_readers import PLANETOID

pytestmark = pytest.mark.usefixtures("nowhere_else")

TRACE = "code-was-run"


class Hostile:
    """An object whose unpickling makes a folder."""

    def __reduce__(self):
        return os.mkdir, (TRACE,)


def refused(make, message):
    """Say that making a task fails with this message, and that no code of a file ran."""
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert not Path(TRACE).exists()
    return str(caught.value)


def cora(folder):
    return task_of("planetoid/cora", folder).nodes


# -- Planetoid ----------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "planetoid", "planetoid-copy", "Cora/raw", "raw"])
def test_planetoid_is_found_in_every_layout(below, tmp_path):
    tiny_graphs.write_planetoid(tmp_path / below)
    nodes = cora(tmp_path)
    assert [len(nodes.splits[s]) for s in SPLITS] == [20, 500, 40]
    tiny_graphs.write_planetoid(tmp_path / "elsewhere")
    assert nodes.digest == task_of("planetoid/cora", tmp_path / "elsewhere").nodes.digest


@pytest.mark.parametrize("title", ["CiteSeer", "PubMed"])
def test_planetoid_is_what_pyg_reads(title, tmp_path):
    from torch_geometric.io import read_planetoid_data
    from torch_geometric.transforms import NormalizeFeatures

    gap = 3 if title == "CiteSeer" else 0
    parts = tiny_graphs.write_planetoid(tmp_path, title.lower(), gap=gap)
    ours = task_of(f"planetoid/{title.lower()}", tmp_path).nodes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = NormalizeFeatures()(read_planetoid_data(str(tmp_path), title))
    assert ours.graph.nodes == theirs.num_nodes == 580 + gap
    assert ours.graph.x.equal(theirs.x)
    assert sorted(ours.graph.edge_index.T.tolist()) == sorted(theirs.edge_index.T.tolist())
    for split, mask in zip(SPLITS, ("train_mask", "val_mask", "test_mask"), strict=True):
        assert ours.splits[split].equal(theirs[mask].nonzero().flatten())
    known = ours.labels >= 0
    assert ours.labels[known].equal(theirs.y[known])
    undescribed = sorted(set(range(540, 580 + gap)) - set(parts["test.index"].tolist()))
    assert (~known).nonzero().flatten().tolist() == undescribed
    assert len(undescribed) == gap
    assert not ours.graph.x[undescribed].any()


def test_cora_is_what_pyg_reads(data_dir):
    from torch_geometric.io import read_planetoid_data
    from torch_geometric.transforms import NormalizeFeatures

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = NormalizeFeatures()(read_planetoid_data(str(data_dir / "planetoid"), "Cora"))
    ours = cora(data_dir)
    assert ours.graph.x.equal(theirs.x)
    assert ours.labels.equal(theirs.y)
    order = (theirs.edge_index[0] * 2708 + theirs.edge_index[1]).argsort()
    assert ours.graph.edge_index.equal(theirs.edge_index[:, order])
    assert ours.splits["test"].equal(theirs.test_mask.nonzero().flatten())


@pytest.mark.parametrize("part", list(PLANETOID))
def test_a_missing_file_of_planetoid_is_named(part, tmp_path):
    tiny_graphs.write_planetoid(tmp_path)
    (tmp_path / f"ind.cora.{part}").unlink()
    said = refused(lambda: cora(tmp_path), f"has no ind.cora.{part} \\(")
    assert ("most nodes have no features" in said) == (part == "allx")


def test_pubmed_without_its_features_says_so(data_dir):
    if not (data_dir / "planetoid_pubmed_partial").is_dir():
        pytest.skip("no planetoid_pubmed_partial in the real data")
    with pytest.raises(DataError, match=r"ind.pubmed.allx.*most nodes have no features"):
        task_of("planetoid/pubmed", data_dir).graph()


@pytest.mark.parametrize("part", [p for p in PLANETOID if p != "test.index"])
def test_a_hostile_pickle_is_refused_and_nothing_run(part, tmp_path):
    tiny_graphs.write_planetoid(tmp_path)
    path = tmp_path / f"ind.cora.{part}"
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps(Hostile(), protocol))
        refused(lambda: cora(tmp_path), f"ind.cora.{part}: .*the pickle names posix.mkdir")
    inside = {0: [Hostile()]} if part == "graph" else np.array([[Hostile()]], dtype=object)
    path.write_bytes(pickle.dumps(inside))
    refused(lambda: cora(tmp_path), "the pickle names posix.mkdir")


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__", "open"])
def test_a_pickle_of_a_builtin_is_refused(name, tmp_path):
    tiny_graphs.write_planetoid(tmp_path)
    text = f"c__builtin__\n{name}\n(S'1'\ntR.".encode()
    (tmp_path / "ind.cora.x").write_bytes(text)
    refused(lambda: cora(tmp_path), f"the pickle names (__builtin__|builtins).{name}")


def lying(**changes):
    """Sparse rows whose arrays say something else than they should."""
    matrix = tiny_graphs.planetoid_arrays()["allx"]
    for name, value in changes.items():
        setattr(matrix, name, value)
    return matrix


@pytest.mark.parametrize(
    ("part", "held"),
    [
        ("allx", lying(indices=np.full(3, 10**6))),
        ("allx", lying(indptr=np.array([0, 10**9]))),
        ("allx", lying(data=np.array(["a"], dtype=object))),
        ("allx", {"data": [1]}),
        ("allx", [1, 2]),
        ("ally", np.ones(4)),
        ("ally", np.array([[None]])),
        ("graph", {0: ["1"]}),
        ("graph", {0: 1}),
        ("graph", {True: [0]}),
        ("graph", [1]),
        ("graph", {0: [5000]}),
        ("graph", {0: [10**30]}),
        ("tx", csr_matrix(np.ones((39, tiny_graphs.WORDS)))),
        ("ty", np.eye(3, dtype=np.int32)[[0] * 40]),
        ("y", np.ones((0, 2), np.int32)),
    ],
)
def test_damaged_contents_are_one_error(part, held, tmp_path):
    parts = tiny_graphs.planetoid_arrays() | {part: held}
    tiny_graphs.write_planetoid(tmp_path, parts=parts)
    refused(lambda: cora(tmp_path), str(tmp_path))


@pytest.mark.parametrize("part", list(PLANETOID))
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04"])
def test_a_damaged_file_is_one_error(part, content, tmp_path):
    tiny_graphs.write_planetoid(tmp_path)
    (tmp_path / f"ind.cora.{part}").write_bytes(content)
    if part == "test.index" and not content:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refused(lambda: cora(tmp_path), "expected equal columns")
        return
    refused(lambda: cora(tmp_path), f"ind.cora.{part}: ")


def test_test_nodes_among_the_others_are_refused(tmp_path):
    places = tiny_graphs.planetoid_arrays()["test.index"].copy()
    places[0] = 3
    parts = tiny_graphs.planetoid_arrays() | {"test.index": places}
    tiny_graphs.write_planetoid(tmp_path, parts=parts)
    refused(lambda: cora(tmp_path), "test node 3 is among the 540 of allx")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("planetoid/cora", "ind.cora.{x,tx,allx,y,ty,ally,graph,test.index} in ./, planetoid/"),
        ("amazon/photo", "amazon_electronics_photo.npz in ./, gnn_benchmark/"),
        ("coauthor/physics", "ms_academic_phy.npz in ./"),
        ("ogbn-arxiv", "raw/node-feat.csv.gz in ogbn_arxiv/"),
        ("tu/MUTAG", "MUTAG_A.txt in MUTAG/raw/"),
    ],
)
def test_what_is_not_at_hand_says_what_was_looked_for_and_where(name, wanted, tmp_path):
    with pytest.raises(DataError) as caught:
        task_of(name, tmp_path).graph()
    assert f"{name} is not at hand. Looked for {wanted}" in str(caught.value)
    assert f"of {tmp_path}; give --data or set LTH_ZOO_DATA" in str(caught.value)
    with pytest.raises(DataError, match="of no folder"):
        task_of(name).graph()
    with pytest.raises(DataError, match="which is no folder"):
        task_of(name, tmp_path / "nowhere").graph()


# -- gnn-benchmark ------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "gnn_benchmark", "Photo/raw"])
def test_the_npz_is_what_pyg_reads(below, tmp_path):
    from torch_geometric.io import read_npz

    path = tmp_path / below / "amazon_electronics_photo.npz"
    tiny_graphs.write_npz(path)
    ours, theirs = task_of("amazon/photo", tmp_path).nodes, read_npz(str(path))
    assert sorted(ours.graph.edge_index.T.tolist()) == sorted(theirs.edge_index.T.tolist())
    assert ours.labels.equal(theirs.y)
    assert ours.graph.x.equal(theirs.x)
    assert [len(ours.splits[s]) for s in SPLITS] == [40, 60, 10]


def test_weights_are_not_used_and_that_is_said(tmp_path, capsys):
    path = tmp_path / "ms_academic_cs.npz"
    tiny_graphs.write_npz(path)
    plain = task_of("coauthor/cs", tmp_path).graph()
    assert capsys.readouterr().err == ""
    tiny_graphs.write_npz(path, weights=True)
    assert task_of("coauthor/cs", tmp_path).graph().fingerprint() == plain.fingerprint()
    assert f"{path}: the weights or features of its edges are not used" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.array([Hostile()], dtype=object)},
        {"attr_data": np.array([Hostile()], dtype=object)},
        {"adj_indices": np.full(1, 10**6)},
        {"adj_indptr": np.array([0, 5])},
        {"attr_shape": np.array([3])},
        {"labels": np.zeros(5, np.int64)},
        {"labels": None},
    ],
)
def test_a_damaged_npz_is_one_error(changes, tmp_path):
    path = tmp_path / "amazon_electronics_photo.npz"
    arrays = {**tiny_graphs.write_npz(path), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    refused(lambda: task_of("amazon/photo", tmp_path).graph(), str(path))


def test_a_truncated_npz_is_one_error(tmp_path):
    path = tmp_path / "amazon_electronics_photo.npz"
    tiny_graphs.write_npz(path)
    path.write_bytes(path.read_bytes()[:2000])
    refused(lambda: task_of("amazon/photo", tmp_path).graph(), f"{path}: .*expected an npz")


# -- OGB ----------------------------------------------------------------------------------------


def test_ogb_files_are_read(tmp_path):
    place = tiny_graphs.write_ogb(tmp_path)
    nodes = task_of("ogbn-arxiv", tmp_path).nodes
    assert nodes.graph.undirected
    assert nodes.labels.tolist() == [i % 3 for i in range(60)]
    assert nodes.splits["validation"].tolist() == list(range(30, 45))
    rng = np.random.default_rng(0)
    pairs = tiny_graphs.random_pairs(60, 240, rng).T
    expected = {(min(a, b), max(a, b)) for a, b in pairs.tolist() if a != b}
    assert set(map(tuple, nodes.graph.pairs.T.tolist())) == expected
    np.testing.assert_allclose(nodes.graph.x, rng.normal(size=(60, 5)).round(3), rtol=1e-6)
    (place / "split" / "time" / "valid.csv.gz").unlink()
    message = r"has no split/time/valid.csv.gz\. With the extra package ogb: python -c"
    refused(lambda: task_of("ogbn-arxiv", tmp_path).graph(), message)


@pytest.mark.parametrize("content", [b"nonsense", b"\x1f\x8b\x08 broken", b"1,a\n"])
def test_a_damaged_table_is_one_error(content, tmp_path):
    path = tiny_graphs.write_ogb(tmp_path) / "raw" / "edge.csv.gz"
    path.write_bytes(content)
    refused(lambda: task_of("ogbn-arxiv", tmp_path).graph(), "edge.csv.gz: .*expected numbers")


# -- saved folders ------------------------------------------------------------------------------


def save(folder, form, arrays):
    folder.mkdir(parents=True, exist_ok=True)
    if form == "npz":
        np.savez(folder / "data.npz", **arrays)
        return
    held = tiny_graphs.tensors(arrays)
    if form == "Data":
        from torch_geometric.data import Data

        held = Data(**held)
    torch.save(held, folder / "data.pt")


@pytest.mark.parametrize("form", ["npz", "dictionary", "Data"])
def test_a_saved_folder_is_a_task(form, tmp_path):
    arrays = tiny_graphs.saved_arrays()
    save(tmp_path / "mine", form, arrays)
    nodes = task_of("pyg/mine", tmp_path).nodes
    edges = {(a, b) for a, b in arrays["edge_index"].T.tolist() if a != b}
    assert set(map(tuple, nodes.graph.edge_index.T.tolist())) == edges, "directions are kept"
    np.testing.assert_array_equal(nodes.graph.x, arrays["x"])
    for split, mask in zip(SPLITS, ("train_mask", "val_mask", "test_mask"), strict=True):
        assert nodes.splits[split].tolist() == arrays[mask].nonzero()[0].tolist()
    assert task_of(f"pyg/{tmp_path / 'mine'}").nodes.digest == nodes.digest


def test_masks_of_several_columns_hold_several_splits(tmp_path):
    arrays = tiny_graphs.saved_arrays(columns=3)
    save(tmp_path / "mine", "npz", arrays)
    for suffix, column in (("", 0), ("@split-0", 0), ("@split-2", 2)):
        nodes = task_of(f"pyg/mine{suffix}", tmp_path).nodes
        assert nodes.splits["test"].tolist() == arrays["test_mask"][:, column].nonzero()[0].tolist()
    refused(lambda: task_of("pyg/mine@split-3", tmp_path).graph(), "split 3; expected 0 to 2")


def test_a_folder_without_masks_is_split_at_random(tmp_path):
    arrays = tiny_graphs.saved_arrays(nodes=180)
    few = {name: arrays[name] for name in ("x", "edge_index", "y")}
    save(tmp_path / "mine", "npz", few)
    assert task_of("pyg/mine", tmp_path).labels("train").bincount().tolist() == [20] * 3
    refused(lambda: task_of("pyg/mine@split-1", tmp_path).graph(), "it has none; expected all")
    save(tmp_path / "mine", "npz", few | {"train_mask": arrays["train_mask"]})
    refused(lambda: task_of("pyg/mine", tmp_path).graph(), "it has train_mask; expected all")
    assert task_of("pyg/mine@random-1", tmp_path).size("train") == 60


def test_a_saved_file_of_anything_else_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "data.pt"
    torch.save({"x": Hostile()}, path)
    refused(lambda: read_saved(path), "data.pt: UnpicklingError: .*expected tensors only")
    path.write_bytes(pickle.dumps(Hostile()))
    refused(lambda: read_saved(path), "data.pt: ")
    path.unlink()
    np.savez(tmp_path / "mine" / "data.npz", x=np.array([Hostile()], dtype=object))
    refused(lambda: task_of("pyg/mine", tmp_path).graph(), "data.npz: .*expected tensors only")
    save(tmp_path / "mine", "npz", {"x": np.zeros((3, 1), np.float32), "y": np.zeros(3)})
    refused(lambda: task_of("pyg/mine", tmp_path).graph(), "no edge_index; has x, y")


# -- PyG by class -------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and a cache of the test's own."""
    monkeypatch.setenv("LTH_ZOO_CACHE", str(tmp_path / "cache"))

    def refuse(*args, **kwargs):
        raise OSError("no network in the tests")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def planetoid_for_pyg(folder):
    tiny_graphs.write_planetoid(folder / "Cora" / "raw", gap=0)


@pytest.mark.parametrize("below", ["", "Planetoid", "pyg/Planetoid"])
@pytest.mark.usefixtures("offline")
def test_a_class_of_pyg_reads_its_own_layout(below, tmp_path):
    planetoid_for_pyg(tmp_path / below)
    nodes = task_of("pyg/Planetoid:Cora", tmp_path).nodes
    assert [len(nodes.splits[s]) for s in SPLITS] == [20, 500, 40]
    assert nodes.graph.x.max() == 1, "features are left as they are"


@pytest.mark.usefixtures("offline")
def test_pickles_that_pyg_would_run_are_refused(tmp_path):
    planetoid_for_pyg(tmp_path)
    place = tmp_path / "Cora"
    (place / "raw" / "ind.cora.x").write_bytes(pickle.dumps(Hostile()))
    refused(lambda: task_of("pyg/Planetoid:Cora", tmp_path).graph(), "names posix.mkdir")
    planetoid_for_pyg(tmp_path)
    task_of("pyg/Planetoid:Cora", tmp_path).graph()
    # PyG loads what torch calls unsafe in an unsafe way, if only its class could be declared.
    for held, said in ((Hostile(), "Weights only load failed"), (Path("a"), "names pathlib")):
        torch.save(held, place / "processed" / "data.pt")
        refused(lambda: task_of("pyg/Planetoid:Cora", tmp_path).graph(), said)


def test_the_guard_is_up_inside_only():
    held = pickle.dumps(Hostile())
    refused(lambda: guarded(held), "a pickle names posix.mkdir; expected arrays only")
    assert pickle.loads(pickle.dumps(Path("here"))) == Path("here")
    pickle.loads(held)
    assert Path(TRACE).is_dir()


def guarded(held):
    with plain_pickles():
        pickle.loads(held)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("pyg/WikiCSS", BadInput, "did you mean 'WikiCS'"),
        ("pyg/", BadInput, "unknown class of PyG or folder"),
        ("pyg/Planetoid", BadInput, "expected pyg/Planetoid:NAME"),
        ("pyg/WikiCS:x", BadInput, "takes no name"),
        ("pyg/WikiCS", DataError, "PyG cannot read it from .*cache.pyg.WikiCS: .*no network"),
        ("pyg/BAMultiShapesDataset", DataError, "3 graphs; expected one"),
        ("pyg/KarateClub", DataError, "it has train_mask; expected all"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_a_class_that_is_no_node_data_set_is_refused(name, error, message, tmp_path, monkeypatch):
    from torch_geometric import datasets

    class Several(datasets.FakeDataset):
        def __init__(self, root):
            super().__init__(num_graphs=3)

    monkeypatch.setattr(datasets, "BAMultiShapesDataset", Several)
    with pytest.raises(error, match=message):
        task_of(name, tmp_path).graph()


# -- TU -----------------------------------------------------------------------------------------


def test_tu_files_are_what_pyg_reads(tmp_path):
    from torch_geometric.io import read_tu_data

    place = tiny_graphs.write_tu(tmp_path)
    ours = tu_set("TOY", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, _, _ = read_tu_data(str(place), "TOY")
    assert ours.labels.equal(theirs.y)
    assert ours.x.equal(theirs.x[:, theirs.x.any(0)]), "PyG has a column for labels that none has"
    assert not ours.weighted


@pytest.mark.parametrize("below", ["TOY/raw", "TOY", "TUDataset/TOY/raw", "tu/TOY"])
def test_tu_files_are_found_in_every_layout(below, tmp_path):
    tiny_graphs.write_tu(tmp_path / "made").rename(tmp_path / "raw")
    (tmp_path / below).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "raw").rename(tmp_path / below)
    assert len(tu_set("TOY", tmp_path).labels) == 40


@pytest.mark.parametrize(("parts", "width"), [(("node_attributes",), 2), ((), None)])
def test_tu_features_are_what_there_is(parts, width, tmp_path):
    tiny_graphs.write_tu(tmp_path, parts=(*parts, "edge_labels"))
    found = tu_set("TOY", tmp_path)
    assert found.weighted
    assert found.x is None if width is None else found.x.shape[1] == width


def test_a_missing_or_damaged_file_of_tu_is_one_error(tmp_path):
    path = tiny_graphs.write_tu(tmp_path) / "TOY_graph_labels.txt"
    path.write_text("1\nx\n")
    refused(lambda: tu_set("TOY", tmp_path), "TOY_graph_labels.txt: .*expected numbers")
    path.unlink()
    refused(lambda: tu_set("TOY", tmp_path), "TOY_graph_labels.txt: .*expected numbers")
