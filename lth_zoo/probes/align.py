"""What a job of kind ``align`` does: reorder a network's hidden units to be like another's.

Units are matched by their activations on training batches (Ainsworth et al. 2023, section 3.1;
of masks Adnan et al. 2025): the one-to-one match with the largest sum of correlations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LthZooError
from ..masks import Masks
from ..permutations import Permutable, permuted
from ..protocols import Task
from ..pruning import Batches
from ..session import Session

#: Largest difference of answers, as a share of the largest (at least 1), that is rounding.
SAME = 1e-4


def align_job(session: Session) -> None:
    """Write the masks and the state of network 0 in the order of network 1's units.

    The result holds ``difference``, the largest between the answers of network 0 before and
    after; ``moved``, the share of units that changed places; and by group of units the mean
    ``correlations`` of those that stand in one place, ``before`` and after (``matched``).

    Raises:
        LthZooError: the reordered network computes another function.
    """
    config, task = session.config, session.task
    device = torch.device(session.execution.device)
    task.to(device)
    networks = [session.build().to(device) for _ in range(2)]
    snapshot = session.snapshot("state-0")
    networks[0].load_state_dict(snapshot.state)
    networks[1].load_state_dict(session.snapshot("state-1").state)
    spec, masks = session.adapter.permutations(networks[0]), session.masks("masks")
    assert masks is not None, "a ticket has masks"
    batches = list(islice(Batches(task, config["seed"]), config["batches"]))
    found = correlations(networks, spec, task, batches)
    orders = [matched(c) for c in found]
    state = permuted(snapshot.state, spec, orders)
    networks[1].load_state_dict(state)
    difference = apart(networks, task, batches[0])
    if not difference <= SAME:
        raise LthZooError(
            f"reordered units change the answers of {config['model']!r} by {difference:.2g}: "
            "its family declares permutations that are not its own"
        )
    stays = sum(int((o == torch.arange(len(o))).sum()) for o in orders)
    units = sum(map(len, orders))
    session.write_masks(Masks(permuted(masks, spec, orders)))
    session.write_state(replace(snapshot, state=state, optimizer={}, average={}))
    groups = [
        {"seen": s.seen, "before": c.diagonal().mean().item(), "matched": _mean(c, o)}
        for s, c, o in zip(spec, found, orders, strict=True)
    ]
    session.write_json({"difference": difference, "moved": 1 - stays / units, "groups": groups})


def _mean(correlation: Tensor, order: Tensor) -> float:
    return correlation[torch.arange(len(order)), order].mean().item()


def matched(correlation: Tensor) -> Tensor:
    """Return which unit of network 0 takes each place, for the largest sum of (to, from)."""
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(correlation.numpy(), maximize=True)
    return torch.from_numpy(columns)


def correlations(
    networks: Sequence[nn.Module], spec: Sequence[Permutable], task: Task, batches: Iterable[Any]
) -> list[Tensor]:
    """Return Pearson's correlation over examples and places, by group: (units of 1, units of 0).

    A unit that never varies correlates with none: 0. In evaluation mode, in float64.
    """
    sums = [_Sums(units.count) for units in spec]
    with _watched(networks[0], spec) as first, _watched(networks[1], spec) as second:
        for batch in batches:
            with torch.no_grad():
                for network in networks:
                    task.answers(network.eval(), batch)
            for one, a, b in zip(sums, first, second, strict=True):
                one.add(a, b)
    return [one.correlation() for one in sums]


class _Sums:
    """Sums over samples of what correlations are made of."""

    def __init__(self, count: int) -> None:
        self.count, self.n = count, 0
        self.single = torch.zeros(4, count, dtype=torch.float64)
        self.product = torch.zeros(count, count, dtype=torch.float64)

    def add(self, a: Tensor, b: Tensor) -> None:
        a, b = self._samples(a), self._samples(b)
        self.n += len(a)
        self.single += torch.stack((a.sum(0), b.sum(0), (a * a).sum(0), (b * b).sum(0)))
        self.product += b.T @ a

    def _samples(self, seen: Tensor) -> Tensor:
        """Return (examples x places, units) of what a module was given or gave."""
        apart = seen.detach().cpu().double().reshape(len(seen), self.count, -1)
        return apart.movedim(1, 2).reshape(-1, self.count)

    def correlation(self) -> Tensor:
        a, b, aa, bb = self.single / self.n
        covariance = self.product / self.n - b[:, None] * a
        deviation = _deviation(bb, b)[:, None] * _deviation(aa, a)
        return torch.where(deviation > 0, covariance / deviation.where(deviation > 0, 1), 0.0)


def _deviation(squares: Tensor, means: Tensor) -> Tensor:
    """Return standard deviations, 0 where rounding is all there is."""
    variance = squares - means * means
    return variance.where(variance > 1e-12 * squares, 0).sqrt()


@contextmanager
def _watched(network: nn.Module, spec: Sequence[Permutable]) -> Iterator[list[Tensor]]:
    """Note what shows each group of units, whenever the network runs inside."""
    noted: list[Tensor] = [torch.empty(0)] * len(spec)
    handles = []
    for i, units in enumerate(spec):

        def note(_: Any, given: Any, gave: Any, i: int = i, units: Permutable = units) -> None:
            # A copy: the next layer may write into it (an in-place ReLU).
            noted[i] = (given[0] if units.side == "input" else gave).detach().clone()

        handles.append(network.get_submodule(units.seen).register_forward_hook(note))
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def apart(networks: Sequence[nn.Module], task: Task, batch: Any) -> float:
    """Return the largest difference of two networks' answers, over the largest answer or 1."""
    one, other = (task.answers(network.eval(), batch) for network in networks)
    return float((one - other).abs().max() / one.abs().max().clamp(min=1))
