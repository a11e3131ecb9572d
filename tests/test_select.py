"""Scores to masks: exact counts under every scope, the same ties everywhere, exact thresholds."""

from __future__ import annotations

from fractions import Fraction
from math import floor, prod

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lth_zoo import select as selection
from lth_zoo.allocate import SCOPES, Pool, allocate, exact, largest_remainder, round_half_up
from lth_zoo.errors import BadInput
from lth_zoo.masks import Masks
from lth_zoo.select import CHUNK, kth_largest, select

SHAPES = st.lists(
    st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5
).map(lambda shapes: dict(zip("pdzam", shapes, strict=False)))
DENSITIES = st.fractions(0, 1, max_denominator=1000)
INSIDE = st.fractions(Fraction(1, 100), Fraction(99, 100), max_denominator=100)


def size(shapes, names=None):
    return sum(prod(shapes[n]) for n in (shapes if names is None else names))


def quota(pools):
    return sum(pool.keep for pool in pools)


@pytest.mark.parametrize(
    ("value", "rounded"), [("1/2", 1), ("5/2", 3), ("49/100", 0), ("0", 0), ("7", 7), ("-1/2", 0)]
)
def test_half_rounds_up(value, rounded):
    assert round_half_up(Fraction(value)) == rounded


def test_densities_are_the_fractions_that_they_are_written_as():
    assert exact(0.1) == exact("0.1") == Fraction(1, 10)
    assert exact(Fraction(1, 3)) == Fraction(1, 3)
    for wrong in (-0.1, 1.5, "2"):
        with pytest.raises(BadInput, match=rf"density {wrong} is outside \[0, 1\]"):
            exact(wrong)


@given(SHAPES, DENSITIES, st.sampled_from(SCOPES))
def test_the_kept_count_is_exact_in_every_scope(shapes, density, scope):
    groups = {name: name in "pa" for name in shapes}
    pools = allocate(shapes, density, scope, groups=groups)
    assert sorted(n for pool in pools for n in pool.names) == sorted(shapes)
    assert quota(pools) == floor(density * size(shapes) + Fraction(1, 2))
    for pool in pools:
        whole = size(shapes, pool.names)
        assert 0 <= pool.keep <= whole
        if scope in ("global", "layer", "group"):
            assert abs(pool.keep - density * whole) < 1
    expected = {"global": 1, "group": len(set(groups.values()))}.get(scope, len(shapes))
    assert len(pools) == expected


@given(SHAPES, DENSITIES, st.sampled_from(SCOPES), st.data())
def test_overrides_keep_their_own_share(shapes, density, scope, data):
    own = data.draw(st.dictionaries(st.sampled_from(sorted(shapes)), DENSITIES))
    pools = {pool.names: pool.keep for pool in allocate(shapes, density, scope, own)}
    rest = [n for n in shapes if n not in own]
    exactly = sum(
        (own[n] * size(shapes, [n]) for n in own), density * (size(shapes, rest) if rest else 0)
    )
    assert sum(pools.values()) == floor(exactly + Fraction(1, 2))
    for name, share in own.items():
        assert abs(pools[(name,)] - share * size(shapes, [name])) < 1


@given(SHAPES, INSIDE, st.sampled_from(["global", "layer", "group"]), INSIDE, st.data())
def test_with_a_total_the_whole_is_exact(shapes, density, scope, total, data):
    own = data.draw(st.dictionaries(st.sampled_from(sorted(shapes)), INSIDE))
    pools = allocate(shapes, density, scope, own, total=total)
    assert quota(pools) == floor(total * size(shapes) + Fraction(1, 2))
    # One power for all: who has the lower density before keeps the lower density.
    shares = {p.names: Fraction(p.keep, size(shapes, p.names)) for p in pools}
    for a, da in own.items():
        for b, db in own.items():
            slack = Fraction(1, size(shapes, [a])) + Fraction(1, size(shapes, [b]))
            assert da > db or shares[(a,)] <= shares[(b,)] + slack


def test_a_total_is_a_common_power():
    shapes = {"a": (100,), "b": (100,)}
    halves = {"a": Fraction(1, 4), "b": Fraction(1, 2)}
    pools = allocate(
        shapes, Fraction(1), "layer", halves, total=Fraction(3, 8) / 2 + Fraction(1, 8)
    )
    # x**2 + x = 5/8 with x = 1/2**t: x = 0.4354.
    assert [pool.keep for pool in pools] == [19, 44]
    # No rounding of the power may decide a half: 5.5 is 6, whatever the densities were.
    odd = {"a": (4,), "b": (7,)}
    for own in range(1, 40):
        pools = allocate(odd, Fraction(1, 3), "layer", {"a": Fraction(own, 40)}, Fraction(1, 2))
        assert quota(pools) == 6


def test_a_total_out_of_reach_is_refused():
    shapes, fixed = {"a": (100,), "b": (100,)}, {"a": Fraction(1)}
    assert quota(allocate(shapes, Fraction(1, 2), "layer", fixed, total=Fraction(11, 20))) == 110
    with pytest.raises(BadInput, match=r"between 0\.5 and 1"):
        allocate(shapes, Fraction(1, 2), "layer", fixed, total=Fraction(1, 4))


def test_erk_densities_by_hand():
    # (10 + 20) / 200 = 0.15 and (20 + 5) / 100 = 0.25 are raw; raw x size is 30 and 25; half of
    # 300 is 150 = s (30 + 25), so s = 30/11 and the densities 9/22 and 15/22.
    shapes = {"a": (10, 20), "b": (20, 5)}
    assert [p.keep for p in allocate(shapes, Fraction(1, 2), "erk")] == [82, 68]
    # A kernel: (4 + 2 + 3 + 3) / 72 = 1/6 of 72 is 12; s = 36 / (12 + 25) for a total of 36.
    kernel = {"a": (4, 2, 3, 3), "b": (20, 5)}
    kept = {p.names[0]: p.keep for p in allocate(kernel, Fraction(36, 172), "erk")}
    assert kept == {"a": 12, "b": 24}
    # At 0.9 the second would pass 1: it is dense, the first has what is left, 170 of 200.
    assert [p.keep for p in allocate(shapes, Fraction(9, 10), "erk")] == [170, 100]
    # Raw sizes 120, 25 and 7 of 10: thrice that makes the last dense, and 446/145 of the others.
    three = {"a": (100, 20), "b": (20, 5), "c": (2, 5)}
    assert [p.keep for p in allocate(three, Fraction(456, 2110), "erk")] == [369, 77, 10]


def test_uniform_keeps_the_first_layer_dense():
    shapes = {"z": (10,), "a": (50,), "m": (40,)}
    kept = {p.names[0]: p.keep for p in allocate(shapes, Fraction(1, 4), "uniform")}
    assert kept == {"z": 10, "a": 8, "m": 7}  # 15 of 90: 8.33 and 6.67
    # Fewer than the first layer holds: then all share alike.
    kept = {p.names[0]: p.keep for p in allocate(shapes, Fraction(5, 100), "uniform")}
    assert sum(kept.values()) == 5
    assert kept["z"] <= 1
    # A first layer with a density of its own is not dense, and makes no other one dense.
    own = {"z": Fraction(1, 10)}
    kept = {p.names[0]: p.keep for p in allocate(shapes, Fraction(1, 2), "uniform", own)}
    assert kept == {"z": 1, "a": 25, "m": 20}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("density", [0, 1])
def test_nothing_and_everything(scope, density):
    shapes = {"a": (3, 4), "b": (5,)}
    pools = allocate(shapes, Fraction(density), scope)
    masks = select({n: torch.randn(s) for n, s in shapes.items()}, pools)
    assert masks.kept == density * 17


def test_caps_move_what_does_not_fit():
    shapes = {"a": (10,), "b": (10,)}
    pools = allocate(shapes, Fraction(1, 2), "layer", caps={"a": 3, "b": 8})
    assert [p.keep for p in pools] == [3, 7]
    with pytest.raises(BadInput, match="10 weights cannot be kept of 7"):
        allocate(shapes, Fraction(1, 2), "layer", caps={"a": 3, "b": 4})


@given(st.lists(st.fractions(0, 50, max_denominator=9), min_size=1, max_size=6))
def test_largest_remainder_rounds_each_quota_up_or_down(quotas):
    named = dict(enumerate(quotas))
    budget = round_half_up(sum(quotas, Fraction(0)))
    counts = largest_remainder(named, budget, dict.fromkeys(named, 99))
    assert sum(counts.values()) == budget
    assert all(abs(counts[k] - named[k]) < 1 for k in named)
    up = [named[k] % 1 for k in named if counts[k] > named[k]]
    down = [named[k] % 1 for k in named if counts[k] < named[k]]
    assert not up or not down or min(up) >= max(down)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scope": "globl"}, "did you mean 'global'"),
        ({"overrides": {"fc": Fraction(1)}}, "did you mean 'fc1'"),
    ],
)
def test_names_that_do_not_exist(arguments, message):
    with pytest.raises(BadInput, match=message):
        allocate({"fc1": (3,)}, Fraction(1, 2), **arguments)


def lines(pool, scores):
    """The places that share a threshold: of every row, or of all the pool's tensors."""
    places = [(name, at) for name in pool.names for at in range(scores[name].numel())]
    if pool.axis is None or scores[pool.names[0]].dim() < 2:
        return [places]
    shape = scores[pool.names[0]].shape
    rows = torch.arange(len(places)).reshape(shape).movedim(pool.axis, 0).flatten(1)
    return [[places[at] for at in row] for row in rows.tolist()]


def reference(scores, pools, within=None):
    """Sort everything: highest first, then sorted name, then flat index; fill the emptiest row."""
    kept = {n: torch.zeros(s.numel(), dtype=torch.bool) for n, s in scores.items()}
    flat = {n: s.double().reshape(-1).tolist() for n, s in scores.items()}
    for pool in pools:
        rows = [
            sorted(
                (-flat[name][place] + 0.0, name, place)
                for name, place in line
                if within is None or within[name].reshape(-1)[place]
            )
            for line in lines(pool, scores)
        ]
        taken = [0] * len(rows)
        for _ in range(pool.keep):
            row = min((r for r, c in enumerate(taken) if c < len(rows[r])), key=taken.__getitem__)
            _, name, place = rows[row][taken[row]]
            kept[name][place] = True
            taken[row] += 1
    return Masks({n: m.reshape(scores[n].shape) for n, m in kept.items()})


VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 3.0])
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@given(SHAPES, DENSITIES, st.sampled_from(SCOPES), st.data())
def test_selection_equals_sorting_ties_signs_and_zeros_included(shapes, density, scope, data):
    scores = {}
    for name, shape in shapes.items():
        values = data.draw(st.lists(VALUES, min_size=prod(shape), max_size=prod(shape)))
        scores[name] = torch.tensor(values, dtype=data.draw(DTYPES)).reshape(shape)
    pools = allocate(shapes, density, scope, groups={"d": "other"})
    masks = select(scores, pools)
    assert masks == reference(scores, pools)
    smaller = allocate(shapes, density / 2, scope, groups={"d": "other"})
    assume(all(p.keep <= sum(masks.counts[n][0] for n in p.names) for p in smaller))
    inside = select(scores, smaller, within=masks)
    assert inside == reference(scores, smaller, masks)
    assert (inside & masks) == inside


def test_rows_compete_apart():
    scores = {"w": torch.tensor([[9.0, 8, 7, 6], [1, 2, 3, 4], [5, 5, 5, 5]])}

    def kept(density, axes=None, within=None):
        pools = allocate({"w": (3, 4)}, Fraction(density), "row", axes=axes)
        return select(scores, pools, within)["w"].int().tolist()

    assert kept("1/2") == [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]]
    assert kept("7/12") == [[1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]]  # the first gets the rest
    # The same weights the other way round, as a Conv1D of transformers has them.
    assert kept("1/3", {"w": 1}) == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    # A row that earlier masks emptied has nothing to keep, and the others keep its share.
    before = Masks({"w": torch.tensor([[True] * 4, [False] * 4, [True] * 4])})
    assert kept("1/2", within=before) == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    with pytest.raises(BadInput, match="cannot keep 9 of 8 candidates"):
        kept("3/4", within=before)


def test_pruned_weights_come_back_only_without_a_limit():
    scores = {"w": torch.tensor([9.0, 1.0, 2.0, 3.0])}
    before = Masks({"w": torch.tensor([False, True, True, True])})
    pool = [Pool(("w",), 2)]
    assert select(scores, pool, before)["w"].tolist() == [False, False, True, True]
    assert select(scores, pool)["w"].tolist() == [True, False, False, True]
    with pytest.raises(BadInput, match="cannot keep 4 of 3 candidates"):
        select(scores, [Pool(("w",), 4)], before)


def test_float64_scores_are_compared_in_float64():
    near = 1 + torch.arange(4, dtype=torch.float64) * 1e-12
    assert select({"w": near}, [Pool(("w",), 1)])["w"].tolist() == [False, False, False, True]
    mixed = {"a": near, "b": torch.ones(3)}
    masks = select(mixed, [Pool(("a", "b"), 4)])
    assert [m.tolist() for m in masks.values()] == [[True] * 4, [False] * 3]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_score_that_is_not_finite_is_named(value):
    scores = {"a": torch.ones(3), "fc1": torch.tensor([1.0, value, 2.0])}
    with pytest.raises(BadInput, match="score of 'fc1' is not finite"):
        select(scores, [Pool(("a", "fc1"), 2)])


N = 700_000
DATA = {
    "random": lambda g: torch.randn(N, generator=g),
    "ties": lambda g: torch.randint(0, 4, (N,), generator=g).float(),
    "mostly zero": lambda g: torch.randn(N, generator=g) * (torch.rand(N, generator=g) < 0.01),
    "constant": lambda g: torch.full((N,), -2.5),
    "ascending": lambda g: torch.arange(N).float(),
    "descending": lambda g: -torch.arange(N).float(),
    "clustered": lambda g: 1 + 1e-6 * torch.randn(N, generator=g) + (torch.arange(N) % 1000 == 0),
    # The strided sample sees only the large ones, or only the small ones.
    "against the sample": lambda g: torch.rand(N, generator=g) + 10.0 * (torch.arange(N) % 3 == 0),
    "for the sample": lambda g: torch.rand(N, generator=g) - 10.0 * (torch.arange(N) % 3 == 0),
}


@pytest.mark.parametrize("limited", [False, True], ids=["all", "allowed"])
@pytest.mark.parametrize("kind", DATA)
def test_the_threshold_of_a_large_pool_is_the_sorted_one(kind, limited, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    data = DATA[kind](rng)
    assert data.numel() > 2 * CHUNK
    allowed = torch.rand(N, generator=rng) < 0.3 if limited else None
    candidates = data if allowed is None else data[allowed]
    ordered, n = candidates.sort(descending=True).values, len(candidates)
    parts = [slice(0, 5), slice(5, 400_000), slice(400_000, N)]
    flat = [data[p] for p in parts]
    limits = [None if allowed is None else allowed[p] for p in parts]
    for k in (1, 17, n // 5, n // 2, n - 1, n):
        assert kth_largest(flat, limits, k) == ordered[k - 1], k
    # However bad the bracket is, the answer is right.
    just_missed = ordered[n // 2].item(), ordered[n // 3].item()
    for ends in ((-1e9, -1e8), (1e8, 1e9), (data[0].item(),) * 2, just_missed):
        monkeypatch.setattr(selection, "_bracket", lambda chunks, k, ends=ends: ends)
        assert kth_largest(flat, limits, n // 3) == ordered[n // 3 - 1]
