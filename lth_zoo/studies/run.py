"""Running a study: its jobs through the engine, its answer as a page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from .. import registry
from ..backend import backend_for
from ..engines.local import Outcome, Watcher, run
from ..errors import BadInput
from ..given import own_graph
from ..jobs import Ref, canonical
from ..parse import load
from ..recipe import Recipe, build
from ..report.page import Asked, write_report
from ..runs import recipe_key
from ..session import RESULT, Execution, cached_task, task_for
from ..store import Store
from .base import Answer, Measured, Probe, Study


@dataclass(frozen=True)
class Studied:
    """A study that ran: its answer, where its page is, and how its jobs went.

    ``answer`` and ``page`` are None where no measurement ended.
    """

    id: str
    study: Study
    recipe: Recipe
    probes: Sequence[Probe]
    answer: Answer | None
    page: Path | None
    outcome: Outcome


def study_name(study: Study) -> str:
    """Return the name a study is registered under.

    Raises:
        BadInput: under none.
    """
    for name in registry.names("studies"):
        if registry.find("studies", name) is type(study):
            return name
    raise BadInput(f"study {type(study).__name__} is not registered")


def study_id(study: Study, recipe: Recipe) -> str:
    """Return a readable, unique name: the study's, the recipe's and the head of the key."""
    asked = canonical([study_name(study), asdict(study), recipe_key(recipe)])
    return f"{study_name(study)}-{recipe.title}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def run_study(
    study: Study,
    recipe: Recipe,
    store: Store,
    execution: Execution,
    workers: int = 0,
    watcher: Watcher | None = None,
    out: Path | None = None,
) -> Studied:
    """Run a study's jobs and write its page into ``out`` (default: STORE/studies/ID).

    What is done is not run again.

    Raises:
        BadInput, DataError: something in the study or the recipe is wrong; nothing ran.
        StoreError: the store or the page cannot be written.
    """
    backend_for(execution.device, recipe.training.precision)
    cached_task.cache_clear()  # the data may have changed since an earlier call of this process
    name = study_id(study, recipe).replace("/", "-").replace(" ", "-")
    folder = out or store.root / "studies" / name
    probes = study.lay_out(recipe, execution.data)
    outcome = run([probe.job for probe in probes], store, execution, workers, watcher)
    took = cache(partial(_seconds, store))
    measured = [found for probe in probes if (found := _measured(probe, store, took)) is not None]
    if not measured:
        return Studied(name, study, recipe, probes, None, None, outcome)
    by = task_for(recipe, execution.data).yardstick(recipe.model)
    answer = study.answer(recipe, by, measured)
    plain = {"study": study_name(study), **asdict(study), "recipe": recipe.to_dict()}
    title, about = f"{study_name(study)}: {recipe.title}", plain | {"paper": study.paper}
    said = {**answer.data, "study": plain}
    asked = Asked(study_name(study), title, about, answer.findings, answer.blocks, said)
    folder.parent.mkdir(parents=True, exist_ok=True)
    page = write_report([], folder, title=asked.name, studies=[asked])["html"]
    return Studied(name, study, recipe, probes, answer, page, outcome)


def _measured(probe: Probe, store: Store, took: Callable[[str, str], float]) -> Measured | None:
    entry = store.entry(probe.job)
    if entry is None:
        return None
    cost = sum(took(job.kind, job.key) for job in own_graph(probe.job))
    result = entry.json() if RESULT in entry else {}
    seconds = took(probe.job.kind, probe.job.key)
    return Measured(probe.of, result, entry, seconds, cost, store)


def _seconds(store: Store, kind: str, key: str) -> float:
    """Return what a finished job took; 0 where it is no more."""
    entry = store.entry(Ref(kind, key))  # type: ignore[arg-type]
    return float(entry.manifest["record"]["seconds"]) if entry is not None else 0.0


def study(
    name: str,
    recipe: str | Recipe | None = None,
    *,
    store: Path | str = "lth-store",
    workers: int = 0,
    data: Path | None = None,
    device: str = "cpu",
    watcher: Watcher | None = None,
    out: Path | None = None,
    **settings: Any,
) -> Studied:
    """Ask a question of a recipe's networks: ``study("noise", "quick", sigmas=(0.5, 1.0))``.

    Args:
        name: a name of ``lth-zoo ls studies``.
        recipe: a shipped recipe's name, a YAML file, or a recipe (default: the study's own).
        store: folder of all results.
        workers: worker processes; 0 runs in this one.
        data: folder of local data sets.
        device: where tensors live.
        watcher: what may look at the running graph.
        out: folder of the page (default: STORE/studies/ID).
        **settings: the study's own.

    Raises:
        BadInput, DataError, StoreError: see the message. A job that fails is not raised.
    """
    kind = registry.find("studies", name)
    asked: Study = build(kind, settings)
    chosen = load(recipe or kind.recipe) if not isinstance(recipe, Recipe) else recipe
    execution = Execution(device=device, data=data)
    return run_study(asked, chosen, Store(store), execution, workers, watcher, out)
