"""The study of overlap: counts and chance by hand, pairs, the jackknife, and what it refuses."""

from __future__ import annotations

import pytest
from toys import HERE, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.finders import IMP, OneShot
from lth_zoo.formats import load_masks
from lth_zoo.session import MASKS, read_state
from lth_zoo.store import Store
from lth_zoo.studies.base import Measured
from lth_zoo.studies.overlap import MaskOverlap, above, measures
from lth_zoo.terms import Yardstick

BY = Yardstick("accuracy", higher_is_better=True, margin=1.0)
RECIPE = {"sparsity": 0.6, "finder": IMP(rate=0.3), "seeds": (0, 1, 2)}


def test_measures_by_hand():
    result = {
        "layers": {
            "x": {"a": 50, "b": 40, "both": 30, "size": 100},
            "y": {"a": 10, "b": 10, "both": 0, "size": 10},
        },
        "signs": {"x": {"a": 20, "b": 15, "same": 21, "size": 30}},
    }
    found = measures(result, ["x"])
    assert found["jaccard"] == (30 / 60, 20 / 70)  # by chance 50 x 40 / 100 are in both
    assert found["hamming"] == (30 / 100, 50 / 100)
    assert found["signs"] == (21 / 30, pytest.approx((20 * 15 + 10 * 15) / 30**2))
    assert measures(result, ["x", "y"])["jaccard"] == (30 / 80, 30 / 80)
    assert measures(result, ["x", "y"])["hamming"] == (50 / 110, 50 / 110)
    assert "signs" not in measures(result, ["y"])


def test_the_jackknife_of_single_seeds_is_the_usual_interval_and_pairs_count_seeds():
    mean, interval = above({(0,): 1.0, (1,): 2.0, (2,): 3.0})
    assert mean == 2
    assert interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    # A pair's value is the sum of what its seeds bring: 1, 2, 3; the mean is twice theirs.
    sums = {(0, 1): 3.0, (0, 2): 4.0, (1, 2): 5.0}
    mean, interval = above(sums)
    assert mean == 4
    assert interval == pytest.approx((4 - 2 * 4.3027 / 3**0.5, 4 + 2 * 4.3027 / 3**0.5), abs=1e-3)


def studied(study, recipe, store):
    probes = study.lay_out(recipe, None)
    assert not run([p.job for p in probes], store, HERE).failed
    measured = [Measured(p.of, store.entry(p.job).json(), store.entry(p.job)) for p in probes]
    return probes, study.answer(recipe, BY, measured)


def test_pairs_are_counted_and_what_must_be_so_is_so(tmp_path):
    recipe, store = tiny_recipe(**RECIPE), Store(tmp_path)
    probes, answer = studied(MaskOverlap(levels=(1, 2)), recipe, store)
    rows = {(r["across"], r["pair"], r["level"]): r for r in answer.data["rows"]}
    assert {key: row["pairs"] for key, row in rows.items()} == {
        **{("seeds", "imp", level): 3 for level in (1, 2, 3)},
        ("seeds", "one-shot", 1): 3,
        ("finders", "imp and one-shot", 3): 3,
        ("levels", "imp, 1 and 2", 2): 3,
        ("levels", "imp, 2 and 3", 3): 3,
    }
    # Levels of one search lie in one another: the index is the ratio of what they keep.
    assert rows["levels", "imp, 1 and 2", 2]["jaccard"] == pytest.approx([0.7] * 3, abs=1e-3)
    across = rows["seeds", "imp", 1]
    assert abs(across["jaccard_above"]) < 0.05
    assert rows["finders", "imp and one-shot", 3]["jaccard_interval"][0] > 0.1

    def of(store, job):
        masks = load_masks(store.entry(job.inputs["masks-a"]).read(MASKS))
        return masks, read_state(store.entry(job.inputs["state-a"])).state

    (probe,) = (p for p in probes if p.of.get("seeds") == (0, 2) and p.of["level"] == 2)
    masks, state = of(store, probe.job)
    counts = store.entry(probe.job).json()
    for name, mask in masks.items():
        other = load_masks(store.entry(probe.job.inputs["masks-b"]).read(MASKS))[name]
        assert counts["layers"][name]["both"] == int((mask & other).sum())
        assert counts["signs"][name]["a"] == int((state[name][mask & other] > 0).sum())


def test_a_finder_beside_itself_is_the_same_to_the_last_weight(tmp_path):
    recipe = tiny_recipe(sparsity=0.5, finder=IMP(rate=0.5), seeds=(0,))
    _, answer = studied(MaskOverlap(), recipe, Store(tmp_path))
    (row,) = (r for r in answer.data["rows"] if r["across"] == "finders")
    assert (row["jaccard"], row["hamming"], row["signs"]) == ([1.0], [0.0], [1.0])
    assert answer.findings[0].endswith("too few seeds to say whether that is more; 1 pair.")


def test_without_signs_nothing_trains_after_the_last_mask_and_scope_is_taken_along():
    recipe = tiny_recipe(**RECIPE | {"finder": IMP(rate=0.3, scope="layer")})
    for probe in MaskOverlap(signs=False).lay_out(recipe, None):
        assert set(probe.job.inputs) == {"masks-a", "masks-b"}
        assert {job.config["scope"] for job in probe.job.inputs.values()} == {"layer"}


def test_what_cannot_be_is_said_before_anything_runs():
    with pytest.raises(BadInput, match="finder 'one-shoot'"):
        MaskOverlap(finders=("one-shoot",))
    with pytest.raises(BadInput, match="level 7 is not searched"):
        MaskOverlap(levels=(7,)).lay_out(tiny_recipe(**RECIPE), None)
    with pytest.raises(BadInput, match="no ticket"):
        MaskOverlap().lay_out(tiny_recipe(finder=OneShot(), sparsity=0.0), None)
