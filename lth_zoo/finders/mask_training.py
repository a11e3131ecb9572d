"""Mask training: find a subnetwork of frozen weights by training the mask itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Literal

from .. import registry
from ..allocate import TensorScope
from ..chain import Chain
from ..errors import BadInput
from ..jobs import Job, Level
from ..protocols import Finder, task_of


@dataclass(frozen=True)
class MaskTraining(Finder):
    """Train a score a weight on a frozen start, keep the highest (Liu et al. 2022, TAMT)."""

    iterations: int | None = None
    """Iterations of the search (default: those of one training of the recipe)."""
    learning_rate: float = 1e-3
    """Learning rate of the scores, and of a head trained beside them; Adam, whatever the recipe
    trains with."""
    scope: TensorScope = "global"
    """Where scores compete: one threshold, one a layer (the paper), or given layer densities."""
    scores: Literal["magnitude", "random"] = "magnitude"
    """Where the search starts: the mask of the largest weights, or a random one."""
    initial_density: float | None = None
    """Density at the start; it falls to the target on a cubic (default: the target at once)."""
    cool_down: float = 0.5
    """Share of the search, at its end, that the target density is held for."""
    head: Literal["trained", "frozen"] = "trained"
    """Whether an output head that no mask covers is trained beside the scores."""
    on: str = ""
    """Another task to search on, such as mlm/...: the mask is then brought to the recipe's task
    (default: the recipe's own)."""
    rewind: str = "init"
    """What survivors get back: init, step=K, P%, learning-rate[=K], none[=K], fresh."""

    paper: ClassVar[str] = "Liu et al., NAACL 2022, arXiv:2204.11218"
    describes: ClassVar[Mapping[str, str]] = {
        "pretrain": "train scores by the loss, weights frozen, straight through the mask",
        "prune": "lowest learned scores, the whole amount at once",
        "re-initialise": "the weights never moved; rewind to init or an early step",
        "train": "the recipe's training",
    }

    def __post_init__(self) -> None:
        check_shares(self, "cool_down")
        if self.initial_density is not None and not 0 < self.initial_density <= 1:
            raise BadInput(
                f"finder.initial_density is {self.initial_density}; it must be above 0, at most 1"
            )
        if self.on:
            registry.check("tasks", self.on)
            if self.rewind.startswith(("none", "learning-rate")):
                raise BadInput(
                    f"rewind {self.rewind!r} trains on from the search's weights, but with "
                    f"finder.on {self.on!r} these are of another task; choose init or step=K"
                )

    def search(self, chain: Chain) -> Iterator[Level]:
        """Yield the dense level and the one of the learned mask."""
        dense = chain.dense(self.rewind)
        yield dense
        if chain.density == 1:
            return
        if not self.on or self.on == chain.recipe.task:
            masks = self._learned(chain, dense.start)
            yield chain.retrain(self.rewind, masks, masks, 1)
            return
        other = elsewhere(chain, self.on)
        found = self._learned(other, other.initial())
        config = {k: v for k, v in chain.initial().config.items() if k != "draw"}
        masks = Job("carry", {**config, "changes": "masks"}, {"masks": found})
        assert dense.train is not None
        yield chain.retrain(self.rewind, dense.train, masks, 1)

    def _learned(self, chain: Chain, start: Job) -> Job:
        """Return the job that learns the masks of a start.

        Raises:
            BadInput: the search would have to add weights.
        """
        first = chain.density if self.initial_density is None else exact(self.initial_density)
        if first < chain.density:
            raise BadInput(
                f"finder.initial_density is {self.initial_density}, below the target density "
                f"{float(chain.density):g}"
            )
        training = replace(
            chain.recipe.training,
            iterations=self.iterations or chain.recipe.training.iterations,
            optimizer="adam",
            learning_rate=self.learning_rate,
            momentum=0.0,
            nesterov=False,
            weight_decay=0.0,
        )
        return chain.search(
            "learn",
            {"start": start},
            training=training.plain(),
            begin=0,
            end=training.iterations,
            live="head" if self.head == "trained" else "none",
            scores=self.scores,
            score_rate=self.learning_rate,
            relaxation="top-k",
            density=str(chain.density),
            scope=self.scope,
            overrides={},
            total=None,
            first=str(first),
            warm_up=0.0,
            cool_down=self.cool_down,
        )


def elsewhere(chain: Chain, name: str) -> Chain:
    """Return the chain of the same model and seed on another task.

    Raises:
        BadInput: the task does not exist, or the chain permutes labels and it has none.
        DataError: its data is missing or damaged.
    """
    recipe = chain.recipe
    task = task_of(name).prepared(recipe.model, recipe.max_length)
    if chain.labels != "true" and not task.labelled:
        raise BadInput(f"control 'random-labels' permutes labels, and {name!r} has none")
    # What follows a task's own 64 digits in a fingerprint is of the model's code.
    fingerprint = task.fingerprint() + chain.fingerprint[64:]
    return replace(chain, recipe=replace(recipe, task=name, include=()), fingerprint=fingerprint)


def exact(value: float) -> Fraction:
    """Return a number as the fraction it is written as."""
    return Fraction(str(value))


def check_shares(finder: Finder, *shares: str) -> None:
    """Assert what the finders that learn masks have in common.

    Raises:
        BadInput: no iterations, no learning rate, or shares that are not in [0, 1].
    """
    values = vars(finder)
    if values["iterations"] is not None and values["iterations"] < 1:
        raise BadInput(f"finder.iterations is {values['iterations']}; it must be at least 1")
    for name in ("learning_rate", "score_learning_rate"):
        if not 0 < values.get(name, 1) < float("inf"):
            raise BadInput(f"finder.{name} is {values[name]}; it must be above 0")
    for name in shares:
        if not 0 <= values[name] <= 1:
            raise BadInput(f"finder.{name} is {values[name]}; it must be between 0 and 1")
    if sum(values[name] for name in shares) > 1:
        given = " + ".join(f"{name} {values[name]}" for name in shares)
        raise BadInput(f"finder.{given} is more than the whole search")
