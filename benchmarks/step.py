"""One training step at 80 % sparsity against the same step of the dense network.

Every arm takes its batches by index from float tensors in memory and has the same fused
optimiser. `Loop` is our training loop, with its random streams, loss record and hooks;
`enforced` is `Masks.enforced` around the plain loop that the other arms run. Each block
of steps starts from a fresh model and takes untimed steps first.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from measure import Row, compared, cpu_seconds, interleaved
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from lth_zoo.allocate import allocate
from lth_zoo.backend import optimizer_for
from lth_zoo.hooks import Hook
from lth_zoo.masks import Masks
from lth_zoo.protocols import Objective, Signature, Task, adapter_of
from lth_zoo.recipe import Training
from lth_zoo.seeds import seeded
from lth_zoo.select import select
from lth_zoo.train import Loop


class Ready(Task):
    """Batches by index from tensors in memory; nothing to evaluate."""

    margin = 0.0

    def __init__(
        self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__("ready")
        self.inputs, self.targets, self.loss = inputs, targets, loss

    def size(self, split: str) -> int:  # noqa: ARG002 - the contract
        return len(self.inputs)

    def batch(self, split: str, indices: Tensor, rng: object = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return self.inputs[indices], self.targets[indices]

    def objectives(self, model: nn.Module) -> Sequence[Objective]:  # noqa: ARG002
        return [Objective("loss", lambda m, batch, _: self.loss(m(batch[0]), batch[1]))]

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class Case:
    """A network, its data, and how long to look at it."""

    name: str
    build: Callable[[], nn.Module]
    task: Any  # a Ready, or for `looped` any Task
    training: Training
    warm: int
    steps: int
    rounds: int
    target: float

    def fresh(self) -> nn.Module:
        """Return the model at its initialisation, always the same, in training mode."""
        with seeded(0, "init"):
            return self.build().train()

    def batches(self) -> list[Tensor]:
        """Return the indices of as many batches as a block takes."""
        epoch = list(self.task.epoch(self.training.batch_size, torch.Generator().manual_seed(0)))
        return [epoch[i % len(epoch)] for i in range(self.warm + self.steps)]


class Stack(nn.Module):
    """The encoder of BERT-base with 2 of its 12 layers: 14.2 M weights in 12 linear maps."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(vocab_size=2, num_hidden_layers=2)
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, embedded: Tensor) -> Tensor:
        """Map (batch, tokens, 768) to the same shape."""
        return self.bert(inputs_embeds=embedded).last_hidden_state


def images(batch: int, batches: int, shape: tuple[int, ...]) -> Ready:
    """Return random images with random labels: the cost of a step does not look at them."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch * batches, *shape, generator=rng)
    labels = torch.randint(0, 10, (batch * batches,), generator=rng)
    return Ready(pixels, labels, F.cross_entropy)


def cases() -> Iterator[Case]:
    """Yield what is measured."""

    def cnn(name: str, shape: tuple[int, ...]) -> Callable[[], nn.Module]:
        return lambda: adapter_of(name).build(name, Signature(shape, 10))

    lenet, digits = cnn("lenet-300-100", (1, 28, 28)), images(60, 100, (1, 28, 28))
    for optimizer, shown, rate in (("sgd", "SGD", 0.1), ("adam", "Adam", 1.2e-3)):
        momentum = 0.9 if optimizer == "sgd" else 0.0
        training = Training(
            batch_size=60, optimizer=optimizer, learning_rate=rate, momentum=momentum
        )
        name = f"LeNet-300-100, batch 60, fused {shown}"
        yield Case(name, lenet, digits, training, warm=5, steps=60, rounds=41, target=1.12)
    training = Training(batch_size=128, optimizer="sgd", learning_rate=0.1, momentum=0.9)
    resnet, photos = cnn("resnet-20", (3, 32, 32)), images(128, 4, (3, 32, 32))
    name = "resnet-20, batch 128 of 32x32, fused SGD"
    yield Case(name, resnet, photos, training, warm=1, steps=2, rounds=13, target=1.03)
    training = Training(batch_size=8, optimizer="adamw", learning_rate=1e-5)
    vectors = torch.randn(32, 128, 768, generator=torch.Generator().manual_seed(0))
    tokens = Ready(vectors, vectors.flip(0), F.mse_loss)
    name = "2 BERT-base layers, batch 8 x 128, fused AdamW"
    yield Case(name, Stack, tokens, training, warm=1, steps=2, rounds=13, target=1.03)


# -- the arms ------------------------------------------------------------------------------


class Masked(nn.Module):
    """The mask as a torch parametrization."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with zeros."""
        return weight * self.mask


@contextmanager
def pruned(model: nn.Module, masks: Masks) -> Iterator[None]:
    """Prune with torch.nn.utils.prune."""
    for name, mask in masks.items():
        layer, _, tensor = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(layer), tensor, mask.float())
    yield


@contextmanager
def parametrized(model: nn.Module, masks: Masks) -> Iterator[None]:
    """Prune with torch.nn.utils.parametrize."""
    for name, mask in masks.items():
        layer, _, tensor = name.rpartition(".")
        parametrize.register_parametrization(
            model.get_submodule(layer), tensor, Masked(mask.float())
        )
    yield


def plain(case: Case, around: Callable[[nn.Module], AbstractContextManager[object]]) -> float:
    """Return the CPU seconds of one step of the loop that anyone writes."""
    model, batches = case.fresh(), case.batches()
    with around(model):
        own = [p for p in model.parameters() if p.requires_grad]
        optimizer = optimizer_for(case.training, own)

        half = case.training.precision == "bf16"

        def steps(some: Sequence[Tensor]) -> None:
            for at in some:
                inputs, targets = case.task.inputs[at], case.task.targets[at]
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    loss = case.task.loss(model(inputs), targets)
                loss.backward()
                if case.training.clip_norm is not None:
                    nn.utils.clip_grad_norm_(own, case.training.clip_norm)
                optimizer.step()

        steps(batches[: case.warm])
        return cpu_seconds(lambda: steps(batches[case.warm :])) / case.steps


class Clock(Hook):
    """Times a loop after its warm-up, up to its last iteration."""

    def __init__(self, warm: int) -> None:
        self.warm = warm

    def on_step(self, loop: Loop) -> None:
        """Start or stop."""
        if loop.iteration == self.warm:
            gc.collect()
            self.began = time.process_time()
        elif loop.iteration == loop.end:
            self.seconds = time.process_time() - self.began


def looped(case: Case, masks: Masks) -> float:
    """Return the CPU seconds of one step of our loop."""
    clock, end = Clock(case.warm), case.warm + case.steps
    Loop(case.fresh(), case.task, case.training, seed=0, masks=masks, end=end, hooks=[clock]).run()
    return clock.seconds / case.steps


def sparse(case: Case) -> Masks:
    """Return the masks of the largest fifth of the linear and convolution weights."""
    from lth_zoo.protocols import default_prunable

    model = case.fresh()
    scores = {n: model.get_parameter(n).detach().abs() for n in default_prunable(model)}
    shapes = {n: tuple(s.shape) for n, s in scores.items()}
    return select(scores, allocate(shapes, Fraction(1, 5)))


def bench() -> list[Row]:
    """Measure every case."""
    return [row for case in cases() for row in rows(case)]


def rows(case: Case) -> Iterator[Row]:
    """Measure one case."""
    masks = sparse(case)
    arms: Mapping[str, Callable[[], float]] = {
        "dense": lambda: plain(case, lambda _: nullcontext()),
        "lth_zoo `Loop`": lambda: looped(case, masks),
        "lth_zoo `enforced`": lambda: plain(case, masks.enforced),
        "torch.nn.utils.prune": lambda: plain(case, lambda m: pruned(m, masks)),
        "torch parametrization": lambda: plain(case, lambda m: parametrized(m, masks)),
    }
    seconds = interleaved(arms, case.rounds)
    for name, found in seconds.items():
        target = case.target if name in ("lth_zoo `Loop`", "lth_zoo `enforced`") else None
        if name != "dense":
            label = f"{case.name}: {name}"
            yield compared(label, found, seconds["dense"], target)
