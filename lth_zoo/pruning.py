"""What a job of kind ``prune`` does: score a trained model and keep the best of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from torch import Tensor, get_num_threads, nn, set_num_threads, tensor

from . import registry
from .coverage import covered_of, pools_of
from .edge_scores import selected
from .errors import BadInput
from .kinds import learned
from .masks import Masks
from .protocols import Adapter, Task
from .scores import ScoreContext, Scores, score
from .seeds import generator
from .select import select
from .session import LazyStates, Session


def prune(session: Session) -> None:
    """Score a trained model and keep the best of it."""
    config = session.config
    model, states = loaded(session)
    covered = covered_of(config, session.adapter, model)
    before = session.masks("within")
    within = before.weights if before else None
    masks = within or Masks.ones(model, covered)
    scores = scored(session, model, masks, states, before)
    caps = {name: kept for name, (kept, _) in within.counts.items()} if within else None
    kept = select(scores, pools_of(config, model, covered, caps), within)
    if "edges" in config:
        kept = kept.joined(_edges(session, before))
    session.write_masks(kept)
    session.write_json({"masks": kept.counts, "kept": kept.kept, "prunable": kept.size})


def loaded(session: Session) -> tuple[nn.Module, LazyStates]:
    """Return the model that is pruned, with its weights, and the states that scores read."""
    model = session.build()
    rewind = "rewind" if "rewind" in session.job.inputs else "init"
    roles = {"final": "trained", "init": "init", "rewind": rewind, "trace": "trace"}
    states = LazyStates(roles, session)
    model.load_state_dict(states["final"])
    return model, states


def scored(
    session: Session,
    model: nn.Module,
    masks: Masks,
    states: LazyStates,
    before: Masks | None = None,
    number: int = 0,
) -> Scores:
    """Return the scores that a job's config asks for; in round ``number`` on other batches.

    Raises:
        BadInput: the score cannot be had of this model or task.
    """
    config, seed = session.config, session.config["seed"]
    task = learned(session, before)
    context = ScoreContext(
        model,
        masks,
        states,
        generator(seed, "prune", "score", *([number] if number else [])),
        **fed(config, task, model, number),
        example=session.adapter.example(task.signature),
    )
    with one_thread():
        scores = score(config["score"], context)
    return {n: -value for n, value in scores.items()} if config.get("invert") else scores


def _edges(session: Session, before: Masks | None) -> Masks:
    """Return the mask of the edges that a prune job keeps."""
    edges, graph = session.config["edges"], session.task.graph()
    assert graph is not None, "checked before the run"
    rng = generator(session.config["seed"], "prune", "edges", edges["score"])
    within = before.data if before and before.data else None
    return selected(graph, edges["entry"], edges["score"], edges["density"], rng, within)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside, as workers do: rounding is then the same everywhere."""
    threads = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(threads)


def fed(config: Mapping[str, Any], task: Task, model: nn.Module, number: int = 0) -> dict[str, Any]:
    """Return what a score is fed: batches, their loss, and how many of them slopes are of.

    A config's ``reads`` says what differs from batches of 100 and the task's loss: ``examples`` a
    batch, or ``per_class`` in ``parts`` batches, with answers divided by a ``temperature``.
    """
    seed, reads = config["seed"], config.get("reads", {})
    if "per_class" not in reads:
        batches = Batches(task, seed, reads.get("examples", Batches.size), number)
        return {"batches": batches, "loss": loss_of(task, model, seed)}
    noise = generator(seed, "prune", "noise")

    def tempered(network: nn.Module, batch: Any) -> Tensor:
        answers = task.answers(network, batch, noise) / reads["temperature"]
        return nn.functional.cross_entropy(answers, batch[1])

    dealt = ByClass(task, seed, reads["per_class"], reads["parts"])
    return {"batches": dealt, "loss": tempered, "count": reads["parts"]}


class Batches:
    """Training batches in a fixed order of the seed, drawn on access, from the ``first`` on."""

    size = 100

    def __init__(self, task: Task, seed: int, size: int = size, first: int = 0) -> None:
        self._task, self._seed, self.size, self._first = task, seed, size, first

    def __iter__(self) -> Iterator[Any]:
        epoch, first = 0, self._first
        while first >= len(batches := self._epoch(epoch)):
            epoch, first = epoch + 1, first - len(batches)
        for indices in batches[first:]:
            yield self._task.batch("train", indices)

    def _epoch(self, epoch: int) -> Sequence[Tensor]:
        order = generator(self._seed, "prune", "batches", *([epoch] if epoch else []))
        return self._task.epoch(self.size, order)


class ByClass:
    """So many training examples of each class, all there are where there are fewer, in parts.

    Raises:
        BadInput: the task has no classes.
    """

    def __init__(self, task: Task, seed: int, per_class: int, parts: int) -> None:
        if not task.labelled or task.signature.answer not in ("classes", "nodes", "graphs"):
            raise BadInput(
                f"{per_class} examples of each class are asked for, and task {task.name!r} has no "
                "classes: choose a finder that draws any examples, such as snip"
            )
        self._task, self._seed, self._each, self._parts = task, seed, per_class, parts

    def __iter__(self) -> Iterator[Any]:
        order = generator(self._seed, "prune", "batches")
        found: dict[int, list[int]] = {}
        for indices in self._task.epoch(Batches.size, order):
            labels = self._task.batch("train", indices)[1].reshape(-1).tolist()
            for place, label in zip(indices.tolist(), labels, strict=True):
                found.setdefault(label, []).append(place)
            whole = [places for places in found.values() if len(places) >= self._each]
            if len(whole) == self._task.signature.output:
                break
        # One of each class after another, so that every part has all classes.
        rows = zip_longest(*(places[: self._each] for _, places in sorted(found.items())))
        chosen = tensor([place for row in rows for place in row if place is not None])
        for indices in chosen.chunk(self._parts):
            yield self._task.batch("train", indices)


def loss_of(task: Task, model: nn.Module, seed: int) -> Callable[[nn.Module, Any], Tensor]:
    """Return the task's first loss, (model, batch) -> scalar, its noise that of the seed."""
    objective = task.objectives(model)[0]
    noise = generator(seed, "prune", "noise")
    return lambda network, batch: objective.loss(network, batch, noise)


def check_slopes(config: Mapping[str, Any], task: Task, adapter: Adapter, model: nn.Module) -> None:
    """Assert, before any work, that a score of slopes has some, on two examples.

    Raises:
        BadInput: it has several losses, the network has no gradient, or it is 0 everywhere.
    """
    name = config["score"]
    found = registry.find("scores", name)
    if not getattr(found, "slopes", False):
        return
    objectives = task.objectives(model)
    if found.data and (len(objectives) != 1 or objectives[0].parameters is not None):
        raise BadInput(
            f"score {name!r} is of one loss over the whole model; task {task.name!r} has "
            f"{', '.join(o.name for o in objectives)}: choose a score without a loss"
        )
    fields = fed(config, task, model)
    scores = found(
        ScoreContext(
            model,
            Masks.ones(model, covered_of(config, adapter, model)),
            {},
            generator(0, "prune", "score"),
            batches=[task.batch("train", tensor([0, 1]))] if found.data else (),
            loss=fields["loss"],
            example=adapter.example(task.signature),
        )
    )
    if not any(value.any() for value in scores.values()):
        raise BadInput(
            f"score {name!r} is of slopes, and they are 0 at every weight of {config['model']!r}: "
            "choose a score without slopes, such as magnitude"
        )
