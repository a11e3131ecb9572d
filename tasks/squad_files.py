"""SQuAD's questions from its original JSON, the hub's parquet layout, or the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lth_zoo.errors import DataError
from lth_zoo.tasks.images import fixed_order
from lth_zoo.tasks.rows import Rows
from lth_zoo.tasks.text_readers import Table, Tables, hub_tables, stored_tables

if TYPE_CHECKING:
    import numpy as np

#: The columns of the parquet layout.
COLUMNS = ("title", "context", "question", "answers")
#: Folders where the files of both versions may lie.
SHARED = ("squad", "SQuAD")


@dataclass(frozen=True)
class Question:
    """One question on a context; no ``answers`` where it cannot be answered.

    ``starts`` says at which character of the context each answer begins.
    """

    title: str
    context: str
    question: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Questions(Rows):
    """Questions as rows: texts are questions, pairs their contexts.

    ``labels`` (n, 2) int64 are the first and the last character (past the end) of the first
    answer, -1 where there is none. ``golds`` has every answer of each, ``titles`` its article.
    """

    golds: Sequence[Sequence[str]] = ()
    titles: Sequence[str] = ()

    def take(self, indices: np.ndarray) -> Questions:
        """Return the questions at the indices."""
        rows = super().take(indices)
        golds, titles = [self.golds[i] for i in indices], [self.titles[i] for i in indices]
        return Questions(rows.texts, rows.pairs, rows.labels, self.source, golds, titles)


Parts = Mapping[str, Questions]


def find(
    folders: Sequence[str], hub_id: str, version: str, roots: Sequence[Path], name: str
) -> Parts:
    """Return the train and the validation part, from the first folder that has them, or the hub.

    A root counts itself if it bears the name of a folder. JSON of both versions may lie in one.

    Raises:
        DataError: damaged, a part missing, or nowhere to be had.
    """
    below = [root / folder for root in roots for folder in folders]
    below += [root for root in roots if root.resolve().name in folders]
    for folder in filter(Path.is_dir, below):
        found = json_parts(folder, version) or table_parts(stored_tables(folder))
        if found is not None:
            return _both(found, str(folder))
    for folder in (root / shared for root in roots for shared in SHARED):
        found = json_parts(folder, version)
        if found is not None:
            return _both(found, str(folder))
    try:
        found = table_parts(hub_tables(hub_id, None))
    except DataError as error:
        looked = ", ".join(map(str, below)) or "no folder"
        raise DataError(
            f"{name} is not at hand. Looked in {looked} for train-v{version}.json and "
            f"dev-v{version}.json, or train-*.parquet and validation-*.parquet; give --data or "
            f"set LTH_ZOO_DATA. From the hub: {error}"
        ) from error
    return _both(found or {}, hub_id)


def _both(parts: Parts, source: str) -> Parts:
    for part in ("train", "validation"):
        if part not in parts:
            raise DataError(f"{source}: no {part} part, only {', '.join(parts) or 'none'}")
    return parts


def json_parts(folder: Path, version: str) -> Parts | None:
    """Read ``train-v<version>.json`` and ``dev-v<version>.json``; None if neither is there.

    Raises:
        DataError: damaged.
    """
    names = {"train": f"train-v{version}.json", "validation": f"dev-v{version}.json"}
    paths = {part: folder / name for part, name in names.items()}
    found = {
        part: questions(list(read_json(path)), str(path))
        for part, path in paths.items()
        if path.is_file()
    }
    return found or None


def read_json(path: Path) -> Iterator[Question]:
    """Yield the questions of one file in the original form.

    Raises:
        DataError: it is no JSON of that form; the message says where.
    """
    place = "data"
    try:
        for number, article in enumerate(json.loads(path.read_bytes())["data"]):
            for at, paragraph in enumerate(article["paragraphs"]):
                for nth, entry in enumerate(paragraph["qas"]):
                    place = f"article {number}, paragraph {at}, question {nth}"
                    answers = [] if entry.get("is_impossible") else entry["answers"]
                    yield Question(
                        str(article.get("title", number)),
                        paragraph["context"],
                        entry["question"],
                        tuple(answer["text"] for answer in answers),
                        tuple(int(answer["answer_start"]) for answer in answers),
                    )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: after {place}: {what}; expected SQuAD's JSON") from error


def table_parts(tables: Tables | None) -> Parts | None:
    """Return tables of the hub's layout as questions."""
    if tables is None:
        return None
    return {part: questions(list(_rows(table)), table.source) for part, table in tables.items()}


def _rows(table: Table) -> Iterator[Question]:
    titles, contexts, texts = (table.texts(name) for name in COLUMNS[:3])
    columns = zip(titles, contexts, texts, table.column("answers"), strict=True)
    for place, (title, context, question, answers) in enumerate(columns, 1):
        try:
            known, starts = answers["text"], answers["answer_start"]
            yield Question(title, context, question, tuple(known), tuple(map(int, starts)))
        except (KeyError, TypeError, ValueError) as error:
            what = f"answers is {answers!r}; expected lists text and answer_start"
            raise DataError(f"{table.source}: row {place}: {what}") from error


def questions(found: Sequence[Question], source: str) -> Questions:
    """Return questions as rows.

    Raises:
        DataError: none at all, or an answer that is not in its context.
    """
    import numpy as np

    if not found:
        raise DataError(f"{source}: no questions")
    spans = [span(question, f"{source}: row {place}") for place, question in enumerate(found, 1)]
    return Questions(
        [question.question.strip() for question in found],
        [question.context for question in found],
        np.array(spans, np.int64),
        source,
        [question.answers for question in found],
        [question.title for question in found],
    )


def span(question: Question, where: str) -> tuple[int, int]:
    """Return the first and last character of the first answer, (-1, -1) without one.

    An answer that does not stand where it should is taken from the nearest place where it
    does.

    Raises:
        DataError: the context does not have it, or answers and starts differ in number.
    """
    if len(question.answers) != len(question.starts):
        counts = f"{len(question.answers)} answers but {len(question.starts)} starts"
        raise DataError(f"{where}: {counts}")
    if not question.answers:
        return -1, -1
    answer, start = question.answers[0], question.starts[0]
    context = question.context
    if not answer or answer not in context:
        raise DataError(f"{where}: the context does not have the answer {answer!r}")
    places = [start] if context.startswith(answer, max(0, start)) else _places(context, answer)
    begin = min(places, key=lambda place: abs(place - start))
    return begin, begin + len(answer)


def _places(context: str, answer: str) -> list[int]:
    found, at = [], context.find(answer)
    while at >= 0:
        found.append(at)
        at = context.find(answer, at + 1)
    return found


def by_article(rows: Questions, share: float) -> tuple[Questions, Questions]:
    """Return (train, validation): whole articles, always the same ones, about a share of the rows.

    Raises:
        DataError: there is but one article.
    """
    import numpy as np

    titles = sorted(set(rows.titles))
    if len(titles) < 2:
        raise DataError(f"{rows.source}: 1 article; expected 2 or more, to set some aside")
    size = dict.fromkeys(titles, 0)
    for title in rows.titles:
        size[title] += 1
    taken: set[str] = set()
    count = 0
    for place in fixed_order(len(titles), seed=0)[:-1]:
        if count >= share * len(rows):
            break
        taken.add(titles[place])
        count += size[titles[place]]
    aside = np.array([title in taken for title in rows.titles])
    return rows.take(np.flatnonzero(~aside)), rows.take(np.flatnonzero(aside))
