"""What the training loop is tried on: optimisers, layers, options, and a game of two."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import Blobs, mlp, some_masks

from lth_zoo.protocols import Objective
from lth_zoo.recipe import Training
from lth_zoo.train import Loop

STEPS = 9


def own_noise(model: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
    """A user's loss that draws from Python's, numpy's and torch's generators, and from rng."""
    inputs, labels = batch
    scale = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
    noise = torch.randn(inputs.shape, generator=rng)
    return scale * F.cross_entropy(model(inputs + 0.1 * noise), labels)


class Pair(nn.Module):
    """A toy generator and its judge."""

    def __init__(self):
        super().__init__()
        self.maker, self.judge = mlp(seed=1)[:1], mlp(seed=2)

    def forward(self, x):
        return self.judge(x)


class Game(Blobs):
    """Two objectives: the judge twice on fresh batches, then the maker on the last one."""

    def objectives(self, model):
        def judge(model, batch, rng):
            fake = model.maker(torch.randn(8, 6, generator=rng))[:, :6]
            return F.cross_entropy(model(batch[0]), batch[1]) + model(fake).square().mean()

        def maker(model, batch, rng):
            return -model(model.maker(batch[0])[:, :6]).square().mean().clamp(max=5)

        return [
            Objective("judge", judge, lambda m: m.judge.parameters(), repeats=2),
            Objective("maker", maker, lambda m: m.maker.parameters(), batch="shared"),
        ]


class Restless(Blobs):
    """A task whose evaluation draws from every global generator."""

    def evaluate(self, model, split):
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002
        return super().evaluate(model, split) | dict(zip("abc", drawn, strict=True))


#: case -> (the model, the task, hyper-parameters)
CASES = {
    "sgd": (mlp, Blobs, {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}),
    "adam": (mlp, Blobs, {"optimizer": "adam"}),
    "rmsprop": (mlp, Blobs, {"optimizer": "rmsprop", "momentum": 0.9}),
    "nadam": (mlp, Blobs, {"optimizer": "nadam"}),
    "adafactor": (mlp, Blobs, {"optimizer": "adafactor"}),
    "dropout": (lambda: mlp(nn.Dropout(0.5)), Blobs, {}),
    "batch norm": (lambda: mlp(nn.BatchNorm1d(8), nn.ReLU()), Blobs, {"optimizer": "sgd"}),
    "average": (mlp, Blobs, {"average": 0.8}),
    "clipping": (mlp, Blobs, {"clip_norm": 0.1}),
    "accumulation": (mlp, Blobs, {"accumulation": 2}),
    "schedule": (mlp, Blobs, {"schedule": "cosine", "warmup": 3}),
    "augmentation": (mlp, lambda: Blobs(noise=1.0), {}),
    "own noise": (mlp, lambda: Restless(own_noise), {}),
    "two objectives": (Pair, Game, {"average": 0.8}),
}


def training_of(case: str, **changes: Any) -> Training:
    fast = {"learning_rate": 0.02, "batch_size": 8, "iterations": STEPS, "evaluate_every": 3}
    return Training(**{**fast, **CASES[case][2], **changes})


def looped(case: str, hooks: Any = (), masks: Any = True, **options: Any) -> Loop:
    """Train a case, masked or not, and return the loop."""
    model = CASES[case][0]()
    chosen = some_masks(model) if masks is True else masks
    training = options.pop("training", None) or training_of(case)
    loop = Loop(model, CASES[case][1](), training, seed=3, masks=chosen, hooks=hooks, **options)
    loop.run()
    return loop
