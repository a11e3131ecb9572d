"""Where a report is written: a folder that appears whole or not at all."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from lth_zoo.errors import BadInput, StoreError

PAGE, TEXT, DATA = "index.html", "report.md", "report.json"
#: What ``report.json`` calls itself; only a folder that holds one is ever replaced.
KIND = "lth-zoo report"


def check_free(out: Path) -> None:
    """Assert that a report may be written there: a new or empty folder, or an older report.

    Raises:
        BadInput: it is a file, or holds anything that no report wrote.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise BadInput(f"{out} is a file; give a folder for the report")
    entries = {entry.name for entry in out.iterdir()}
    if not entries:
        return
    try:
        data = json.loads((out / DATA).read_text(encoding="utf-8"))
        more = (data.get(name, ()) for name in ("transfers", "planes", "studies"))
        parts = [*data["recipes"], *chain.from_iterable(more)]
        ours = {PAGE, TEXT, DATA, *(f for part in parts for f in part["figures"])}
        if data["kind"] != KIND:
            raise KeyError("kind")
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{out} is not empty and holds no report; give another folder") from None
    if foreign := sorted(entries - ours):
        raise BadInput(f"{out} also holds {foreign[0]!r}, which no report wrote; move it away")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a new folder beside ``out`` that takes its place when all went well."""
    mark = secrets.token_hex(4)
    fresh = out.with_name(f".{out.name}.{mark}.new")
    aside = out.with_name(f".{out.name}.{mark}.old")
    try:
        fresh.mkdir(parents=True)
        yield fresh
        if out.exists():
            out.rename(aside)
        try:
            fresh.rename(out)
        except OSError:
            if aside.exists():
                aside.rename(out)
            raise
    except OSError as error:
        raise StoreError(f"cannot write the report to {out}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
