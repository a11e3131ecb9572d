"""One file that says which process works on a job; taken over when that process is dead."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import StoreUnwritable

#: Seconds between two heartbeats, and after how many a silent holder on another host is dead.
HEARTBEAT, SILENT = 5.0, 60.0


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process of this host started, so that a reused pid is not mistaken for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Lock:
    """An exclusively created file with host, boot id, pid, start time and a heartbeat."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _mine(self) -> dict[str, Any]:
        pid = os.getpid()
        return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "start": _started(pid)}

    def _create(self, path: Path) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.parent.is_dir():
                return False
            raise StoreUnwritable(f"cannot write {path}: {error.strerror}") from error
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(self._mine(), file)
        except OSError as error:
            with suppress(OSError):
                path.unlink()
            raise StoreUnwritable(f"cannot write {path}: {error.strerror}") from error
        return True

    def holder(self) -> dict[str, Any] | None:
        """Return who holds the lock, or None where nobody alive does."""
        try:
            who, age = self._read(), time.time() - self.path.stat().st_mtime
        except OSError:
            return None
        if not who:  # being written this moment, or its writer died over it
            return {"pid": 0} if age < 2 else None
        mine = self._mine()
        if who.get("host") != mine["host"]:
            return who if age < SILENT else None
        if who.get("boot") != mine["boot"] or not _alive(who["pid"]):
            return None
        return who if _started(who["pid"]) == who.get("start") else None

    def _read(self) -> dict[str, Any]:
        """Return what the file says; nothing where it is not whole."""
        try:
            who = json.loads(self.path.read_text())
        except ValueError:
            return {}
        return who if isinstance(who, dict) and isinstance(who.get("pid"), int) else {}

    def _is_mine(self) -> bool:
        """Say whether this process still holds the lock: one long suspended may have lost it."""
        try:
            return self._read() == self._mine()
        except OSError:
            return False

    def acquire(self) -> bool:
        """Take the lock if it is free or its holder is dead."""
        if self._create(self.path):
            return True
        if self.holder() is not None:
            return False
        # One process at a time clears a dead lock, or two could each remove the other's.
        guard = self.path.with_name(self.path.name + ".takeover")
        if not self._create(guard):
            with suppress(OSError):
                if time.time() - guard.stat().st_mtime > 10:
                    guard.unlink()
            return False
        try:
            if self.holder() is None:
                with suppress(OSError):
                    self.path.unlink()
            return self._create(self.path)
        finally:
            with suppress(OSError):
                guard.unlink()

    @contextmanager
    def held(self, wait: bool = True, poll: float = 0.2) -> Iterator[bool]:
        """Hold the lock inside; yields False where it is taken and not ``wait``."""
        while not (got := self.acquire()) and wait:
            time.sleep(poll)
        if not got:
            yield False
            return
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            stop.set()
            beat.join()
            with suppress(OSError):
                if self._is_mine():
                    self.path.unlink()

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT):
            with suppress(OSError):
                if self._is_mine():
                    os.utime(self.path)
