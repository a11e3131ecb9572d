"""Tables of texts in the forms they are published in: TSV, parquet, CSV, JSON, the hub.

A data set is a table for each part, called ``train``, ``validation`` and ``test`` whatever
its files are called. Tabs part the fields of a TSV file and nothing is quoted: GLUE's texts
hold bare quotation marks. Every error names the file and, where it can, the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import BadInput, DataError, unknown
from lth_zoo.tasks import hub

if TYPE_CHECKING:
    import numpy as np

#: How files and hub parts are called -> the part they are.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("dev_matched", "validation_matched"), "validation"),
    "test": "test",
}
#: A field that stands for no label.
MISSING = (None, "", "-", -1, "-1")
#: What a label may be; a list (several labels an example) is none.
PLAIN = (str, int, float, type(None))


@dataclass(frozen=True)
class Table:
    """Columns of equal length by name; ``source`` is the file or hub id an error names.

    ``classes`` names the classes of the columns whose integers are indices of names.
    """

    columns: Mapping[str, Sequence[Any]]
    source: str
    classes: Mapping[str, Sequence[str]]

    def column(self, name: str) -> Sequence[Any]:
        """Return a column.

        Raises:
            BadInput: there is none of that name; the message has the nearest ones.
        """
        if name not in self.columns:
            raise unknown(f"column of {self.source}", name, self.columns)
        return self.columns[name]

    def texts(self, name: str) -> list[str]:
        """Return a column of texts.

        Raises:
            BadInput: there is no such column.
            DataError: a row of it is no text.
        """
        column = self.column(name)
        for place, value in enumerate(column, 1):
            if not isinstance(value, str):
                what = "missing" if value is None else f"{value!r}, a {type(value).__name__}"
                raise DataError(f"{self.source}: row {place}: {name} is {what}; expected text")
        return list(column)


Tables = Mapping[str, Table]


def tsv_table(path: Path, names: Sequence[str] | None = None, short: bool = False) -> Table:
    """Read a TSV file; ``names`` are the columns of a file without a header line.

    With ``short``, rows with fewer fields than columns are left out (texts with line ends in
    them, broken in two); else they are an error. Fields past the last column do not count.

    Raises:
        DataError: no UTF-8, no header, or a row of too few fields.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; expected a table in UTF-8") from error
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    while rows and rows[-1] == [""]:
        rows.pop()
    if names is None:
        if not rows:
            raise DataError(f"{path}: empty; expected a header line and rows")
        names, rows = rows[0], rows[1:]
    for place, row in enumerate(rows, 1):
        if len(row) < len(names) and not short:
            raise DataError(f"{path}: row {place} has {len(row)} fields; expected {len(names)}")
    rows = [row for row in rows if len(row) >= len(names)]
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    return Table(columns, str(path), {})


def tsv_tables(
    folder: Path, stems: Mapping[str, str], names: Sequence[str] | None, short: bool
) -> Tables | None:
    """Read ``<stem>.tsv`` of each part in a folder; None if no file is there."""
    paths = {part: folder / f"{stem}.tsv" for part, stem in stems.items()}
    found = {part: path for part, path in paths.items() if path.is_file()}
    return {part: tsv_table(path, names, short) for part, path in found.items()} or None


def stored_tables(folder: Path) -> Tables | None:
    """Read a hub snapshot's parquet files, or what ``save_to_disk`` wrote; None if neither.

    Raises:
        DataError: damaged.
    """
    if (folder / "dataset_dict.json").is_file():
        return tables_of(hub.load(str(folder), source=str(folder)), str(folder))
    files: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.parquet")):
        part = PARTS.get(path.stem.split("-")[0])
        if part is not None:
            files.setdefault(part, []).append(str(path))
    if not files:
        return None
    return tables_of(hub.load("parquet", source=str(folder), data_files=files), str(folder))


def tables_of(loaded: Mapping[str, Any], source: str) -> Tables:
    """Return the parts that ``datasets`` loaded as tables, by the names of :data:`PARTS`."""
    import datasets

    found: dict[str, Table] = {}
    for name, rows in loaded.items():
        part = PARTS.get(name, name)
        classes = {
            column: list(feature.names)
            for column, feature in rows.features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
        where = f"{source}, part {name}"
        found.setdefault(part, Table(_Lazy(rows), where, classes))
    return found


class _Lazy(Mapping[str, Sequence[Any]]):
    """The columns of a ``datasets.Dataset``, read when asked for."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self.rows.column_names:
            raise KeyError(name)
        values: Sequence[Any] = self.rows[name][:]
        return values

    def __iter__(self) -> Any:
        return iter(self.rows.column_names)

    def __len__(self) -> int:
        return len(self.rows.column_names)


def folder_tables(path: Path, config: str | None) -> Tables:
    """Read a local folder or file of any form that ``datasets`` knows.

    Parquet, CSV or JSON files named after their parts, what ``save_to_disk`` wrote, or one
    file, which is then all train. A ``config`` is a folder below.

    Raises:
        BadInput: there is no such config; the message has the nearest ones.
        DataError: damaged, or nothing of the kind is there.
    """
    if path.is_file():
        form = {"jsonl": "json", "tsv": "csv"}.get(path.suffix[1:], path.suffix[1:])
        if form not in ("parquet", "csv", "json"):
            raise BadInput(f"{path}: expected a .parquet, .csv, .tsv, .json or .jsonl file")
        options = {"sep": "\t"} if path.suffix == ".tsv" else {}
        files = {"train": [str(path)]}
        return tables_of(hub.load(form, source=str(path), data_files=files, **options), str(path))
    if config is not None:
        known = sorted(p.name for p in path.iterdir() if p.is_dir())
        if config not in known:
            raise unknown(f"config of {path}", config, known)
        path = path / config
    stored = stored_tables(path)
    if stored is not None:
        return stored
    return tables_of(hub.load(str(path.resolve()), source=str(path)), str(path))


def hub_tables(hub_id: str, config: str | None) -> Tables:
    """Read a data set of the hub.

    Raises:
        BadInput: it has no such config; the message has the nearest ones.
        DataError: it cannot be had.
    """
    try:
        return tables_of(hub.load(hub_id, source=hub_id, name=config), hub_id)
    except DataError as error:
        known = _configs(hub_id) if config is not None else []
        if known and config not in known:
            raise unknown(f"config of {hub_id}", config, known) from error
        raise


def _configs(hub_id: str) -> list[str]:
    """Return the configs of a data set of the hub; none where it cannot be asked."""
    import datasets

    try:
        return list(datasets.get_dataset_config_names(hub_id))
    except Exception:  # the network, the hub: the error that led here is the one to show
        return []


def classes_of(table: Table, name: str, known: Sequence[Any]) -> np.ndarray:
    """Return a label column as indices into the known values, (n,) int64.

    A value may be the index itself, in digits or as a number, where ``known`` are names.

    Raises:
        BadInput: there is no such column.
        DataError: a row has no label, or one that is not known.
    """
    import numpy as np

    places: dict[Any, int] = {value: place for place, value in enumerate(known)}
    if all(isinstance(value, str) for value in known):
        for place in range(len(known)):
            places.setdefault(str(place), place)
            places.setdefault(place, place)
    column = table.column(name)
    _check(table, name, column, places, f"one of {', '.join(map(str, known))}")
    return np.array([places[value] for value in column], np.int64)


def values_of(
    table: Table, name: str, low: float = -math.inf, high: float = math.inf
) -> np.ndarray:
    """Return a label column as (n,) float32.

    Raises:
        BadInput: there is no such column.
        DataError: a row has no number there, or one out of range.
    """
    import numpy as np

    found = []
    for place, value in enumerate(table.column(name), 1):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and low <= number <= high):
            limits = f" from {low:g} to {high:g}" if math.isfinite(high) else ""
            raise DataError(
                f"{table.source}: row {place}: {name} is {value!r}; expected a number{limits}"
            )
        found.append(number)
    return np.array(found, np.float32)


def _check(
    table: Table, name: str, column: Sequence[Any], known: Mapping[Any, int], expected: str
) -> None:
    for place, value in enumerate(column, 1):
        if isinstance(value, PLAIN) and value in known:
            continue
        none = value != value or (isinstance(value, PLAIN) and value in MISSING)
        what = "no label" if none else "an unknown label"
        raise DataError(
            f"{table.source}: row {place}: {name} is {value!r}, {what}; expected {expected}"
        )


def distinct(columns: Iterable[Sequence[Any]]) -> list[Any]:
    """Return every label of some columns once, sorted, numbers before texts; no missing ones."""
    values = (value for column in columns for value in column if isinstance(value, PLAIN))
    found = {value for value in values if value == value and value not in (None, "")}
    return sorted(found, key=lambda value: (isinstance(value, str), value))
