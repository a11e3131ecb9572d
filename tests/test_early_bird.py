"""Early-bird: the search stops when masks stay the same, and says what it really cost."""

from __future__ import annotations

import pytest
import torch
import toy_units
from toys import HERE, same, tiny_recipe

from lth_zoo import kinds
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import EarlyBird
from lth_zoo.formats import load_masks, load_snapshot
from lth_zoo.jobs import Job, graph
from lth_zoo.masks import Masks
from lth_zoo.searches.early import largest_distance
from lth_zoo.session import MASKS, RESULT, STATE, Session
from lth_zoo.store import CHECKPOINT, Store

TRAINING = {"iterations": 40, "evaluate_every": 20}


def mask(*bits):
    return Masks({"w": torch.tensor(bits, dtype=torch.bool)})


def test_the_newest_is_compared_with_all_of_the_window():
    far, near, newest = mask(0, 0, 1, 1), mask(1, 1, 0, 0), mask(1, 0, 1, 0)
    assert largest_distance([near, newest]) == 0.5
    assert largest_distance([mask(0, 1, 0, 1), near, newest]) == 1.0
    assert largest_distance([far, near, near]) == 1.0
    assert largest_distance([newest]) == 1.0


def search(finder, **fields):
    fields = {"sparsity": 0.5, "training": TRAINING} | fields
    laid = experiment(tiny_recipe(finder=finder, **fields))
    (level,) = [arm.level for arm in laid.arms if arm.level.masks]
    return laid, level


def ran(folder, finder, **fields):
    laid, level = search(finder, **fields)
    store = Store(folder)
    assert run(laid.goals, store, HERE).failed == {}
    entry = store.entry(level.masks)
    return entry.json(RESULT), load_masks(entry.read(MASKS)), store, level


def test_a_settled_mask_ends_the_search(tmp_path):
    finder = EarlyBird(every="2", window=3, threshold=0.0075)
    found, masks, store, level = ran(tmp_path, finder)
    assert found["settled"]
    assert 6 < found["iterations"] < 40
    assert found["iterations"] % 2 == 0
    *before, last = found["distances"]
    assert last < 0.0075
    assert all(distance >= 0.0075 for distance in before)
    # From when the window is full to the end, a look every two iterations.
    assert len(found["distances"]) == found["iterations"] // 2 - 2
    assert masks.kept == found["kept"] == 1160
    # It is the mask of the weights at that iteration, those of the dense training then.
    state = load_snapshot(store.entry(level.masks).read(STATE))
    assert state.iteration == found["iterations"]
    kept = torch.cat([state.state[n].abs()[m] for n, m in masks.items()])
    pruned = torch.cat([state.state[n].abs()[~m] for n, m in masks.items()])
    assert kept.min() >= pruned.max()
    short = Job(
        "train",
        {**dense(level).config, "end": found["iterations"], "keep": "weights"},
        dense(level).inputs,
    )
    assert run([short], store, HERE).failed == {}
    there = load_snapshot(store.entry(short).read(STATE)).state
    assert same(there, state.state), "the search is the dense training, cut short"


def dense(level):
    """The dense training that the ticket's own differs from by its masks alone."""
    inputs = {role: job for role, job in level.train.inputs.items() if role != "masks"}
    return Job("train", level.train.config, inputs)


def test_nothing_but_the_search_itself_is_trained_for_the_mask():
    _, level = search(EarlyBird())
    assert [job.kind for job in graph([level.masks])] == ["init", "early-bird"]


def test_masks_that_never_settle_take_the_whole_training(tmp_path):
    found, masks, _, _ = ran(tmp_path, EarlyBird(every="15", window=2, threshold=1e-9))
    assert not found["settled"]
    assert found["iterations"] == 40
    assert len(found["distances"]) == 1
    assert masks.kept == 1160


def test_a_search_from_a_later_step_counts_from_there(tmp_path):
    finder = EarlyBird(every="3", window=2, threshold=1.0, rewind="step=5")
    found, _, store, level = ran(tmp_path, finder)
    assert found["iterations"] == 6
    assert load_snapshot(store.entry(level.masks).read(STATE)).iteration == 11


def test_units_are_watched_as_units(tmp_path):
    with toy_units.registered():
        finder = EarlyBird(every="1", window=2, threshold=0.02, structure=True)
        found, masks, _, _ = ran(tmp_path, finder, model=toy_units.MODEL)
    assert found["units"]["neuron"] == {"fc1": [15, 30]}
    assert found["units"]["channel"] == {"fc2": [5, 10]}
    assert masks.kept == 1085
    rows = masks["fc1.weight"]
    assert rows.any(1).equal(rows.all(1))
    # Distances are of 40 units, two of which change places at a time.
    assert all((d * 20).is_integer() for d in found["distances"])


class Killed(Exception):
    """The process died."""


@pytest.mark.parametrize(("structure", "threshold"), [(False, 0.005), (True, 0.03)])
def test_a_killed_search_goes_on_to_the_same_mask(tmp_path, monkeypatch, structure, threshold):
    with toy_units.registered():
        finder = EarlyBird(every="1", window=4, threshold=threshold, structure=structure)
        fields = {"model": toy_units.MODEL}
        whole, masks, store, level = ran(tmp_path / "a", finder, **fields)
        assert 6 < whole["iterations"] < 40
        job, other = level.masks, Store(tmp_path / "b")
        assert run(job.inputs.values(), other, HERE).failed == {}

        for at in (3, 5, whole["iterations"]):  # the window half full, full, and the last one

            def dies(self, loop, at=at):
                self.session.checkpoint(loop.snapshot())
                if loop.iteration == at:
                    raise Killed

            monkeypatch.setattr(kinds.Watch, "on_iteration", dies)
            with other.claim(job), pytest.raises(Killed):
                kinds.execute(Session(job, other, HERE))
            monkeypatch.undo()
            assert (other.folder(job) / CHECKPOINT).exists()
        assert run([job], other, HERE).failed == {}
    entry = other.entry(job)
    assert load_masks(entry.read(MASKS)) == masks
    assert entry.json(RESULT) == whole
    ours, theirs = (load_snapshot(s.entry(job).read(STATE)) for s in (store, other))
    assert same(ours.tensors(), theirs.tensors())


def test_bad_input():
    for values, message in (
        ({"window": 1}, "finder.window is 1; it must be at least 2"),
        ({"threshold": 0.0}, "finder.threshold is 0.0"),
        ({"structure": True, "scope": "layer"}, "finder.scope is 'layer' with finder.structure"),
    ):
        with pytest.raises(BadInput, match=message):
            EarlyBird(**values)
    with pytest.raises(BadInput, match=r"finder\.every is '50'"):
        search(EarlyBird(every="50"))
    with pytest.raises(BadInput, match="no units can be removed"):
        search(EarlyBird(structure=True))
