"""What a job of kind ``rounds`` does: score a start again and again under the masks so far.

Each round keeps fewer weights than the one before; the scores see the network without what went.
Its config holds, beside what a prune job reads:

- ``rounds``: how many;
- ``schedule`` of the kept share: ``exponential`` (d**(k/rounds)) or ``linear``;
- ``nested``: whether what went is gone, or competes again by its score under the masks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ..allocate import exact
from ..coverage import covered_of, pools_of
from ..masks import Masks
from ..pruning import loaded, scored
from ..rewind import Snapshot
from ..select import select
from ..session import Session


def rounds_job(session: Session) -> None:
    """Score and prune round by round, from the last checkpoint on; write the last masks.

    Raises:
        BadInput: a score is not finite, or cannot be had of this model or task.
    """
    config = session.config
    model, states = loaded(session)
    covered = covered_of(config, session.adapter, model)
    steps = schedule(exact(config["density"]), config["rounds"], config["schedule"])
    masks, done, kept = Masks.ones(model, covered), 0, list[int]()
    resumed = session.resume()
    if resumed is not None:
        masks, done, kept = Masks(resumed.state), resumed.iteration, resumed.extra["kept"]
    written = time.monotonic()
    for number in range(done, config["rounds"]):
        session.progress(number, config["rounds"])
        scores = scored(session, model, masks, states, number=number)
        within = masks if config["nested"] else None
        caps = {name: count for name, (count, _) in masks.counts.items()} if within else None
        pools = pools_of({**config, "density": steps[number]}, model, covered, caps)
        masks = select(scores, pools, within)
        kept.append(masks.kept)
        if time.monotonic() - written >= session.execution.checkpoint_seconds:
            session.checkpoint(snapshot(session, masks, kept))
            written = time.monotonic()
    session.write_masks(masks)
    session.write_json(said(masks) | {"rounds": kept})


def snapshot(session: Session, masks: Masks, kept: list[int]) -> Snapshot:
    """Return what the rounds go on from: the masks, and how many were kept after each so far."""
    extra = {"kept": kept, "seconds": session.seconds()}
    return Snapshot(dict(masks), len(kept), extra=extra)


def said(masks: Masks) -> dict[str, Any]:
    """Return what a result says of masks; ``collapsed`` are tensors without a weight."""
    counts: Mapping[str, tuple[int, int]] = masks.counts
    collapsed = [name for name, (kept, _) in counts.items() if not kept]
    return {"masks": counts, "kept": masks.kept, "prunable": masks.size, "collapsed": collapsed}


def schedule(density: Fraction, rounds: int, kind: str) -> list[str]:
    """Return the kept share after each round; the last is exactly the density.

    >>> schedule(Fraction(1, 4), 2, "exponential"), schedule(Fraction(1, 4), 3, "linear")
    (['0.5', '1/4'], ['3/4', '1/2', '1/4'])
    """
    if kind == "linear":
        return [str(1 - (1 - density) * k / rounds) for k in range(1, rounds + 1)]
    powers = (float(density) ** (k / rounds) for k in range(1, rounds))
    return [*map(str, powers), str(density)]
