"""The list of runs of a store: which recipes were asked for, so that they can be found again."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from . import registry
from .errors import BadInput, StoreError, unknown
from .experiment import Experiment, lay_out
from .jobs import Job, canonical
from .protocols import adapter_of
from .recipe import Recipe
from .store import Store, atomic_write
from .trials.backbones import Backbones
from .trials.cells import GRAPH_MASK
from .trials.footing import Footing
from .trials.makers import Makers
from .trials.transfer import Matrix
from .trials.transfer_study import TransferStudy

#: Fields that say how a recipe is called or how much of it is asked for, not what it computes.
DESCRIPTIVE = ("name", "paper", "expected")
#: Fields that recipes had not from the start, at the value that changes nothing: left out of
#: keys, so that older runs are still found.
LATER: dict[str, Any] = {"graph_sparsity": 0.0, "data_fraction": 1.0, "only": ()}


def recipe_key(recipe: Recipe) -> str:
    """Return the sha256 of everything in a recipe that changes a result."""
    return hashlib.sha256(canonical(_keyed(recipe)).encode()).hexdigest()


def _keyed(recipe: Recipe) -> dict[str, Any]:
    """Return what of a recipe is in keys."""
    plain = recipe.to_dict() | {"training": recipe.training.plain()}
    plain = {k: v for k, v in plain.items() if k not in DESCRIPTIVE}
    return {k: v for k, v in plain.items() if k not in LATER or v != LATER[k]}


@dataclass
class RunRecord:
    """One recipe that was asked for, and how it ended."""

    id: str
    recipe: Recipe
    fingerprint: str
    started: float
    state: str = "running"
    failed: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def experiment(self) -> Experiment:
        """Return the arms, without looking at data or model again."""
        return lay_out(self.recipe, self.fingerprint)

    @property
    def jobs(self) -> list[Job]:
        """Every job, inputs first."""
        return self.experiment().jobs


@dataclass
class TransferRecord:
    """One transfer matrix that was asked for, and how it ended."""

    id: str
    matrix: TransferStudy
    started: float
    state: str = "running"
    failed: dict[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def recipe(self) -> Recipe:
        """The recipe of every search."""
        return self.matrix.recipe

    @property
    def jobs(self) -> list[Job]:
        """Every job, inputs first."""
        return self.matrix.jobs


Record = RunRecord | TransferRecord
R = TypeVar("R", RunRecord, TransferRecord, Record)


def run_id(recipe: Recipe) -> str:
    """Return a readable, unique name: the title and the head of the key."""
    return f"{_slug(recipe.title)}-{recipe_key(recipe)[:8]}"


def transfer_id(matrix: TransferStudy) -> str:
    """Return a readable, unique name of a transfer matrix."""
    recipe = {**_keyed(matrix.recipe), matrix.axis: ""}
    asked = [recipe, matrix.sources, matrix.targets, matrix.carry]
    key = hashlib.sha256(canonical(asked).encode()).hexdigest()
    return f"{_slug(matrix.title)}-{key[:8]}"


def _slug(title: str) -> str:
    return re.sub(r"[^a-zA-Z0-9.]+", "-", title).strip("-").lower()


def note(
    store: Store,
    experiment: Experiment,
    state: str,
    failed: Mapping[str, str] | None = None,
    command: str = "",
) -> str:
    """Write a run into the store's list, with the command that resumes it; returns its id."""
    name = run_id(experiment.recipe)
    data = {
        "recipe": experiment.recipe.to_dict(),
        "fingerprint": experiment.fingerprint,
        "started": time.time(),
        "state": state,
        "failed": dict(failed or {}),
        "command": command,
    }
    atomic_write(store.root / "runs" / f"{name}.json", json.dumps(data, indent=1).encode())
    return name


def note_transfer(
    store: Store,
    matrix: TransferStudy,
    state: str,
    failed: Mapping[str, str] | None = None,
    command: str = "",
) -> str:
    """Write a transfer matrix into the store's list, as :func:`note` does a run."""
    name = transfer_id(matrix)
    data = {
        "recipe": matrix.recipe.to_dict(),
        "sources": matrix.sources,
        "targets": matrix.targets,
        "carry": matrix.carry,
        "axis": matrix.axis,
        "fingerprints": matrix.fingerprints,
        "iterations": matrix.iterations,
        "footing": matrix.footing.to_json(),
        "started": time.time(),
        "state": state,
        "failed": dict(failed or {}),
        "command": command,
    }
    atomic_write(store.root / "transfers" / f"{name}.json", json.dumps(data, indent=1).encode())
    return name


def listed(store: Store, names: tuple[str, ...] = ()) -> list[RunRecord]:
    """Return the store's runs, oldest first; ``names`` picks some by id, recipe name, or id's head.

    A run whose recipe cannot be read any more (its plugin is gone) is left out with a warning
    on stderr, unless it is asked for by its id.

    Raises:
        BadInput: a name fits no run, or the run's recipe cannot be read any more.
        StoreError: a run's file is damaged.
    """
    return _picked(_every(store, "runs", _read, names), names)


def recorded(store: Store, names: tuple[str, ...] = ()) -> list[Record]:
    """Return the store's runs and transfer matrices, as :func:`listed` does the runs.

    Raises:
        BadInput, StoreError: see :func:`listed`.
    """
    found: list[Record] = [*_every(store, "runs", _read, names)]
    found += _every(store, "transfers", _read_transfer, names)
    return _picked(found, names)


def _every(store: Store, folder: str, read: Callable[[Path], R], names: tuple[str, ...]) -> list[R]:
    found = []
    for path in (store.root / folder).glob("*.json"):
        try:
            found.append(read(path))
        except BadInput as error:
            if path.stem in names:
                raise
            print(f"lth-zoo: warning: run {path.stem} is left out: {error}", file=sys.stderr)
    return found


def _picked(found: list[R], names: tuple[str, ...]) -> list[R]:
    found.sort(key=lambda r: r.started)
    if not names:
        return found
    picked: list[R] = []
    for name in names:
        # A whole name first: `quick` is not the head of `quick-conv`.
        fits = [r for r in found if name in (r.id, r.recipe.name)]
        fits = fits or [r for r in found if r.id.startswith(name)]
        if not fits:
            raise unknown("run", name, [r.id for r in found])
        picked += [r for r in fits if r not in picked]
    return picked


def _read(path: Path) -> RunRecord:
    try:
        data = json.loads(path.read_text())
        recipe = Recipe.from_dict(data.pop("recipe"))
        registry.check("tasks", recipe.task)
        return RunRecord(id=path.stem, recipe=recipe, **data)
    except BadInput:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def _read_transfer(path: Path) -> TransferRecord:
    try:
        data = json.loads(path.read_text())
        recipe = Recipe.from_dict(data.pop("recipe"))
        along = {"task": Matrix, "model": Makers}[data.pop("axis", "task")]
        kind = Backbones if data["carry"] == GRAPH_MASK else along
        registry.check("tasks", recipe.task)
        for name in data["fingerprints"]:
            if kind is Matrix:
                registry.check("tasks", name)
            else:
                adapter_of(name)
        matrix = kind(
            recipe,
            tuple(data.pop("sources")),
            tuple(data.pop("targets")),
            data.pop("carry"),
            data.pop("fingerprints"),
            data.pop("iterations"),
            Footing.from_json(data.pop("footing")),
        )
        return TransferRecord(id=path.stem, matrix=matrix, **data)
    except BadInput:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
