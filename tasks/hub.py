"""Hugging Face data sets, from the hub or a local folder, as arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import DataError
from lth_zoo.tasks.readers import Part, Parts

if TYPE_CHECKING:
    import numpy as np


def parquet_parts(folder: Path, label: str | None = None) -> Parts | None:
    """Read the parquet files of a hub snapshot's ``train`` and ``test``; None if none."""
    if not folder.is_dir():
        return None
    files = {p: sorted(map(str, folder.rglob(f"{p}*.parquet"))) for p in ("train", "test")}
    if not any(files.values()):
        return None
    missing = [part for part, paths in files.items() if not paths]
    if missing:
        raise DataError(f"{folder}: no {missing[0]}*.parquet")
    loaded = load("parquet", source=str(folder), data_files=files)
    return {part: part_of(rows, str(folder), label) for part, rows in loaded.items()}


def hub_parts(hub_id: str, label: str | None = None) -> Parts:
    """Read every part of a hub data set.

    Raises:
        DataError: it cannot be had, or has no images and labels.
    """
    loaded = load(hub_id, source=hub_id)
    return {part: part_of(rows, hub_id, label) for part, rows in loaded.items()}


def load(path: str, source: str, **options: Any) -> Mapping[str, Any]:
    """Return ``datasets.load_dataset``'s parts by name, or those that save_to_disk wrote.

    Raises:
        DataError: it cannot be loaded, with the reason.
    """
    import datasets

    try:
        if (Path(path) / "dataset_dict.json").is_file():
            return datasets.load_from_disk(path)
        return datasets.load_dataset(path, **options)
    except Exception as error:  # the network, the hub, the file system and every file format
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"cannot load {source}: {type(error).__name__}: {reason}") from error


def part_of(rows: Any, source: str, label: str | None = None) -> Part:
    """Return one ``datasets.Dataset`` as arrays: grey images (n, h, w), colour (n, h, w, 3).

    Raises:
        DataError: no image or label column, or images of several sizes.
    """
    import datasets
    import numpy as np

    image, label = columns(rows.features, source, label)
    labels = np.asarray(rows[label][:], np.int64)
    pictures = rows.select_columns([image]).cast_column(image, datasets.Image())
    return Part(_stack(pictures, image, source), labels, source)


def columns(features: Mapping[str, Any], source: str, label: str | None) -> tuple[str, str]:
    """Return the image and the label column, found by feature type.

    Files written without ``datasets`` have plain types: a struct with ``bytes`` is an image
    there, and an integer column called ``label`` or ``labels`` the label.

    Raises:
        DataError: none, or more than one.
    """
    import datasets

    kinds = features.items()
    images = [n for n, f in kinds if isinstance(f, datasets.Image) or "bytes" in _fields(f)]
    labels = [n for n, f in kinds if isinstance(f, datasets.ClassLabel)]
    whole = [n for n, f in kinds if "int" in str(getattr(f, "dtype", ""))]
    labels = labels or [n for n in whole if n in ("label", "labels")]
    if label in whole:
        labels = [label]
    for kind, found in (("image", images), ("label", labels)):
        if len(found) != 1:
            among = ", ".join(found) or f"none among {', '.join(features)}"
            raise DataError(f"{source}: expected one {kind} column, found {among}")
    return images[0], labels[0]


def _fields(feature: Any) -> Any:
    """Return the names inside a struct feature."""
    return feature if isinstance(feature, Mapping) else ()


def _stack(rows: Any, column: str, source: str) -> np.ndarray:
    """Decode one column of pictures into one array."""
    import numpy as np

    arrays: list[np.ndarray] = []
    grey = True
    for position, row in enumerate(rows):
        picture = row[column]
        grey = grey and picture.mode in ("1", "L")
        array = np.asarray(picture.convert("L" if grey else "RGB"))
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            (height, width), (first, second) = array.shape[:2], arrays[0].shape[:2]
            raise DataError(
                f"{source}: image {position} is {height}x{width}, the first {first}x{second}; "
                "all images must have one size: resize them first"
            )
        arrays.append(array)
    if not grey:
        arrays = [np.stack([a] * 3, axis=-1) if a.ndim == 2 else a for a in arrays]
    if not arrays:
        raise DataError(f"{source}: no images")
    return np.stack(arrays)
