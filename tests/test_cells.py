"""What may be said of the cells of a transfer matrix, and how alike masks are: numbers alone."""

from __future__ import annotations

import math
import random

import pytest
import torch
import toys
from scipy import stats

from lth_zoo.masks import Masks
from lth_zoo.trials.cells import Cell, CellRun, Target, TransferResults, holm, judge_cells
from lth_zoo.trials.overlap import jaccard, overlaps, packed, shared

# -- statistics ----------------------------------------------------------------------------

BASE = {seed: 80 + 0.3 * seed for seed in range(5)}


def made(cells, margin=1.0, higher=True, seeds=5):
    """Results from (source, target) -> values; dense is BASE."""

    def one(seed, value):
        if math.isnan(value):
            return CellRun(seed, flags=("diverged",), error="diverged")
        return CellRun(seed, value, 5, 10)

    def whole(source, target, values):
        runs = (one(*item) for item in list(values.items())[:seeds])
        return Cell(source, target, tuple(runs))

    names = list(dict.fromkeys(target for _, target in cells))
    targets = [Target(n, "m", higher, margin, whole("dense", n, BASE)) for n in names]
    found = tuple(whole(s, t, values) for (s, t), values in cells.items())
    sources = tuple(dict.fromkeys(s for s, _ in cells))
    plain = toys.tiny_recipe(seeds=tuple(range(seeds))).to_dict()
    return TransferResults(plain, sources, tuple(targets), "mask", found)


def shifted(by, noise=0.1, seed=0):
    rng = random.Random(f"{by} {seed}")
    return {s: v + by + rng.gauss(0, noise) for s, v in BASE.items()}


def moved(*by):
    return {s: v + d for (s, v), d in zip(BASE.items(), by, strict=True)}


def test_holm_is_the_textbooks():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.2]) == [0.2]


def test_marks_follow_the_differences_and_their_p_the_paired_test():
    cells = {
        ("a", "a"): shifted(0.0),
        ("worse", "a"): shifted(-3.0),
        ("better", "a"): shifted(2.0),
        ("alike", "a"): shifted(0.02),
        ("wild", "a"): {
            s: v + d for (s, v), d in zip(BASE.items(), (-6, 5, -4, 7, 1), strict=True)
        },
    }
    found = {j.source: j for j in judge_cells(made(cells))}
    said = {n: (j.better, j.worse, j.as_good, j.matches) for n, j in found.items()}
    assert said == {
        "a": (False, False, False, True),
        "worse": (False, True, False, False),
        "better": (True, False, True, True),
        "alike": (False, False, True, True),
        "wild": (False, False, False, False),
    }
    ps = []
    for name in ("worse", "better", "alike", "wild"):
        pairs = [list(cells[key, "a"].values()) for key in (name, "a")]
        ps.append(stats.ttest_rel(*pairs).pvalue)
    assert [found[n].p_differs for n in list(found)[1:]] == pytest.approx(holm(ps))
    bounds = stats.ttest_rel(*[list(cells[k, "a"].values()) for k in ("worse", "a")])
    assert found["worse"].against_ticket.interval == pytest.approx(bounds.confidence_interval())
    assert [found[n].at_least_ticket for n in ("a", "worse", "better")] == [None, False, True]


def test_more_cells_make_a_mark_harder():
    near = moved(-0.3, -0.5, -0.2, -0.6, -0.4)
    few = {("a", "a"): BASE, ("near", "a"): near}
    many = few | {(f"other{i}", "a"): shifted(0.0, 1.0, seed=i) for i in range(20)}
    assert judge_cells(made(few))[1].worse
    assert not judge_cells(made(many))[1].worse


def test_lower_is_better_turns_marks_and_leaves_the_unit():
    cells = {("a", "a"): BASE, ("more", "a"): shifted(3.0), ("less", "a"): shifted(-3.0)}
    _, more, less = judge_cells(made(cells, higher=False))
    assert more.against_dense.difference == pytest.approx(3.0, abs=0.2)
    assert (more.worse, more.matches, more.at_least_ticket) == (True, False, False)
    assert (less.better, less.matches, less.at_least_ticket) == (True, True, True)


def test_one_seed_has_no_mark():
    for found in judge_cells(made({("a", "a"): BASE, ("b", "a"): shifted(-30)}, seeds=1)):
        assert (found.p_differs, found.p_as_good, found.p_matches) == (None, None, None)
        assert not any((found.better, found.worse, found.as_good, found.matches))
    assert found.at_least_ticket is False
    assert found.against_dense.interval is None


def test_a_cell_with_a_diverged_run_is_never_as_good():
    broken = shifted(0.5) | {4: math.nan}
    found = judge_cells(made({("a", "a"): BASE, ("b", "a"): broken}))[1]
    assert found.arm.diverged == (4,)
    assert (found.as_good, found.matches, found.p_as_good) == (False, False, 1.0)


# -- overlap -------------------------------------------------------------------------------


def random_masks(density, seed):
    rng = torch.Generator().manual_seed(seed)
    sizes = {"base.a": (300, 40), "base.b": (50, 70), "head": (10, 10)}
    return Masks({n: torch.rand(shape, generator=rng) < density for n, shape in sizes.items()})


def test_overlap_is_the_jaccard_index_beside_what_chance_gives():
    roles = {"a": "attention", "b": "ffn"}
    a, b = random_masks(0.3, 1), random_masks(0.5, 2)
    own = {"x": packed(a, roles, "base."), "y": packed(b, roles, "base.")}
    (found,) = overlaps([own], roles)
    base = [m.without("head") for m in (a, b)]
    assert found.whole[0] == pytest.approx(base[0].jaccard(base[1]))
    assert found.layers["a"][0] == pytest.approx(
        a.without("base.b", "head").jaccard(b.without("base.b", "head"))
    )
    # independent masks overlap as chance says: p q / (p + q - p q)
    assert found.whole[1] == pytest.approx(0.15 / 0.65, abs=0.01)
    assert found.whole[0] == pytest.approx(found.whole[1], abs=0.01)
    assert found.roles.keys() == {"attention", "ffn"}
    same = overlaps([{"x": own["x"], "z": own["x"]}], roles)[0]
    assert same.whole[0] == 1.0 > same.whole[1]


def test_overlap_leaves_out_a_seed_that_one_of_a_pair_has_not():
    roles = {"a": "linear"}
    masks = [packed(random_masks(0.5, s), roles, "base.") for s in range(3)]
    seeds = [{"x": masks[0], "y": masks[1]}, {"x": masks[2]}]
    (found,) = overlaps(seeds, roles)
    assert found.n == 1
    assert found.whole == jaccard(shared(masks[0], masks[1]).values())
    assert jaccard([]) == (1.0, 1.0)
