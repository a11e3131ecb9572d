"""A recipe as arms: the dense runs, the tickets and the controls, each at a level and a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import registry
from .allocate import Pool, exact
from .altered import check_pixels, portion
from .chain import Chain
from .controls import changed_by
from .coverage import covered_of, pools_of
from .errors import BadInput, unknown
from .graph_models import check_gates
from .jobs import DENSE, TICKET, Job, Level, graph
from .norm_interpolation import check_norms
from .protocols import Adapter, Prunable, Task, adapter_of
from .pruning import check_slopes
from .recipe import Recipe, finder_name
from .searches.channels import check_channels
from .searches.concrete import check_concrete
from .searches.dynamic import check_dynamic
from .searches.elastic import check_elastic
from .searches.gate_search import check_search, check_view
from .searches.learn import check_learned
from .searches.structured import check_units
from .searches.supermask_search import check_supermask
from .seeds import seeded
from .session import task_for


@dataclass(frozen=True)
class Arm:
    """One trained network of an experiment."""

    name: str
    seed: int
    level: Level

    @property
    def goal(self) -> Job:
        """The job that trains it."""
        assert self.level.train is not None
        return self.level.train


@dataclass(frozen=True)
class Experiment:
    """A checked recipe with every arm it asks for."""

    recipe: Recipe
    fingerprint: str
    arms: tuple[Arm, ...]

    @property
    def goals(self) -> list[Job]:
        """The trainings, search first: what others wait for comes early."""
        return [arm.goal for arm in self.arms]

    @property
    def jobs(self) -> list[Job]:
        """Every job, inputs first."""
        return graph(self.goals)

    def tickets(self) -> list[Arm]:
        """The tickets of the last level, one a seed."""
        last = max(arm.level.index for arm in self.arms)
        return [a for a in self.arms if a.name == TICKET and a.level.index == last]


def check(recipe: Recipe, data: Path | None = None) -> str:
    """Look at model, data, layers and amounts before any long work; return the fingerprint.

    Raises:
        BadInput: a name or a layer that does not exist, or amounts that cannot be.
        DataError: the data is missing or damaged.
    """
    task = task_for(recipe, data)
    adapter = adapter_of(recipe.model)
    _check_arms(recipe, task, adapter)
    fingerprint = task.fingerprint()
    with seeded(0, "init"):
        model = adapter.build(recipe.model, task.signature)
    fingerprint += adapter.fingerprint(recipe.model, model)
    task.objectives(model)  # a loss that does not fit the model is said now
    prunable = adapter.prunable(model)
    if not prunable:
        raise BadInput(f"model {recipe.model!r} has no prunable layer")
    config = {
        "exclude": recipe.exclude,
        "prune_first": recipe.prune_first,
        "prune_last": recipe.prune_last,
        "include": recipe.include,
        "only": recipe.only,
    }
    covered = covered_of(config, adapter, model)
    layers = [p.layer for p in covered.values()]
    for layer in getattr(recipe.finder, "overrides", dict)():
        if layer not in layers:
            raise unknown("layer", layer, layers)
    for part in recipe.finder.needs_parts:
        if part not in dict(model.named_children()):
            raise BadInput(
                f"finder {finder_name(recipe.finder)!r} is for models with a {part}, and "
                f"{recipe.model!r} has {', '.join(n for n, _ in model.named_children())}"
            )
    if recipe.finder.needs_gates:
        check_gates(model, task.graph())
    one = Chain(recipe, recipe.seeds[0], fingerprint)
    jobs = graph(m for lv in recipe.finder.search(one) if (m := lv.masks))
    _check_source(jobs, config, adapter, model, task)
    jobs = [job for job in jobs if job.config["model"] == recipe.model]
    _check_amounts(jobs, model, covered)
    scored = {j.config["score"]: j.config for j in jobs if j.kind in ("prune", "rounds")}
    for asked in scored.values():
        check_slopes(asked, task, adapter, model)
    if any(job.config.get("norms") == "interpolate" for job in jobs):
        check_norms(model, recipe.model)
    for job in jobs:
        check_units(job.config, adapter, model, covered)
        if job.kind == "channels":
            check_channels(job.config, adapter, model, covered)
        if job.kind == "concrete":
            check_concrete(job.config, task, model, covered)
        if job.kind == "gates":
            check_search(job.config, task, model)
        if job.kind in ("denoise", "scorer") or (job.kind == "inform" and "entry" in job.config):
            check_view(job.config, task)
        if job.kind == "learn" and job.config["task"] == recipe.task:
            check_learned(job.config, task, model)
        if job.kind == "dynamic":
            check_dynamic(job.config, task, model, covered)
        if job.kind == "supermask":
            check_supermask(job.config, task, model)
    return fingerprint


def _check_arms(recipe: Recipe, task: Task, adapter: Adapter) -> None:
    """Raise if the recipe asks for what this task or start does not have."""
    if "random-labels" in recipe.controls and not task.labelled:
        raise BadInput(f"control 'random-labels' permutes labels, and {recipe.task!r} has none")
    if "random-pixels" in recipe.controls:
        check_pixels(task)
    if "half-data" in recipe.controls:
        portion(task, 0.5)
    if task.graph() is not None and not adapter.graphs:
        raise BadInput(
            f"task {recipe.task!r} is on a graph, and model {recipe.model!r} reads none: choose a "
            "model of the family gnn, such as gcn, gin, gat or sage"
        )
    _check_graph(recipe, task)
    given = adapter.checkpoint(recipe.model) or adapter.pretraining(recipe.model)
    if given is not None and getattr(recipe.finder, "rewind", "") == "fresh":
        raise BadInput(
            f"rewind 'fresh' draws a new initialisation, and {recipe.model!r} starts from a "
            "pre-trained one; the control 'reinit' says what a drawn one is worth"
        )


def _check_graph(recipe: Recipe, task: Task) -> None:
    """Raise if edges are to be pruned and there are none, or nothing that would prune them."""
    finder = finder_name(recipe.finder)
    if recipe.finder.prunes_graph and task.graph() is None:
        raise BadInput(f"finder {finder!r} prunes a graph, and task {recipe.task!r} has none")
    if recipe.graph_sparsity and not recipe.finder.prunes_graph:
        able = [n for n in registry.names("finders") if registry.find("finders", n).prunes_graph]
        raise BadInput(
            f"graph_sparsity is {recipe.graph_sparsity}, but finder {finder!r} prunes no edges; "
            f"leave it at 0, or choose {' or '.join(able)}"
        )
    for name in recipe.controls:
        about = getattr(registry.find("controls", name), "needs_graph", False)
        if about and not recipe.finder.prunes_graph:
            raise BadInput(f"control {name!r} is about a graph's edges, and {finder!r} prunes none")


def resolved(recipe: Recipe, data: Path | None = None) -> Recipe:
    """Return the recipe with the family's defaults for what is left open, and epochs as iterations.

    An epoch is as many whole batches as the training part holds, as :meth:`Task.epoch` deals them.
    """
    recipe = replace(recipe, head=recipe.head or adapter_of(recipe.model).heads)
    recipe = replace(recipe, only=_only(recipe, data))
    if recipe.epochs is None:
        return recipe
    task = task_for(recipe, data)
    batch = recipe.training.batch_size
    steps = recipe.epochs * max(1, task.size("train") // batch) / recipe.training.accumulation
    training = replace(recipe.training, iterations=max(1, math.ceil(steps)))
    return replace(recipe, epochs=None, training=training)


def _only(recipe: Recipe, data: Path | None) -> tuple[str, ...]:
    """Return the parts that may be pruned: the recipe's, or the one that the finder is for.

    Raises:
        BadInput: the model has no such part, or the recipe names another.
    """
    names, finder = recipe.finder.prunes, finder_name(recipe.finder)
    if not names:
        return recipe.only
    with seeded(0, "init"):
        model = adapter_of(recipe.model).build(recipe.model, task_for(recipe, data).signature)
    parts = [n for n, _ in model.named_children()]
    own = tuple(part for part in parts if part in names)
    if not own:
        raise BadInput(
            f"finder {finder!r} is for models with a {' or a '.join(names)}, and {recipe.model!r} "
            f"has {', '.join(parts)}"
        )
    if recipe.only not in ((), own):
        raise BadInput(
            f"only is {list(recipe.only)}, but finder {finder!r} prunes the {own[0]} alone: leave "
            f"it out, or give {own[0]}"
        )
    return own


def _check_source(
    jobs: list[Job], config: Mapping[str, Any], adapter: Adapter, model: Any, task: Task
) -> None:
    """Raise if tickets come from a model of another depth that does not fit, or lacks layers."""
    if jobs and jobs[-1].kind == "elastic":
        name = jobs[-1].config["source"]
        source = check_elastic(jobs[-1].config, adapter, model, task.signature)
        theirs = covered_of(config, adapter_of(name), source)
        _check_amounts([job for job in jobs if job.config["model"] == name], source, theirs)


def _check_amounts(jobs: list[Job], model: Any, covered: Mapping[str, Prunable]) -> None:
    _check_uniform(jobs, model, covered)
    kept: dict[str, int] = {}
    for job in jobs:
        if job.kind not in ("prune", "rounds"):
            continue
        pools = pools_of(job.config, model, covered)
        _check_filled(job.config, pools, covered)
        kept[job.key] = sum(pool.keep for pool in pools)
        before = job.inputs.get("within")
        if before is not None and kept[job.key] > kept.get(before.key, kept[job.key]):
            raise BadInput(
                f"a level would keep {kept[job.key]:,} weights of {kept[before.key]:,} that are "
                "left before it: finder.rates remove more than finder.rate"
            )


def _check_uniform(jobs: list[Job], model: Any, covered: Mapping[str, Prunable]) -> None:
    """Raise if a search keeps the first layer dense at first and cannot to its end."""
    jobs = [job for job in jobs if job.config.get("scope") == "uniform"]
    sizes = [model.get_parameter(name).numel() for name in covered]
    kept = [round(exact(job.config["density"]) * sum(sizes)) for job in jobs]
    if any(job.kind == "rounds" or job.config.get("rule") == "gradual" for job in jobs):
        kept.append(sum(sizes))
    if kept and min(kept) < sizes[0] <= max(kept):
        raise BadInput(
            f"scope 'uniform' keeps the first layer dense, {sizes[0]:,} weights, and in the end "
            f"{min(kept):,} are to stay in all: give a lower sparsity, scope 'layer' or 'erk', or "
            "leave that layer out with --no-prune-first"
        )


def _check_filled(
    config: Mapping[str, Any], pools: list[Pool], covered: Mapping[str, Prunable]
) -> None:
    """Raise if a layer will be left without a weight, whatever the scores are."""
    empty = [covered[pool.names[0]].layer for pool in pools if not pool.keep]
    empty = [layer for layer in empty if layer not in config["overrides"]]
    density = exact(config["density"])
    if empty and density > 0:
        raise BadInput(
            f"at density {float(density):g} scope {config['scope']!r} leaves layer "
            f"{empty[0]!r} without a weight: give a lower sparsity, another scope, or exclude it"
        )


def experiment(recipe: Recipe, data: Path | None = None) -> Experiment:
    """Check a recipe and lay out its arms.

    Raises:
        BadInput, DataError: see :func:`check`.
    """
    recipe = resolved(recipe, data)
    return lay_out(recipe, check(recipe, data), data)


def lay_out(recipe: Recipe, fingerprint: str, data: Path | None = None) -> Experiment:
    """Return a recipe's arms over data of that fingerprint, unchecked."""
    return Experiment(recipe, fingerprint, tuple(_arms(recipe, fingerprint, data)))


def _arms(recipe: Recipe, fingerprint: str, data: Path | None) -> Iterator[Arm]:
    chains = [Chain(recipe, seed, fingerprint) for seed in recipe.seeds]
    searched = {chain.seed: list(recipe.finder.search(chain)) for chain in chains}
    for seed, levels in searched.items():
        for level in levels:
            yield Arm(TICKET if level.index else DENSE, seed, level)
    for name in recipe.controls:
        control = registry.find("controls", name)
        for chain in chains:
            levels = [level for level in searched[chain.seed] if level.index and level.masks]
            if recipe.controls_at != "all":
                asked = () if recipe.controls_at == "last" else recipe.controls_at
                levels = [lv for lv in levels if lv.index in asked or lv is levels[-1]]
            others = {}
            if changed_by(control) == "search":
                others = {lv.index: lv for lv in recipe.finder.search(control(chain))}
            if changed_by(control) == "model":
                signature = task_for(recipe, data).signature
                others = {lv.index: control(chain, lv, signature) for lv in levels}
            for level in levels:
                dense = searched[chain.seed][0]
                yield Arm(name, chain.seed, _controlled(chain, name, level, others, dense))


def _controlled(
    chain: Chain, name: str, level: Level, others: dict[int, Level], dense: Level
) -> Level:
    if not others:
        changes = changed_by(registry.find("controls", name))
        return chain.control(name, level, changes, dense)
    masks = others[level.index].masks
    if masks is None:
        return others[level.index]
    level = chain.restarted(level)
    assert level.train is not None
    return Level(level.index, level.start, masks, chain.again(level.train, level.start, masks))
