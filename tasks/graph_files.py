"""Graphs in text files: OGB's raw tables, and TU Dortmund's sets of graphs.

Every error is a :class:`~lth_zoo.errors.DataError` that names the file or the data set.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lth_zoo.errors import DataError
from lth_zoo.protocols import SPLITS
from lth_zoo.tasks.graph_data import Raw
from lth_zoo.tasks.graph_readers import missing
from lth_zoo.tasks.readers import roots

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

#: OGB's names of the splits.
PARTS = ("train", "valid", "test")


def ogb_nodes(name: str, split: str, data: Path | None) -> Raw:
    """Return a node data set of OGB from the raw files that the package ogb downloads.

    ``split`` is the folder of the published split.

    Raises:
        DataError: a file is missing or damaged; it says how to get them.
    """
    import torch

    folder = name.replace("-", "_")
    files = {
        "x": "raw/node-feat.csv.gz",
        "edge_index": "raw/edge.csv.gz",
        "labels": "raw/node-label.csv.gz",
    }
    files |= {part: f"split/{split}/{part}.csv.gz" for part in PARTS}
    places = [root / f"{below}{folder}" for root in roots(data) for below in ("", "ogb/")]
    place = next((p for p in (*places, *roots(data)) if (p / files["x"]).is_file()), None)
    how = (
        'With the extra package ogb: python -c "from ogb.nodeproppred import '
        f"NodePropPredDataset as D; D('{name}', root='FOLDER')\""
    )
    if place is None:
        raise missing(name, files["x"], (f"{folder}/", f"ogb/{folder}/"), data, how)
    absent = [file for file in files.values() if not (place / file).is_file()]
    if absent:
        raise DataError(f"{name}: {place} has no {', '.join(absent)}. {how}")
    kinds = {"x": "float32"}
    read = {
        what: torch.from_numpy(read_text(place / file, kinds.get(what, "int64")))
        for what, file in files.items()
    }
    splits = {s: read[part].flatten() for s, part in zip(SPLITS, PARTS, strict=True)}
    edges, labels = read["edge_index"].T, read["labels"].flatten()
    return Raw(read["x"], edges, labels, f"{name} ({place})", splits)


def read_text(path: Path, dtype: str) -> np.ndarray:
    """Return the numbers of a table without a header, gzipped or not, (rows, columns).

    Raises:
        DataError: damaged, or not numbers of that kind.
    """
    import numpy as np

    try:
        return np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: {error}; expected numbers parted by commas") from error


@dataclass(frozen=True)
class RawSet:
    """A set of graphs as one: node i belongs to graph ``owner[i]``, which has ``labels[owner[i]]``.

    ``x`` is None where nodes have no features; ``edge_index`` is (2, columns).
    """

    x: Tensor | None
    edge_index: Tensor
    owner: Tensor
    labels: Tensor
    source: str
    weighted: bool = False


def tu_set(wanted: str, data: Path | None) -> RawSet:
    """Return a graph classification set of TU Dortmund from its text files.

    Features are the node labels, one-hot; else the node attributes; else there are none. Graphs
    and nodes are counted from one in the files.

    Raises:
        DataError: a file is missing or damaged.
    """
    import torch

    below = [f"{base}{wanted}/{end}" for base in ("", "TUDataset/", "tu/") for end in ("raw/", "")]
    places = [root / place for root in roots(data) for place in below]
    folder = next((p for p in places if (p / f"{wanted}_A.txt").is_file()), None)
    if folder is None:
        raise missing(f"tu/{wanted}", f"{wanted}_A.txt", below, data)

    def table(part: str, dtype: str) -> Tensor:
        return torch.from_numpy(read_text(folder / f"{wanted}_{part}.txt", dtype))

    def there(part: str) -> bool:
        return (folder / f"{wanted}_{part}.txt").is_file()

    x = None
    if there("node_labels"):
        x = torch.cat([_one_hot(column) for column in table("node_labels", "int64").T], 1)
    elif there("node_attributes"):
        x = table("node_attributes", "float32")
    owner = table("graph_indicator", "int64").flatten() - 1
    labels = table("graph_labels", "int64").flatten().unique(return_inverse=True)[1]
    weighted = there("edge_labels") or there("edge_attributes")
    return RawSet(x, table("A", "int64").T - 1, owner, labels, str(folder), weighted)


def _one_hot(values: Tensor) -> Tensor:
    from torch.nn import functional as F

    return F.one_hot(values.unique(return_inverse=True)[1]).float()
