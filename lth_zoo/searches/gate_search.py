"""What a job of kind ``gates`` does: learn gates on edges, then make exact masks.

The search is one training in the one loop, of a :class:`~lth_zoo.gates.Gated`. Its config holds,
beside what a training and a prune job read:

- ``entry`` and ``edge_density``: which bits there are, and the share of all edges that stays;
- ``edges``, and ``weights`` or None: the ``strength`` of the pull on gates and on soft masks,
  their own ``rate`` of learning (None: as the weights, with the recipe's weight decay), and
  their ``bounds``. Without soft masks weights are ranked by their own magnitude;
- ``noise``: the width of what gates and soft masks differ from 1 by at first;
- ``earliest``: the first iteration whose state may be the best; None keeps the last one;
- ``settle``: ``every``, ``window`` and ``threshold`` of an early stop, or None;
- ``distance``: what :func:`~lth_zoo.searches.gate_losses.with_distance` reads, or None.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..allocate import Pool, exact, round_half_up
from ..coverage import covered_of, pools_of
from ..edge_scores import ranks
from ..errors import Diverged
from ..gates import EDGES, Gated, Keeping, Learning, check_whole
from ..graph_models import check_gates
from ..kinds import learned
from ..masks import Masks
from ..recipe import Training, build
from ..rewind import Snapshot
from ..seeds import generator
from ..select import select
from ..session import LOG, Session
from ..train import Loop
from ..watch import Watch
from .early import Settling
from .gate_losses import with_distance

if TYPE_CHECKING:
    from torch import nn

    from ..graph import Graph
    from ..protocols import Task

#: From gates, soft masks and weights to exact masks.
Harden = Callable[[Mapping[str, Tensor]], Masks]


def gates_job(session: Session) -> None:
    """Train gates and weights, keep the state that the config asks for, write its masks.

    The weights that are written are multiplied by their soft masks.

    Raises:
        BadInput: the model takes no gates, or batches show parts of the graph only.
        Diverged: a loss, a weight or a gate is not finite, and no earlier state is kept.
    """
    config, before = session.config, session.masks("within")
    task = learned(session, before)
    if config["distance"]:
        task = with_distance(task, config["distance"])
    graph = task.graph()
    assert graph is not None, "checked before the run"
    inner = session.build()
    inner.load_state_dict(session.snapshot("start").state)
    covered = covered_of(config, session.adapter, inner)
    model = gated(config, inner, graph, {n: inner.get_parameter(n) for n in covered}, before)
    harden = hardener(session, inner, before)
    settling = Apart(config["settle"], lambda m: harden(m.state())) if config["settle"] else None
    learning = Learning(config)
    loop = _loop(session, model, task, learning, settling, before)
    _run(loop, learning, session)

    state, at = loop.final_state(), loop.iteration
    if model.best is not None:
        state, at = model.best.state(), int(model.best.at)
    state = {n: t.detach().cpu().clone() for n, t in state.items()}
    masks = harden(state)
    model.load_state_dict(state, strict=False)
    loop.average = {}  # what is kept of averaged weights is their average
    session.write(LOG, "".join(json.dumps(row) + "\n" for row in loop.rows).encode())
    session.write_masks(masks)
    session.write_state(Snapshot(model.inner_state(state), loop.iteration))
    session.write_json(
        {
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            "snapshot": at,
            "diverged": learning.diverged,
            **({"settled": settling.settled, "distances": settling.distances} if settling else {}),
            "iterations": loop.iteration - loop.begin,
            "metrics": {"validation": loop.evaluate("validation")},
        }
    )


def check_search(config: Mapping[str, Any], task: Task, model: nn.Module) -> None:
    """Assert that gates can be learned as a config says, before anything is trained for it.

    Raises:
        BadInput: the model takes no gates, a batch does not show the whole graph, or classes are
            to be held apart where there are none.
    """
    graph = task.graph()
    assert graph is not None
    check_gates(model, graph)
    if config["distance"]:
        with_distance(task, config["distance"])
    check_view(config, task)


def check_view(config: Mapping[str, Any], task: Task) -> None:
    """Assert that a batch of a search shows the whole graph.

    Raises:
        BadInput: it shows a sample, or a part.
    """
    graph = task.graph()
    assert graph is not None
    rng = generator(config["seed"], "data", 0)
    first, *_ = task.epoch(config["training"]["batch_size"], rng)
    view, _ = task.batch("train", first, rng)
    check_whole(graph.edge_index, view.edge_index.cpu())


def gated(
    config: Mapping[str, Any],
    inner: nn.Module,
    graph: Graph,
    covered: Mapping[str, Tensor],
    before: Masks | None,
) -> Gated:
    """Return a loaded model with gates on a graph, and soft masks if the config has any.

    Soft masks are 0 where the weight is pruned already.
    """
    rng, noise = generator(config["seed"], "prune", "gates"), config["noise"]

    def ones(shape: torch.Size) -> Tensor:
        drawn = torch.rand(shape, generator=rng) if noise else torch.full(shape, 0.5)
        return 1 + noise * (2 * drawn - 1)

    gates = ones(graph.elements(config["entry"]).shape[1:])
    masks = {n: ones(w.shape) for n, w in sorted(covered.items())} if config["weights"] else {}
    if before is not None:
        masks = {n: m * before[n] for n, m in masks.items()}
    keep = config["earliest"] is not None
    return Gated(inner, graph, config["entry"], gates, masks, keep)


def _loop(
    session: Session,
    model: Gated,
    task: Task,
    learning: Learning,
    settling: Settling | None,
    before: Masks | None,
) -> Loop:
    """Return the loop, at the last checkpoint where there is one."""
    config, start = session.config, session.resume()
    keeping = [Keeping(config["earliest"])] if model.best is not None else []
    watching = [*keeping, *([settling] if settling else []), Watch(session)]
    if settling is not None and start is not None:
        settling.restore(start)
    fixed = {f"inner.{n}": m for n, m in before.weights.items()} if before is not None else {}
    return Loop(
        model,
        task,
        build(Training, dict(config["training"])),
        seed=config["seed"],
        masks=Masks(fixed) if fixed else None,
        start=start,
        begin=config["begin"],
        end=config["end"],
        hooks=[learning, *watching],
        groups=_groups(config, model),
        device=session.execution.device,
    )


def _groups(config: Mapping[str, Any], model: Gated) -> dict[str, dict[str, float]]:
    """Return what the optimiser does otherwise with gates and soft masks."""
    names = {"edges": [EDGES], "weights": [f"masks.{i}" for i in range(len(model.names))]}
    rates = {n: config[part]["rate"] for part, own in names.items() if config[part] for n in own}
    whole = config["training"]["learning_rate"]
    own = {n: {"rate": rate / whole, "weight_decay": 0.0} for n, rate in rates.items() if rate}
    return own


def _run(loop: Loop, learning: Learning, session: Session) -> None:
    """Train to the end, or to where an unbounded gate is not finite and a state is kept.

    Raises:
        Diverged: otherwise.
    """
    assert isinstance(loop.model, Gated)
    best = loop.model.best
    try:
        loop.run()
    except Diverged:
        bounded = session.config["edges"]["bounds"] is not None
        if learning.diverged is None or bounded or best is None or not best.at:
            raise
        print(
            f"lth-zoo: warning: {session.job.label}: gates are not finite at iteration "
            f"{learning.diverged}, as they come to be near 1 / learning rate; the masks are those "
            f"of iteration {int(best.at)}",
            file=sys.stderr,
        )


def hardener(session: Session, inner: nn.Module, before: Masks | None) -> Harden:
    """Return what makes masks of a state of the gated model: exact counts, within those before.

    Edges are ranked by their gates, weights by their soft masks or by themselves. Of equals a
    random one stays, the same in every draw.
    """
    config, entry = session.config, session.config["entry"]
    covered = covered_of(config, session.adapter, inner)
    within = before.weights if before is not None else None
    caps = {n: kept for n, (kept, _) in within.counts.items()} if within is not None else None
    pools, names = pools_of(config, inner, covered, caps), sorted(covered)
    graph = session.task.graph()
    assert graph is not None
    count = graph.elements(entry).shape[1]
    left = before[entry] if before is not None else torch.ones(count, dtype=torch.bool)
    stay = Pool((entry,), round_half_up(exact(config["edge_density"]) * count))

    def masks_of(state: Mapping[str, Tensor]) -> Masks:
        rng = generator(config["seed"], "prune", "gates", "ties")
        scores = torch.zeros(count, dtype=torch.float64)
        scores[left] = ranks(state[EDGES].detach().cpu().abs(), rng)
        edges = select({entry: scores}, [stay], Masks({entry: left}))
        if config["weights"]:
            soft = {n: state[f"masks.{i}"].detach().cpu().abs() for i, n in enumerate(names)}
            return select(ranked(soft, rng), pools, within).joined(edges)
        weights = {n: state[f"inner.{n}"].abs() for n in names}
        return select(weights, pools, within).joined(edges)

    return masks_of


def ranked(scores: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
    """Return the place of each number among those of all tensors, ties in random order."""
    flat = ranks(torch.cat([s.reshape(-1) for s in scores.values()]), rng)
    parts = flat.split([s.numel() for s in scores.values()])
    return {n: p.view(scores[n].shape) for n, p in zip(scores, parts, strict=True)}


class TwoParts(Masks):
    """Masks whose distance is that of the edges and that of the weights, each in [0, 1]."""

    def distance(self, other: Masks) -> float:
        """Return the sum of the two (You et al. 2022, GEBT, section 3.3)."""
        return self.data.distance(other.data) + self.weights.distance(other.weights)


class Apart(Settling):
    """The early-bird watch over masks of two parts."""

    def __init__(self, config: Mapping[str, Any], drawn: Callable[[Any], Masks]) -> None:
        super().__init__(config, lambda model: TwoParts(drawn(model)))

    def restore(self, snapshot: Snapshot) -> None:
        """Take the window out of a checkpoint."""
        super().restore(snapshot)
        self.window = deque(map(TwoParts, self.window), maxlen=self.window.maxlen)
