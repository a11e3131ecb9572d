"""What a job of kind ``denoise`` does: mend coarse masks of edges and weights while training.

Every so many iterations some of what is kept goes, and as much of the rest comes back: both
counts are exact at every moment (Yue et al. 2025, FastGLT, AAAI, arXiv 2412.07605; the swap is
that of RigL, Evci et al. 2020). Weights go by magnitude and come back, at 0, by the gradient.
Edges go and come back by the gradient of a gate, which is 1 or 0 and is never trained, and by
the degrees of their ends. The search is one training in the one loop; its config holds, beside
what a training and a prune job read:

- ``entry`` and ``edge_density``: which bits there are, and the share of all edges that stays;
- ``every``: iterations between two swaps; ``share``: what part of the kept goes in the first one;
- ``degree_weight``: weight of the degree score beside the gradient, each relative to its mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..allocate import Pool
from ..coverage import covered_of, pools_of
from ..edge_scores import ranks
from ..gates import EDGES, Gated
from ..hooks import Hook
from ..kinds import trained
from ..masks import Masks
from ..rewind import Snapshot
from ..seeds import generator
from ..session import Session
from .rewiring import share_at, swapped

if TYPE_CHECKING:
    from torch import nn

    from ..graph import Graph
    from ..train import Loop


def denoise_job(session: Session) -> None:
    """Train from the start under the coarse masks, swap what they keep, write what is left.

    Raises:
        BadInput: the model takes no gates, or batches show parts of the graph only.
        Diverged: a loss or a weight is not finite.
    """
    config, coarse = session.config, session.masks("masks")
    graph = session.task.graph()
    assert graph is not None, "checked before the run"
    assert coarse is not None
    inner = session.build()
    inner.load_state_dict(session.snapshot("start").state)
    covered = covered_of(config, session.adapter, inner)
    pools = pools_of(config, inner, covered)
    model = Switched(inner, graph, config["entry"], coarse)
    loop = trained(session, model, lambda: None, [Swapping(config, pools, graph)])

    masks = model.found()
    session.write_masks(masks)
    session.write_state(Snapshot(model.inner_state(loop.final_state()), loop.iteration))
    session.write_json(
        {
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            "new": {
                "weights": new_share(masks.weights, coarse.weights),
                "edges": new_share(masks.data, coarse.data),
            },
            "iterations": loop.iteration - loop.begin,
            "metrics": {"validation": loop.evaluate("validation")},
        }
    )


def new_share(masks: Masks, before: Masks) -> float:
    """Return what share of the kept was not kept before."""
    kept = sum(int(m.sum()) for m in masks.values())
    return sum(int((m & ~before[n]).sum()) for n, m in masks.items()) / max(1, kept)


class Switched(Gated):
    """A network under masks that change: each edge is there (gate 1) or not (0).

    Gates are outside the optimiser, and have a gradient only where ``edges.requires_grad`` is
    set. Which weights are kept is in buffers, so that checkpoints have it: a weight that has just
    come back is 0 too.
    """

    def __init__(self, inner: nn.Module, graph: Graph, entry: str, masks: Masks) -> None:
        super().__init__(inner, graph, entry, masks[entry].float())
        self.edges.requires_grad_(False)
        self.entry, self.covered = entry, tuple(masks.weights)
        for place, name in enumerate(self.covered):
            self.register_buffer(f"kept_{place}", masks[name].clone())

    def kept(self) -> dict[str, Tensor]:
        """Return which weights are kept, by the inner model's names; not copies."""
        return {name: self.get_buffer(f"kept_{i}") for i, name in enumerate(self.covered)}

    def found(self) -> Masks:
        """Return the masks as they are now, by the names of a ticket."""
        edges = self.edges.detach() == 1
        return Masks({n: m.cpu().clone() for n, m in (self.kept() | {self.entry: edges}).items()})

    @torch.no_grad()
    def enforce(self, loop: Loop, masks: Masks) -> None:
        """Make masks the current ones, in the model and in its loop.

        Weights and edges that were not kept have lost their value, average and optimiser state.
        """
        for name, kept in self.kept().items():
            kept.copy_(masks[name])
        ours = {f"inner.{n}": masks[n] for n in self.covered}
        loop.set_masks(Masks({**ours, EDGES: masks[self.entry]}))
        for gates in (self.edges, loop.average.get(self.edges)):
            if gates is not None:
                gates.copy_(masks[self.entry])


class Swapping(Hook):
    """Lets some of the kept go and as much of the rest come back, less and less of it."""

    def __init__(self, config: Mapping[str, Any], pools: list[Pool], graph: Graph) -> None:
        self.config, self.pools, self.graph = config, pools, graph
        self._slopes: dict[str, Tensor] = {}
        self._gates = torch.empty(0)

    def on_start(self, loop: Loop) -> None:
        """Enforce the masks that the model, or its checkpoint, came with."""
        assert isinstance(loop.model, Switched)
        loop.model.enforce(loop, loop.model.found())
        self._watch(loop)

    def on_gradients(self, loop: Loop) -> None:
        """Keep the gradients of all weights and edges, where a swap follows the step."""
        model = loop.model
        assert isinstance(model, Switched)
        if not model.edges.requires_grad:
            return
        weights = ((n, model.inner.get_parameter(n)) for n in model.covered)
        self._slopes = {n: _magnitude(w) for n, w in weights}
        self._gates = _magnitude(model.edges)
        model.edges.grad = None  # no optimiser holds it

    def on_step(self, loop: Loop) -> None:
        """Swap, if it is due."""
        model = loop.model
        assert isinstance(model, Switched)
        if model.edges.requires_grad:
            masks = model.found()
            part = share_at(self.config["share"], loop.iteration - loop.begin, _length(loop))
            weights = self._weights(model, masks, part)
            model.enforce(loop, weights.joined(self._edges(model, masks, part, loop.iteration)))
        self._watch(loop)

    def _watch(self, loop: Loop) -> None:
        """Let the gates have gradients if a swap follows the next step."""
        assert isinstance(loop.model, Switched)
        due = (loop.iteration + 1 - loop.begin) % self.config["every"] == 0
        loop.model.edges.requires_grad_(due)

    def _weights(self, model: Switched, masks: Masks, part: float) -> Masks:
        sizes = {n: model.inner.get_parameter(n).detach().abs().cpu() for n in model.covered}
        found = Masks({})
        for pool in self.pools:
            ours = Masks({n: masks[n] for n in pool.names})
            found = found.joined(swapped(ours, pool, int(part * pool.keep), sizes, self._slopes))
        return found

    def _edges(self, model: Switched, masks: Masks, part: float, at: int) -> Masks:
        entry, kept = model.entry, Masks({model.entry: masks[model.entry]})
        scores = edge_scores(self.graph, entry, masks, self._gates, self.config["degree_weight"])
        rng = generator(self.config["seed"], "prune", "denoise", at)
        placed = {entry: ranks(scores, rng)}
        pool = Pool((entry,), kept.counts[entry][0])
        return swapped(kept, pool, int(part * pool.keep), placed, placed)


def edge_scores(
    graph: Graph, entry: str, masks: Masks, slopes: Tensor, degree_weight: float
) -> Tensor:
    """Return a score of every edge, kept or not: what a gate there would change, and degrees.

    |dL/dgate| relative to its mean, plus ``degree_weight`` times d_i^-1.5 d_j^-1.5 relative to
    its mean, with the degrees of the kept graph (at least 1). ``slopes`` are (elements,).
    """
    kept = graph.restricted({entry: masks[entry]})
    degrees = torch.bincount(kept.edge_index[0], minlength=graph.nodes).double().clamp(min=1)
    ends = graph.elements(entry)
    rare = (degrees[ends[0]] * degrees[ends[1]]) ** -1.5
    return _relative(slopes.double()) + degree_weight * _relative(rare)


def _relative(values: Tensor) -> Tensor:
    mean = values.mean()
    return values / mean if mean > 0 else values


def _magnitude(parameter: Tensor) -> Tensor:
    """Return the size of a parameter's gradient on the CPU; 0 where the loss does not reach."""
    slope = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    return slope.detach().abs().cpu()


def _length(loop: Loop) -> int:
    return loop.end - loop.begin
