"""Whether a ticket is easier to attack than the whole network, and than others of its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal, get_args

from .. import registry
from ..chain import Chain
from ..controls import changed_by
from ..errors import BadInput, unknown
from ..experiment import Arm
from ..jobs import DENSE, TICKET, Job, Level
from ..protocols import Yardstick
from ..recipe import Recipe
from ..report.figures import Picture
from ..session import task_for
from ..trials.cells import holm
from ..trials.compare import compare
from .base import Answer, Measured, Probe, Study
from .robustness_page import pictures, said, sanity, tables, transferred
from .shared import kept_share, searched, tickets_at

RANDOM, ONE_SHOT, STOPPED, MATCHED = "random ticket", "one-shot", "stopped", "dense, as accurate"
#: Sizes of attacks by default.
GREY, COLOUR = (0.05, 0.1, 0.2, 0.3), (2 / 255, 4 / 255, 8 / 255)
#: seed -> value of one measure
Values = dict[int, float]


@dataclass(frozen=True)
class Robustness(Study):
    """Is a ticket easier to attack than the whole network?

    FGSM, PGD, the smallest attack, common corruptions and attacks made on the other: the ticket
    beside the dense network, beside a random ticket and one-shot pruning at its sparsity, and
    beside the dense network stopped early, where it is as accurate.
    """

    levels: tuple[int, ...] = ()
    """Levels of the search (default: the last)."""
    eps: tuple[float, ...] = ()
    """Sizes of attacks, of a pixel from 0 to 1 (default: .05 .1 .2 .3 of grey images, 2, 4 and 8
    of 255 of colour ones)."""
    steps: int = 20
    """Steps of PGD, of 2.5 eps / steps each."""
    restarts: int = 5
    """Starts of PGD: the image, the others at random."""
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    """What attacks climb; margin has a slope where a network is too sure for cross-entropy."""
    examples: int = 500
    """Test images that are attacked, the first ones."""
    random: str = "random-layer"
    """Control that the random ticket is: a name of `lth-zoo ls controls`."""
    stops: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5)
    """Shares of the training at which dense networks stop, for one as accurate as the ticket."""

    paper: ClassVar[str] = (
        "Cosentino et al., 2019, arXiv:1912.02386; Madry et al., ICLR 2018, arXiv:1706.06083; "
        "Goodfellow et al., ICLR 2015, arXiv:1412.6572; Hendrycks and Dietterich, ICLR 2019, "
        "arXiv:1903.12261"
    )

    def __post_init__(self) -> None:
        for name in ("eps", "stops"):
            for value in getattr(self, name):
                if not 0 < value <= 1:
                    raise BadInput(f"study.{name} holds {value}; it must be above 0, at most 1")
        for name in ("steps", "restarts", "examples"):
            if getattr(self, name) < 1:
                raise BadInput(f"study.{name} is {getattr(self, name)}; it must be at least 1")
        if self.loss not in get_args(Literal["cross-entropy", "margin"]):
            raise unknown("loss", self.loss, ("cross-entropy", "margin"))
        kind = registry.find("controls", self.random)
        if changed_by(kind) != "masks":
            raise BadInput(
                f"study.random is {self.random!r}, which is no other mask: take random-layer, "
                "random-erk or random-global"
            )

    # -- jobs ------------------------------------------------------------------------------------

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the attacks on every arm, and from the dense network to each and back."""
        from ..probes.robustness import pixels_of

        task = task_for(recipe, data)
        if pixels_of(task) is None:
            raise BadInput(
                f"study 'robustness' attacks images that are classified, and task {recipe.task!r} "
                "has none: take digits, mnist, cifar10 ..."
            )
        eps = self.eps or (GREY if task.signature.input[0] == 1 else COLOUR)
        one = searched(recipe, data, (self.random,))
        probes: list[Probe] = []
        dense: dict[int, Job] = {}
        for arm in (a for a in one.arms if a.name == DENSE):
            dense[arm.seed] = arm.goal
            probes += self._attacked({"arm": DENSE, "seed": arm.seed}, arm.goal, eps)
            chain = Chain(one.recipe, arm.seed, one.fingerprint)
            for share in self.stops:
                end = max(1, round(share * one.recipe.training.iterations))
                goal = chain.train(chain.initial(), end=end)
                of = {"arm": STOPPED, "seed": arm.seed, "stop": end}
                probes += self._attacked(of, goal, eps)
        tickets = tickets_at(one, self.levels)
        levels = {arm.level.index for arm in tickets}
        others = [a for a in one.arms if a.name == self.random and a.level.index in levels]
        for arm in (*tickets, *others):
            name = TICKET if arm.name == TICKET else RANDOM
            at = {"arm": name, "seed": arm.seed, "level": arm.level.index}
            probes += self._both(at, _kept(arm.goal), dense[arm.seed], eps)
        starts = {a.seed: a.level for a in one.arms if a.name == DENSE}
        for arm in tickets:
            chain = Chain(one.recipe, arm.seed, one.fingerprint)
            at = {"arm": ONE_SHOT, "seed": arm.seed, "level": arm.level.index}
            goal = _at_once(chain, starts[arm.seed], arm)
            probes += self._both(at, goal, dense[arm.seed], eps)
        return probes

    def _attacked(self, of: Mapping[str, Any], goal: Job, eps: Sequence[float]) -> Iterator[Probe]:
        yield Probe({**of, "what": "training"}, goal)
        how = {"restarts": self.restarts}
        yield Probe({**of, "what": "attack"}, self._job("attack", goal, eps, {"state": goal}, how))

    def _both(
        self, of: Mapping[str, Any], goal: Job, dense: Job, eps: Sequence[float]
    ) -> Iterator[Probe]:
        yield from self._attacked(of, goal, eps)
        for what, a, b in (("to", dense, goal), ("from", goal, dense)):
            inputs = {"state-from": a, "state-to": b}
            yield Probe({**of, "what": what}, self._job("attack-transfer", goal, eps, inputs, {}))

    def _job(
        self,
        kind: str,
        goal: Job,
        eps: Sequence[float],
        inputs: Mapping[str, Job],
        more: Mapping[str, Any],
    ) -> Job:
        read = ("model", "task", "data", "data_fraction", "seed")
        config = {name: goal.config[name] for name in read if name in goal.config}
        how = {"steps": self.steps, "loss": self.loss, "examples": self.examples}
        return Job(kind, {**config, "eps": list(eps), **how, **more}, inputs)

    # -- answer ----------------------------------------------------------------------------------

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return the ticket beside the others: what it takes to fool it."""
        attacks = [m for m in measured if m.of["what"] == "attack"]
        dense = [m for m in attacks if m.of["arm"] == DENSE]
        rows: list[dict[str, Any]] = []
        findings: list[str] = []
        drawn: list[Picture] = []
        for level in sorted({m.of["level"] for m in attacks if "level" in m.of}):
            here = [m for m in attacks if m.of.get("level") == level]
            arms = {DENSE: _values(dense)}
            arms |= {n: _values([m for m in here if m.of["arm"] == n]) for n in _ARMS}
            arms[MATCHED] = _values(_matched(measured, level, by))
            arms = {name: found for name, found in arms.items() if found}
            trained = [
                m for m in measured if m.of.get("level") == level and m.of["what"] == "training"
            ]
            compared = _compared(arms)
            group = [
                {"level": level, "arm": n, "values": v} | compared.get(n, {})
                for n, v in arms.items()
            ]
            rows += group
            findings += said(level, kept_share(trained) or 0.0, group)
            findings += transferred(level, measured, _ARMS)
            drawn += pictures(level, group)
        findings.append(sanity(attacks))
        data = {"headline": by.headline, "rows": rows}
        return Answer(tuple(findings), (*drawn, *tables(rows)), data)


_ARMS = (TICKET, RANDOM, ONE_SHOT)


def _kept(goal: Job) -> Job:
    """Return the training that keeps its weights, where a control's would keep metrics alone."""
    return Job("train", {**goal.config, "keep": "weights"}, goal.inputs)


def _at_once(chain: Chain, dense: Level, ticket: Arm) -> Job:
    """Return the training of what one-shot pruning of the dense network keeps, as much of it."""
    masks, finder = ticket.level.masks, chain.recipe.finder
    if masks is None or dense.train is None:
        raise BadInput("study 'robustness' compares with one-shot pruning, and there is no mask")
    config = masks.config
    total = config.get("total")
    once = chain.prune(
        *(dense.train, None),
        density=Fraction(config.get("density", str(chain.density))),
        scope=config.get("scope", "global"),
        overrides={n: Fraction(v) for n, v in config.get("overrides", {}).items()},
        total=None if total is None else Fraction(total),
        start=dense.start,
    )
    rule = getattr(finder, "rewind", "init")
    train = chain.retrain(rule, dense.train, once, 1).train
    assert train is not None
    if train.config["begin"] == train.config["end"]:  # pruned while training: nothing is retrained
        train = chain.retrain("init", dense.train, once, 1).train
        assert train is not None
    return train


def _values(attacks: Sequence[Measured]) -> dict[str, Values]:
    """Return measure -> seed -> value: accuracies in percent, and the distance."""
    found: dict[str, Values] = {}
    for one in attacks:
        seed, result = one.of["seed"], one.result
        found.setdefault("clean", {})[seed] = result["clean"]
        found.setdefault("distance", {})[seed] = result["distance"]
        for row in result["eps"]:
            for kind in ("noise", "fgsm", "pgd"):
                found.setdefault(f"{kind} {row['eps']:.3g}", {})[seed] = row[kind]
        for name, values in result["corruptions"].items():
            found.setdefault(name, {})[seed] = fmean(values)
        means = [fmean(values) for values in result["corruptions"].values()]
        found.setdefault("corrupted", {})[seed] = fmean(means)
    return found


def _matched(measured: Sequence[Measured], level: int, by: Yardstick) -> list[Measured]:
    """Return, for each seed, the attack on the dense network that is as accurate as the ticket.

    Of the whole training and its stops it is the one whose validation metric is nearest.
    """

    def seen(one: Measured) -> float:
        return float(one.result["metrics"]["validation"][by.headline])

    trained = [m for m in measured if m.of["what"] == "training"]
    attacks = [m for m in measured if m.of["what"] == "attack"]
    found = []
    for ticket in (m for m in trained if (m.of["arm"], m.of.get("level")) == (TICKET, level)):
        seed = ticket.of["seed"]
        known = [m for m in trained if m.of["seed"] == seed and m.of["arm"] in (DENSE, STOPPED)]
        if known:
            goal = seen(ticket)
            nearest = min(known, key=lambda m: abs(seen(m) - goal))
            of = {**nearest.of, "what": "attack"}
            found += [m for m in attacks if dict(m.of) == of]
    return found


def _compared(arms: Mapping[str, Mapping[str, Values]]) -> dict[str, dict[str, Any]]:
    """Return, for every other arm, what the ticket has more than it; p of distances by Holm."""
    own = arms.get(TICKET, {})
    found: dict[str, dict[str, Any]] = {}
    for name in (n for n in arms if n != TICKET and own):
        tests = {k: compare(own[k], arms[name][k]) for k in own}
        found[name] = {
            "difference": {k: t.difference for k, t in tests.items()},
            "interval": {k: t.interval for k, t in tests.items()},
        }
        if tests["distance"].interval is not None:
            distance = tests["distance"]
            found[name]["p"] = min(1.0, 2 * min(distance.p_worse, distance.p_better))
    tested = [row for row in found.values() if "p" in row]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p"] = p
    return found
