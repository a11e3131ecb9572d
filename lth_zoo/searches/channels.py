"""What a job of kind ``channels`` does: train until the channels that would go stay the same.

The score of a channel is the size of its norm's scale, which an L1 pull keeps small where the loss
does not need it (Liu et al. 2017, arXiv 1708.06519). Every so many iterations the lowest are
marked, as many as bring the weights down to the asked density, over all layers at once; when the
marks have settled the search ends (You et al. 2020, arXiv 1909.11957; of generators Kalibhat et
al. 2021, arXiv 2010.02350). Its config holds ``every``, ``window`` and ``threshold`` as that of
``early-bird``, and ``strength``, ``score`` (``scale`` or ``random``), ``scope`` and ``density``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor, prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..allocate import exact, round_half_up
from ..compact import left_of, lines_of
from ..coverage import covered_of
from ..errors import BadInput
from ..hooks import Hook
from ..masks import Masks
from ..protocols import Adapter
from ..prunable import Prunable, Units
from ..scores import wide
from ..seeds import generator
from ..session import Session
from .early import settle
from .structured import keep_units, name_of, spread, summary

if TYPE_CHECKING:
    from ..train import Loop


def channels_job(session: Session) -> None:
    """Train until the channels have settled, or to the end; write the mask and the state.

    Raises:
        BadInput: see :func:`check_channels`.
        Diverged: a loss or a weight is not finite.
    """
    config, model = session.config, session.build()
    covered = covered_of(config, session.adapter, model)
    units = scaled(session.adapter.units(model), covered, config["scope"])
    whole = Masks.ones(model, covered)
    shapes = {name: tuple(mask.shape) for name, mask in whole.items()}

    def drawn(network: nn.Module) -> Masks:
        return fewest_removed(scores_of(config, network, units), units, shapes, config["density"])

    def told(kept: Masks) -> tuple[Masks, dict[str, Any]]:
        return spread(kept, units, whole), {"units": summary(kept)}

    settle(session, model, drawn, told, Pull(units, config["strength"]))


def check_channels(
    config: Mapping[str, Any],
    adapter: Adapter,
    model: nn.Module,
    covered: Mapping[str, Prunable],
) -> None:
    """Assert that a job's config can be met, before anything is trained for it.

    Raises:
        BadInput: no channel has a norm scale, or one channel a layer is more than asked for.
    """
    whole = Masks.ones(model, covered)
    units = scaled(adapter.units(model), covered, config["scope"])
    shapes = {name: tuple(mask.shape) for name, mask in whole.items()}
    fewest_removed([torch.zeros(u.count) for u in units], units, shapes, config["density"])


def scaled(
    units: Sequence[Units], covered: Mapping[str, Prunable], scope: str = "global"
) -> list[Units]:
    """Return the units that a norm scales and all of whose weights may be pruned.

    Their role says with which they compete: all of them, or with scope ``group`` those whose
    layer has the same role in the family (a network of a GAN).

    Raises:
        BadInput: there are none.
    """
    known = [unit for unit in units if unit.scale]
    found = [u for u in known if all(part.tensor in covered for part in u.parts)]
    if not found:
        why = "lie in layers that the recipe does not prune" if known else "are not known"
        raise BadInput(
            f"no channel can be removed by its norm's scale: those of this model {why}; vgg-11, "
            "resnet-20, dcgan, vae and their like have batch norm between convolutions"
        )
    roles = [covered[u.parts[0].tensor].role if scope == "group" else "channel" for u in found]
    return [replace(u, role=role) for u, role in zip(found, roles, strict=True)]


def scores_of(config: Mapping[str, Any], model: nn.Module, units: Sequence[Units]) -> list[Tensor]:
    """Return the score of every layer's channels: the sizes of scales, or chance, or negated."""
    if config["score"] == "random":
        rng = generator(config["seed"], "prune", "units")
        return [torch.rand(unit.count, generator=rng) for unit in units]
    scores = [wide(model.get_parameter(unit.scale).detach()).abs().cpu() for unit in units]
    return [-score for score in scores] if config.get("invert") else scores


def fewest_removed(
    scores: Sequence[Tensor],
    units: Sequence[Units],
    shapes: Mapping[str, Sequence[int]],
    density: Fraction | str,
) -> Masks:
    """Keep as many channels, the highest scores over all layers, as the weights allow.

    That is the largest number that leaves at most ``density`` of the tensors in ``shapes``, in
    which every layer keeps its best channel; units of one role compete, and every role keeps the
    same share. Returns which units stay, by name.

    Raises:
        BadInput: one channel a layer leaves more.
    """
    size = sum(prod(shape) for shape in shapes.values())
    totals, layers = Counter[str](), Counter(unit.role for unit in units)
    for unit in units:
        totals[unit.role] += unit.count

    def kept(channels: int) -> Masks:
        share = Fraction(channels, totals.total())
        counts = {r: max(layers[r], round_half_up(share * n)) for r, n in totals.items()}
        return keep_units(scores, units, counts)

    def weights(channels: int) -> int:
        stay = kept(channels)
        return left_of(lines_of(units, [stay[name_of(u)] for u in units], shapes), shapes)

    fitting = bisect_right(range(totals.total() + 1), floor(exact(density) * size), key=weights)
    if not fitting:
        reached = 1 - weights(0) / size
        raise BadInput(
            f"sparsity {1 - float(exact(density)):.4g} is out of reach: with one channel left in "
            f"each of {len(units)} layers it is {reached:.4g}, for the other weights are in no "
            "channel that may go"
        )
    return kept(fitting - 1)


class Pull(Hook):
    """Adds the gradient of ``strength`` x sum of abs(scale); the recorded loss stays the task's."""

    def __init__(self, units: Sequence[Units], strength: float) -> None:
        self._names, self._strength = [unit.scale for unit in units], strength

    def on_gradients(self, loop: Loop) -> None:
        """Add to the gradients that this objective has."""
        scales = [loop.model.get_parameter(name) for name in self._names]
        for scale in scales:
            if scale.grad is not None:
                scale.grad.add_(scale.detach().sign(), alpha=self._strength)
