"""Whether what a frozen ticket computes serves other tasks, by a linear head for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .. import registry
from ..chain import Chain
from ..errors import BadInput
from ..experiment import Experiment
from ..finders.strong_tickets import SETTLE
from ..jobs import DENSE, TICKET, Job, Level
from ..protocols import Yardstick, adapter_of
from ..recipe import Recipe, finder_name
from ..report.dots import Dots, dots_picture
from ..report.figures import Picture
from ..report.tables import Table
from ..seeds import seeded
from ..session import task_for
from ..trials.cells import holm
from ..trials.compare import compare
from .base import Answer, Measured, Probe, Study
from .shared import cell, mean_sd, reads, searched, signed, tickets_at

RANDOM_DENSE, RANDOM_MASK = "same weights, no mask", "random mask"
TRAINED_DENSE, TRAINED_TICKET, INPUTS = "trained dense", "trained ticket", "pixels"
#: What one seed's networks are, frozen ones first.
ARMS = (TICKET, RANDOM_DENSE, RANDOM_MASK, TRAINED_TICKET, TRAINED_DENSE, INPUTS)


@dataclass(frozen=True)
class Universal(Study):
    """Does a frozen ticket serve many tasks, a linear head for each? (after Burkholz et al. 2022)

    The ticket is found on the recipe's task and frozen as it is handed over, untrained; beside it
    the same weights without a mask, a random mask with its layer counts, networks that trained on
    the recipe's task, and the pixels themselves.
    """

    targets: tuple[str, ...] = ()
    """Tasks of images of the source's shape (default: the source, and what else may be asked of
    numerals)."""
    strengths: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Strengths of the ridge; the best on the validation part is taken."""

    recipe: ClassVar[str] = "quick-popup"
    paper: ClassVar[str] = "Burkholz et al., ICLR 2022, arXiv:2111.11146"

    def __post_init__(self) -> None:
        if not self.strengths or not all(0 < s < float("inf") for s in self.strengths):
            raise BadInput(f"study.strengths is {self.strengths}; each must be above 0")

    # -- jobs ------------------------------------------------------------------------------------

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the heads of every target on every network.

        Raises:
            BadInput: the recipe's task is no classification of images, its model ends in no linear
                layer, or a target has images of another shape.
        """
        from ..session import cached_task

        _check(recipe, data)
        names = self.targets or _questions(recipe.task)
        one = searched(recipe, data)
        prints: dict[str, str] = {}
        shape = task_for(recipe, data).signature.input
        for name in names:
            task = cached_task(name, data, recipe.model, None, recipe.data_fraction)
            if task.signature.input != shape or task.signature.answer != "classes":
                a, b = ("x".join(map(str, s)) for s in (shape, task.signature.input))
                raise BadInput(f"target {name!r} has inputs of {b}, and {recipe.task!r} of {a}")
            prints[name] = task.fingerprint()
        probes = []
        for arm, seed, state in _networks(one):
            for target, fingerprint in prints.items():
                config = {**reads(state), "target": target, "target_data": fingerprint}
                config["strengths"] = list(self.strengths)
                inputs = {} if arm == INPUTS else {"state": state}
                of = {"arm": arm, "seed": seed, "target": target}
                probes.append(Probe(of, Job("head", config, inputs)))
        return probes

    # -- answer ----------------------------------------------------------------------------------

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return the test accuracy of every head, and what the ticket's has more than others."""
        rows = _rows(measured)
        targets = list(dict.fromkeys(row["target"] for row in rows))
        findings = [*_summary(rows), *(s for t in targets if (s := _said(t, rows)))]
        data = {"source": recipe.task, "rows": rows}
        picture = _picture(recipe.task, targets, rows)
        return Answer(tuple(findings), (picture, _table(targets, rows)), data)


def _check(recipe: Recipe, data: Path | None) -> None:
    """Raise if there is no last hidden layer of an image classifier."""
    from ..probes.heads import head_layer

    task, adapter = task_for(recipe, data), adapter_of(recipe.model)
    if not hasattr(task, "pixels") or task.signature.answer != "classes":
        raise BadInput(
            f"study 'universal' fits heads of image classifiers, and task {recipe.task!r} is none: "
            "take digits, mnist, cifar10 ..."
        )
    with seeded(0, "init"):
        model = adapter.build(recipe.model, task.signature)
    if not head_layer(adapter, model):
        raise BadInput(f"model {recipe.model!r} ends in no linear layer that a head could replace")


def _questions(task: str) -> tuple[str, ...]:
    """Return a task and the other questions that may be asked of its images."""
    kind, plain = registry.find("tasks", task), task.partition("@")[0]
    if not getattr(kind, "numerals", False):
        raise BadInput(
            f"study.targets is empty, and the classes of {task!r} are no numerals that more could "
            "be asked of: give targets, such as --study.targets mnist fashion-mnist"
        )
    found = (f"{plain}@{v}" for v in kind.known_variants() if not v.startswith("half"))
    return tuple(dict.fromkeys([task, plain, *found]))


def _networks(one: Experiment) -> Iterator[tuple[str, int, Job]]:
    """Yield (arm, seed, the training that ends in the network); frozen ones train for no step."""
    for arm in (a for a in one.arms if a.name == DENSE):
        yield TRAINED_DENSE, arm.seed, arm.goal
        yield INPUTS, arm.seed, arm.goal
    for arm in tickets_at(one, ()):
        start = arm.level.start
        if start.kind == "dynamic" or "masks" in start.inputs:
            raise BadInput(
                f"study 'universal' freezes a ticket beside its weights without a mask, and those "
                f"of finder {finder_name(one.recipe.finder)!r} are 0 outside of it: they trained "
                "under it. Take a finder whose ticket starts from whole weights: edge-popup, snip, "
                "imp"
            )
        chain = Chain(one.recipe, arm.seed, one.fingerprint)
        masks = chain.control("random-layer", arm.level, "masks").masks
        frozen = _frozen(chain, arm.level, arm.level.masks)
        yield TICKET, arm.seed, frozen
        yield RANDOM_DENSE, arm.seed, _frozen(chain, arm.level, None)
        yield RANDOM_MASK, arm.seed, _frozen(chain, arm.level, masks)
        if frozen != arm.goal:
            yield TRAINED_TICKET, arm.seed, arm.goal


def _frozen(chain: Chain, level: Level, masks: Job | None) -> Job:
    """Return a level's start under masks as it is; batch norm's statistics are of the source."""
    assert level.train is not None
    at = level.train.config["begin"] or 0
    return chain.train(level.start, masks, begin=at, end=at, settle=SETTLE, settle_by="loss")


# -- sums, words, tables, pictures -----------------------------------------------------------------


def _rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return one row for each target and arm; differences are of the ticket less it, p by Holm."""
    found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for one in measured:
        found.setdefault((one.of["target"], one.of["arm"]), {})[one.of["seed"]] = one.result
    rows: list[dict[str, Any]] = []
    for target in dict.fromkeys(target for target, _ in found):
        own = _values(found.get((target, TICKET), {}))
        for arm in (a for a in ARMS if (target, a) in found):
            results = found[target, arm]
            row: dict[str, Any] = {"target": target, "arm": arm, "values": _values(results)}
            first = next(iter(results.values()))
            row |= {name: first[name] for name in ("features", "majority")}
            row["constant"] = mean_sd(r["constant"] for r in results.values())[0]
            if arm != TICKET and own:
                test = compare(own, row["values"])
                p = None if test.se is None else min(1.0, 2 * min(test.p_worse, test.p_better))
                row |= {"difference": test.difference, "interval": test.interval, "p": p}
            rows.append(row)
    tested = [row for row in rows if row.get("p") is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p"] = p
    return rows


def _values(results: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    return {seed: result["accuracy"]["test"] for seed, result in results.items()}


def _side(row: Mapping[str, Any]) -> int:
    """Return on which side of 0 the ticket's difference is shown to be; 0 where on neither."""
    if row.get("p") is None or row["p"] > 0.05:
        return 0
    return 1 if row["difference"] > 0 else -1


def _summary(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield on how many targets the ticket's head is better than each other arm's."""
    tests = sum(row.get("p") is not None for row in rows)
    for arm in dict.fromkeys(row["arm"] for row in rows if row.get("p") is not None):
        sides = [_side(row) for row in rows if row["arm"] == arm]
        seeds = min(len(row["values"]) for row in rows if row["arm"] == arm)
        yield (
            f"The frozen ticket against {arm}: better on {sides.count(1)}, worse on "
            f"{sides.count(-1)} of {len(sides)} targets, not told apart on {sides.count(0)} "
            f"(paired, n = {seeds}, 5 %, Holm over {tests})."
        )


def _said(target: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the ticket's head has on a target; empty where it failed."""
    here = {row["arm"]: row for row in rows if row["target"] == target}
    if TICKET not in here:
        return ""
    own = here[TICKET]
    parts = [
        f"{arm} {signed(row['difference'], row['interval'])}"
        for arm, row in here.items()
        if row.get("difference") is not None
    ]
    less = f"; less {', '.join(parts)}" if parts else ""
    alone = " One seed: no spread is known." if len(own["values"]) < 2 else ""
    return f"{target}: accuracy of the ticket's head {cell(own['values'].values())}{less}.{alone}"


def _picture(source: str, targets: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Picture:
    series: dict[str, dict[str, tuple[float, float]]] = {}
    for arm in ARMS:
        mine = {r["target"]: mean_sd(r["values"].values()) for r in rows if r["arm"] == arm}
        if mine:
            series[arm] = mine
    caption = f"Linear heads on networks found or trained on {source}; bars: one sd over seeds."
    panel = Dots("test accuracy of the head", series)
    return dots_picture("universal", "Heads on frozen networks", caption, [panel], targets)


def _table(targets: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = []
    for row in rows:
        cells.append(
            (
                *(row["target"], row["arm"], cell(row["values"].values())),
                signed(row.get("difference"), row.get("interval")),
                f"{row['features']:,}",
                f"{row['constant']:.0f}",
                f"{row['majority']:.1f}",
            )
        )
    columns = ("target", "features of", "test accuracy", "ticket - it", "features", "constant")
    note = (
        "Mean ± one sample standard deviation over seeds; differences with 95 % intervals, paired "
        "by seed. Constant: features that never vary. Majority: always the most frequent answer."
    )
    title = f"Heads on {len(targets)} targets"
    return Table("universal", title, (*columns, "majority"), tuple(cells), note, frozenset({0, 1}))
