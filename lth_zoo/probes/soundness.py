"""What jobs of kinds ``integrity`` and ``paths`` do: look whether a ticket is what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..coverage import covered_of, pools_of
from ..effective import effective, wiring
from ..hooks import Hook
from ..kinds import learned
from ..masks import Masks
from ..recipe import Training, build
from ..rewind import Snapshot
from ..session import Session
from ..train import Loop


class Zeros(Hook):
    """Counts pruned weights that are not exactly 0, after every step; and looks at the start.

    ``moved`` counts the kept weights that the network begins with and that are not, bit for bit,
    those of the state it was given.
    """

    def __init__(self, masks: Masks, state: Mapping[str, Tensor]) -> None:
        self.masks, self.state = masks, state
        self.steps = self.revived = self.moved = 0

    def on_start(self, loop: Loop) -> None:
        """Compare the network that is about to train with the state it was given."""
        found = _state(loop.model)
        self.moved = moved(found, self.state, self.masks)
        self.revived = revived(found, self.masks)

    def on_step(self, loop: Loop) -> None:
        """Look at the pruned weights."""
        self.steps += 1
        self.revived += revived(_state(loop.model), self.masks)


def revived(state: Mapping[str, Tensor], masks: Masks) -> int:
    """Return how many pruned weights of a state are not exactly 0."""
    return sum(int((state[n][~m] != 0).sum()) for n, m in masks.items())


def moved(state: Mapping[str, Tensor], start: Mapping[str, Tensor], masks: Masks) -> int:
    """Return how many kept weights of a state are not, bit for bit, those of a start."""
    bits = torch.int32
    pairs = ((state[n][m].float(), start[n][m].float()) for n, m in masks.items())
    return sum(int((a.view(bits) != b.view(bits)).sum()) for a, b in pairs)


def miscounted(session: Session, masks: Masks) -> int | None:
    """Return by how many weights the masks miss the counts they were told, None if told none.

    ``promise`` of the config is what the job that made them was told: density, scope and so on.
    """
    promise = session.config["promise"]
    if promise is None:
        return None
    model = session.build()
    covered = covered_of(promise, session.adapter, model)
    pools, counts = pools_of(promise, model, covered), masks.counts
    return sum(abs(pool.keep - sum(counts[n][0] for n in pool.names)) for pool in pools)


def integrity_job(session: Session) -> None:
    """Write whether pruned weights are 0, kept ones the start's, and counts those asked for.

    Trains ``steps`` steps of the ticket's training again, to look after each of them.
    """
    config, masks = session.config, session.masks("masks")
    assert masks is not None, "a ticket has masks"
    weights, start = masks.weights, session.snapshot("start")
    look = Zeros(weights, start.state)
    begin = session.begin
    given = start if begin and not config["fresh_optimizer"] else Snapshot(start.state)
    loop = Loop(
        session.build(),
        learned(session, masks),
        build(Training, dict(config["training"])),
        seed=config["seed"],
        masks=masks,
        start=replace(given, iteration=begin),
        begin=begin,
        end=begin + config["steps"],
        hooks=[look],
        device=session.execution.device,
    )
    loop.run()
    found: dict[str, Any] = {
        "revived": revived(session.snapshot("trained").state, weights) if config["whole"] else None,
        "revived_on_the_way": look.revived,
        "steps": look.steps,
        "moved": look.moved,
        "miscounted": miscounted(session, weights),
        "kept": weights.kept,
        "size": weights.size,
    }
    session.write_json(found)


def paths_job(session: Session) -> None:
    """Write how many weights lie on a path from input to output, in all and by tensor.

    ``effective`` is None where the family does not say how the model's layers are wired.
    """
    masks = session.masks("masks")
    assert masks is not None, "a ticket has masks"
    model, ours = session.build(), masks.weights
    layers = session.adapter.permutations(model)
    wires = wiring(model, layers)
    found: dict[str, Any] = {"kept": ours.kept, "size": ours.size, "effective": None}
    if wires is not None and ours.keys() <= wires.keys():
        whole = Masks.ones(model, wires).joined(ours)
        left = effective(whole, wires, [units.count for units in layers])
        counts = {n: pair for n, pair in left.counts.items() if n in ours}
        found["effective"] = sum(kept for kept, _ in counts.values())
        found["layers"] = {n: [kept, ours.counts[n][0]] for n, (kept, _) in counts.items()}
    session.write_json(found)


def _state(model: nn.Module) -> dict[str, Tensor]:
    named = model.named_parameters(remove_duplicate=False)
    return {n: p.detach().cpu() for n, p in named}
