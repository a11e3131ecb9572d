"""Whole units (attention heads, FFN neurons, channels): their scores, masks, and the job ``units``.

A unit is removed by removing every slice it has (:class:`~lth_zoo.prunable.Part`). The last part
is, by convention, the projection that reads the unit: with that slice at zero nothing of the
unit reaches the rest of the network, its biases included. Units of one role compete over all
layers; which units stay is itself a :class:`~lth_zoo.masks.Masks`, ``role:layer`` -> (count,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..allocate import Pool, exact, round_half_up
from ..coverage import covered_of
from ..data_scores import evaluating, on_device, products
from ..errors import BadInput
from ..kinds import learned
from ..masks import Masks
from ..protocols import Adapter
from ..prunable import Units
from ..pruning import Batches
from ..scores import wide
from ..seeds import generator
from ..select import select
from ..session import Session

Loss = Callable[[nn.Module, Any], Tensor]


def units_job(session: Session) -> None:
    """Score the units of a state and keep the best share of each role.

    Raises:
        BadInput: the model has no units that may be removed, or the shares cannot be.
    """
    config, model = session.config, session.build()
    model.load_state_dict(session.snapshot("trained").state)
    covered = covered_of(config, session.adapter, model)
    whole = session.masks("within") or Masks.ones(model, covered)
    units = removable(session.adapter.units(model), covered)
    alive = alive_in(units, whole)
    counts = shares_of(units, config["shares"], config["keep_one"])
    whole.apply_(model)
    scores = _scores(session, model, units)
    if config.get("invert"):
        scores = [-s for s in scores]
    kept = keep_units(scores, units, counts, alive, config["keep_one"])
    masks = spread(kept, units, whole)
    session.write_masks(masks)
    result = {"masks": masks.counts, "kept": masks.kept, "prunable": masks.size}
    session.write_json(result | {"density": masks.density, "units": summary(kept)})


def check_units(
    config: Mapping[str, Any], adapter: Adapter, model: nn.Module, covered: Iterable[str]
) -> None:
    """Assert that a job's config can be met, before anything is trained for it.

    Raises:
        BadInput: see :func:`removable` and :func:`shares_of`.
    """
    if config.get("shares"):
        units = removable(adapter.units(model), covered)
        shares_of(units, config["shares"], config.get("keep_one", True))


def _scores(session: Session, model: nn.Module, units: Sequence[Units]) -> list[Tensor]:
    config = session.config
    if config["score"] == "magnitude":
        return magnitudes(model, units)
    if config["score"] == "random":
        rng = generator(config["seed"], "prune", "units")
        return [torch.rand(u.count, generator=rng) for u in units]
    task, device = learned(session), torch.device(session.execution.device)
    task.to(device)
    objective = task.objectives(model.to(device))[0]
    noise = generator(config["seed"], "prune", "noise")
    batches = Batches(task, config["seed"], config["training"]["batch_size"])
    few = islice(batches, config["batches"])
    found = importances(
        model, units, few, lambda network, batch: objective.loss(network, batch, noise)
    )
    return [normalised(score) for score in found]


# -- scores --------------------------------------------------------------------------------


def importances(
    model: nn.Module, units: Sequence[Units], batches: Iterable[Any], loss: Loss
) -> list[Tensor]:
    """Return the mean over batches of |dL/dxi|, with xi = 1 a factor on a unit's output.

    Michel et al. 2019, arXiv 1905.10650, eq. 4. The slope is that of the projection that reads
    the unit: the sum over the unit's slice of w dL/dw.

    Raises:
        BadInput: there is no batch.
    """
    last = {u.parts[-1].tensor: model.get_parameter(u.parts[-1].tensor) for u in units}
    totals = [torch.zeros(u.count, dtype=torch.float64) for u in units]
    seen, device = 0, next(model.parameters()).device
    with evaluating(model):
        for batch in batches:
            found = products(last, loss(model, on_device(batch, device)))
            for unit, total in zip(units, totals, strict=True):
                slopes = unit.parts[-1].rows(unit.count, found[unit.parts[-1].tensor])
                total += slopes.double().sum(1).abs().cpu()
            seen += 1
    if not seen:
        raise BadInput("importance is taken over training batches, and there are none")
    return [total / seen for total in totals]


def magnitudes(model: nn.Module, units: Sequence[Units]) -> list[Tensor]:
    """Return the L2 norm of each unit's weights over all its parts."""
    found = []
    for unit in units:
        squares = [
            part.rows(unit.count, wide(model.get_parameter(part.tensor).detach())).square().sum(1)
            for part in unit.parts
        ]
        found.append(torch.stack(squares).sum(0).sqrt().cpu())
    return found


def normalised(scores: Tensor) -> Tensor:
    """Return a layer's scores divided by their L2 norm, so that layers compare; zeros stay."""
    norm = scores.norm()
    return scores / norm if norm > 0 else scores


# -- selection -----------------------------------------------------------------------------


def name_of(units: Units) -> str:
    """Return the name of a layer's units among the masks of units."""
    return f"{units.role}:{units.layer}"


def removable(units: Sequence[Units], covered: Iterable[str]) -> list[Units]:
    """Return the units all of whose tensors may be pruned: others stay whole.

    Raises:
        BadInput: there are none.
    """
    names = set(covered)
    found = [u for u in units if all(p.tensor in names for p in u.parts)]
    if not found:
        what = "lie in layers that the recipe does not prune" if units else "are not known"
        raise BadInput(f"no units can be removed: the heads and neurons of this model {what}")
    return found


def shares_of(
    units: Sequence[Units], shares: Mapping[str, str], keep_one: bool = True
) -> dict[str, int]:
    """Return role -> number of units kept over all layers, floor(share x count + 1/2).

    ``shares`` maps roles to the kept share; ``*`` is that of every other role.

    Raises:
        BadInput: fewer are kept than there are layers, where each keeps one.
    """
    counts: dict[str, int] = {}
    for role in dict.fromkeys(u.role for u in units):
        layers = [u for u in units if u.role == role]
        total = sum(u.count for u in layers)
        share = exact(shares.get(role, shares["*"]))
        counts[role] = round_half_up(share * total)
        if keep_one and counts[role] < len(layers):
            least = Fraction(len(layers), total)
            raise BadInput(
                f"{float(share):.4g} of {total} {role}s is {counts[role]}, fewer than one for "
                f"each of {len(layers)} layers; keep at least {float(least):.4g}, or set "
                "finder.keep_one to false"
            )
    return counts


def keep_units(
    scores: Sequence[Tensor],
    units: Sequence[Units],
    counts: Mapping[str, int],
    alive: Masks | None = None,
    keep_one: bool = True,
) -> Masks:
    """Keep the highest scores of each role over all layers; with ``keep_one`` no layer is empty.

    Ties keep the lowest (sorted layer name, place). ``alive`` limits the candidates.

    Raises:
        BadInput: a score is not finite, or fewer units are alive than must stay.
    """
    named = {name_of(u): s.double() for u, s in zip(units, scores, strict=True)}
    pools = []
    for role, keep in counts.items():
        names = tuple(name_of(u) for u in units if u.role == role)
        pools.append(Pool(names, keep))
        if keep_one:
            top = max(float(named[n].max()) for n in names)
            for name in names:
                named[name] = _first_safe(named[name], top, alive[name] if alive else None)
    return select(named, pools, alive)


def _first_safe(score: Tensor, top: float, alive: Tensor | None) -> Tensor:
    """Return a layer's scores with its best unit above everything else of its role."""
    candidates = score if alive is None else score.masked_fill(~alive, -torch.inf)
    safe = score.clone()
    safe[candidates.argmax()] = top + abs(top) + 1
    return safe


def spread(kept: Masks, units: Sequence[Units], within: Masks) -> Masks:
    """Return weight masks in which every slice of a removed unit is False."""
    masks = {name: mask.clone() for name, mask in within.items()}
    for unit in units:
        for part in unit.parts:
            lines = masks[part.tensor].movedim(part.axis, 0)
            stay = kept[name_of(unit)].repeat_interleave(part.width)
            shape = [-1] + [1] * (lines.dim() - 1)
            lines[part.offset : part.offset + len(stay)] &= stay.reshape(shape)
    return Masks(masks)


def alive_in(units: Sequence[Units], masks: Masks) -> Masks:
    """Return the units that have a kept weight in each of their parts."""

    def alive(unit: Units) -> Tensor:
        parts = [p.rows(unit.count, masks[p.tensor]).any(1) for p in unit.parts]
        return torch.stack(parts).all(0)

    return Masks({name_of(unit): alive(unit) for unit in units})


def summary(kept: Masks) -> dict[str, dict[str, tuple[int, int]]]:
    """Return role -> layer -> (kept, total) units, plain data."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for name, count in kept.counts.items():
        role, _, layer = name.partition(":")
        found.setdefault(role, {})[layer] = count
    return found
