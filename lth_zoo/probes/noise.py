"""What a job of kind ``noise`` does: shift the kept weights of a ticket's start at random."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..seeds import generator
from ..session import Session


def noise_job(session: Session) -> None:
    """Add N(0, (sigma s)^2) to the kept weights, s the sd of the layer's initial draw.

    The start's other tensors stay, and so does its optimiser's state out of it: what trains from
    here begins anew. The result says which share of the kept weights changed sign.
    """
    config, start = session.config, session.snapshot("start")
    masks, drawn = session.masks("masks"), session.snapshot("init").state
    assert masks is not None, "a ticket has masks"
    rng = generator(config["seed"], "noise", "start", config["draw"])
    state, flipped, kept = dict(start.state), 0, 0
    for name, mask in sorted(masks.weights.items()):
        scale = config["sigma"] * drawn[name].double().std(unbiased=False).item()
        before = state[name][mask]
        after = shifted(before, scale, rng, config["signs"] == "kept")
        state[name] = state[name].clone()
        state[name][mask] = after
        flipped += int((after.sign() != before.sign()).sum())
        kept += len(before)
    session.write_state(replace(start, state=state, optimizer={}))
    session.write_json({"flipped": flipped / kept if kept else 0.0, "kept": kept})


def shifted(values: Tensor, scale: float, rng: torch.Generator, keep_signs: bool) -> Tensor:
    """Return values with Gaussian noise of that sd; with ``keep_signs`` flips are drawn again.

    A weight of exactly 0 then stays 0: its sign is kept by no other value.
    """
    found = values + scale * torch.randn(values.shape, generator=rng)
    if keep_signs:
        found[values == 0] = 0
        while (wrong := found.sign() != values.sign()).any():
            again = torch.randn(int(wrong.sum()), generator=rng)
            found[wrong] = values[wrong] + scale * again
    return found
