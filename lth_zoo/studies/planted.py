"""Which finders find a ticket that is known to be there (Fischer & Burkholz 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from .. import registry
from ..chain import Chain
from ..errors import BadInput, unknown
from ..experiment import Experiment
from ..finders import IMP
from ..formats import load_masks
from ..jobs import DENSE, TICKET, Job
from ..protocols import Finder, Yardstick, task_of
from ..recipe import Recipe, finder_name
from ..report.recovery import Found, recovery_picture
from ..report.tables import Table
from ..session import MASKS
from ..trials.recovery import Recovery, planted_density, planted_sparsity, recovery
from .base import Answer, Measured, Probe, Study
from .shared import cell, fitting, tickets_at

#: What is planted, and the arms that hold the planted weights alone, trained and as drawn.
TASKS = ("circle", "helix", "relu")
PLANTED, UNTRAINED = "planted", "planted, untrained"
#: What is not found but given.
GIVEN = (DENSE, PLANTED, UNTRAINED)


@dataclass(frozen=True)
class Planted(Study):
    """Is a ticket found that is known to be there? (Fischer & Burkholz 2022, Plant 'n' Seek)

    Every finder goes down to as many weights as are planted. Its masks are scored by the planted
    weights they keep, beside what random masks of the same layer densities would, and by how the
    ticket trains, beside the dense network and the planted weights alone.
    """

    tasks: tuple[str, ...] = TASKS
    """What is planted: circle, helix, relu; networks have the size of the recipe's model."""
    finders: tuple[str, ...] = ()
    """Names of finders (default: all that fit)."""
    rounds: int | None = 10
    """Levels of imp and its kind, 10 as in the paper's multi-shot pruning; none: by their rates."""

    recipe: ClassVar[str] = "planted"
    paper: ClassVar[str] = "Fischer & Burkholz, ICLR 2022, arXiv:2111.11153"

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in TASKS:
                raise unknown("planted task", task, TASKS)
        for name in self.finders:
            registry.check("finders", name)
        if not self.tasks or (self.rounds is not None and self.rounds < 1):
            raise BadInput("study.tasks and study.rounds must be at least one")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return every finder's masks and trainings, the dense ones, and the planted ones."""
        probes: list[Probe] = []
        laid = {task: self.fitting(recipe, task, data) for task in self.tasks}
        for name in self.finders:
            if all(name in why for _, why in laid.values()):
                _, why = next(iter(laid.values()))
                raise BadInput(f"finder {name!r} does not fit: {why[name]}")
        for task, (suited, _) in laid.items():
            first = next(iter(suited.values()), None)
            if first is None:
                raise BadInput(f"no finder fits task planted/{task}")
            probes += _truth(first, task)
            for name, one in suited.items():
                for arm in tickets_at(one, ()):
                    of = {"task": task, "finder": name, "seed": arm.seed}
                    masks = arm.level.masks
                    assert masks is not None, "tickets have masks"
                    probes.append(Probe(of | {"arm": TICKET, "what": "training"}, arm.goal))
                    probes.append(Probe(of | {"arm": TICKET, "what": "masks"}, masks))
        return probes

    def fitting(
        self, recipe: Recipe, task: str, data: Path | None
    ) -> tuple[dict[str, Experiment], dict[str, str]]:
        """Return each finder's search on a planted task, and why the others cannot search there."""
        base = planted_recipe(recipe, task)
        own = finder_name(recipe.finder)

        def made(name: str) -> Finder:
            finder: Finder = recipe.finder if name == own else registry.find("finders", name)()
            if self.rounds and isinstance(finder, IMP):
                return _in_rounds(finder, base, self.rounds)
            return finder

        return fitting(base, self.finders, data, made)

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return what each finder found on each task, and which reach the planted density."""
        rows: list[dict[str, Any]] = []
        for task in self.tasks:
            here = [m for m in measured if m.of["task"] == task]
            rows += self._rows(recipe, task, here)
        why = self._left_out(recipe)
        findings = [*map(_said, self.tasks, (_of(rows, task) for task in self.tasks))]
        if why:
            findings.append(f"Left out, since they do not fit: {', '.join(why)}.")
        found = [
            Found(r["task"], r["finder"], r["recall"], r["chance_recall"], r["reached"])
            for r in rows
            if r["finder"] not in GIVEN
        ]
        picture = recovery_picture(found)
        return Answer(tuple(findings), (picture, _table(rows)), {"rows": rows, "left_out": why})

    def _left_out(self, recipe: Recipe) -> dict[str, str]:
        """Return why finders do not fit, by their names; with the tasks where it is not all."""
        laid = {task: self.fitting(recipe, task, None)[1] for task in self.tasks}
        found = {}
        for name in dict.fromkeys(name for why in laid.values() for name in why):
            tasks = [task for task in self.tasks if name in laid[task]]
            some = "" if len(tasks) == len(laid) else f" ({', '.join(tasks)})"
            found[name + some] = laid[tasks[0]][name]
        return found

    def _rows(
        self, recipe: Recipe, task: str, here: Sequence[Measured]
    ) -> Iterator[dict[str, Any]]:
        base = planted_recipe(recipe, task)
        by = task_of(base.task).yardstick(base.model)
        truth = {m.of["seed"]: _masks(m) for m in here if m.of.get("what") == "plant"}
        dense = _values([m for m in here if m.of["arm"] == DENSE], by)
        yield {"task": task, "finder": DENSE, "values": dense, "metric": by.headline}
        for name in dict.fromkeys(m.of["finder"] for m in here if m.of["arm"] != DENSE):
            own = [m for m in here if m.of.get("finder") == name]
            values = _values([m for m in own if m.of["what"] == "training"], by)
            masks = {m.of["seed"]: m for m in own if m.of["what"] in ("masks", "plant")}
            found = [recovery(_masks(m), truth[s]) for s, m in masks.items() if s in truth]
            if not values or not (found or name == UNTRAINED):
                continue
            flags = {f for m in own for f in m.result.get("flags", ())}
            row = {"task": task, "finder": name, "values": values, "metric": by.headline}
            row |= {"reached": reached(values, dense, by), "flags": sorted(flags)}
            yield row | (_recovered(found) if found else {})


def planted_recipe(recipe: Recipe, task: str) -> Recipe:
    """Return a recipe on a planted task, in the size of its model, down to the planted density.

    Raises:
        BadInput: its model is no planted one, or cannot hold the task's plant.
    """
    family, _, rest = recipe.model.partition("-")
    if family != PLANTED:
        raise BadInput(
            "the networks of lth-zoo study planted have the size of a planted model such as "
            f"planted-circle-100x5, not {recipe.model}"
        )
    model = "-".join([PLANTED, task, *rest.split("-")[1:]])
    found = replace(recipe, model=model, task=f"planted/{task}", name="")
    return replace(found, sparsity=planted_sparsity(found.model, found.task))


def reached(values: Mapping[int, float], dense: Mapping[int, float], by: Yardstick) -> bool:
    """Say whether the mean is no worse than the dense mean by more than the task's margin."""
    if not values or not dense:
        return False
    gain = fmean(values.values()) - fmean(dense.values())
    return (gain if by.higher_is_better else -gain) >= -by.margin


def _in_rounds(finder: IMP, base: Recipe, rounds: int) -> Finder:
    """Return the finder with the rate that reaches the planted density in so many levels."""
    left = float(planted_density(base.model, base.task)) ** (1 / rounds)
    return replace(finder, rate=min(0.99, round(1 - left + 5e-5, 4)))


def _truth(one: Experiment, task: str) -> Iterator[Probe]:
    """Yield the dense trainings, where the plants are, and these alone, trained or not."""
    for arm in (a for a in one.arms if a.name == DENSE):
        of, chain = {"task": task, "seed": arm.seed}, Chain(one.recipe, arm.seed, one.fingerprint)
        start = chain.initial()
        plant = Job("plant", {k: start.config[k] for k in ("model", "task")}, {"start": start})
        yield Probe(of | {"arm": DENSE}, arm.goal)
        for name, end in ((UNTRAINED, 0), (PLANTED, None)):
            alone = chain.train(start, plant, end=end, keep="metrics")
            yield Probe(of | {"arm": PLANTED, "finder": name, "what": "training"}, alone)
        yield Probe(of | {"arm": PLANTED, "finder": PLANTED, "what": "plant"}, plant)


def _masks(one: Measured) -> Any:
    return load_masks(one.entry.read(MASKS))


def _values(measured: Sequence[Measured], by: Yardstick) -> dict[int, float]:
    return {m.of["seed"]: float(m.result["metrics"]["test"][by.headline]) for m in measured}


def _recovered(found: Sequence[Recovery]) -> dict[str, Any]:
    """Return recall and precision by seed, and by layer their means."""
    names = ("recall", "chance_recall", "precision")
    layers = {
        layer.name: {
            "planted": layer.planted,
            "found": fmean(f.layers[i].found for f in found),
            "by_chance": fmean(f.layers[i].by_chance for f in found),
        }
        for i, layer in enumerate(found[0].layers)
    }
    every = {name: [getattr(f, name) for f in found] for name in names}
    return {**every, "kept": found[0].kept, "layers": layers}


def _of(rows: Sequence[Mapping[str, Any]], task: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["task"] == task]


def _said(task: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on a task: who reaches the planted density, and who finds most of it."""
    found = [row for row in rows if row["finder"] not in GIVEN]
    if not found:
        return f"{task}: no finder ended."
    able = [row["finder"] for row in found if row["reached"]]
    best = max(found, key=lambda row: fmean(row["recall"]))
    alone = next((row for row in rows if row["finder"] == PLANTED), {"reached": False})
    return (
        f"{task}, {found[0]['kept']} weights: {', '.join(able) or 'no finder'} matched the dense "
        f"network, and the planted weights alone, trained, {'did' if alone['reached'] else 'not'}; "
        f"most of the plant was kept by {best['finder']}, {100 * fmean(best['recall']):.0f} % "
        f"(by chance {100 * fmean(best['chance_recall']):.1f} %)."
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = []
    for row in rows:
        share = [
            cell([100 * x for x in row[name]], 1) + " %" if name in row else ""
            for name in ("recall", "chance_recall")
        ]
        able = {True: "yes", False: "no", None: ""}[row.get("reached")]
        why = f" ({', '.join(row['flags'])})" if able == "no" and row["flags"] else ""
        value = (row["metric"], cell(row["values"].values()) if row["values"] else "")
        cells.append(
            (row["task"], row["finder"], str(row.get("kept", "")), *value, able + why, *share)
        )
    note = (
        "Mean ± one sample standard deviation over seeds. accuracy in %, higher is better; error "
        "is the percentage of the variance left, lower is better. A finder matches where its mean "
        "is within the task's margin of the dense mean; in parentheses what is degenerate about "
        "its networks. planted: the planted weights alone, trained from the start by the same "
        "recipe. By chance: random masks of the same layer densities."
    )
    columns = ("task", "finder", "weights", "metric", "test", "matches dense")
    shares = ("planted weights kept", "by chance")
    words = frozenset({0, 1, 3, 5})
    return Table("planted", "Planted tickets", (*columns, *shares), tuple(cells), note, words)
