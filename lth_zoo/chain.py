"""The primitives that finders build their levels with: jobs of one recipe and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from . import registry
from .errors import BadInput
from .given import judges_of, pretrained_start
from .jobs import Job, Level, iterations_of
from .recipe import Recipe
from .rewind import Rewind


@dataclass(frozen=True)
class Chain:
    """The primitives a finder builds its levels with, for one recipe and seed.

    ``labels``, ``invert`` and ``blind`` are switches of the controls that corrupt the search:
    permuted labels, negated scores, random scores; ``edges`` replaces the score of the edges.
    """

    recipe: Recipe
    seed: int
    fingerprint: str
    labels: str = "true"
    invert: bool = False
    blind: bool = False
    edges: str = ""

    @property
    def edge_density(self) -> Fraction:
        """Kept share of the graph's edges at the last level."""
        return 1 - Fraction(str(self.recipe.graph_sparsity))

    @property
    def density(self) -> Fraction:
        """Kept share at the last level."""
        return self.recipe.density

    @property
    def _base(self) -> dict[str, Any]:
        recipe = self.recipe
        base: dict[str, Any] = {
            "model": recipe.model,
            "task": recipe.task,
            "data": self.fingerprint,
        }
        if recipe.max_length:
            base["max_length"] = recipe.max_length
        if recipe.data_fraction != 1:
            base["data_fraction"] = recipe.data_fraction
        return base

    @property
    def _covers(self) -> dict[str, Any]:
        recipe = self.recipe
        covers: dict[str, Any] = {
            "prune_first": recipe.prune_first,
            "prune_last": recipe.prune_last,
            "exclude": list(recipe.exclude),
        }
        for name in ("include", "only"):
            if chosen := getattr(recipe, name):
                covers[name] = list(chosen)
        return covers

    @property
    def _judges(self) -> dict[str, Job]:
        """What evaluation reads, by role."""
        return judges_of(self.recipe.task, self.fingerprint)

    def initial(self, draw: int = 0) -> Job:
        """Return the job that initialises the model; ``draw`` other than 0 is a fresh one.

        Where the start is pre-trained, only what the checkpoint lacks is drawn: the head.
        """
        pretrained = pretrained_start(self.recipe.model)
        inputs = {"pretrained": pretrained} if pretrained else {}
        return Job("init", {**self._base, "seed": self.seed, "draw": draw}, inputs)

    def train(
        self,
        start: Job,
        masks: Job | None = None,
        *,
        begin: int = 0,
        end: int | None = None,
        keep: str = "weights",
        fresh_optimizer: bool = True,
        **options: Any,
    ) -> Job:
        """Return a training from iteration ``begin`` to ``end`` (default: the whole).

        ``keep`` is what its result holds besides metrics: ``weights``, ``snapshot`` (with
        the optimiser), or ``metrics`` alone.
        """
        settings = self.recipe.training.plain()
        config = {
            **self._base,
            "seed": self.seed,
            "training": settings,
            "begin": begin,
            "end": settings["iterations"] if end is None else end,
            "keep": keep,
            "fresh_optimizer": fresh_optimizer,
            **options,
        }
        if self.labels != "true":
            config["labels"] = self.labels
        inputs = {"start": start} | ({"masks": masks} if masks else {}) | self._judges
        return Job("train", config, inputs)

    def prune(
        self,
        trained: Job,
        within: Job | None,
        *,
        density: Fraction,
        score: str = "magnitude",
        scope: str = "global",
        overrides: Mapping[str, Fraction] | None = None,
        total: Fraction | None = None,
        start: Job | None = None,
        edges: Mapping[str, Any] | None = None,
        reads: Mapping[str, Any] | None = None,
    ) -> Job:
        """Return the job that scores ``trained`` and keeps the best ``density`` of it.

        ``start`` is what the training started from, where that is not the initial state.
        ``edges`` says what is kept of the task's graph: ``entry`` of the masks, ``score``,
        ``density``. ``reads`` says what a score is fed: see :func:`lth_zoo.pruning.fed`.
        """
        score = "random" if self.blind else score
        config: dict[str, Any] = {
            **self._base,
            "seed": self.seed,
            "score": score,
            "scope": scope,
            "density": str(density),
            "overrides": {k: str(v) for k, v in (overrides or {}).items()},
            "total": None if total is None else str(total),
            **self._covers,
        }
        if reads:
            config["reads"] = dict(reads)
        if self.invert:
            config["invert"] = True
        if edges is not None:
            kept = {"score": self.edges} if self.edges else {}
            config["edges"] = {**edges, "density": str(edges["density"])} | kept
        if self.labels != "true" and getattr(registry.find("scores", score), "data", False):
            config["labels"] = self.labels
        inputs = {"trained": trained, "init": self.initial()}
        if start is not None and start != inputs["init"]:
            inputs["rewind"] = start
        if "trace" in getattr(registry.find("scores", score), "needs", ()):
            inputs["trace"] = self.traced(trained, score)
        return Job("prune", config, inputs | ({"within": within} if within else {}))

    def rounds(self, start: Job, count: int, *, schedule: str, nested: bool, **options: Any) -> Job:
        """Return the job that scores a start ``count`` times, each time under the masks so far.

        ``options`` are those of :meth:`prune`; one round is no other job than it makes.

        Raises:
            BadInput: the scope leaves no room for rounds.
        """
        prune = self.prune(start, None, start=start, **options)
        if count == 1:
            return prune
        if ":" in prune.config["scope"]:
            raise BadInput(
                f"scope {prune.config['scope']!r} keeps a fixed share, so there is nothing to do "
                f"in {count} rounds: give finder.rounds 1, or a scope without ':'"
            )
        how = {"rounds": count, "schedule": schedule, "nested": nested}
        return Job("rounds", {**prune.config, **how}, prune.inputs)

    def traced(self, trained: Job, score: str) -> Job:
        """Return the job that repeats a training and adds up what its weights do on the way.

        Raises:
            BadInput: the job is no training, or one of no step.
        """
        config = trained.config
        if trained.kind != "train" or config["begin"] == config["end"] or "signs" in config:
            raise BadInput(
                f"score {score!r} reads what the weights do along a training, and there is none: "
                "what is scored is a start, or what a search made that does not train its weights"
            )
        left = ("keep", "compact", "settle")
        kept = {name: value for name, value in config.items() if name not in left}
        return Job("trace", kept, trained.inputs)

    def search(self, kind: str, inputs: Mapping[str, Job], **config: Any) -> Job:
        """Return a job of a finder's own kind, which makes masks by other means than a score.

        It reads the recipe's training and coverage; ``config`` holds what else it reads, with
        ``begin`` and ``end`` where it trains.

        Raises:
            BadInput: the chain inverts or replaces scores, which such a job has none of.
        """
        if (self.blind or self.invert) and "score" not in config:
            control = "random-scores" if self.blind else "inverted"
            raise BadInput(f"control {control!r} changes scores, and this finder has none")
        config |= ({"score": "random"} if self.blind else {}) | (
            {"invert": True} if self.invert else {}
        )
        settings = {"training": self.recipe.training.plain(), **self._covers}
        labels = {"labels": self.labels} if self.labels != "true" else {}
        config = {**self._base, "seed": self.seed, **settings, **config, **labels}
        return Job(kind, config, {**inputs, **self._judges})

    # -- rewinding ----------------------------------------------------------------------

    def rewind_point(self, rule: str) -> Job:
        """Return the job whose state the dense run starts or passes through at that rule."""
        rewind = Rewind.parse(rule, self.recipe.training.iterations)
        if rewind.kind == "step":
            return self.train(self.initial(), end=rewind.at, keep="snapshot")
        return self.initial()

    def dense(self, rule: str) -> Level:
        """Return level 0: the dense run, through the rewind point if there is one."""
        point = self.rewind_point(rule)
        return Level(0, point, None, self.retrain(rule, point, None, 0).train)

    def retrain(self, rule: str, trained: Job, masks: Job | None, index: int) -> Level:
        """Return a level: the start that the rule gives the survivors, and its training."""
        whole = self.recipe.training.iterations
        rewind = Rewind.parse(rule, whole)
        if masks is not None and rewind.kind in ("learning-rate", "none"):
            begin = whole - rewind.at if rewind.kind == "learning-rate" else whole
            train = self.train(trained, masks, begin=begin, end=begin + rewind.at)
            return Level(index, trained, masks, train)
        if rewind.kind == "fresh" and masks is not None:
            start = self.initial(draw=index)
            return Level(index, start, masks, self.train(start, masks))
        start = self._headed(self.rewind_point(rule), trained, index)
        begin = rewind.at if rewind.kind == "step" else 0
        train = self.train(start, masks, begin=begin, fresh_optimizer=begin == 0)
        return Level(index, start, masks, train)

    def going_on(self, level: Level) -> Level:
        """Return a level whose training goes on to the end from where its search stopped."""
        assert level.train is not None
        span = {"begin": None, "end": self.recipe.training.iterations}
        train = replace(level.train, config={**level.train.config, **span})
        return replace(level, train=train)

    def _headed(self, start: Job, trained: Job, index: int) -> Job:
        """Return a level's start with the head that the recipe gives it."""
        if index == 0 or self.recipe.head in (None, "rewind"):
            return start
        head = trained if self.recipe.head == "carry" else self.initial(draw=index)
        return self.graft(start, head)

    def graft(self, start: Job, head: Job, part: str = "") -> Job:
        """Return the job that puts another state's output head, or a named part, on a start."""
        config = {**self._base, "seed": self.seed} | ({"part": part} if part else {})
        return Job("graft", config, {"start": start, "head": head})

    def signed(self, start: Job, trained: Job, masks: Job) -> Job:
        """Return the job that gives a start the signs that a training under masks ended with."""
        inputs = {"start": start, "trained": trained, "masks": masks}
        return Job("signs", {**self._base, "seed": self.seed}, inputs)

    def control(
        self, name: str, level: Level, changes: str = "both", dense: Level | None = None
    ) -> Level:
        """Return a level with one ingredient destroyed, and its training.

        ``changes`` says what the control makes: ``masks``, a ``start``, ``both``, or an
        ``init``: a start that has seen no training, and so is trained from iteration 0. ``dense``
        is level 0, for controls that read the trained dense network.

        Raises:
            BadInput: such a control, and no dense run at hand.
        """
        holds = "start" if changes == "init" else changes
        if holds != "start" or level.start.kind == "dynamic":
            level = self.restarted(level)
        assert level.masks is not None
        assert level.train is not None
        config = {**self._base, "seed": self.seed, "name": name, "changes": holds}
        made = level.start.config  # what is drawn afresh is made alike
        config |= {key: made[key] for key in ("weights", "finish") if key in made}
        inputs = {"masks": level.masks, "start": level.start}
        if getattr(registry.find("controls", name), "needs_trained", False):
            if dense is None or dense.train is None:
                raise BadInput(f"control {name!r} reads the trained dense network: none is at hand")
            inputs["trained"] = dense.train
        if getattr(registry.find("controls", name), "needs_initial", False):
            inputs["init"] = self.initial()
        job = Job("control", config, inputs)
        masks = level.masks if holds == "start" else job
        start = level.start if holds == "masks" else job
        if changes == "init":
            asked = level.train.config
            span = {"begin": 0, "end": min(asked["end"], asked["training"]["iterations"])}
            whole = self.again(level.train, start, masks, **span, fresh_optimizer=True)
            return Level(level.index, start, masks, whole)
        return Level(level.index, start, masks, self.again(level.train, start, masks))

    def restarted(self, level: Level) -> Level:
        """Return a level as its controls train it.

        Where the weights trained under the ticket's own masks, all others are 0: under another mask
        such a state is no network. Its controls start from what was whole: the trained dense
        network; of a search that trains under masks the initial state, and train as long as search
        and ticket together.
        """
        start, train = level.start, level.train
        assert train is not None
        if start.kind in ("dynamic", "inform"):
            whole = self.initial()
            longer = self.lasting(iterations_of(start) + iterations_of(train))
            return Level(level.index, whole, level.masks, longer.train(whole, level.masks))
        if start.kind != "train" or "masks" not in start.inputs:
            return level
        dense = self.dense(getattr(self.recipe.finder, "rewind", "init")).train
        assert dense is not None
        inputs = {**train.inputs, "start": dense}
        return Level(level.index, dense, level.masks, replace(train, inputs=inputs))

    def lasting(self, iterations: int) -> Chain:
        """Return the chain whose trainings last so long, their schedule stretched with them."""
        training = self.recipe.training
        scale = Fraction(iterations, training.iterations)
        marks = tuple(round(m * scale) for m in training.milestones)
        warmup = round(training.warmup * scale)
        longer = replace(training, iterations=max(1, iterations), milestones=marks, warmup=warmup)
        return replace(self, recipe=replace(self.recipe, training=longer))

    def again(self, train: Job, start: Job, masks: Job, **changed: Any) -> Job:
        """Return the same training from another start under other masks; keeps metrics alone."""
        config = {**train.config, "keep": "metrics", **changed}
        return Job("train", config, {**train.inputs, "start": start, "masks": masks})

    def corrupted(self, **switches: Any) -> Chain:
        """Return the chain with a switch of its search set."""
        return replace(self, **switches)
