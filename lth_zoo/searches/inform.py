"""What a job of kind ``inform`` does: fade out what a random ticket leaves out, while training.

All weights are trained on; those outside the ticket are pulled to 0 by a growing L2 penalty, so
that what they carry must move into the ticket before they are cut (Bai et al. 2022, RST, ICLR,
arXiv 2203.04248, section 3.3). The search is one training in the one loop, in one of two forms.

**Weights** (:class:`Growing`), as published: the penalty's gradient, strength x w, is added to the
loss's. The config holds, beside what a training reads, ``strength`` (the last one), ``grow`` (the
iterations that it grows for), ``growth`` (the power of its curve) and ``cycles``.

**Graph and weights** (:class:`Fading`; Wang et al. 2023, DGLT, ICLR). A step of the penalty is
taken after the optimiser's own, as its proximal step: numbers are divided by 1 + rate x strength,
which is right for every optimiser and any strength. The strength grows so that, left alone, they
would fall as (1 - t/T)^growth: it is growth / (rate (T - t)) where T - t is large, and without
bound in the end, so that all are 0 at the cut. The config holds ``entry``, which bits of edges
there are; ``growth``; ``gate_rate``, the learning rate of the gates of edges that are to go. The
gates of the others are 1 throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import floor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..gates import EDGES, Gated
from ..hooks import Hook
from ..kinds import trained
from ..masks import Masks
from ..rewind import Snapshot
from ..seeds import generator
from ..session import Session

if TYPE_CHECKING:
    from ..train import Loop


#: Steps that the strength of the published penalty grows in: a ten-thousandth at a time.
STEPS = 10_000


def inform_job(session: Session) -> None:
    """Train from the start, fade out all but the ticket; write its masks and informed weights.

    Raises:
        BadInput: the model takes no gates, or batches show parts of the graph only.
        Diverged: a loss, a weight or a gate is not finite.
    """
    config, masks = session.config, session.masks("masks")
    assert masks is not None
    inner = session.build()
    inner.load_state_dict(session.snapshot("start").state)
    if "entry" in config:
        loop, state = _on_graph(session, inner, masks)
    else:
        growing = Growing(config, masks.weights)
        loop = trained(session, inner, lambda: None, [growing])
        state = loop.final_state()
    drawn = {"drawn": config["pick"]} if "pick" in config else {}
    session.write_masks(masks)
    session.write_state(Snapshot(state, loop.iteration))
    session.write_json(
        {
            **drawn,
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            "iterations": loop.iteration - loop.begin,
            "metrics": {"validation": loop.evaluate("validation")},
        }
    )


def _on_graph(session: Session, inner: nn.Module, masks: Masks) -> tuple[Loop, dict[str, Tensor]]:
    """Train weights and the gates of edges; return the loop and the weights."""
    config, graph = session.config, session.task.graph()
    assert graph is not None, "checked before the run"
    ones = torch.ones(graph.elements(config["entry"]).shape[1])
    model = Gated(inner, graph, config["entry"], ones)
    rate = config["gate_rate"] / config["training"]["learning_rate"]
    groups = {EDGES: {"rate": rate, "weight_decay": 0.0}}
    fading = Fading(config["growth"], masks, config["entry"])
    loop = trained(session, model, lambda: None, [fading], groups=groups)
    return loop, model.inner_state(loop.final_state())


class Growing(Hook):
    """Adds the gradient of ``1/2 sum strength w^2`` over the weights that masks leave out.

    In ``cycles`` equal stretches of the training, each takes an equal random share of every
    tensor's weights that are to go; those of earlier ones stay at the last strength.
    """

    def __init__(self, config: Mapping[str, Any], masks: Masks) -> None:
        self.config = config
        rng = generator(config["seed"], "prune", "cycles")
        self.shares = {n: in_shares(~m, config["cycles"], rng) for n, m in sorted(masks.items())}
        self._going: list[tuple[torch.nn.Parameter, list[Tensor]]] = []

    def strengths(self, iteration: int) -> list[float]:
        """Return the strength of each cycle's penalty in an iteration, counted from 0."""
        config = self.config
        cycles, last = config["cycles"], config["strength"]
        length, grow = config["end"] / cycles, config["grow"] / cycles
        done = [(iteration - i * length) / grow for i in range(cycles)]
        return [strength_at(share, last, config["growth"]) for share in done]

    def on_start(self, loop: Loop) -> None:
        """Find the parameters, wherever they are."""
        known = dict(loop.model.named_parameters(remove_duplicate=False))
        self._going = [
            (known[n], [m.to(known[n]) for m in shares]) for n, shares in self.shares.items()
        ]

    @torch.no_grad()
    def on_gradients(self, loop: Loop) -> None:
        """Add the penalty's gradient; the recorded loss stays the task's own."""
        strengths = self.strengths(loop.iteration)
        for parameter, shares in self._going:
            if parameter.grad is not None:
                for strength, going in zip(strengths, shares, strict=True):
                    if strength:
                        parameter.grad.addcmul_(parameter, going, value=strength)

    @torch.no_grad()
    def on_row(self, loop: Loop, row: dict[str, float]) -> None:
        """Say the strengths' mean, and how large on average what is to go still is."""
        strengths = self.strengths(loop.iteration - 1)
        every = [(w, going) for w, shares in self._going for going in shares]
        row["penalty"] = sum(strengths) / len(strengths)
        row["leaving_weights"] = _mean_size(every)


def in_shares(going: Tensor, cycles: int, rng: torch.Generator) -> list[Tensor]:
    """Return equal random shares of what goes, as bool masks that are disjoint."""
    places = going.reshape(-1).nonzero().reshape(-1)
    places = places[torch.randperm(len(places), generator=rng)]
    shares = []
    for part in places.tensor_split(cycles):
        share = torch.zeros(going.numel(), dtype=torch.bool)
        share[part] = True
        shares.append(share.view(going.shape))
    return shares


def strength_at(done: float, last: float, growth: float) -> float:
    """Return the strength once a share of its growth is done: on x^growth, in 10,000 steps.

    >>> [strength_at(done, 2.0, 2.0) for done in (-1.0, 0.5, 1.0, 3.0)]
    [0.0, 0.5, 2.0, 2.0]
    """
    steps = floor(STEPS * min(1.0, max(0.0, done)) + 1e-6)
    return float(last * (steps / STEPS) ** growth)


def _mean_size(going: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the mean size of the weights where their factor is 1."""
    pairs = list(going)
    sizes = sum(float((w.abs() * g).sum()) for w, g in pairs)
    return sizes / max(1.0, sum(float(g.sum()) for _, g in pairs))


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
        row["leaving_edges"] = float((gates * going).sum() / going.sum().clamp(min=1))
        row["leaving_weights"] = _mean_size(weights)


def share_left(iteration: int, length: int, growth: float) -> float:
    """Return what a step leaves: ((T - t) / (T - t + 1))^growth after iteration t of T.

    >>> [round(share_left(t, 4, 1.0), 3) for t in (1, 2, 3, 4)]
    [0.75, 0.667, 0.5, 0.0]
    """
    rest = length - iteration
    return float((rest / (rest + 1)) ** growth)
