"""How alike the masks of two sources are, beside what chance alone would give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ..masks import Masks

#: name -> (bits as uint8, eight weights a byte; how many weights)
Packed = Mapping[str, tuple[Any, int]]
#: Jaccard index of two masks, and of two independent random ones with their densities.
Pair = tuple[float, float]


@dataclass(frozen=True)
class Overlap:
    """Two sources' masks: |a and b| / |a or b|, and its value by chance, means over ``n`` seeds.

    Chance keeps each tensor's own two densities, so what is above it is more than layers being
    equally dense. ``layers`` is by tensor, ``roles`` by what the tensors are in the model.
    """

    a: str
    b: str
    n: int
    whole: Pair
    roles: dict[str, Pair]
    layers: dict[str, Pair]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Overlap:
        """Read what ``asdict`` made of it, from JSON as well."""
        plain = dict(data) | {"whole": tuple(data["whole"])}
        for group in ("roles", "layers"):
            plain[group] = {name: tuple(pair) for name, pair in data[group].items()}
        return cls(**plain)


@dataclass(frozen=True)
class Shared:
    """Kept weights of one tensor: of a, of b, of both, and all."""

    a: int
    b: int
    both: int
    size: int


def packed(masks: Masks, names: Mapping[str, str], prefix: str = "") -> Packed:
    """Return the masks of ``names`` (base-relative name -> role), eight weights a byte."""
    bits = masks.pack()
    ours = {name.removeprefix(prefix): name for name in masks}
    return {
        name: (bits[ours[name]].numpy(), masks[ours[name]].numel())
        for name in names
        if name in ours
    }


def shared(a: Packed, b: Packed) -> dict[str, Shared]:
    """Count what two masks keep, tensor by tensor, of those both have."""
    import numpy as np

    def ones(bits: np.ndarray[Any, Any]) -> int:
        return int(np.bitwise_count(bits).sum())

    return {
        name: Shared(ones(bits), ones(b[name][0]), ones(bits & b[name][0]), size)
        for name, (bits, size) in a.items()
        if name in b
    }


def jaccard(counts: Iterable[Shared]) -> Pair:
    """Return the Jaccard index over tensors, and what independent random masks would have.

    The second is the ratio of expected counts: each tensor's a x b / size weights in common.

    >>> jaccard([Shared(a=50, b=50, both=40, size=100)])
    (0.6666666666666666, 0.3333333333333333)
    """
    found = list(counts)
    kept = sum(s.a + s.b for s in found)
    both = sum(s.both for s in found)
    chance = sum(s.a * s.b / s.size for s in found if s.size)
    return (both / (kept - both), chance / (kept - chance)) if kept else (1.0, 1.0)


def overlaps(
    seeds: Iterable[Mapping[str, Packed]], roles: Mapping[str, str]
) -> tuple[Overlap, ...]:
    """Return the overlap of every pair of sources; ``seeds`` yields source -> masks, seed by seed.

    A seed at which one of a pair has no mask is left out of that pair.
    """
    counted: dict[tuple[str, str], list[dict[str, Shared]]] = {}
    for masks in seeds:
        for a, b in combinations(masks, 2):
            counted.setdefault((a, b), []).append(shared(masks[a], masks[b]))
    return tuple(_overlap(a, b, counts, roles) for (a, b), counts in counted.items())


def _overlap(a: str, b: str, counts: list[dict[str, Shared]], roles: Mapping[str, str]) -> Overlap:
    names = list(counts[0])
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(roles[name], []).append(name)

    def mean(group: list[str]) -> Pair:
        pairs = [jaccard(seed[name] for name in group) for seed in counts]
        return fmean(j for j, _ in pairs), fmean(c for _, c in pairs)

    return Overlap(
        *(a, b, len(counts), mean(names)),
        roles={role: mean(group) for role, group in grouped.items()},
        layers={name: mean([name]) for name in names},
    )
