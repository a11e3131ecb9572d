"""What a job of kind ``learn`` does: train scores beside the weights, then make one exact mask.

The search is one training in the one loop, of a :class:`~lth_zoo.relax.ScoredModel`. Its config
holds, beside what a training and a prune job read:

- ``live``: which weights are trained too: ``none``, the output ``head`` where no mask covers
  any of it (a start that is pre-trained lacks one), or ``all``;
- ``scores``: what the scores are at first, ``score_rate``: their learning rate;
- ``relaxation``: ``top-k`` (the exact count in every step) or ``soft`` (a threshold and a
  penalty, made exact at the end);
- ``first``, ``warm_up``, ``cool_down``: the cubic schedule of the density (of the threshold).

Tickets that stay untrained have more: ``objective`` ``moments`` learns by what the task matches in
place of its own loss, ``weights`` ``signed-constant`` replaces the start's, and ``settle`` says how
many batches the running statistics of the result are from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..allocate import Pool, exact
from ..carry import tied
from ..coverage import covered_of, pools_of
from ..errors import BadInput
from ..hooks import Hook
from ..kinds import learned, trained
from ..relax import Relaxation, ScoredModel, Soft, TopK, cubic, start_scores
from ..rewind import Snapshot
from ..seeds import generator
from ..select import select
from ..session import Session
from ..strong import settle, signed_constant

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..masks import Masks
    from ..protocols import Objective, Prunable, Split, Task
    from ..train import Loop


def learn(session: Session) -> None:
    """Train scores on a frozen or a live start, harden them, and write masks and state.

    Raises:
        BadInput: the task has several losses, each with parameters of its own.
        Diverged: a loss, a weight or a score is not finite.
    """
    config, inner = session.config, session.build()
    inner.load_state_dict(session.snapshot("start").state)
    covered = covered_of(config, session.adapter, inner)
    if config.get("weights") == "signed-constant":
        signed_constant(inner, covered, float(exact(config["density"])))
    model = scored(config, inner, covered, session.adapter.head(inner))
    task = aimed(config, learned(session))
    one_loss(task, inner)
    annealing = Annealing(config, covered)
    own = {"rate": config["score_rate"] / config["training"]["learning_rate"], "weight_decay": 0.0}
    groups = dict.fromkeys(model.score_names(), own)
    seen = through_masks(task)
    loop = trained(session, model, lambda: None, [annealing], task=seen, groups=groups)

    final = loop.final_state()
    scores = {n: final[key] for n, key in zip(model.names, model.score_names(), strict=True)}
    relaxed = model.relaxation.masks(scores)
    pools = annealing.pools(model, config["density"])
    masks = select(scores, pools)
    model.relaxation = TopK(pools)
    if batches := config.get("settle"):
        size = loop.training.batch_size
        model.through(lambda masked: settle(masked, task, loop.seed, batches, size))
    written(session, loop, masks, relaxed=sum(int(m.sum()) for m in relaxed.values()))


def written(session: Session, loop: Loop, masks: Masks, **about: Any) -> None:
    """Write the result of a search: its masks, the inner model's state, and what is said of them.

    Out of training the model is that of the masks by now: the validation part is asked of it.
    """
    assert isinstance(loop.model, ScoredModel)
    metrics = loop.evaluate("validation")
    session.write_masks(masks)
    session.write_start(Snapshot(loop.model.inner_state(loop.final_state()), loop.end))
    session.write_json(
        {
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            **about,
            "metrics": {"validation": metrics},
            "iterations": loop.end - loop.begin,
        }
    )


def scored(
    config: Mapping[str, Any],
    inner: nn.Module,
    covered: Mapping[str, Prunable],
    head: frozenset[str],
) -> ScoredModel:
    """Return a loaded model with scores beside its covered weights, as a config says."""
    first = pools_of({**config, "density": config["first"]}, inner, covered)
    weights = {n: inner.get_parameter(n).detach() for n in covered}
    rng = generator(config["seed"], "prune", "learn")
    scores = start_scores(config["scores"], weights, first, rng)
    live = {"none": frozenset[str](), "all": frozenset(n for n, _ in inner.named_parameters())}
    # What the head shares with the rest (tied embeddings) is the start's, and stays.
    live["head"] = head - tied(inner, head).keys() if head.isdisjoint(covered) else frozenset()
    return ScoredModel(inner, scores, TopK(first), live[config["live"]])


def aimed(config: Mapping[str, Any], task: Task) -> Task:
    """Return the task with what masks are learned by: its own loss, or another that it offers.

    Raises:
        BadInput: it offers none.
    """
    return task.matched() if config.get("objective") == "moments" else task


def check_learned(config: Mapping[str, Any], task: Task, model: nn.Module) -> None:
    """Assert, before any work, that masks of a model can be learned on a task.

    Raises:
        BadInput: it has several losses, or not the one that is asked for.
    """
    one_loss(aimed(config, task), model)


def through_masks(task: Task) -> Task:
    """Return a task as a :class:`ScoredModel` sees it: losses and looks are of its masked model."""
    seen = copy.copy(task)

    def objectives(model: nn.Module) -> Sequence[Objective]:
        assert isinstance(model, ScoredModel)
        return [replace(one, loss=partial(_lost, one)) for one in task.objectives(model.inner)]

    def evaluate(model: nn.Module, split: Split) -> dict[str, float]:
        assert isinstance(model, ScoredModel)
        training, model.training = model.training, False  # tasks see to the inner model alone
        try:
            return model.through(lambda masked: task.evaluate(masked, split))
        finally:
            model.training = training

    seen.objectives, seen.evaluate = objectives, evaluate  # type: ignore[method-assign]
    return seen


def _lost(one: Objective, model: ScoredModel, batch: Any, rng: torch.Generator) -> Tensor:
    return model.through(lambda masked: one.loss(masked, batch, rng))


def one_loss(task: Task, model: nn.Module) -> None:
    """Assert that a task has one loss, over the whole model.

    Raises:
        BadInput: it has several, or one of a part.
    """
    objectives = task.objectives(model)
    if len(objectives) != 1 or objectives[0].parameters is not None:
        raise BadInput(
            f"masks are learned by one loss over the whole model; task {task.name!r} has "
            f"{', '.join(o.name for o in objectives)}"
        )


class Annealing(Hook):
    """Moves the density, or the threshold and its penalty, along the schedule of a config."""

    def __init__(self, config: Mapping[str, Any], covered: Mapping[str, Prunable]) -> None:
        self.config, self.covered = config, covered
        self._last: tuple[float, Relaxation] | None = None

    def on_start(self, loop: Loop) -> None:
        """Set what the first step needs, or the first after a pause."""
        self._set(loop)

    def on_step(self, loop: Loop) -> None:
        """Set what the next step needs, and what is evaluated now."""
        self._set(loop)

    def on_gradients(self, loop: Loop) -> None:
        """Add the gradient of the penalty; the recorded loss stays the task's own."""
        assert isinstance(loop.model, ScoredModel)
        penalty = loop.model.relaxation.penalty(loop.model.by_name())
        if penalty is not None:
            penalty.backward()

    def pools(self, model: ScoredModel, density: object) -> list[Pool]:
        """Return the pools of a density, exact counts."""
        return pools_of({**self.config, "density": str(density)}, model.inner, self.covered)

    def _set(self, loop: Loop) -> None:
        assert isinstance(loop.model, ScoredModel)
        at, config = loop.iteration, self.config
        if config["relaxation"] == "soft":
            final = config["threshold"]
            now = cubic(at, loop.end, 0.0, final, config["warm_up"], config["cool_down"])
            # The penalty grows with the threshold, as in the paper's code.
            loop.model.relaxation = Soft(now, config["penalty"] * now / final)
            return
        first, last = float(exact(config["first"])), float(exact(config["density"]))
        now = cubic(at, loop.end, first, last, config["warm_up"], config["cool_down"])
        if self._last is None or self._last[0] != now:
            asked = config["density"] if now == last else config["first"] if now == first else now
            self._last = (now, TopK(self.pools(loop.model, asked)))
        loop.model.relaxation = self._last[1]
