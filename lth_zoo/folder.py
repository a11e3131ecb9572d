"""A ticket's folder: what lies in it, and how every flipped byte is noticed.

``ticket.json`` is written in one canonical form and carries its own digest and those of the
tensor files. Nothing is read from the card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BadInput, TicketError
from .jobs import canonical

SCHEMA = 1
META, MASKS, STATE, CARD = "ticket.json", "masks.safetensors", "state.safetensors", "README.md"


def check_place(folder: Path) -> None:
    """Assert that a ticket may be written there: a new, empty or earlier ticket's folder.

    Raises:
        BadInput: it is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; choose an empty or new folder")
    if folder.exists() and not (folder / META).is_file() and any(folder.iterdir()):
        raise BadInput(f"{folder} holds other files; choose an empty or new folder")


def sealed(meta: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Return ``ticket.json``: the metadata, every file's digest, and a digest of it all."""
    table = {name: _row(data) for name, data in files.items()}
    body = {"schema": SCHEMA, "ticket": dict(meta), "files": table}
    return _written({**body, "digest": _sha(canonical(body).encode())})


def opened(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a ticket folder's metadata and its checked files.

    Raises:
        TicketError: it is damaged, not a ticket, or of a newer schema.
    """
    raw = _read(folder / META)
    try:
        data = json.loads(raw)
        schema, digest, table = data["schema"], data["digest"], data["files"]
        meta = dict(data["ticket"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TicketError(f"{folder / META} is damaged: {error}") from error
    if isinstance(schema, int) and schema > SCHEMA:
        raise TicketError(
            f"{folder} has schema {schema}, this version reads up to {SCHEMA}: update lth-zoo"
        )
    body = {k: v for k, v in data.items() if k != "digest"}
    if _sha(canonical(body).encode()) != digest or _written(data) != raw:
        raise TicketError(f"{folder / META} is damaged: its digest differs")
    if type(schema) is not int or schema != SCHEMA:
        raise TicketError(f"{folder / META} has schema {schema!r}, which does not exist")
    if not isinstance(table, dict) or sorted(table) != sorted((MASKS, STATE)):
        raise TicketError(f"{folder / META} names files {table}, not {[MASKS, STATE]}")
    files = {name: _read(folder / name) for name in (MASKS, STATE)}
    for name, data in files.items():
        if table[name] != _row(data):
            raise TicketError(f"{folder / name} is damaged: its sha256 differs")
    return meta, files


def fetched(source: str, revision: str | None) -> Path:
    """Return the folder of a ticket fetched from the Hugging Face hub.

    Raises:
        TicketError: there is none of that id, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(source, revision=revision, allow_patterns=[META, MASKS, STATE])
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TicketError(
            f"{source!r} is neither a ticket folder nor to be had from the hub: {error}"
        ) from error
    return Path(found)


def _row(data: bytes) -> dict[str, Any]:
    return {"sha256": _sha(data), "bytes": len(data)}


def _written(data: Any) -> bytes:
    return json.dumps(data, indent=1, sort_keys=True).encode()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise TicketError(f"{path} is missing: this is no whole ticket") from error
    except OSError as error:
        raise TicketError(f"cannot read {path}: {error.strerror}") from error
