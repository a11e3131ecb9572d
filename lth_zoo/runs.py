"""The list of runs of a store: which recipes were asked for, so that they can be found again."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import registry
from .errors import BadInput, StoreError, unknown
from .experiment import Experiment, lay_out
from .jobs import canonical
from .recipe import Recipe
from .store import Store, atomic_write

#: Fields that say how a recipe is called or how much of it is asked for, not what it computes.
DESCRIPTIVE = ("name", "paper", "expected")


def recipe_key(recipe: Recipe) -> str:
    """Return the sha256 of everything in a recipe that changes a result."""
    plain = {k: v for k, v in recipe.to_dict().items() if k not in DESCRIPTIVE}
    return hashlib.sha256(canonical(plain).encode()).hexdigest()


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


def run_id(recipe: Recipe) -> str:
    """Return a readable, unique name: the title and the head of the key."""
    slug = re.sub(r"[^a-zA-Z0-9.]+", "-", recipe.title).strip("-").lower()
    return f"{slug}-{recipe_key(recipe)[:8]}"


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


def listed(store: Store, names: tuple[str, ...] = ()) -> list[RunRecord]:
    """Return the store's runs, oldest first; ``names`` picks some by id, recipe name, or id's head.

    A run whose recipe cannot be read any more (its plugin is gone) is left out with a warning
    on stderr, unless it is asked for by its id.

    Raises:
        BadInput: a name fits no run, or the run's recipe cannot be read any more.
        StoreError: a run's file is damaged.
    """
    found = []
    for path in (store.root / "runs").glob("*.json"):
        try:
            found.append(_read(path))
        except BadInput as error:
            if path.stem in names:
                raise
            print(f"lth-zoo: warning: run {path.stem} is left out: {error}", file=sys.stderr)
    found.sort(key=lambda r: r.started)
    if not names:
        return found
    picked = []
    for name in names:
        # A whole name first: `quick` is not the head of `quick-conv`.
        fits = [r for r in found if name in (r.id, r.recipe.name)]
        fits = fits or [r for r in found if r.id.startswith(name)]
        if not fits:
            raise unknown("run", name, [r.id for r in found])
        picked += [r for r in fits if r not in picked]
    return picked


def _read(path: Any) -> RunRecord:
    try:
        data = json.loads(path.read_text())
        recipe = Recipe.from_dict(data.pop("recipe"))
        registry.check("tasks", recipe.task)
        return RunRecord(id=path.stem, recipe=recipe, **data)
    except BadInput:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
