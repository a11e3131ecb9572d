"""What a job of kind ``inform`` does: fade out what a random ticket leaves out, while training.

All weights and all edges are trained on; those outside the ticket are pulled to 0 by a growing L2
penalty, so that what they carry must move into the ticket before they are cut (Bai et al. 2022,
RST, ICLR, arXiv 2203.04248, section 3.3; Wang et al. 2023, DGLT, ICLR, for graph and weights).

A step of the penalty is taken after the optimiser's own, as its proximal step: numbers are divided
by 1 + rate x strength, which is right for every optimiser and any strength. The strength grows so
that, left alone, they would fall as (1 - t/T)^growth: it is growth / (rate (T - t)) where T - t is
large, and without bound in the end, so that all are 0 at the cut.

The search is one training in the one loop; its config holds, beside what a training reads and
what is covered: ``entry``, which bits of edges there are; ``growth``; ``gate_rate``, the learning
rate of the gates of edges that are to go. The gates of the others are 1 throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .gates import EDGES, Gated
from .hooks import Hook
from .kinds import trained
from .masks import Masks
from .rewind import Snapshot
from .session import Session

if TYPE_CHECKING:
    from .train import Loop


def inform_job(session: Session) -> None:
    """Train from the start, fade out all but the ticket; write its masks and informed weights.

    Raises:
        BadInput: the model takes no gates, or batches show parts of the graph only.
        Diverged: a loss, a weight or a gate is not finite.
    """
    config, masks = session.config, session.masks("masks")
    graph = session.task.graph()
    assert graph is not None, "checked before the run"
    assert masks is not None
    inner = session.build()
    inner.load_state_dict(session.snapshot("start").state)
    ones = torch.ones(graph.elements(config["entry"]).shape[1])
    model = Gated(inner, graph, config["entry"], ones)
    rate = config["gate_rate"] / config["training"]["learning_rate"]
    groups = {EDGES: {"rate": rate, "weight_decay": 0.0}}
    fading = Fading(config["growth"], masks, config["entry"])
    loop = trained(session, model, lambda: None, [fading], groups=groups)

    session.write_masks(masks)
    session.write_state(Snapshot(model.inner_state(loop.final_state()), loop.iteration))
    session.write_json(
        {
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            "iterations": loop.iteration - loop.begin,
            "metrics": {"validation": loop.evaluate("validation")},
        }
    )


class Fading(Hook):
    """Pulls the weights and gates that masks leave out to 0, the more the nearer the end."""

    def __init__(self, growth: float, masks: Masks, entry: str) -> None:
        self.growth = growth
        edges = {EDGES: ~masks[entry]}
        self.leaving = edges | {f"inner.{n}": ~m for n, m in masks.weights.items()}
        self._going: list[tuple[torch.nn.Parameter, Tensor]] = []

    def on_start(self, loop: Loop) -> None:
        """Find the parameters, wherever they are."""
        known = dict(loop.model.named_parameters())
        self._going = [(known[n], m.to(known[n])) for n, m in self.leaving.items()]

    @torch.no_grad()
    def on_gradients(self, loop: Loop) -> None:  # noqa: ARG002 - the contract
        """Leave the gates of the ticket's edges at 1."""
        gates, going = self._going[0]
        if gates.grad is not None:
            gates.grad.mul_(going)

    @torch.no_grad()
    def on_step(self, loop: Loop) -> None:
        """Take the penalty's step; no gate falls below 0."""
        left = share_left(loop.iteration - loop.begin, loop.end - loop.begin, self.growth)
        for parameter, going in self._going:
            for tensor in (parameter, loop.average.get(parameter)):
                if tensor is not None:
                    tensor.mul_(1 - (1 - left) * going)
        self._going[0][0].clamp_(min=0)

    @torch.no_grad()
    def on_row(self, loop: Loop, row: dict[str, float]) -> None:  # noqa: ARG002
        """Say how large on average what is to go still is."""
        (gates, going), *weights = self._going
        sizes = sum(float((w.abs() * g).sum()) for w, g in weights)
        row["leaving_edges"] = float((gates * going).sum() / going.sum().clamp(min=1))
        row["leaving_weights"] = sizes / max(1.0, sum(float(g.sum()) for _, g in weights))


def share_left(iteration: int, length: int, growth: float) -> float:
    """Return what a step leaves: ((T - t) / (T - t + 1))^growth after iteration t of T.

    >>> [round(share_left(t, 4, 1.0), 3) for t in (1, 2, 3, 4)]
    [0.75, 0.667, 0.5, 0.0]
    """
    rest = length - iteration
    return float((rest / (rest + 1)) ** growth)
