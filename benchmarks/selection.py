"""A round of global magnitude pruning at 85 M weights (the linear maps of 12 BERT-base layers).

Ours is scores, allocation and selection with the masks built, from the weights and the
masks of the round before, against `prune.global_unstructured` with the same number of
weights to remove. Rounds take 20 % of what is left. One run of torch prune a round
(its memory grows), the median of three of ours before and after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from statistics import median

import torch
from measure import Row, cpu_seconds, peak, resident, speedup
from torch import Tensor, nn
from torch.nn.utils import prune

from lth_zoo.allocate import allocate
from lth_zoo.masks import Masks
from lth_zoo.scores import ScoreContext, magnitude
from lth_zoo.select import select

RATE, OURS, THEIRS = Fraction(1, 5), 20, 6
WIDE, INNER, LAYERS = 768, 3072, 12


def network() -> nn.ModuleDict:
    """Return the linear maps: 84.9 M normal weights."""
    shapes = {**dict.fromkeys("qkvo", (WIDE, WIDE)), "up": (WIDE, INNER), "down": (INNER, WIDE)}
    model = nn.ModuleDict(
        {
            f"layer{i}_{name}": nn.Linear(*shape, bias=False)
            for i in range(LAYERS)
            for name, shape in shapes.items()
        }
    )
    rng = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02, generator=rng)
    return model


def one_round(model: nn.Module, number: int, within: Masks) -> Masks:
    """Return the masks of a round; this is what is timed."""
    context = ScoreContext(model, within, {}, torch.Generator())
    shapes = {name: tuple(mask.shape) for name, mask in within.items()}
    caps = {name: kept for name, (kept, _) in within.counts.items()}
    pools = allocate(shapes, (1 - RATE) ** number, caps=caps)
    return select(magnitude(context), pools, within)


def bench() -> list[Row]:
    """Measure memory over 20 rounds of ours, then 6 rounds of both."""
    model = network()
    masks = Masks.ones(model, dict(model.named_parameters()))
    return [*memory(model, masks), *rounds(model, masks)]


def memory(model: nn.Module, masks: Masks) -> Iterator[Row]:
    """Yield what 20 rounds add to the memory that the first one leaves."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
    held, _ = list[float](), peak()
    for number in range(1, OURS + 1):
        masks = one_round(model, number, masks)
        held.append(resident())
    grown = max(held) - held[0]
    note = (
        f"{held[0]:,.0f} MB after round 1, {held[-1]:,.0f} after round {OURS}, at most "
        f"{peak():,.0f} within one; {masks.kept:,} of {masks.size:,} weights left"
    )
    name = f"memory that rounds 2-{OURS} add, against that of the weights"
    yield Row(name, grown, weights, "MB", grown / weights, 0.05, note=note)


def rounds(model: nn.Module, masks: Masks) -> Iterator[Row]:
    """Yield the rounds of both, and whether they keep the same weights."""
    theirs = [(layer, "weight") for layer in model.values()]  # type: ignore[operator]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    plain = network()
    held, differ, strays = resident(), 0, 0
    method = prune.L1Unstructured
    for number in range(1, THEIRS + 1):
        new = one_round(plain, number, masks)
        ours = [cpu_seconds(one_round, plain, number, masks)]
        remove = masks.kept - new.kept
        other = cpu_seconds(prune.global_unstructured, theirs, method, amount=remove)
        ours += [cpu_seconds(one_round, plain, number, masks) for _ in range(2)]
        masks = new
        found = {f"{n}.weight": m.weight_mask.bool() for n, m in model.items()}  # type: ignore[operator]
        some, odd = unlike(masks, Masks(found), weights)
        differ, strays = differ + some, strays + odd
        name = f"round {number}, {100 * masks.density:.1f} % left"
        yield speedup(name, median(ours), other, "s", 7.0)
    note = f"{differ:,} differ in all, the rest of them ties at the threshold"
    name = "weights that only one of the two keeps, ties aside"
    yield Row(name, strays, None, "weights", target=0.0, note=note)
    name = f"memory that {THEIRS} rounds of torch prune add, against that of the weights"
    grown = resident() - held
    size = sum(w.numel() * w.element_size() for w in weights.values()) / 1e6
    yield Row(name, grown, size, "MB", grown / size)


def unlike(ours: Masks, other: Masks, weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Count the weights that only one keeps, and those of them that are no tie."""
    lowest = min(float(weights[n].abs()[m].min()) for n, m in ours.items())
    odd = [weights[n].abs()[m ^ other[n]] for n, m in ours.items()]
    differ = torch.cat(odd)
    return len(differ), int((differ != lowest).sum())
