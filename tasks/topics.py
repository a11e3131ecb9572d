"""Sentences of the documentation that ships with Python: ``pydoc_data.topics``.

The text differs from one Python version to the next; what is done to it does not. Code,
grammar, tables, references and version notes are left out, and markup is taken off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from lth_zoo.errors import DataError

#: Fewer sentences than this are no text to learn from; Python 3.10 to 3.13 have 1,600 or more.
LEAST = 200
#: Words of one sentence, and the share of them that must be plain.
WORDS, PLAIN = (5, 40), 0.8

_ITEM = re.compile(r"(?:[*•-]|\d+\.) ")
_LEAD = re.compile(r"^(?:(?:[*•-]|\d+\.) |Note: |\*\*CPython implementation detail:\*\* )")
_NO_PROSE = re.compile(
    r"::=|>>>|[|{}\\`=<>]|^[+\[]|^-\[|^\*\*PEP|^See also|^\.\. |^(?:from|import|def|class) "
    r"|^(?:New|Changed|Deprecated|Added|Removed)\b[^.]* in version"
)
_TYPED = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d", '"'),
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u2013\u2014", "-"),
        "\u2026": "...",
        "\u00a0": " ",
    }
)
_END = re.compile(r"[.!?][')]*\s+(?=[A-Z(_'])")
_SHORT = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|approx|resp)\.[')]*$", re.IGNORECASE)
_WORD = re.compile(r"\(?[A-Za-z][A-Za-z'-]*[.,;:)!?]*")


@lru_cache(maxsize=1)
def sentences_by_topic() -> Mapping[str, tuple[str, ...]]:
    """Return each topic's sentences in their order; no sentence stands in two topics.

    Large topics repeat small ones, so a text belongs to the smallest topic that has it.

    Raises:
        DataError: this Python comes without the text.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(f"this Python has no pydoc_data.topics: {error}") from error
    found = extract(topics)
    count = sum(map(len, found.values()))
    if count < LEAST:
        raise DataError(f"pydoc_data.topics: {count} sentences; expected {LEAST} or more")
    return found


def extract(topics: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the sentences of topics, smallest topic first, each sentence once.

    >>> extract({"with": "The *with* statement\\n***\\n\\nIt wraps a block of code in a manager."})
    {'with': ('It wraps a block of code in a manager.',)}
    """
    seen: set[str] = set()
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(topics, key=lambda n: (len(topics[n]), n)):
        own = [s for p in paragraphs(topics[name]) for s in sentences(plain(p)) if is_prose(s)]
        fresh = tuple(s for s in dict.fromkeys(own) if s.lower() not in seen)
        seen.update(s.lower() for s in fresh)
        if fresh:
            found[name] = fresh
    return found


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs and list items that may be prose, each as one line."""
    for block in re.split(r"\n\s*\n", text):
        lines: list[str] = []
        for line in map(str.strip, _body(block)):
            if lines and _ITEM.match(line):
                yield from _prose(lines)
                lines = []
            lines.append(line)
        yield from _prose(lines)


def _body(block: str) -> list[str]:
    """Return the lines of a block but for the term that a definition starts with."""
    lines = [line for line in block.splitlines() if line.strip()]
    indents = [len(line) - len(line.lstrip()) for line in lines[:2]]
    term = len(lines) > 1 and indents[0] < indents[1] and not _ITEM.match(lines[0].lstrip())
    return lines[term:]


def _prose(lines: list[str]) -> Iterator[str]:
    line = " ".join(lines)
    if line and not _NO_PROSE.search(line):
        yield line


def plain(paragraph: str) -> str:
    """Return a paragraph without list marks, emphasis, quotation marks and references.

    >>> plain('1. The "with" statement [3] is *compound*.')
    'The with statement is compound.'
    """
    line = re.sub(r"\[\d+\]", "", _LEAD.sub("", paragraph).translate(_TYPED))
    line = re.sub(r"\s+", " ", line.replace("*", "").replace('"', "")).strip()
    return re.sub(r" (?=[.,;:])", "", line)


def sentences(paragraph: str) -> list[str]:
    """Split a paragraph where a sentence ends and a capital follows.

    >>> sentences("Names (e.g. Python's) are bound. They refer to objects.")
    ["Names (e.g. Python's) are bound.", 'They refer to objects.']
    """
    found, start = [], 0
    for match in _END.finditer(paragraph):
        piece = paragraph[start : match.end()].strip()
        if not _SHORT.search(piece):
            found.append(piece)
            start = match.end()
    return [*found, paragraph[start:].strip()]


def is_prose(sentence: str) -> bool:
    """Say whether a sentence is whole and mostly plain words.

    >>> is_prose("An object has a type."), is_prose("x.f(1) calls a.g(2) or b[3].")
    (True, False)
    """
    words = sentence.split()
    whole = sentence[:1].isupper() and re.search(r"[.!?]\)?$", sentence)
    if not whole or not WORDS[0] <= len(words) <= WORDS[1]:
        return False
    return sum(bool(_WORD.fullmatch(word)) for word in words) >= PLAIN * len(words)
