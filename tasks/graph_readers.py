"""Published graphs in the files they come in: Planetoid's pickles, the npz of gnn-benchmark.

Nothing here runs code found in a file: the pickles may name what builds numpy arrays, scipy's
sparse rows and dictionaries of lists, and nothing else; what they hold is built again from its
numbers. Every error is a :class:`~lth_zoo.errors.DataError` that names the file.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import DataError
from lth_zoo.protocols import SPLITS
from lth_zoo.tasks.graph_data import Raw, row_normalised
from lth_zoo.tasks.readers import VARIABLE, roots

if TYPE_CHECKING:
    import numpy as np

#: What each file of Planetoid holds, for the error that says it is missing.
PLANETOID = {
    "x": "the features of the train nodes",
    "tx": "the features of the test nodes",
    "allx": "the features of all nodes but the test nodes",
    "y": "the labels of the train nodes",
    "ty": "the labels of the test nodes",
    "ally": "the labels of all nodes but the test nodes",
    "graph": "the edges",
    "test.index": "the numbers of the test nodes",
}
#: All that a pickle may name: (module, name), in the spellings of old and new libraries.
PLAIN = frozenset(
    {
        *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
        *(("numpy", kind) for kind in ("ndarray", "dtype")),
        *((f"scipy.sparse{module}", "csr_matrix") for module in ("", ".csr", "._csr")),
        *((module, "list") for module in ("__builtin__", "builtins")),
        ("collections", "defaultdict"),
    }
)
#: Nodes after the train nodes that are the validation part of the public split.
VALIDATION = 500


def missing(
    name: str, file: str, below: Sequence[str], data: Path | None, how: str = ""
) -> DataError:
    """Return the error for a data set that was not found: which file was looked for, and where."""
    looked = ", ".join(map(str, roots(data))) or "no folder"
    places = ", ".join(folder or "./" for folder in below)
    return DataError(
        f"{name} is not at hand. Looked for {file} in {places} of {looked}; give --data or set "
        f"{VARIABLE}{how and '. ' + how}"
    )


def planetoid(name: str, title: str, data: Path | None) -> Raw:
    """Return a graph of Planetoid with its public split, features row-normalised.

    Its eight files may lie flat in the data folder or in one called ``planetoid*``, or as PyG
    has them, in ``TITLE/raw``. Nodes between the test nodes that no file describes (CiteSeer has
    15) get zeros for features and no label.

    Raises:
        DataError: a file is missing, damaged, or names code to run.
    """
    import numpy as np
    import torch

    paths = _planetoid_files(name, title, data)
    parts = {part: _read(path) for part, path in paths.items()}
    source = f"{name} ({paths['graph'].parent})"
    x, labels = _joined(parts, "allx", "tx", source), _joined(parts, "ally", "ty", source)
    if len(x) != len(labels):
        raise DataError(f"{source}: features of {len(x)} nodes, labels of {len(labels)}")
    known = np.where(labels.any(1), labels.argmax(1), -1)
    train = len(parts["y"])
    nodes = (np.arange(train), np.arange(train, train + VALIDATION), np.sort(parts["test.index"]))
    splits = {s: torch.from_numpy(n) for s, n in zip(SPLITS, nodes, strict=True)}
    features = row_normalised(torch.from_numpy(x))
    edges = torch.from_numpy(parts["graph"])
    return Raw(features, edges, torch.from_numpy(known), source, splits)


def _planetoid_files(name: str, title: str, data: Path | None) -> dict[str, Path]:
    """Return the path of each of the eight files, all of one folder."""
    partial: DataError | None = None
    for root in roots(data):
        places = [root, *sorted(p for p in root.glob("[Pp]lanetoid*") if p.is_dir())]
        for folder in [f for p in places for f in (p, p / title / "raw", p / "raw")]:
            paths = {part: folder / f"ind.{title.lower()}.{part}" for part in PLANETOID}
            absent = [part for part, path in paths.items() if not path.is_file()]
            if not absent:
                return paths
            if len(absent) < len(paths) and partial is None:
                what = f"{paths[absent[0]].name} ({PLANETOID[absent[0]]})"
                without = "; without it most nodes have no features" if "allx" in absent else ""
                partial = DataError(f"{name}: {folder} has no {what}{without}")
    wanted = f"ind.{title.lower()}.{{{','.join(PLANETOID)}}}"
    raise partial or missing(name, wanted, ("", "planetoid/", f"{title}/raw/"), data)


def _joined(parts: dict[str, Any], rest: str, test: str, source: str) -> np.ndarray:
    """Return one row a node: the first ones from one file, the test nodes' from the other."""
    import numpy as np

    first, second, places = parts[rest], parts[test], parts["test.index"]
    if len(second) != len(places) or first.shape[1:] != second.shape[1:] or not len(places):
        raise DataError(
            f"{source}: {test} has shape {second.shape} and {rest} {first.shape}, for "
            f"{len(places)} test nodes; expected equal columns, and a row of {test} a test node"
        )
    if places.min() < len(first):
        raise DataError(f"{source}: test node {places.min()} is among the {len(first)} of {rest}")
    joined = np.zeros((places.max() + 1, first.shape[1]), first.dtype)
    joined[: len(first)] = first
    joined[places] = second
    return joined


class _PlainOnly(pickle.Unpickler):
    """An unpickler of arrays, sparse rows and dictionaries of lists, which runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few constructors that these files need; refuse every other name."""
        import numpy as np
        from numpy._core.multiarray import _reconstruct
        from scipy.sparse import csr_matrix

        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f"the pickle names {module}.{name}")
        kinds = (_reconstruct, np.ndarray, np.dtype, csr_matrix, list, defaultdict)
        return {kind.__name__: kind for kind in kinds}[name]


def _read(path: Path) -> np.ndarray:
    """Return what a file of Planetoid holds: rows (n, columns), edges (2, columns) or nodes (n,).

    Raises:
        DataError: damaged, or names anything but arrays, sparse rows and lists.
    """
    import numpy as np

    part = path.name.split(".", 2)[2]
    try:
        if part == "test.index":
            return np.loadtxt(path, dtype=np.int64, ndmin=1)
        with path.open("rb") as file:
            held = _PlainOnly(file, encoding="latin1").load()
        return _edges(held) if part == "graph" else _rows(held)
    except Exception as error:  # a damaged pickle can raise anything
        expected = f"{PLANETOID[part]} as in github.com/kimiyoung/planetoid"
        raise DataError(f"{path}: {type(error).__name__}: {error}; expected {expected}") from error


def _rows(held: Any) -> np.ndarray:
    """Return a sparse or dense matrix as float32, its numbers checked: a pickle can lie."""
    import numpy as np

    if isinstance(held, np.ndarray):
        return _matrix(held.astype(np.float32))
    fields = vars(held)
    shape = fields.get("_shape", fields.get("shape"))
    return _sparse(fields["data"], fields["indices"], fields["indptr"], shape)


def _sparse(data: Any, indices: Any, indptr: Any, shape: Any) -> np.ndarray:
    """Return sparse rows as a dense float32 matrix; every index is checked."""
    import numpy as np
    from scipy.sparse import csr_matrix

    rows, columns = (int(side) for side in shape)
    values = np.asarray(data).astype(np.float32)
    matrix = csr_matrix((values, np.asarray(indices), np.asarray(indptr)), (rows, columns))
    matrix.check_format(full_check=True)
    return _matrix(matrix.toarray())


def _matrix(array: np.ndarray) -> np.ndarray:
    if array.ndim != 2:
        raise ValueError(f"an array of shape {array.shape}; expected (nodes, columns)")
    return array


def _edges(held: Any) -> np.ndarray:
    """Return the columns of a dictionary of neighbours, (2, columns) int64."""
    import numpy as np

    counts = [len(near) for near in held.values()]
    ends = list(chain.from_iterable(held.values()))
    if not all(type(node) is int for node in chain(held, ends)):
        raise ValueError("a node that is no whole number")
    source = np.repeat(np.fromiter(held, np.int64, len(held)), counts)
    return np.stack([source, np.array(ends, np.int64)])


def benchmark(name: str, title: str, file: str, data: Path | None) -> Raw:
    """Return a graph of gnn-benchmark; words made 0 or 1, as in PyG.

    Rows do not sum to one: with such small features GCN's 200 iterations end far too early
    (docs/results/gnn.md).

    The npz may lie in the data folder, in one called ``gnn_benchmark``, or as PyG has it, in
    ``TITLE/raw``. Nothing in it is unpickled.

    Raises:
        DataError: the file is missing, damaged, or lacks an array.
    """
    import numpy as np
    import torch

    below = ("", "gnn_benchmark/", "gnn-benchmark/data/npz/", f"{title}/raw/", "raw/")
    paths = [root / f"{folder}{file}" for root in roots(data) for folder in below]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise missing(name, file, below, data)
    fields = ("data", "indices", "indptr", "shape")
    try:
        with np.load(path, allow_pickle=False) as archive:
            attributes, adjacency = (
                {field: archive[f"{what}_{field}"] for field in fields} for what in ("attr", "adj")
            )
            labels = archive["labels"].astype(np.int64)
        x = _sparse(**attributes) > 0
        edges, weights = _columns(**adjacency)
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError) as error:
        expected = "an npz of plain arrays attr_*, adj_* and labels"
        raise DataError(f"{path}: {error}; expected {expected}") from error
    weighted = bool((weights != 1).any())
    features = torch.from_numpy(x.astype(np.float32))
    columns, known = torch.from_numpy(edges), torch.from_numpy(labels)
    return Raw(features, columns, known, str(path), weighted=weighted)


def _columns(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of an adjacency in sparse rows, (2, columns) int64, and their weights."""
    import numpy as np
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((data, indices, indptr), tuple(map(int, shape)))
    matrix.check_format(full_check=True)
    found = matrix.tocoo()
    return np.stack([found.row, found.col]).astype(np.int64), found.data
