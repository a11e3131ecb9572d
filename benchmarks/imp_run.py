"""A whole IMP run: LeNet-300-100 on MNIST, 6 levels x 1,000 steps, batch 60.

Ours is `api.run_recipes` into an empty store: jobs, locks, hashes, files, curves, a progress
hook, a checkpoint every second. It stands against a script with `torch.nn.utils.prune`, float
images in memory, and the same looks: validation every 100 steps, test at each level's end.
Both read MNIST from its files themselves and start from the same weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from measure import Row, compared, cpu_seconds, interleaved
from step import Case, looped, sparse
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from lth_zoo.api import Finished, run_recipes
from lth_zoo.errors import DataError
from lth_zoo.finders.imp import IMP
from lth_zoo.jobs import TICKET
from lth_zoo.protocols import adapter_of, task_of
from lth_zoo.recipe import Recipe, Training
from lth_zoo.seeds import generator, seeded
from lth_zoo.session import Execution
from lth_zoo.store import Store

MODEL, TASK, LEVELS, STEPS, BATCH, EVERY, ROUNDS = "lenet-300-100", "mnist", 6, 1000, 60, 100, 3
RATES = {"adam": 1.2e-3, "sgd": 0.1}


def recipe(optimizer: str, levels: int = LEVELS, steps: int = STEPS) -> Recipe:
    """Return the run as a recipe; level 0 is dense."""
    training = Training(
        iterations=steps,
        batch_size=BATCH,
        optimizer=optimizer,
        learning_rate=RATES[optimizer],
        evaluate_every=EVERY,
    )
    finder = IMP(rate=0.2, levels=levels - 1)
    return Recipe(MODEL, TASK, finder, training, sparsity=0.99, seeds=(0,), controls=())


def engine(one: Recipe) -> Finished:
    """Run a recipe in a store of its own, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        (finished,) = run_recipes([one], Store(folder), Execution(checkpoint_seconds=1))
    if finished.outcome.failed:
        raise RuntimeError(str(finished.outcome.failed))
    return finished


# -- the same by hand ------------------------------------------------------------------------


def script(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> list[float]:
    """Run IMP with torch prune; return the test accuracy of every level."""
    task: Any = task_of(TASK)
    data = {name: (floats(task, part.pixels), part.labels) for name, part in task.splits.items()}
    with seeded(0, "init"):
        model = adapter_of(MODEL).build(MODEL, task.signature)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    start = [(m.weight.detach().clone(), m.bias.detach().clone()) for m in layers]
    accuracies = []
    for level in range(LEVELS):
        if level:
            pairs = [(m, "weight") for m in layers]
            prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.2)
            with torch.no_grad():
                for module, (weight, bias) in zip(layers, start, strict=True):
                    module.weight_orig.copy_(weight)
                    module.bias.copy_(bias)
        curve = trained(model, make(list(model.parameters())), data)
        assert len(curve) == STEPS // EVERY
        accuracies.append(looked(model, *data["test"])[0])
    return accuracies


def floats(task: Any, pixels: Tensor) -> Tensor:
    """Return images scaled as the task scales them."""
    return pixels.float().div_(task.scale).sub_(task.mean[0]).div_(task.std[0])


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> list[Any]:
    """Train for STEPS and return the curve."""
    images, labels = data["train"]
    curve, step = [], 0
    while step < STEPS:
        for at in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images[at]), labels[at]).backward()
            optimizer.step()
            step += 1
            if step % EVERY == 0:
                curve.append(looked(model, *data["validation"]))
            if step == STEPS:
                break
    return curve


@torch.no_grad()
def looked(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return accuracy in percent and loss."""
    logits = model(images)
    right = (logits.argmax(1) == labels).sum().item()
    return 100 * right / len(labels), F.cross_entropy(logits, labels).item()


# -- rows --------------------------------------------------------------------------------------


def bench() -> list[Row]:
    """Measure the run with each optimiser, and the share of the data pipeline."""
    try:
        _ = task_of(TASK).fingerprint()
    except DataError as error:
        return [Row("LeNet on MNIST", note=f"skipped: {error}")]
    return [*whole(), *pipeline()]


def whole() -> Iterator[Row]:
    """Compare whole runs; each arm's first result is kept to show that it learns as well."""
    found: dict[str, float] = {}

    def ours(name: str, optimizer: str) -> Callable[[], float]:
        def run() -> None:
            results = engine(recipe(optimizer)).results
            found[name] = results.values(TICKET, LEVELS - 1)[0]

        return lambda: cpu_seconds(run)

    def theirs(name: str, make: Callable[..., torch.optim.Optimizer]) -> Callable[[], float]:
        def run() -> None:
            found[name] = script(make)[-1]

        return lambda: cpu_seconds(run)

    for optimizer in RATES:  # imports and caches, outside of every clock
        engine(recipe(optimizer, levels=2, steps=EVERY))
    adam, sgd = torch.optim.Adam, torch.optim.SGD
    arms = {
        "ours Adam": ours("ours Adam", "adam"),
        "fused Adam": theirs("fused Adam", lambda p: adam(p, lr=RATES["adam"], fused=True)),
        "unfused Adam": theirs("unfused Adam", lambda p: adam(p, lr=RATES["adam"])),
        "ours SGD": ours("ours SGD", "sgd"),
        "fused SGD": theirs("fused SGD", lambda p: sgd(p, lr=RATES["sgd"], fused=True)),
    }
    times = interleaved(arms, ROUNDS)
    for mine, other, target in (
        ("ours Adam", "fused Adam", 0.95),
        ("ours SGD", "fused SGD", 0.95),
        ("ours Adam", "unfused Adam", 0.7),
    ):
        note = f"test accuracy at the last level {found[mine]:.2f} % and {found[other]:.2f} %"
        label = f"lth_zoo with fused {mine.split()[1]}, against torch prune with {other}"
        yield compared(label, times[mine], times[other], target, note)


def pipeline() -> Iterator[Row]:
    """Compare drawing a batch (order, gather, scale) with the whole step it is drawn for."""
    task = task_of(TASK)
    with seeded(0, "init"):
        model = adapter_of(MODEL).build(MODEL, task.signature)
    training = recipe("sgd").training
    case = Case("", lambda: model, task, training, warm=50, steps=500, rounds=11, target=0.1)
    masks = sparse(case)

    def draws() -> None:
        batches = task.epoch(BATCH, generator(0, "data", 0))
        for number in range(case.steps):
            rng = generator(0, "data", "augment", number)
            task.batch("train", batches[number], rng)

    arms = {
        "draw": lambda: cpu_seconds(draws) / case.steps,
        "step": lambda: looped(case, masks),
    }
    times = interleaved(arms, case.rounds)
    yield compared("drawing a batch, share of a step (SGD)", times["draw"], times["step"], 0.1)
