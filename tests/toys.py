"""What the engine's tests train: tiny tasks, models and recipes, done in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lth_zoo.graph import View
from lth_zoo.masks import Masks
from lth_zoo.protocols import Objective, Signature, Task, default_prunable
from lth_zoo.recipe import Recipe, Training, build
from lth_zoo.seeds import seeded
from lth_zoo.session import Execution
from lth_zoo.tasks.images import evaluating

INPUTS, CLASSES = 6, 3


def cross_entropy(model: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


class Blobs(Task):
    """Three clouds of points; ``noise`` augments a batch; ``seen`` notes what was drawn."""

    margin: ClassVar[float] = 1.0

    def __init__(self, loss: Callable[..., Tensor] = cross_entropy, noise: float = 0.0) -> None:
        super().__init__("blobs")
        rng = torch.Generator().manual_seed(1)
        self.labels = torch.arange(60) % CLASSES
        centres = torch.randn(CLASSES, INPUTS, generator=rng)
        self.points = centres[self.labels] + torch.randn(60, INPUTS, generator=rng)
        self.loss, self.noise = loss, noise
        self.seen: list[list[int]] = []

    @property
    def signature(self) -> Signature:
        return Signature((INPUTS,), CLASSES)

    def size(self, split: str) -> int:
        return {"train": 40, "validation": 10, "test": 10}[split]

    def batch(self, split: str, indices: Tensor, rng: torch.Generator | None = None) -> Any:
        start = {"train": 0, "validation": 40, "test": 50}[split]
        inputs = self.points[indices + start]
        if rng is not None:
            self.seen.append(indices.tolist())
            inputs = inputs + self.noise * torch.randn(inputs.shape, generator=rng)
        return inputs, self.labels[indices + start]

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        return [Objective("cross-entropy", self.loss)]

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        inputs, labels = self.batch(split, torch.arange(self.size(split)))
        with evaluating(model):
            logits = model(inputs)
        hits = (logits.argmax(1) == labels).double().mean().item()
        return {"accuracy": 100 * hits, "loss": F.cross_entropy(logits, labels).item()}


def mlp(*between: nn.Module, seed: int = 0) -> nn.Sequential:
    """Return two linear layers, whatever is ``between`` them, and a batch-normless default."""
    with seeded(seed, "init"):
        middle = between or (nn.Tanh(),)
        return nn.Sequential(nn.Linear(INPUTS, 8), *middle, nn.Linear(8, CLASSES))


def some_masks(model: nn.Module, density: float = 0.5, seed: int = 0) -> Masks:
    """Return random masks over every prunable tensor, each with both kept and pruned weights."""
    rng = torch.Generator().manual_seed(seed)
    masks = {}
    for name in default_prunable(model):
        mask = torch.rand(model.get_parameter(name).shape, generator=rng) < density
        mask.view(-1)[:2] = torch.tensor([True, False])
        masks[name] = mask
    return Masks(masks)


def pruned_are_zero(model: nn.Module, masks: Masks) -> bool:
    tensors = dict(model.named_parameters(remove_duplicate=False))
    return all(bool((tensors[n].detach()[~m] == 0).all()) for n, m in masks.items())


def same(a: Any, b: Any) -> bool:
    """Say whether nested tensors, dictionaries and lists are equal bit for bit."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, View):
        return same(vars(a), vars(b))
    return bool(a == b)


def tiny_recipe(**values: Any) -> Recipe:
    """Return a recipe on digits that trains for a few iterations; dotted names go inside."""
    training = {"iterations": 12, "batch_size": 32, "evaluate_every": 6}
    training |= values.pop("training", {})
    plain: dict[str, Any] = {
        "model": "lenet-300-100x0.1",
        "task": "digits",
        "seeds": (0,),
        "controls": (),
        "training": build(Training, training),
    }
    recipe: Recipe = build(Recipe, plain | values)
    return recipe


#: How the tests run jobs: in this process, no checkpoints by the clock.
HERE = Execution(checkpoint_seconds=1e9)


def custom(signature: Signature) -> nn.Module:
    """A model of the user's own, as ``toys:custom``: it has no adapter of its own."""
    inputs = signature.input[0] * signature.input[1] * signature.input[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 10)
    )


def blocks(signature: Signature) -> nn.Module:
    """A model with four blocks of one build, as ``toys:blocks``."""
    inputs = signature.input[0] * signature.input[1] * signature.input[2]
    twins = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4)))
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), twins, nn.Linear(16, 10))
