"""Content-addressed results on a POSIX folder.

``store/KIND/KEY/`` holds the files of one job. It is done when ``manifest.json`` is there,
which is written last and exclusively; everything before that may vanish at any moment and
costs only the work since the last checkpoint.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StoreError, StoreUnwritable
from .jobs import Job
from .lock import Lock

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Entry:
    """One finished job: its folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.manifest["files"]

    def read(self, name: str) -> bytes:
        """Return a file's bytes, checked against the manifest.

        Raises:
            StoreError: missing or damaged.
        """
        path = self.folder / name
        if name not in self:
            raise StoreError(f"{path} was not kept; run the command again to make it anew")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][name]["sha256"]:
            raise StoreError(
                f"{path} is damaged (sha256 differs); remove {self.folder} and run again"
            )
        return data

    def json(self, name: str = "result.json") -> Any:
        """Return a file of plain data."""
        return json.loads(self.read(name))

    @property
    def bytes(self) -> int:
        """Size of the kept files."""
        return sum(f["bytes"] for f in self.manifest["files"].values())


def atomic_write(path: Path, data: bytes, exclusive: bool = False) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one.

    ``exclusive`` keeps a file that is there already: whoever was first has done the same work.

    Raises:
        StoreError: the disk is full or the folder is not writable; nothing half written stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            with suppress(FileExistsError):
                os.link(part, path)
            part.unlink()
        else:
            part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = (
            "free some space and run the same command again" if full else "choose another folder"
        )
        raise StoreUnwritable(f"cannot write {path}: {error.strerror}; {advice}") from error


class Store:
    """A folder of finished jobs that any number of processes share."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def prepare(self) -> None:
        """Make the folder and check that it can be written.

        Raises:
            StoreError: it cannot.
        """
        probe = self.root / f".probe.{os.getpid()}"
        atomic_write(probe, b"")
        with suppress(OSError):
            probe.unlink()

    def folder(self, job: Job) -> Path:
        """Return where a job's files are, done or not."""
        return self.root / job.kind / job.key

    def entry(self, job: Job, needs: Iterable[str] = ()) -> Entry | None:
        """Return the finished job, or None where it, or a file it needs, is not there."""
        return self._entry(self.folder(job), needs)

    def _entry(self, folder: Path, needs: Iterable[str] = ()) -> Entry | None:
        try:
            entry = Entry(folder, json.loads((folder / MANIFEST).read_bytes()))
            return entry if all(name in entry for name in needs) else None
        except OSError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{folder / MANIFEST} is damaged; remove {folder}") from error

    def entries(self) -> Iterator[Entry]:
        """Yield every finished job."""
        for manifest in sorted(self.root.glob(f"*/*/{MANIFEST}")):
            if entry := self._entry(manifest.parent):
                yield entry

    @contextmanager
    def claim(self, job: Job, wait: bool = True) -> Iterator[Path | None]:
        """Hold a job's folder; yields None where another live process has it and not ``wait``.

        Files of an attempt that died are removed, its checkpoint stays.
        """
        folder = self.folder(job)
        with Lock(folder / "lock").held(wait) as held:
            if not held:
                yield None
                return
            yield folder

    def clear(self, folder: Path) -> None:
        """Remove what an unfinished attempt left, but not its checkpoint and its lock."""
        for path in folder.iterdir():
            if path.name not in (CHECKPOINT, "lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def commit(self, job: Job, names: Iterable[str], record: dict[str, Any]) -> Entry:
        """Write the manifest, last and exclusively, and drop the checkpoint."""
        folder = self.folder(job)
        files = {}
        for name in names:
            data = (folder / name).read_bytes()
            files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        inputs = {role: {"kind": j.kind, "key": j.key} for role, j in job.inputs.items()}
        manifest = {
            "kind": job.kind,
            "key": job.key,
            "config": dict(job.config),
            "inputs": inputs,
            "files": files,
            "record": {**record, "finished": time.time()},
        }
        text = json.dumps(manifest, indent=1, default=str).encode()
        atomic_write(folder / MANIFEST, text, exclusive=True)
        with suppress(OSError):
            (folder / CHECKPOINT).unlink()
        return Entry(folder, json.loads(text))

    def drop(self, entry: Entry, name: str) -> int:
        """Remove a file of a finished job; the manifest is rewritten first. Returns bytes freed."""
        manifest = {**entry.manifest, "files": dict(entry.manifest["files"])}
        freed: int = manifest["files"].pop(name)["bytes"]
        atomic_write(entry.folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        with suppress(OSError):
            (entry.folder / name).unlink()
        return freed
