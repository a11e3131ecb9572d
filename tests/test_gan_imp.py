"""`gan-imp`: what a ticket's discriminator starts from, and that the generator is rewound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lth_zoo.chain import Chain
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import Experiment, experiment
from lth_zoo.finders import GanIMP
from lth_zoo.formats import load_masks, load_tensors
from lth_zoo.given import judges_of
from lth_zoo.jobs import TICKET, Job
from lth_zoo.recipe import Recipe, Training
from lth_zoo.session import IMAGES, MASKS, Execution, read_state
from lth_zoo.store import Store
from lth_zoo.tasks import generation

TRAINING = Training(iterations=4, batch_size=8, learning_rate=1e-3, evaluate_every=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "SMALL", (20, 64, 32))
        judges_of.cache_clear()
        yield Store(tmp_path_factory.mktemp("gan"))
    judges_of.cache_clear()


def study(policy: str, **fields: Any) -> Experiment:
    finder = GanIMP(rate=0.5, discriminator=policy, **fields)  # type: ignore[arg-type]
    return experiment(
        Recipe(
            model="dcgan-4x0.05",
            task="generation/digits",
            finder=finder,
            training=TRAINING,
            sparsity=0.75,
            seeds=(0,),
            controls=("reinit",),
            controls_at="last",
        )
    )


def done(one: Experiment, store: Store) -> Experiment:
    outcome = run(one.goals, store, Execution())
    assert not outcome.failed
    return one


def state(job: Job, store: Store) -> dict[str, Any]:
    entry = store.entry(job)
    assert entry is not None
    return read_state(entry).state


def tickets(one: Experiment) -> list[Any]:
    return [arm.level for arm in one.arms if arm.name == TICKET]


@pytest.mark.parametrize("policy", ["rewind", "keep-trained", "fresh", "distill"])
def test_what_each_network_starts_from(policy: str, store: Store) -> None:
    one = done(study(policy), store)
    first, second = tickets(one)
    dense = next(arm.level for arm in one.arms if arm.level.index == 0)
    initial = state(dense.start, store)
    for level, before in ((first, dense), (second, first)):
        start, trained = state(level.start, store), state(before.train, store)
        other = {
            "rewind": initial,
            "distill": initial,
            "keep-trained": trained,
            "fresh": state(Chain(one.recipe, 0, one.fingerprint).initial(draw=level.index), store)
            if policy == "fresh"
            else {},
        }[policy]
        for name, tensor in start.items():
            expected = initial if name.startswith("generator.") else other
            assert tensor.equal(expected[name]), name
        assert ("teacher" in level.train.inputs) == (policy == "distill")
        if policy == "distill":
            assert level.train.inputs["teacher"] == dense.train


def test_each_network_has_its_own_threshold(store: Store) -> None:
    level = tickets(done(study("rewind"), store))[-1]
    entry = store.entry(level.masks)
    assert entry is not None
    masks = load_masks(entry.read(MASKS))
    for part in ("generator", "discriminator"):
        counts = [c for n, c in masks.counts.items() if n.startswith(part)]
        kept, size = (sum(column) for column in zip(*counts, strict=True))
        assert kept == pytest.approx(size / 4, abs=1)


def test_controls_keep_the_teacher_and_pictures_are_written(store: Store) -> None:
    one = done(study("distill"), store)
    (control,) = (arm for arm in one.arms if arm.name == "reinit")
    assert control.goal.inputs["teacher"] == tickets(one)[0].train.inputs["teacher"]
    for arm in one.arms:
        entry = store.entry(arm.goal)
        assert entry is not None
        found, _ = load_tensors(entry.read(IMAGES))
        assert found["samples"].shape == (32, 1, 8, 8)


def test_judges_are_trained_once_for_all(store: Store) -> None:
    kinds = {j.key: j for p in ("rewind", "fresh") for j in study(p).jobs}
    judges = [j for j in kinds.values() if j.kind == "train" and j.config["model"] == "judge"]
    assert len(judges) == 3


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="goes on from the trained weights of both networks"):
        GanIMP(discriminator="fresh", rewind="learning-rate")
    with pytest.raises(BadInput, match=r"for models with a generator, and 'vae-4x0.05' has"):
        experiment(
            Recipe(model="vae-4x0.05", task="generation/digits", finder=GanIMP(), controls=())
        )
