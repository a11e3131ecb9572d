"""Data sets for node classification by name: local files, or inside a dependency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from lth_zoo.protocols import SPLITS
from lth_zoo.tasks import graph_files, graph_pyg, graph_readers
from lth_zoo.tasks.graph_data import Raw
from lth_zoo.tasks.graph_nodes import NodeClassification
from lth_zoo.tasks.images import fixed_order

if TYPE_CHECKING:
    from torch import Tensor


class Planetoid(NodeClassification):
    """Papers that cite one another, by topic; the public split of Planetoid.

    20 train nodes a class, 500 validation and 1,000 test nodes. Words are row-normalised, and
    edges undirected without loops, as in PyG. Read from the eight ``ind.NAME.*`` files.
    """

    source: ClassVar[str] = (
        "Z. Yang, W. Cohen and R. Salakhutdinov, Revisiting Semi-Supervised Learning with Graph "
        "Embeddings, 2016 (github.com/kimiyoung/planetoid)"
    )
    title: ClassVar[str]

    def read(self) -> Raw:
        """Return the graph with its public split; features sum to one in each row.

        Raises:
            DataError: a file is missing, damaged, or names code to run.
        """
        return graph_readers.planetoid(self.name, self.title, self.data)


class Cora(Planetoid):
    """2,708 papers on machine learning, 1,433 words, 7 topics, 5,278 undirected citations.

    A GCN spreads by 0.7 points over 10 seeds on the public split; the margin is two of them.
    """

    margin: ClassVar[float] = 1.5
    title: ClassVar[str] = "Cora"


class CiteSeer(Planetoid):
    """3,327 papers, 3,703 words, 6 topics; 48 without an edge, 15 of them without words and topic.

    A GCN spreads by 0.7 points over 10 seeds on the public split; the margin is two of them.
    """

    margin: ClassVar[float] = 1.5
    title: ClassVar[str] = "CiteSeer"


class PubMed(Planetoid):
    """19,717 papers on diabetes, 500 words (TF-IDF), 3 topics.

    A GCN spreads by 0.2 to 0.4 points on the public split (20 seeds 79.16 +- 0.19), and a point
    is ten test nodes; the margin is one.
    """

    margin: ClassVar[float] = 1.0
    title: ClassVar[str] = "PubMed"


class Benchmark(NodeClassification):
    """A graph of Shchur et al. without a published split: 20 nodes a class train, 30 validation.

    The other nodes are the test part; the split is that of seed 0 unless ``@random-SEED`` asks
    for another. Words are 0 or 1 (rows not normalised); edges undirected without loops.
    """

    source: ClassVar[str] = (
        "O. Shchur, M. Mumme, A. Bojchevski and S. Günnemann, Pitfalls of Graph Neural Network "
        "Evaluation, 2018 (github.com/shchur/gnn-benchmark)"
    )
    title: ClassVar[str]
    file: ClassVar[str]

    def read(self) -> Raw:
        """Return the graph; features are 0 or 1.

        Raises:
            DataError: the file is missing or damaged.
        """
        return graph_readers.benchmark(self.name, self.title, self.file, self.data)


class AmazonPhoto(Benchmark):
    """7,650 photo articles bought together, 745 words of reviews, 8 categories.

    GCN: 91.2 +- 1.2 over splits and seeds (Shchur et al., table 2).
    """

    margin: ClassVar[float] = 1.5
    title: ClassVar[str] = "Photo"
    file: ClassVar[str] = "amazon_electronics_photo.npz"


class AmazonComputers(Benchmark):
    """13,752 computer articles bought together, 767 words of reviews, 10 categories.

    GCN: 82.6 +- 2.4 over splits and seeds (Shchur et al., table 2); less for one split.
    """

    margin: ClassVar[float] = 1.5
    title: ClassVar[str] = "Computers"
    file: ClassVar[str] = "amazon_electronics_computers.npz"


class CoauthorCS(Benchmark):
    """18,333 authors who wrote together, 6,805 keywords, 15 fields of computer science.

    GCN: 91.1 +- 0.5 over splits and seeds (Shchur et al., table 2).
    """

    margin: ClassVar[float] = 0.7
    title: ClassVar[str] = "CS"
    file: ClassVar[str] = "ms_academic_cs.npz"


class CoauthorPhysics(Benchmark):
    """34,493 authors who wrote together, 8,415 keywords, 5 fields of physics; 1.2 GB in memory.

    GCN: 92.8 +- 1.0 over splits and seeds (Shchur et al., table 2); less for one split.
    """

    margin: ClassVar[float] = 0.7
    title: ClassVar[str] = "Physics"
    file: ClassVar[str] = "ms_academic_phy.npz"


class KarateClub(NodeClassification):
    """34 members of a karate club and their 78 friendships, in 4 groups; inside PyG.

    One train node a group; of the others a third is validation and two thirds are test, always
    the same. Features are the identity. A test node is five points: only for trying things out.
    """

    margin: ClassVar[float] = 10.0
    source: ClassVar[str] = "W. Zachary, An Information Flow Model for Conflict and Fission, 1977"
    suffixes: ClassVar[Sequence[str]] = ("inductive",)
    fanouts: ClassVar[tuple[int, ...] | None] = None
    augment = False

    def read(self) -> Raw:
        """Return the graph inside PyG."""
        import torch
        from torch_geometric.datasets import KarateClub as Club

        data = Club()[0]
        order = torch.from_numpy(fixed_order(data.num_nodes, seed=0))
        rest = order[~data.train_mask[order]]
        drawn = (part.sort().values for part in rest.split([10, 20]))
        parts = dict(zip(SPLITS, (data.train_mask.nonzero().flatten(), *drawn), strict=True))
        return Raw(data.x, data.edge_index, data.y, self.name, parts)


class DigitsKNN(NodeClassification):
    """1,797 handwritten digits, each joined to the 10 most similar; inside scikit-learn.

    Similar by the Euclidean distance of the 8x8 pixels (0 to 16, whole numbers, so exact); of
    equally far ones the first in the data set. An edge joins two digits where either is among
    the other's ten. Features are the pixels over 16. 20 digits a class train, 30 validation, the
    1,297 others test. The margin is that of ``digits``.
    """

    margin: ClassVar[float] = 2.0
    licence: ClassVar[str] = "CC BY 4.0"
    source: ClassVar[str] = (
        "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 "
        "(the test part, as in sklearn.datasets.load_digits)"
    )
    neighbours: ClassVar[int] = 10

    def read(self) -> Raw:
        """Return the digits and the columns from each to its nearest ones."""
        import torch
        from sklearn.datasets import load_digits

        pixels, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
        edges = nearest(pixels.long(), self.neighbours)
        return Raw(pixels.float() / 16, edges, labels.long(), self.name)


def nearest(points: Tensor, count: int) -> Tensor:
    """Return (2, points * count) columns from each point to the nearest others.

    ``points`` are (n, dimensions) int64; of equally far points the lower number comes first.
    """
    import torch

    # Sums of products of small whole numbers: float64 holds them exactly, in any order.
    values, number = points.double(), torch.arange(len(points))
    squares = (values * values).sum(1)
    distance = (squares[:, None] + squares - 2 * values @ values.T).long()
    distance.fill_diagonal_(int(distance.max()) + 1)
    # The number breaks ties, so that the order of equal distances is nobody's choice.
    found = (distance * len(points) + number).topk(count, largest=False).values % len(points)
    return torch.stack([number.repeat_interleave(count), found.flatten()])


class OGBNArxiv(NodeClassification):
    """169,343 computer science papers on arXiv, 128 features, 40 subjects; split by year.

    Edges are made undirected, as the field does; features are used as they are. Read from the
    raw files of the package ogb. GCN: 71.74 +- 0.29 on OGB's leaderboard.
    """

    margin: ClassVar[float] = 0.6
    licence: ClassVar[str] = "ODC-BY"
    source: ClassVar[str] = "W. Hu et al., Open Graph Benchmark, 2020 (ogb.stanford.edu)"
    suffixes: ClassVar[Sequence[str]] = ("inductive", "fanouts")
    fanouts: ClassVar[tuple[int, ...] | None] = (15, 10, 5)

    def read(self) -> Raw:
        """Return the graph with its published split.

        Raises:
            DataError: a file is missing or damaged; it says how to get them.
        """
        return graph_files.ogb_nodes(self.name, "time", self.data)


class PyGNodes(NodeClassification):
    """A node data set of PyG by class (``pyg/WikiCS``, ``pyg/Planetoid:Cora``), or a folder.

    ``pyg/FOLDER`` holds ``data.pt`` (a saved ``Data`` or a dictionary of tensors) or ``data.npz``
    with ``x``, ``edge_index``, ``y`` and, for a split of its own, ``train_mask``, ``val_mask``
    and ``test_mask``; a mask of several columns has a split in each, of which ``@split-COLUMN``
    takes another than the first. Features and directions are left as they are. A data set without
    masks gets the random split of seed 0. The margin rests on no published spread.
    """

    margin: ClassVar[float] = 1.5
    suffixes: ClassVar[Sequence[str]] = ("seed", "column", "inductive", "fanouts")
    symmetric: ClassVar[bool] = False

    def read(self) -> Raw:
        """Return the graph of the data set or the folder.

        Raises:
            DataError: it cannot be had, is no node data set, or its files name code to run.
        """
        return graph_pyg.pyg_nodes(self.variant, self.data)
