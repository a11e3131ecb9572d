"""Any Hugging Face text classification data set, or local files, by name and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import SPLITS, Signature, Split
from lth_zoo.tasks import readers
from lth_zoo.tasks.rows import Rows, apart, carve
from lth_zoo.tasks.text import TextTask
from lth_zoo.tasks.text_readers import (
    MISSING,
    Table,
    Tables,
    classes_of,
    distinct,
    folder_tables,
    hub_tables,
    values_of,
)

if TYPE_CHECKING:
    import numpy as np

FORM = "text/<hub id, folder or file>[@<config>]:<column>[,<second column>]:<label column>[:value]"


@dataclass(frozen=True)
class Named:
    """What the name of a text data set says."""

    place: str
    config: str | None
    texts: tuple[str, ...]
    label: str
    value: bool


def parse_name(name: str) -> Named:
    """Return the parts of a name.

    >>> parse_name("text/me/reviews@long:title,body:stars")
    Named(place='me/reviews', config='long', texts=('title', 'body'), label='stars', value=False)

    Raises:
        BadInput: it is not of the form of :data:`FORM`.
    """
    value = name.count(":") > 2 and name.endswith(":value")
    place, *rest = name.removeprefix("text/").removesuffix(":value" * value).rsplit(":", 2)
    texts = tuple(rest[0].split(",")) if len(rest) == 2 else ()
    place, _, config = place.partition("@") if not Path(place).exists() else (place, "", "")
    if not (place and 1 <= len(texts) <= 2 and all(texts) and rest[1]):
        raise BadInput(f"task {name!r} is not of the form {FORM}")
    return Named(place, config or None, texts, rest[1], value)


class HubText(TextTask):
    """Any text classification data set: ``text/<id>[@<config>]:<column>[,<column>]:<label>``.

    The id is one of the hub, or a folder or a file (below the data folders too) of parquet,
    CSV, TSV or JSON, or what ``save_to_disk`` wrote. Labels are classes in the order of their
    values, be they numbers, texts or named. ``:value`` at the end makes them numbers to
    predict, by squared error, judged by Pearson's correlation.

    Parts train, validation and test are used as they are; of two the second is the test; what
    is missing is carved from train, a tenth of it and at most 2,000 rows each. A part without
    any label counts as absent; a text that stands in two parts stays in the later one. The
    margin of one point rests on no published spread.
    """

    margin: ClassVar[float] = 1.0

    def __init__(self, name: str, data: Path | None = None) -> None:
        super().__init__(name, data)
        self.named = parse_name(name)
        if self.named.value:
            self.answer, self.outputs = "value", 1
            self.headline, self.measures = "pearson", ("pearson", "spearman")  # type: ignore[misc]

    @property
    def signature(self) -> Signature:
        """Length, and the number of classes found in the data, which it loads."""
        if self.answer == "classes":
            self.outputs = max(2, *(int(self.rows(split).labels.max()) + 1 for split in SPLITS))
        return super().signature

    def read(self) -> Mapping[Split, Rows]:
        """Return the three splits.

        Raises:
            BadInput: no such column or config, or labels that are values.
            DataError: it cannot be loaded, or a row lacks a text or a label.
        """
        tables = {part: table for part, table in self._find().items() if self._labelled(table)}
        if "train" not in tables:
            found = ", ".join(tables) or "none"
            raise DataError(f"{self.name}: expected a labelled part called train, found {found}")
        known = [] if self.named.value else self._classes(tables)
        return three({part: self._rows(table, known) for part, table in tables.items()})

    def _find(self) -> Tables:
        place, config = self.named.place, self.named.config
        local = [Path(place).expanduser(), *(r / place for r in readers.roots(self.data))]
        path = next((path for path in local if path.exists()), None)
        if path is not None:
            found = folder_tables(path, config)
        else:
            try:
                found = hub_tables(place, config)
            except DataError as error:
                looked = ", ".join(map(str, local))
                raise DataError(f"{self.name}: nothing at {looked}. From the hub: {error}") from (
                    error
                )
        return {part: table for part, table in found.items() if part in SPLITS}

    def _labelled(self, table: Table) -> bool:
        values = table.column(self.named.label)
        return any(value == value and value not in MISSING for value in values)

    def _classes(self, tables: Tables) -> Sequence[Any]:
        """Return every class: the names of a column that has some, else the values found."""
        label = self.named.label
        for table in tables.values():
            if label in table.classes:
                return table.classes[label]
        found = distinct(table.column(label) for table in tables.values())
        if any(isinstance(value, float) and not value.is_integer() for value in found):
            raise BadInput(
                f"{self.name}: column {label!r} holds numbers with a fraction, so no classes; "
                f"add :value to the name to predict them"
            )
        return found

    def _rows(self, table: Table, known: Sequence[Any]) -> Rows:
        first, *second = (table.texts(name) for name in self.named.texts)
        return Rows(first, second[0] if second else None, self._numbers(table, known), table.source)

    def _numbers(self, table: Table, known: Sequence[Any]) -> np.ndarray:
        if self.named.value:
            return values_of(table, self.named.label)
        return classes_of(table, self.named.label, known)


def three(parts: Mapping[str, Rows]) -> dict[Split, Rows]:
    """Return train, validation and test of the parts there are, the missing ones carved."""
    rows = dict(parts)
    train, *others = (rows.pop(part, None) for part in SPLITS)
    assert train is not None
    validation, test = others
    if validation is not None and test is None:
        validation, test = None, validation
    if test is None:
        train, test = carve(train)
    if validation is None:
        train, validation = carve(train)
    return apart(train, validation, test)
