"""What one running job sees: its config, its inputs, its folder, and who is watching."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .altered import portion
from .errors import StoreError
from .formats import dump_masks, dump_snapshot, load_masks, load_snapshot
from .jobs import Job
from .masks import Masks
from .protocols import Adapter, Checkpoint, Task, adapter_of, task_of
from .recipe import Recipe
from .rewind import Snapshot
from .store import CHECKPOINT, Entry, Store, atomic_write

if TYPE_CHECKING:
    from torch import Tensor, nn

STATE, MASKS, RESULT, LOG = "state.safetensors", "masks.safetensors", "result.json", "log.jsonl"
IMAGES = "images.safetensors"


@dataclass(frozen=True)
class Execution:
    """How jobs run; changes no result, so it is in no key."""

    device: str = "cpu"
    """Where tensors live: cpu, cuda, cuda:1 ..."""
    data: Path | None = None
    """Folder of local data sets (default: LTH_ZOO_DATA, then ../shared/data)."""
    checkpoint_seconds: float = 30.0
    """Time between two checkpoints of a training."""
    track: str | None = None
    """Live curves beside the store: tensorboard."""


@lru_cache(maxsize=8)
def cached_task(
    name: str, data: Path | None, model: str, length: int | None = None, share: float = 1.0
) -> Task:
    """Return a task as a model reads it, kept in memory for the next job of this process."""
    return portion(task_of(name, data).prepared(model, length), share)


def task_of_job(config: Mapping[str, Any], data: Path | None) -> Task:
    """Return the task of a job's config as its model reads it."""
    how = config.get("max_length"), config.get("data_fraction", 1.0)
    return cached_task(config["task"], data, config["model"], *how)


def task_for(recipe: Recipe, data: Path | None) -> Task:
    """Return a recipe's task as its model reads it."""
    length, share = recipe.max_length, recipe.data_fraction
    return cached_task(recipe.task, data, recipe.model, length, share)


def read_state(entry: Entry, what: str = "snapshot") -> Snapshot:
    """Return the state a finished job wrote, what it left to a checkpoint filled in.

    Raises:
        StoreError: it is damaged, or the checkpoint is another one now.
    """
    snapshot = load_snapshot(entry.read(STATE), what)
    left = snapshot.extra.pop("checkpoint", None)
    if left is None:
        return snapshot
    adapter = adapter_of(left["model"])
    public = adapter.checkpoint(left["model"])
    if public is None or public.fingerprint != left["fingerprint"]:
        raise StoreError(
            f"{what} was made from another checkpoint of {left['model']!r}: it has changed since"
        )
    tensors = public.load()
    for name, key in left["tensors"].items():
        snapshot.state[name] = tensors[key].clone()
    return snapshot


@dataclass
class Session:
    """One job at work."""

    job: Job
    store: Store
    execution: Execution
    progress: Callable[[int, int], None] = lambda *_: None
    written: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    earlier: float = 0.0

    @property
    def config(self) -> Mapping[str, Any]:
        """The fields the job reads."""
        return self.job.config

    @property
    def folder(self) -> Path:
        """Where the job writes."""
        return self.store.folder(self.job)

    # -- what it reads --------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The task of the config, as its model reads it, with what judges it."""
        config = self.config
        task = task_of_job(config, self.execution.data)
        roles = [role for role in self.job.inputs if role.startswith("judge-")]
        if roles:
            inputs = self.job.inputs
            task.judged_by({inputs[r].key: partial(self._state, r) for r in roles})
        return task

    def _state(self, role: str) -> Mapping[str, Tensor]:
        return self.snapshot(role).state

    @property
    def adapter(self) -> Adapter:
        """The family of the config's model."""
        return adapter_of(self.config["model"])

    def build(self) -> nn.Module:
        """Return the config's model, its values still to be loaded."""
        from .seeds import seeded

        with seeded(0, "init"):
            return self.adapter.build(self.config["model"], self.task.signature)

    def input(self, role: str) -> Entry:
        """Return the finished job behind a role.

        Raises:
            StoreError: it is not there.
        """
        entry = self.store.entry(self.job.inputs[role])
        if entry is None:
            raise StoreError(f"input {role!r} of {self.job.label} is not in {self.store.root}")
        return entry

    def snapshot(self, role: str) -> Snapshot:
        """Return the state that an input job produced."""
        return read_state(self.input(role), role)

    def masks(self, role: str) -> Masks | None:
        """Return the masks that an input job produced, or None where there is no such input."""
        if role not in self.job.inputs:
            return None
        return load_masks(self.input(role).read(MASKS), role)

    @property
    def begin(self) -> int:
        """The iteration its training begins at: where its start stands if the config has None."""
        begin: int | None = self.config["begin"]
        return self.snapshot("start").iteration if begin is None else begin

    # -- what it writes -------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the result."""
        atomic_write(self.folder / name, data)
        self.written.append(name)

    def write_json(self, data: Any, name: str = RESULT) -> None:
        """Write plain data of the result."""
        self.write(name, json.dumps(data, indent=1).encode())

    def write_state(self, snapshot: Snapshot) -> None:
        """Write the state of the result."""
        self.write(STATE, dump_snapshot(snapshot))

    def write_start(self, snapshot: Snapshot) -> None:
        """Write a start; what a public checkpoint holds is named there, not copied."""
        model = self.config["model"]
        public = self.adapter.checkpoint(model)
        if public is not None:
            ours = public_tensors(snapshot.state, public, self.adapter.prefix(model))
            state = {n: t for n, t in snapshot.state.items() if n not in ours}
            left = {"model": model, "fingerprint": public.fingerprint, "tensors": ours}
            snapshot = replace(snapshot, state=state, extra={**snapshot.extra, "checkpoint": left})
        self.write_state(snapshot)

    def write_masks(self, masks: Masks) -> None:
        """Write the masks of the result."""
        self.write(MASKS, dump_masks(masks))

    # -- checkpoints ----------------------------------------------------------------------

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Keep a snapshot to resume from, its digest in front."""
        data = dump_snapshot(snapshot)
        digest = hashlib.sha256(data).hexdigest().encode()
        atomic_write(self.folder / CHECKPOINT, digest + data)

    def resume(self) -> Snapshot | None:
        """Return the last checkpoint, or None where there is no whole one."""
        try:
            raw = (self.folder / CHECKPOINT).read_bytes()
        except OSError:
            return None
        digest, data = raw[:64], raw[64:]
        if hashlib.sha256(data).hexdigest().encode() != digest:
            return None
        found = load_snapshot(data, "checkpoint")
        self.earlier = found.extra.get("seconds", 0.0)
        return found

    def seconds(self) -> float:
        """Return the time the job has taken, over all attempts that its result rests on."""
        return self.earlier + time.perf_counter() - self.began

    def record(self) -> dict[str, Any]:
        """Return what is noted about a run but is in no key."""
        from . import __version__

        return {
            "seconds": self.seconds(),
            **machine_of(self.execution),
            "host": platform.node(),
            "lth_zoo": __version__,
        }


class LazyStates(dict[str, "Mapping[str, Tensor]"]):
    """State name -> tensors of the input job behind it, read on first use."""

    def __init__(self, roles: Mapping[str, str], session: Session) -> None:
        super().__init__()
        self._roles, self._session = roles, session

    def __missing__(self, name: str) -> Mapping[str, Tensor]:
        self[name] = self._session.snapshot(self._roles[name]).state
        return self[name]


def public_tensors(state: Mapping[str, Tensor], public: Checkpoint, prefix: str) -> dict[str, str]:
    """Return which tensors of a state are bit for bit a checkpoint's: name -> its name there."""
    theirs = public.load()
    named = {n: n.removeprefix(prefix) for n in state}
    return {n: k for n, k in named.items() if k in theirs and state[n].equal(theirs[k])}


def machine_of(execution: Execution) -> dict[str, str]:
    """Return what rounding depends on: the ``device``, the ``cpu`` and the ``torch`` version."""
    import torch

    gpu = execution.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "cpu": cpu_model(),
        "torch": torch.__version__,
    }


@lru_cache(maxsize=1)
def cpu_model() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
