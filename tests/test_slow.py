"""Minutes of real data: run by `make test-slow`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lth_zoo.api import run_recipes
from lth_zoo.finders.imp import IMP
from lth_zoo.formats import load_masks
from lth_zoo.jobs import TICKET
from lth_zoo.recipe import Recipe, Training
from lth_zoo.session import MASKS, Execution
from lth_zoo.store import Store

pytestmark = pytest.mark.slow


def test_resnet_20_on_the_cifar_10_subset_runs_two_levels(tmp_path: Path, data_dir: Path) -> None:
    if not (data_dir / "cifar10_subset").is_dir():
        pytest.skip("no cifar10_subset in the data folder")
    recipe = Recipe(
        model="resnet-20",
        task="cifar10-subset",
        finder=IMP(rate=0.2, rewind="step=50", levels=2),
        training=Training(
            iterations=250,
            batch_size=128,
            optimizer="sgd",
            learning_rate=0.05,
            momentum=0.9,
            weight_decay=1e-4,
            evaluate_every=125,
        ),
        seeds=(0,),
        controls=("random-global",),
        controls_at="last",
    )
    store = Store(tmp_path)
    (finished,) = run_recipes([recipe], store, Execution(data=data_dir), workers=2)
    assert not finished.outcome.failed
    accuracy = {
        (run.arm, run.level): run.metrics["test"]["accuracy"] for run in finished.results.runs
    }
    assert set(accuracy) == {("dense", 0), (TICKET, 1), (TICKET, 2), ("random-global", 2)}
    assert min(accuracy.values()) > 20, "ten classes: chance is 10 %"
    previous = None
    for arm in finished.experiment.arms:
        if arm.name == TICKET:
            entry = store.entry(arm.level.masks)
            masks = load_masks(entry.read(MASKS))
            assert masks.kept == round(270_896 * 0.8**arm.level.index)
            assert previous is None or (masks & previous) == masks, "levels are nested"
            previous = masks


def test_lenet_on_mnist_reaches_what_the_paper_says_in_5000_iterations(
    tmp_path: Path, data_dir: Path
) -> None:
    if not (data_dir / "mnist").is_dir():
        pytest.skip("no mnist in the data folder")
    recipe = Recipe(
        task="mnist",
        finder=IMP(rate=0.2, rates=("fc3=0.1",), scope="layer", levels=3),
        training=Training(iterations=5000, evaluate_every=500),
        seeds=(0,),
        controls=(),
    )
    (finished,) = run_recipes([recipe], Store(tmp_path), Execution(data=data_dir), workers=0)
    values = [run.metrics["test"]["accuracy"] for run in finished.results.runs]
    assert min(values) > 97.0
