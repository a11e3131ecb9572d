"""What a job of kind ``soup`` does: one round of an Instant Soup search (Jaiswal et al. 2023).

The main network trains on; clones of it train a little, each on its own order of the data, and
each drops its smallest weights; what any clone keeps is kept. Once the density is within
``slack`` of the target a round passes on what it was given, so a search has a fixed number of
jobs and a length of its own. The learning rate is the recipe's without its decay: how long
the search will be is not known while it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from itertools import combinations
from operator import or_
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..allocate import Pool, exact, round_half_up
from ..coverage import covered_of
from ..hooks import Hook
from ..kinds import learned
from ..masks import Masks
from ..recipe import Training, build
from ..rewind import Snapshot
from ..seeds import derive
from ..select import select
from ..train import Loop

if TYPE_CHECKING:
    from torch import Tensor

    from ..session import Session


def soup_job(session: Session) -> None:
    """Train the main network and its clones, and write the union of what the clones keep.

    Raises:
        Diverged: a loss or a weight is not finite.
    """
    config, before = session.config, session.masks("masks")
    start = session.snapshot("start")
    target = exact(config["density"])
    if before is not None and near(before, target, exact(config["slack"])):
        _write(session, before, Snapshot(start.state, start.iteration), stopped=True, iterations=0)
        return
    model = session.build()
    within = before or Masks.ones(model, covered_of(config, session.adapter, model))
    keep = kept_of(within, target, exact(config["rate"]))
    start = replace(start, iteration=config["begin"])
    main = _train(session, before, start, config["main"], config["seed"], 0).snapshot()
    del main.extra["rows"], main.extra["losses"]
    survivors = []
    for clone in range(config["clones"]):
        root = derive(config["seed"], "data", "soup", config["round"], clone)
        done = config["main"] + clone * config["clone"]
        loop = _train(session, before, main, config["clone"], root, done)
        survivors.append(largest(loop.final_state(), within, keep))
    pairs = [a.distance(b) for a, b in combinations(survivors, 2)]
    _write(
        session,
        union(survivors),
        main,
        stopped=False,
        iterations=config["end"] - config["begin"],
        clone_density=keep / within.size,
        clone_distance=fmean(pairs) if pairs else 0.0,
    )


def near(masks: Masks, target: Fraction, slack: Fraction) -> bool:
    """Say whether a density is at most ``slack`` above the target."""
    return Fraction(masks.kept, masks.size) <= target + slack


def kept_of(within: Masks, target: Fraction, rate: Fraction) -> int:
    """Return what a clone keeps of the survivors: all but ``rate``, never less than the target."""
    return max(round_half_up(target * within.size), round_half_up((1 - rate) * within.kept))


def largest(state: Mapping[str, Tensor], within: Masks, keep: int) -> Masks:
    """Return the masks of the ``keep`` largest survivors over all tensors."""
    return select({n: state[n].abs() for n in within}, [Pool(tuple(within), keep)], within)


def union(survivors: Iterable[Masks]) -> Masks:
    """Return what any of the masks keeps."""
    return reduce(or_, survivors)


def _train(
    session: Session, masks: Masks | None, start: Snapshot, length: int, root: int, done: int
) -> Loop:
    """Train from a snapshot for so many iterations, at a rate that does not decay."""
    config = session.config
    training: Training = build(Training, dict(config["training"]))
    loop = Loop(
        session.build(),
        learned(session),
        replace(training, schedule="constant", milestones=()),
        seed=root,
        masks=masks,
        start=start,
        begin=start.iteration,
        end=start.iteration + length,
        hooks=[Count(session, done)],
        device=session.execution.device,
    )
    loop.run()
    return loop


def _write(session: Session, masks: Masks, state: Snapshot, **result: Any) -> None:
    session.write_masks(masks)
    session.write_state(state)
    counts = {"masks": masks.counts, "kept": masks.kept, "prunable": masks.size}
    session.write_json({**counts, "density": masks.density, **result})


class Count(Hook):
    """Says how far a round is, over all of its trainings."""

    def __init__(self, session: Session, done: int) -> None:
        self._session, self._done = session, done

    def on_iteration(self, loop: Loop) -> None:
        """Report one more iteration."""
        config = self._session.config
        done = self._done + loop.iteration - loop.begin
        self._session.progress(done, config["end"] - config["begin"])
