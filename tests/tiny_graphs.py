"""Small graph data sets in every published file form, and a model of a graph for the contracts."""

from __future__ import annotations

import gzip
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import nn

from lth_zoo.protocols import Task, task_of

WORDS = 30


class Anywhere(nn.Sequential):
    """Layers for rows of features, called as a model of a graph, whose edges they ignore."""

    def forward(self, x, edge_index):
        return super().forward(100 * x)  # rows of words sum to one: a bias would decide


class Mixing(nn.Module):
    """Two linear layers, each followed by the sum over the node and its sources."""

    def __init__(self, features, outputs, hidden=8):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(features, hidden), nn.Linear(hidden, outputs)])

    def forward(self, x, edge_index):
        for layer in self.layers:
            x = layer(x)
            x = x.index_add(0, edge_index[1], x[edge_index[0]])
        return x


def words(labels, classes, rng):
    """Bags of 0/1 words, of which each class has its own."""
    chance = np.where(np.arange(WORDS) % classes == labels[:, None], 0.5, 0.1)
    return (rng.random(chance.shape) < chance).astype(np.float32)


def random_pairs(nodes, count, rng):
    return rng.integers(0, nodes, (2, count))


def planetoid_arrays(classes=2, a_class=10, test=40, gap=3, seed=0):
    """What the eight files of Planetoid hold, with ``gap`` nodes that none describes."""
    rng = np.random.default_rng(seed)
    train = classes * a_class
    rest = train + 500 + 20
    places = np.sort(rng.permutation(test + gap)[:test])
    places[-1] = test + gap - 1  # the last node is a test node
    places = rng.permutation(places + rest)
    labels = rng.integers(0, classes, rest + test)
    labels[:train] = np.arange(train) % classes
    x, one_hot = words(labels, classes, rng), np.eye(classes, dtype=np.int32)[labels]
    graph = defaultdict(list, {node: [] for node in range(rest + test + gap)})
    for a, b in random_pairs(rest + test, 3 * rest, rng).T.tolist():
        a, b = (int(n if n < rest else places[n - rest]) for n in (a, b))
        graph[a].append(b)
        graph[b].append(a)
    return {
        **{"x": csr_matrix(x[:train]), "tx": csr_matrix(x[rest:]), "allx": csr_matrix(x[:rest])},
        **{"y": one_hot[:train], "ty": one_hot[rest:], "ally": one_hot[:rest]},
        **{"graph": graph, "test.index": places},
    }


def write_planetoid(folder: Path, title: str = "cora", parts=None, **sizes) -> dict:
    """Write the eight files; return what they hold."""
    parts = planetoid_arrays(**sizes) if parts is None else parts
    folder.mkdir(parents=True, exist_ok=True)
    for name, held in parts.items():
        path = folder / f"ind.{title}.{name}"
        if name == "test.index":
            path.write_text("\n".join(map(str, held)) + "\n")
        else:
            path.write_bytes(pickle.dumps(held, protocol=4))
    return parts


def write_npz(path: Path, classes=2, a_class=55, seed=0, weights=False) -> dict[str, np.ndarray]:
    """Write a graph of gnn-benchmark, its edges in one direction with a loop; return its arrays."""
    rng = np.random.default_rng(seed)
    labels = np.arange(classes * a_class) % classes
    nodes = len(labels)
    source, target = random_pairs(nodes, 4 * nodes, rng)
    adjacency = csr_matrix((np.ones(len(source), np.float32), (source, target)), (nodes, nodes))
    adjacency.data[:] = rng.random(adjacency.nnz) if weights else 1
    arrays = {"labels": labels}
    for what, matrix in (("adj", adjacency), ("attr", csr_matrix(2 * words(labels, classes, rng)))):
        arrays |= {f"{what}_{p}": getattr(matrix, p) for p in ("data", "indices", "indptr")}
        arrays[f"{what}_shape"] = np.array(matrix.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return arrays


def write_table(path: Path, rows, end: str = "") -> None:
    """Write numbers parted by commas, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(rows)
    text = "".join(",".join(map(str, np.atleast_1d(row))) + f"{end}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_ogb(folder: Path, nodes=60, classes=3, seed=0) -> Path:
    """Write ogbn-arxiv's files with a handful of nodes; return their folder."""
    rng = np.random.default_rng(seed)
    labels = np.arange(nodes) % classes
    place = folder / "ogbn_arxiv"
    write_table(place / "raw" / "edge.csv.gz", random_pairs(nodes, 4 * nodes, rng).T)
    write_table(place / "raw" / "node-feat.csv.gz", rng.normal(size=(nodes, 5)).round(3))
    write_table(place / "raw" / "node-label.csv.gz", labels)
    for part, at in (("train", slice(0, 30)), ("valid", slice(30, 45)), ("test", slice(45, 60))):
        write_table(place / "split" / "time" / f"{part}.csv.gz", np.arange(nodes)[at])
    return place


def saved_arrays(nodes=60, classes=3, columns=0, seed=0) -> dict[str, np.ndarray]:
    """A saved graph with masks, of several columns if asked for; its edges have directions."""
    rng = np.random.default_rng(seed)
    labels = np.arange(nodes) % classes
    masks = {}
    for name, part in (("train_mask", 0), ("val_mask", 1), ("test_mask", 2)):
        place = (np.arange(nodes)[:, None] // 3 + np.arange(max(1, columns))) % 3 == part
        masks[name] = place if columns else place[:, 0]
    x = rng.normal(size=(nodes, 5)).astype(np.float32)
    return {"x": x, "edge_index": random_pairs(nodes, 12 * nodes, rng), "y": labels, **masks}


def write_tu(folder: Path, name="TOY", graphs=40, seed=0, parts=("node_labels",)) -> Path:
    """Write a TU set of rings (label 1) and paths (label -1), its nodes in no order of graphs."""
    rng = np.random.default_rng(seed)
    place = folder / name / "raw"
    sizes, edges, start = rng.integers(4, 8, graphs), [], 0
    for graph, size in enumerate(sizes):
        ends = np.arange(size - 1 + graph % 2)
        edges += [(start + a, start + (a + 1) % size) for a in ends]
        start += size
    owner = np.repeat(np.arange(graphs), sizes)
    number = rng.permutation(start)  # node i of the list above is called so in the files
    both = np.array([*edges, *((b, a) for a, b in edges)])
    write_table(place / f"{name}_A.txt", number[both] + 1)
    write_table(place / f"{name}_graph_indicator.txt", owner[number.argsort()] + 1)
    write_table(place / f"{name}_graph_labels.txt", np.where(np.arange(graphs) % 2, 1, -1))
    if "node_labels" in parts:
        write_table(place / f"{name}_node_labels.txt", np.array([3, 7, 9])[np.arange(start) % 3])
    if "node_attributes" in parts:
        write_table(place / f"{name}_node_attributes.txt", rng.normal(size=(start, 2)).round(3))
    if "edge_labels" in parts:
        write_table(place / f"{name}_edge_labels.txt", np.zeros(len(both), int))
    return place


def task_in(name: str, folder: Path) -> Task:
    """The task of that name over small files in the published form, written on the first use."""
    kind, _, title = name.partition("/")
    files = {"photo": "electronics_photo", "computers": "electronics_computers"}
    if kind == "planetoid" and not (folder / "planetoid").exists():
        write_planetoid(folder / "planetoid", title)
    if kind == "amazon":
        write_npz(folder / "gnn_benchmark" / f"amazon_{files[title]}.npz")
    if kind == "coauthor":
        short = {"cs": "cs", "physics": "phy"}[title]
        write_npz(folder / "gnn_benchmark" / f"ms_academic_{short}.npz")
    if kind == "ogbn-arxiv" and not (folder / "ogbn_arxiv").exists():
        write_ogb(folder)
    if kind == "pyg":
        (folder / title).mkdir(exist_ok=True)
        np.savez(folder / title / "data.npz", **saved_arrays())
    if kind == "tu" and not (folder / title).exists():
        write_tu(folder, title)
    return task_of(name, folder)


def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
