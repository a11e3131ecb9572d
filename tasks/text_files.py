"""Running text from files, tables and the hub: lines, and where a split may cut them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import Split
from lth_zoo.tasks.rows import Rows
from lth_zoo.tasks.text_readers import PARTS, Table, Tables, folder_tables, hub_tables

if TYPE_CHECKING:
    import numpy as np

#: How files of plain text end; .raw and .tokens are WikiText's.
PLAIN = (".txt", ".raw", ".tokens")
#: The share of the characters that validation, and test, take where the source has no such part.
SHARE = 0.05
#: With fewer articles than this the cuts fall between lines.
ARTICLES = 20

_HEADING = re.compile(r"= [^=].*[^=] =")

Lines = Mapping[str, Sequence[str]]


def lines(wanted: str, roots: Sequence[Path]) -> Lines:
    """Return the lines that hold something, by part (train, validation, test or another name).

    Raises:
        BadInput: a file of another kind, or a config that does not exist.
        DataError: nothing of that name is here or on the hub, or it has no text.
    """
    if not wanted:
        raise BadInput("task 'mlm/' names no text: expected mlm/<hub id, folder or text file>")
    place, _, config = wanted.partition("@") if not Path(wanted).exists() else (wanted, "", "")
    local = [Path(wanted).expanduser(), Path(place).expanduser(), *(r / place for r in roots)]
    path = next((p for p in local if p.exists()), None)
    if path is not None:
        return plain_lines(path) or table_lines(folder_tables(path, config or None))
    try:
        return table_lines(hub_tables(place, config or None))
    except DataError as error:
        looked = ", ".join(map(str, dict.fromkeys(local)))
        raise DataError(f"mlm/{wanted}: nothing at {looked}. From the hub: {error}") from error


def plain_lines(path: Path) -> Lines | None:
    """Read a text file, or a folder of them; None if there is none.

    A file's part is said by its name (``valid.txt``, ``wiki.train.raw``); else it is the
    name itself.

    Raises:
        DataError: no UTF-8.
    """
    files = [path] if path.is_file() else sorted(path.iterdir())
    found: dict[str, list[str]] = {}
    for file in files:
        if file.suffix not in PLAIN or not file.is_file():
            continue
        try:
            text = file.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: {error}; expected text in UTF-8") from error
        words = re.split(r"[^a-z]+", file.stem.lower())
        part = next((PARTS[word] for word in words if word in PARTS), file.name)
        part = part if path.is_dir() else "train"
        found.setdefault(part, []).extend(filter(None, map(str.strip, text.splitlines())))
    return found or None


def table_lines(tables: Tables) -> Lines:
    """Return the lines of the column ``text`` of each part, or of the only column of texts.

    Raises:
        DataError: no such column, or more than one.
    """
    found = {}
    for part, table in tables.items():
        texts = table.texts(column_of(table))
        found[part] = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return found


def column_of(table: Table) -> str:
    """Return the name of the column of text.

    Raises:
        DataError: there is none, or more than one.
    """
    if "text" in table.columns:
        return "text"
    first = {name: next(iter(column), None) for name, column in table.columns.items()}
    texts = [name for name, value in first.items() if isinstance(value, str)]
    if len(texts) != 1:
        found = ", ".join(table.columns) or "none"
        raise DataError(f"{table.source}: expected a column called text, found {found}")
    return texts[0]


def three(parts: Lines, name: str) -> dict[Split, Rows]:
    """Arrange lines by part as train, validation and test: see ``mlm.TextFiles``.

    Raises:
        DataError: a split would have no line.
    """
    if "train" in parts:
        train = list(parts["train"])
        others = {part: list(parts[part]) for part in ("validation", "test") if parts.get(part)}
        if "test" not in others and others:
            others = {"test": others["validation"]}
    else:
        train, others = [line for part in parts.values() for line in part], {}
    missing = [part for part in ("validation", "test") if part not in others]
    pieces = cut(train, [1 - SHARE * len(missing), *[SHARE] * len(missing)])
    found = {"train": pieces[0], **others, **dict(zip(missing, pieces[1:], strict=True))}
    for part, piece in found.items():
        if not piece:
            count = sum(map(len, parts.values()))
            raise DataError(f"{name}: {count} lines of text are too few for a {part} part")
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return {split: Rows(found[split], None, _nothing(found[split]), name) for split in splits}


def cut(text: Sequence[str], shares: Sequence[float]) -> list[list[str]]:
    """Cut lines into contiguous pieces of the given shares of the characters.

    Cuts fall between articles where there are 20 or more, else between lines.

    >>> cut(["one", "two", "six", "ten"], [0.5, 0.5])
    [['one', 'two'], ['six', 'ten']]
    """
    import numpy as np

    starts = [place for place, line in enumerate(text) if _HEADING.fullmatch(line)]
    starts = starts if len(starts) >= ARTICLES else list(range(len(text)))
    ends = np.cumsum([0, *map(len, text)])
    wanted = np.cumsum(shares)[:-1] * ends[-1]
    at = np.array([*starts, len(text)])
    nearest = [int(at[np.abs(ends[at] - place).argmin()]) for place in wanted]
    places = [0, *nearest, len(text)]
    return [list(text[a:b]) for a, b in pairwise(places)]


def _nothing(rows: Sequence[str]) -> np.ndarray:
    """Return labels of a text that has none."""
    import numpy as np

    return np.zeros(len(rows), np.int64)
