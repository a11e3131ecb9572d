"""What a job of kind ``prune`` does: score a trained model and keep the best of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from .coverage import covered_of, pools_of
from .edge_scores import selected
from .kinds import learned
from .masks import Masks
from .protocols import Task
from .scores import ScoreContext, score
from .seeds import generator
from .select import select
from .session import LazyStates, Session


def prune(session: Session) -> None:
    """Score a trained model and keep the best of it."""
    config = session.config
    model = session.build()
    rewind = "rewind" if "rewind" in session.job.inputs else "init"
    states = LazyStates({"final": "trained", "init": "init", "rewind": rewind}, session)
    model.load_state_dict(states["final"])
    covered = covered_of(config, session.adapter, model)
    before = session.masks("within")
    within = before.weights if before else None
    masks = within or Masks.ones(model, covered)
    seed = config["seed"]
    context = ScoreContext(
        model,
        masks,
        states,
        generator(seed, "prune", "score"),
        batches=Batches(learned(session, before), seed),
        loss=loss_of(session.task, model, seed),
    )
    scores = score(config["score"], context)
    if config.get("invert"):
        scores = {name: -value for name, value in scores.items()}
    caps = {name: kept for name, (kept, _) in within.counts.items()} if within else None
    kept = select(scores, pools_of(config, model, covered, caps), within)
    if "edges" in config:
        kept = kept.joined(_edges(session, before))
    session.write_masks(kept)
    session.write_json({"masks": kept.counts, "kept": kept.kept, "prunable": kept.size})


def _edges(session: Session, before: Masks | None) -> Masks:
    """Return the mask of the edges that a prune job keeps."""
    edges, graph = session.config["edges"], session.task.graph()
    assert graph is not None, "checked before the run"
    rng = generator(session.config["seed"], "prune", "edges", edges["score"])
    within = before.data if before and before.data else None
    return selected(graph, edges["entry"], edges["score"], edges["density"], rng, within)


class Batches:
    """Training batches in a fixed order of the seed, drawn on access."""

    size = 100

    def __init__(self, task: Task, seed: int) -> None:
        self._task, self._seed = task, seed

    def __iter__(self) -> Iterator[Any]:
        order = generator(self._seed, "prune", "batches")
        for indices in self._task.epoch(self.size, order):
            yield self._task.batch("train", indices)


def loss_of(task: Task, model: nn.Module, seed: int) -> Callable[[nn.Module, Any], Tensor]:
    """Return the task's first loss, (model, batch) -> scalar, its noise that of the seed."""
    objective = task.objectives(model)[0]
    noise = generator(seed, "prune", "noise")
    return lambda network, batch: objective.loss(network, batch, noise)
