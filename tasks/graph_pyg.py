"""Node data sets of PyG by class, and graphs saved as tensors in a folder.

No code found in a file is run: PyG's own readers, which would, are guarded.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import BadInput, DataError, unknown
from lth_zoo.protocols import SPLITS, Split
from lth_zoo.tasks.graph_data import Raw, Variant
from lth_zoo.tasks.graph_readers import PLAIN
from lth_zoo.tasks.readers import roots

if TYPE_CHECKING:
    from torch import Tensor

MASKS = ("train_mask", "val_mask", "test_mask")


def pyg_nodes(variant: Variant, data: Path | None) -> Raw:
    """Return what ``pyg/NAME`` asks for: a folder with a saved graph, or a class of PyG.

    Raises:
        DataError: it cannot be had, is no node data set, or its files name code to run.
        BadInput: PyG has no such class.
    """
    wanted = variant.base.removeprefix("pyg/")
    places = (Path(wanted), *(root / wanted for root in roots(data)))
    saved = (place / file for place in places for file in ("data.pt", "data.npz"))
    path = next((p for p in saved if wanted and p.is_file()), None)
    if path is not None:
        return raw_of(read_saved(path), str(path), variant)
    return raw_of(_from_class(wanted, data), f"pyg/{wanted}", variant)


def read_saved(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a saved ``Data``, a saved dictionary, or an npz, by name.

    Raises:
        DataError: damaged, or it holds anything but tensors.
    """
    import numpy as np
    import torch
    from torch_geometric.data import data, storage

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
        # What a saved Data is made of; of these PyG itself tells torch only about the outer class.
        parts = [data.DataEdgeAttr, data.DataTensorAttr, storage.GlobalStorage]
        with torch.serialization.safe_globals(parts):
            held = torch.load(path, map_location="cpu", weights_only=True)
        return held if isinstance(held, Mapping) else held.to_dict()
    except Exception as error:  # a damaged file can raise anything
        reason = str(error).split("\n")[0][:200]
        expected = "tensors only: x, edge_index, y and perhaps train_mask, val_mask, test_mask"
        raise DataError(f"{path}: {type(error).__name__}: {reason}; expected {expected}") from error


def raw_of(held: Mapping[str, Any], source: str, variant: Variant) -> Raw:
    """Return the graph in a dictionary of tensors; a mask's first column unless asked otherwise.

    Raises:
        DataError: a tensor is missing, or there is no such column.
    """
    import torch

    found = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}
    lacking = [name for name in ("x", "edge_index", "y") if name not in found]
    if lacking:
        raise DataError(f"{source}: no {', '.join(lacking)}; has {', '.join(found) or 'none'}")
    labels = found["y"].squeeze(-1) if found["y"].dim() == 2 else found["y"]
    weighted = any(name in found for name in ("edge_attr", "edge_weight"))
    masks = [name for name in MASKS if name in found]
    splits: dict[Split, Tensor] | None = None
    if variant.seed is None and (masks or variant.column is not None):
        if len(masks) < len(MASKS):
            said = f"has {', '.join(masks) or 'none'}; expected all, or ask for @random-0"
            raise DataError(f"{source}: of {', '.join(MASKS)} it {said}")
        chosen = [_column(found[mask], variant.column or 0, source) for mask in MASKS]
        splits = {s: m.bool().nonzero().flatten() for s, m in zip(SPLITS, chosen, strict=True)}
    return Raw(found["x"], found["edge_index"], labels, source, splits, weighted)


def _column(mask: Tensor, column: int, source: str) -> Tensor:
    if mask.dim() == 1:
        return mask
    if column >= mask.shape[1]:
        raise DataError(f"{source}: split {column}; expected 0 to {mask.shape[1] - 1}")
    return mask[:, column]


def _from_class(wanted: str, data: Path | None) -> Mapping[str, Any]:
    """Return the one graph of a data set of PyG, ``CLASS`` or ``CLASS:NAME``.

    It is looked for in the data folder, in PyG's layout, and else downloaded to the user's cache.
    """
    import torch_geometric.datasets as known

    kind, _, name = wanted.partition(":")
    classes = {n: c for n, c in vars(known).items() if inspect.isclass(c)}
    if kind not in classes:
        raise unknown("class of PyG or folder", kind, classes)
    takes = inspect.signature(classes[kind]).parameters
    if "name" in takes and takes["name"].default is inspect.Parameter.empty and not name:
        raise BadInput(f"pyg/{kind} is a family of data sets; expected pyg/{kind}:NAME")
    if name and "name" not in takes:
        raise BadInput(f"pyg/{kind} is one data set; it takes no name, so not {name!r}")
    places = [root / below for root in roots(data) for below in (kind, f"pyg/{kind}")]
    places += [root for root in roots(data) if name and (root / name / "raw").is_dir()]
    own = os.environ.get("LTH_ZOO_CACHE")
    cache_root = (Path(own) if own else Path.home() / ".cache" / "lth_zoo") / "pyg" / kind
    place = next((p for p in places if p.is_dir()), cache_root)
    arguments = {"root": str(place)} if "root" in takes else {}
    try:
        with plain_pickles():
            found: Any = classes[kind](**arguments, **({"name": name} if name else {}))
            graphs = len(found)
            held: Mapping[str, Any] = found[0].to_dict() if graphs == 1 else {}
    except Exception as error:  # whatever a download or a reader of PyG raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DataError(f"pyg/{wanted}: PyG cannot read it from {place}: {reason}") from error
    if graphs != 1:
        raise DataError(f"pyg/{wanted}: {graphs} graphs; expected one, with labelled nodes")
    return held


_guarded: ContextVar[bool] = ContextVar("guarded", default=False)


@contextmanager
def plain_pickles() -> Iterator[None]:
    """Refuse, inside, every pickle that names more than arrays; of torch's, all but plain tensors.

    PyG reads the raw and processed files of a folder with ``pickle.load``, and with
    ``torch.load`` of any object where the safe way fails.

    Raises:
        DataError: from within, where a file names anything else.
    """
    _audit()
    token = _guarded.set(True)
    try:
        yield
    finally:
        _guarded.reset(token)


@cache
def _audit() -> None:
    """Install the guard, once a process: an audit hook sees every unpickler, and cannot go."""

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event != "pickle.find_class" or not _guarded.get():
            return
        if tuple(args) not in PLAIN:
            raise DataError(f"a pickle names {'.'.join(args)}; expected arrays only")

    sys.addaudithook(refuse)
