"""Tiny SQuAD files for tests, in the original JSON and in the hub's parquet layout."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from hf_models import WORDS

PLAIN = [word for word in WORDS if not word.startswith("#")]


def article(title: str, impossible: bool = False, words: int = 30) -> Any:
    """Return an article of three paragraphs with three questions each.

    With ``impossible`` the first question of each has no answer.
    """
    rng = random.Random(title)
    return {"title": title, "paragraphs": [paragraph(rng, impossible, words) for _ in range(3)]}


def paragraph(rng: random.Random, impossible: bool, words: int) -> Any:
    """Return a paragraph: random words, answers of two of them."""
    chosen = rng.choices(PLAIN, k=words)
    entries = []
    for number in range(3):
        first = rng.randrange(words - 2)
        start = len(" ".join(chosen[:first])) + bool(first)
        answers = [{"text": " ".join(chosen[first : first + 2]), "answer_start": start}]
        entry: dict[str, Any] = {
            "id": f"{rng.random()}",
            "question": " ".join(rng.choices(PLAIN, k=4)) + "?",
            "answers": answers,
        }
        if impossible:
            entry["is_impossible"] = number == 0
            entry["answers"] = [] if number == 0 else answers
        entries.append(entry)
    return {"context": " ".join(chosen), "qas": entries}


def articles(part: str, count: int, **more: Any) -> list[Any]:
    """Return articles of which no two parts share one."""
    return [article(f"{part} {letter}", **more) for letter in "abcdefghijklmnop"[:count]]


def write_json(folder: Path, version: str = "1.1", **more: Any) -> Path:
    """Write the train and the dev file as they are published: 8 and 3 articles."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, name, count in (("train", "train", 8), ("dev", "dev", 3)):
        data = {"version": version, "data": articles(part, count, **more)}
        (folder / f"{name}-v{version}.json").write_text(json.dumps(data))
    return folder


def write_parquet(folder: Path, **more: Any) -> Path:
    """Write the same questions in the hub's layout."""
    from datasets import Dataset

    folder.mkdir(parents=True, exist_ok=True)
    for part, name, count in (("train", "train", 8), ("dev", "validation", 3)):
        rows = [row for one in articles(part, count, **more) for row in flat(one)]
        Dataset.from_list(rows).to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    return folder


def flat(one: Any) -> list[dict[str, Any]]:
    """Return an article's questions as rows of the hub's table."""
    return [
        {
            "id": entry["id"],
            "title": one["title"],
            "context": paragraph["context"],
            "question": entry["question"],
            "answers": {
                "text": [answer["text"] for answer in entry["answers"]],
                "answer_start": [answer["answer_start"] for answer in entry["answers"]],
            },
        }
        for paragraph in one["paragraphs"]
        for entry in paragraph["qas"]
    ]
