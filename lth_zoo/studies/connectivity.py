"""Whether copies of a network that see other SGD noise end in one linearly connected basin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import BadInput
from ..experiment import Experiment, resolved
from ..jobs import Job
from ..protocols import Yardstick
from ..recipe import Recipe, check_choices, finder_name
from ..session import task_for
from .base import Answer, Measured, Probe, Study
from .connectivity_words import pictures, row_of, said, table
from .shared import points_of, reads, searched, tickets_at


@dataclass(frozen=True)
class Connectivity(Study):
    """Is training stable to SGD noise from a rewind point? (Frankle et al. 2020)

    Copies of a network train from one state on other orders of the data; their barrier is the
    highest error on the line between them over the mean of its ends.
    """

    points: tuple[str, ...] = ("init", "2%", "10%")
    """Places of the dense run that copies start from (init, step=K, P%); tickets are searched
    with that rewinding."""
    levels: tuple[int, ...] = ()
    """Levels of the search (default: the last); the dense network is always among them."""
    orders: int = 2
    """Copies a start, each on its own order, augmentation and dropout; all pairs are measured."""
    across: bool = True
    """Whether to measure a ticket against the level before it and against dense, too."""
    alphas: int = 30
    """Points on a line, both ends included."""
    split: Literal["validation", "test", "train"] = "validation"
    """Part of the data that errors on the line are of."""
    norms: Literal["settled", "interpolated"] = "settled"
    """Running statistics of batch norm: estimated anew at every point, or taken from the line."""
    batches: int = 50
    """Training batches they are estimated on."""
    limit: float = 2.0
    """Barrier, in points, below which a pair counts as stable."""

    paper: ClassVar[str] = "Frankle, Dziugaite, Roy & Carbin, ICML 2020, arXiv:1912.05671"

    def __post_init__(self) -> None:
        check_choices(self, "study.")
        for name, least in (("orders", 1), ("alphas", 3), ("batches", 1)):
            if getattr(self, name) < least:
                given = getattr(self, name)
                raise BadInput(f"study.{name} is {given}; it must be at least {least}")
        if self.orders == 1 and not self.across:
            raise BadInput("study.orders is 1 and study.across False: there is no pair to measure")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the trainings whose test metrics are shown, and a line for every pair."""
        recipe = resolved(recipe, data)
        _check(recipe, task_for(recipe, data).yardstick(recipe.model))
        found: list[Probe] = []
        for rule, at in points_of(recipe, self.points).items():
            rewound = replace(recipe, finder=replace(recipe.finder, rewind=rule))  # type: ignore[call-arg]
            found += self._at(searched(rewound, data), at)
        return found

    def _at(self, one: Experiment, at: int) -> Iterator[Probe]:
        """Yield the measurements of one rewind point."""
        tickets = tickets_at(one, self.levels) if one.recipe.sparsity else []
        runs = {(arm.seed, arm.level.index): arm.goal for arm in one.arms}
        for seed in one.recipe.seeds:
            levels = [0, *(arm.level.index for arm in tickets if arm.seed == seed)]
            for level in levels:
                train = runs[seed, level]
                of = {"point": at, "seed": seed, "from": level, "to": level}
                yield Probe(of | {"what": "training"}, train)
                copies = [_reordered(train, order) for order in range(self.orders)]
                for pair in combinations(range(self.orders), 2):
                    line = self._line(copies[pair[0]], copies[pair[1]])
                    yield Probe(of | {"what": "noise", "pair": pair}, line)
                for other in sorted({0, level - 1}) if self.across and level else ():
                    line = self._line(runs[seed, other], train)
                    yield Probe(of | {"what": "levels", "from": other}, line)

    def _line(self, first: Job, second: Job) -> Job:
        config = reads(first) | {"alphas": self.alphas, "split": self.split, "norms": self.norms}
        batch = first.config["training"]["batch_size"]
        config |= {"batches": self.batches, "batch_size": batch}
        return Job("line", config, {"state-0": first, "state-1": second})

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return the barriers, pairs of a seed averaged first, and the lines they are of."""
        lines = [m for m in measured if m.of["what"] != "training"]
        keys = dict.fromkeys((m.of["point"], m.of["what"], m.of["from"], m.of["to"]) for m in lines)
        order = {"noise": 0, "levels": 1}
        rows: list[dict[str, Any]] = []
        for key in sorted(keys, key=lambda k: (k[0], order[k[1]], k[3], k[2])):
            point, what, first, to = key
            own = [m for m in lines if (m.of["point"], m.of["what"]) == key[:2]]
            own = [m for m in own if (m.of["from"], m.of["to"]) == key[2:]]
            row = {"point": point, "what": what, "from": first, "to": to}
            rows.append(row | row_of(own, self.limit) | {"test": _tests(measured, point, to)})
        data = {"limit": self.limit, "split": self.split, "rows": rows}
        return Answer(
            tuple(said(row, self.limit) for row in rows),
            (*pictures(rows, self.limit, self.split), table(rows, self.split)),
            data,
        )


def _reordered(train: Job, order: int) -> Job:
    """Return the same training on other SGD noise; 0 is the noise of every arm of its seed."""
    if not order:
        return train
    return Job(train.kind, {**train.config, "keep": "weights", "order": order}, train.inputs)


def _tests(measured: Sequence[Measured], point: int, level: int) -> Mapping[int, float]:
    """Return the test accuracy of the networks of a level, by seed."""
    return {
        m.of["seed"]: m.result["metrics"]["test"]["accuracy"]
        for m in measured
        if (m.of["what"], m.of["point"], m.of["to"]) == ("training", point, level)
    }


def _check(recipe: Recipe, by: Yardstick) -> None:
    """Raise if errors on a line have no meaning, or the finder rewinds to no point."""
    if by.headline != "accuracy":
        raise BadInput(
            f"connectivity is of an error rate, and task {recipe.task!r} is judged by "
            f"{by.headline}: choose a classifier judged by accuracy, such as digits or mnist"
        )
    name = finder_name(recipe.finder)
    if recipe.finder.prunes_graph:
        raise BadInput(f"finder {name!r} prunes edges, which lie on no line: choose imp")
    if "rewind" not in {f.name for f in fields(recipe.finder)}:
        raise BadInput(f"finder {name!r} rewinds to no point of the dense run: choose imp")
