"""Scores and pools to masks: exact counts, whatever the ties.

An amount is first shared out over *pools* by :func:`lth_zoo.allocate.allocate`, then
:func:`select` keeps the highest scores of every pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .allocate import Pool, largest_remainder
from .errors import BadInput
from .masks import Masks

Array = np.ndarray[Any, Any]


def select(
    scores: Mapping[str, Tensor], pools: Iterable[Pool], within: Masks | None = None
) -> Masks:
    """Keep the highest scores of every pool.

    Ties keep the lowest (sorted name, flat index). ``within`` limits the candidates to the
    kept weights of earlier masks; without it, pruned weights may come back.

    Raises:
        BadInput: a score is not finite, or a pool has fewer candidates than it must keep.
    """
    masks: dict[str, Tensor] = {}
    for pool in pools:
        names = sorted(pool.names)
        flat = [_flat(scores[n], n) for n in names]
        allowed = [within[n].reshape(-1) if within is not None else None for n in names]
        if pool.axis is not None and scores[names[0]].dim() > 1:
            top = _top_rows if pool.block is None else _top_blocks
            masks[names[0]] = top(flat[0], allowed[0], scores[names[0]].shape, pool)
            continue
        for name, kept in zip(names, _top(flat, allowed, pool.keep), strict=True):
            masks[name] = kept.reshape(scores[name].shape)
    return Masks(masks)


def _flat(score: Tensor, name: str) -> Tensor:
    flat = score.detach().cpu().reshape(-1)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    # One pass: a NaN anywhere makes both ends NaN, an infinity is an end.
    if flat.numel() and not all(torch.isfinite(end) for end in flat.aminmax()):
        raise BadInput(f"score of {name!r} is not finite everywhere")
    return flat


def _top(flat: list[Tensor], allowed: list[Tensor | None], keep: int) -> list[Tensor]:
    """Return the masks of the ``keep`` highest scores over several flat tensors."""
    pairs = list(zip(flat, allowed, strict=True))
    limit = sum(_count(a) if a is not None else f.numel() for f, a in pairs)
    if keep > limit:
        raise BadInput(f"cannot keep {keep:,} of {limit:,} candidates")
    if keep == limit:
        return [
            a.clone() if a is not None else torch.ones(f.shape, dtype=torch.bool) for f, a in pairs
        ]
    if keep == 0:
        return [torch.zeros(f.shape, dtype=torch.bool) for f in flat]
    threshold = kth_largest(flat, allowed, keep)
    kept = [_where(np.greater, f, threshold, a) for f, a in pairs]
    ties = keep - sum(map(_count, kept))
    for (f, a), k in zip(pairs, kept, strict=True):
        if not ties:
            break
        places = torch.nonzero(_where(np.equal, f, threshold, a)).reshape(-1)[:ties]
        k[places] = True
        ties -= len(places)
    return kept


def _top_rows(flat: Tensor, allowed: Tensor | None, shape: torch.Size, pool: Pool) -> Tensor:
    """Return the mask of the highest scores of every row along the pool's axis."""
    assert pool.axis is not None
    rows = flat.reshape(shape).movedim(pool.axis, 0)
    lines = rows.reshape(len(rows), -1) + 0.0  # + 0: a negative zero ties with a positive one
    room = dict.fromkeys(range(len(lines)), lines.shape[1])
    if allowed is not None:
        free = allowed.reshape(shape).movedim(pool.axis, 0).reshape(lines.shape)
        lines = lines.masked_fill(~free, -torch.inf)
        room = dict(enumerate(free.sum(1).tolist()))
    if pool.keep > sum(room.values()):
        raise BadInput(f"cannot keep {pool.keep:,} of {sum(room.values()):,} candidates")
    share = Fraction(pool.keep, len(lines))
    counts = largest_remainder(dict.fromkeys(room, share), pool.keep, room)
    kept = _best(lines.numpy(), np.array(list(counts.values()))[:, None])
    return kept.reshape(rows.shape).movedim(0, pool.axis).contiguous()


def _top_blocks(flat: Tensor, allowed: Tensor | None, shape: torch.Size, pool: Pool) -> Tensor:
    """Return the mask of the N highest scores of each M that one output reads in a row.

    A row goes through the inputs, then through the places of a kernel. Where M does not divide it
    its last block is shorter and keeps its share, rounded so that the whole count is exact.
    """
    assert pool.axis is not None
    assert pool.block is not None
    (n, m), axis = pool.block, pool.axis

    def ordered(tensor: Tensor) -> Tensor:
        return tensor.reshape(shape).movedim(axis, 0).movedim(1, -1)

    def blocks(tensor: Tensor, fill: float) -> Tensor:
        lines = ordered(tensor)
        return F.pad(lines.reshape(len(lines), -1), (0, -width % m), value=fill).reshape(-1, m)

    outputs = shape[axis]
    width = flat.numel() // outputs
    keep = np.full((outputs, -(-width // m)), n)
    if width % m:
        base, more = divmod(pool.keep - n * outputs * (width // m), outputs)
        keep[:, -1] = base + (np.arange(outputs) < more)
    column, values = keep.reshape(-1, 1), blocks(flat + 0.0, -torch.inf)
    if allowed is not None:
        free = blocks(allowed, fill=False)
        if (free.sum(1).numpy() < column[:, 0]).any():
            raise BadInput(f"cannot keep {n} of {m}: earlier masks left fewer in some places")
        values = values.masked_fill(~free, -torch.inf)
    kept = _best(values.numpy(), column).reshape(outputs, -1)[:, :width]
    return kept.reshape(ordered(flat).shape).movedim(-1, 1).movedim(0, axis).contiguous()


def _best(values: Array, keep: Array) -> Tensor:
    """Return which entries are the highest ``keep`` of each line; ties keep the first."""
    place = np.clip(values.shape[1] - keep, 0, values.shape[1] - 1)
    threshold = np.take_along_axis(np.sort(values, axis=1), place, axis=1)
    above, ties = values > threshold, values == threshold
    ties &= ties.cumsum(1) <= keep - above.sum(1, keepdims=True)
    return torch.from_numpy((above | ties) & (keep > 0))


def _count(mask: Tensor) -> int:
    return int(np.count_nonzero(mask.numpy()))


def _where(compare: np.ufunc, flat: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """Return which candidates compare so; numpy does it 3 times faster than torch on a CPU."""
    found = torch.from_numpy(compare(flat.numpy(), value.numpy()))
    return found if allowed is None else found.bitwise_and_(allowed)


#: Elements looked at at once: stays in the cache, so that nothing model-sized is built.
CHUNK = 1 << 17


def kth_largest(flat: list[Tensor], allowed: list[Tensor | None], k: int) -> Tensor:
    """Return the k-th largest candidate, exactly, without one big copy or sort.

    A strided sample brackets the answer; one pass counts what lies above the bracket and
    gathers what lies inside, where numpy finds it. A bracket that misses is widened to the
    side it missed, so the answer never depends on the sample.
    """
    chunks = [
        (f[i : i + CHUNK].numpy(), None if a is None else a[i : i + CHUNK].numpy())
        for f, a in zip(flat, allowed, strict=True)
        for i in range(0, f.numel(), CHUNK)
    ]
    low, high = _bracket(chunks, k)
    while True:
        above, inside = 0, []
        for f, a in chunks:
            ge, gt = f >= low, f > high
            if a is not None:
                ge &= a
                gt &= a
            above += int(np.count_nonzero(gt))
            inside.append(f[ge ^ gt])
        middle = np.concatenate(inside)
        if above >= k:
            low, high = high, np.inf
        elif above + len(middle) < k:
            low, high = -np.inf, low
        else:
            place = len(middle) - (k - above)
            return torch.tensor(np.partition(middle, place)[place])


def _bracket(chunks: list[tuple[Array, Array | None]], k: int) -> tuple[float, float]:
    """Return two scores that the k-th largest most likely lies between, or infinities."""
    total = sum(len(f) for f, _ in chunks)
    stride = max(1, total // 200_000)
    picked = [f[::stride] if a is None else f[::stride][a[::stride]] for f, a in chunks]
    ordered = np.sort(np.concatenate(picked))[::-1]
    if len(ordered) < 1000:  # small pools: everything is inside
        return -np.inf, np.inf
    count = sum(len(f) if a is None else np.count_nonzero(a) for f, a in chunks)
    place = (k / count) * len(ordered)
    slack = 6 * len(ordered) ** 0.5 / 2 + 1
    first, last = int(place - slack), int(place + slack)
    return (
        ordered[last] if last < len(ordered) - 1 else -np.inf,
        ordered[first] if first > 0 else np.inf,
    )
