"""The battery of sanity checks: what is left of a ticket when one thing at a time is destroyed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ..chain import Chain
from ..errors import BadInput, unknown
from ..experiment import Arm, Experiment
from ..jobs import DENSE, TICKET, Job
from ..protocols import Yardstick
from ..recipe import Recipe
from ..rewind import Rewind
from .base import Answer, Measured, Probe, Study
from .battery_words import answered
from .shared import searched, tickets_at

#: Controls of each battery. The quick one is what no ticket should be shown without.
_ALWAYS = ("shuffle", "reinit", "random-global", "random-erk", "inverted")
_ONE_SHOT = ("one-shot-init", "one-shot", "one-shot-trained")
_MORE = (
    *("shuffle-weights", "smart-ratio", "hybrid", "random-labels", "random-pixels", "half-data"),
    *("equal-size", "equal-compute"),
)
PROFILES = {"quick": (*_ALWAYS, *_ONE_SHOT), "full": (*_ALWAYS, *_ONE_SHOT, *_MORE)}
#: Root seeds of each battery where none are asked for.
SEEDS = {"quick": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
#: Those of tickets with edges of a graph, in either battery.
_EDGES = ("random-graph", "random-edges")


@dataclass(frozen=True)
class Battery(Study):
    """Does a ticket pass the sanity checks, and what does each that it fails mean?

    One ingredient at a time is destroyed, and the result trained as the ticket is; its masks are
    looked at for weights that are not 0 and for dead paths. `lth-zoo verify TICKET --battery`
    asks it of a ticket.
    """

    profile: str = "quick"
    """quick: the checks no ticket should be shown without; full: all."""
    rewinds: tuple[str, ...] = ("init", "2%", "50%")
    """Rules of the full battery's rewind sweep: the search again, with each."""
    steps: int = 5
    """Training steps after each of which the pruned weights are looked at."""

    paper: ClassVar[str] = (
        "Frankle et al., ICLR 2021, arXiv:2009.08576; Su et al., NeurIPS 2020, arXiv:2009.11094"
    )

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise unknown("battery", self.profile, PROFILES)
        if self.steps < 0:
            raise BadInput(f"study.steps is {self.steps}; it must be at least 0")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return dense, ticket and every check that suits; each dense one notes which do not."""
        one, left = self.suited(recipe, data)
        swept = self._rewound(one.recipe, data, left)
        last = tickets_at(one, ())[0].level.index
        found = []
        for arm in one.arms:
            of: dict[str, Any] = {"arm": arm.name, "seed": arm.seed}
            if arm.name == DENSE:
                found.append(Probe({**of, "left": left, "asked": one.recipe.controls}, arm.goal))
            elif arm.level.index == last:
                found.append(Probe(of, arm.goal))
        found += [probe for arm in tickets_at(one, ()) for probe in self._looks(arm)]
        return [*found, *swept]

    def suited(self, recipe: Recipe, data: Path | None) -> tuple[Experiment, dict[str, str]]:
        """Return the experiment with the controls that suit, and why the others do not.

        Raises:
            BadInput: there is no ticket.
        """
        recipe = replace(recipe, controls_at="last")
        bare = searched(recipe, data)
        names, left = [], dict[str, str]()
        edges = _EDGES if recipe.finder.prunes_graph else ()
        for name in (*PROFILES[self.profile], *edges):
            try:
                searched(recipe, data, [name])
            except BadInput as error:
                left[name] = str(error)
            else:
                names.append(name)
        first = tickets_at(bare, ())[0]
        if first.level.start == Chain(bare.recipe, first.seed, bare.fingerprint).initial():
            names.remove("one-shot-init")
            left["one-shot-init"] = "the ticket starts from theta_0, so it is `one-shot`"
        return searched(recipe, data, names), left

    def _looks(self, arm: Arm) -> Iterator[Probe]:
        """Yield the looks at a ticket's masks and training."""
        level, train = arm.level, arm.goal
        assert level.masks is not None
        of = {"seed": arm.seed}
        base = ("model", "task", "data", "max_length", "data_fraction", "seed")
        plain = {name: train.config[name] for name in base if name in train.config}
        yield Probe({"arm": "paths", **of}, Job("paths", plain, {"masks": level.masks}))
        begin = train.config["begin"]
        usual = begin is not None and not {"signs", "compact", "settle"} & train.config.keys()
        steps = min(self.steps, train.config["end"] - begin) if usual else 0
        config = {
            **plain,
            "training": train.config["training"],
            "fresh_optimizer": train.config["fresh_optimizer"],
            "begin": begin,
            "end": (begin or 0) + steps,
            "steps": steps,
            "whole": train.config["keep"] == "weights",
            "promise": _promised(level.masks),
        }
        job = Job("integrity", config, {**train.inputs, "trained": train})
        yield Probe({"arm": "integrity", **of}, job)

    def _rewound(self, recipe: Recipe, data: Path | None, left: dict[str, str]) -> list[Probe]:
        """Return tickets of the same search by other rewind rules; ``left`` is told what is not."""
        if self.profile != "full":
            return []
        rule, whole = getattr(recipe.finder, "rewind", ""), recipe.training.iterations
        own = Rewind.parse(rule, whole) if rule else None
        found = []
        for other in self.rewinds:
            name = f"rewind {other}"
            if own is None or own.kind not in ("init", "step"):
                left[name] = "the finder does not return to a state of the dense run"
            elif Rewind.parse(other, whole) == own:
                left[name] = "it is the ticket's own rule"
            else:
                finder = replace(recipe.finder, rewind=other)  # type: ignore[call-arg]
                swept = searched(replace(recipe, finder=finder), data)
                for arm in tickets_at(swept, ()):
                    found.append(Probe({"arm": name, "seed": arm.seed}, arm.goal))
        return found

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:
        """Return every check with its result beside the ticket's, and what that means."""
        return answered(recipe, by, measured)


def _promised(masks: Job) -> dict[str, Any] | None:
    """Return what the job that made masks was told of their counts, None where it was not."""
    config = masks.config
    if not {"density", "scope", "overrides", "total", "exclude"} <= config.keys():
        return None
    if config.get("shares"):
        return None
    covers = ("exclude", "include", "only", "prune_first", "prune_last")
    told = ("density", "scope", "overrides", "total", *covers)
    return {name: config[name] for name in told if name in config}


__all__ = ["PROFILES", "SEEDS", "TICKET", "Battery"]
