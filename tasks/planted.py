"""Tasks whose sparse solution is known: planted tickets (Fischer & Burkholz 2022).

Each is drawn once, from a fixed stream, 10,000 points: what a network of the family ``planted``
hides solves it without training.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from lth_zoo.protocols import SPLITS, Objective, Signature, Split, Task
from lth_zoo.tasks.evaluation import evaluating

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

#: Points of each part; a tenth for testing, as published.
PARTS: dict[Split, int] = {"train": 8000, "validation": 1000, "test": 1000}
#: Squared radii where one class ends and the next begins.
BOUNDS = (0.2, 0.5, 0.7)
#: Share of flipped training labels; deviation of the noise on training values.
NOISE = 0.01


class Planted(Task):
    """Points drawn in [-1, 1]^d and the answers of a known function.

    A batch is (points float32 (n, d), answers): labels int64 (n,), or values float32, (n,) where
    the function has one and else (n, values). Training answers are noisy, those of validation and
    test exact, so that the planted solution has no error but its own.
    """

    source: ClassVar[str] = "J. Fischer and R. Burkholz, Plant 'n' Seek, ICLR 2022"
    licence: ClassVar[str] = "drawn here"
    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 1
    answer: ClassVar[Literal["classes", "value"]] = "value"
    #: Number of the stream that the points are drawn from.
    stream: ClassVar[int]

    def draw(self, points: np.ndarray, rng: Stream | None) -> np.ndarray:
        """Return the answers at points (n, inputs), noisy where a stream is given."""
        raise NotImplementedError

    @cached_property
    def splits(self) -> dict[Split, tuple[Tensor, Tensor]]:
        """The three parts, drawn on the first use."""
        import torch

        rng, found = Stream(self.stream), {}
        for split in SPLITS:
            points = (2 * rng.uniform(PARTS[split], self.inputs) - 1).astype("float32")
            answers = self.draw(points.astype("float64"), rng if split == "train" else None)
            found[split] = torch.from_numpy(points), torch.from_numpy(answers)
        return found

    @property
    def signature(self) -> Signature:
        """The dimensions of a point and of its answer."""
        return Signature((self.inputs,), self.outputs, self.answer)

    def size(self, split: Split) -> int:
        """Return the number of points of a part."""
        return PARTS[split]

    def fingerprint(self) -> str:
        """Return sha256 over the points and answers."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for part in self.splits[split]:
                digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()

    def batch(
        self,
        split: Split,
        indices: Tensor,
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Return (points, answers) at the indices."""
        points, answers = self.splits[split]
        indices = indices.to(points.device)
        return points.index_select(0, indices), answers.index_select(0, indices)

    def objectives(self, model: nn.Module) -> Sequence[Objective]:  # noqa: ARG002
        """Return cross-entropy, or the squared error, over every parameter."""
        name = "cross-entropy" if self.answer == "classes" else "squared-error"
        return [
            Objective(name, lambda m, batch, _: self.criterion(self.answers(m, batch), batch[1]))
        ]

    def answers(
        self,
        model: nn.Module,
        batch: tuple[Tensor, Tensor],
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the scores of the rings, or the values, at the points of a batch, (n, outputs)."""
        said: Tensor = model(batch[0])
        return said

    def criterion(self, answers: Tensor, truth: Tensor) -> Tensor:
        """Return the mean loss of answers (n, outputs)."""
        from torch.nn import functional as F

        if self.answer == "classes":
            return F.cross_entropy(answers, truth)
        return F.mse_loss(answers, truth.reshape(len(truth), -1))

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return ``loss``, and ``accuracy`` in percent or ``error``: see :func:`unexplained`."""
        points, truth = self.splits[split]
        with evaluating(model):
            answers = model(points).double()
        if self.answer == "classes":
            right = {"accuracy": 100.0 * (answers.argmax(1) == truth).double().mean().item()}
        else:
            truth = truth.double()
            right = {"error": unexplained(answers, truth)}
        return right | {"loss": self.criterion(answers, truth).item()}

    def flags(self, model: nn.Module) -> tuple[str, ...]:
        """Return ``("constant",)`` for a model that answers every point alike."""
        with evaluating(model):
            answers = model(self.splits["validation"][0])
        if self.answer == "classes":
            answers = answers.argmax(1, keepdim=True)
        return ("constant",) if bool((answers == answers[:1]).all()) else ()

    def to(self, device: torch.device) -> None:
        """Move every part to a device."""
        for name, (points, answers) in self.splits.items():
            self.splits[name] = points.to(device), answers.to(device)


class Circle(Planted):
    """Which of four concentric rings a point of the plane is in, by its squared radius."""

    margin: ClassVar[float] = 1.0
    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = len(BOUNDS) + 1
    answer: ClassVar[Literal["classes", "value"]] = "classes"
    stream: ClassVar[int] = 1

    def draw(self, points: np.ndarray, rng: Stream | None) -> np.ndarray:
        """Return the rings; one in a hundred training points has the next likeliest instead."""
        import numpy as np

        squares = (points**2).sum(1)
        rings = np.searchsorted(BOUNDS, squares).astype(np.int64)
        if rng is not None:
            flipped = rng.uniform(len(points), 1)[:, 0] < NOISE
            rings[flipped] = neighbours(squares, rings)[flipped]
        return rings


class Regression(Planted):
    """A function of one variable, by the squared error; ``error`` is its unexplained share."""

    headline: ClassVar[str] = "error"
    higher_is_better: ClassVar[bool] = False
    margin: ClassVar[float] = 1.0

    def function(self, x: np.ndarray) -> np.ndarray:
        """Return the exact values (n, outputs) at x (n,)."""
        raise NotImplementedError

    def draw(self, points: np.ndarray, rng: Stream | None) -> np.ndarray:
        """Return the values, with normal noise of deviation 0.01 where a stream is given."""
        values = self.function(points[:, 0])
        if rng is not None:
            values = values + NOISE * rng.normal(*values.shape)
        # Rounded, since sines differ in the last bit from one library to another.
        values = values.round(6).astype("float32")
        return values[:, 0] if self.outputs == 1 else values


class Helix(Regression):
    """A helix of three turns and growing radius in space, over one variable."""

    outputs: ClassVar[int] = 3
    stream: ClassVar[int] = 2

    def function(self, x: np.ndarray) -> np.ndarray:
        """Return the points (n, 3) of the helix."""
        return helix(x)


class ReLU(Regression):
    """max(x, 0): one weight a layer is enough."""

    stream: ClassVar[int] = 3

    def function(self, x: np.ndarray) -> np.ndarray:
        """Return max(x, 0) as (n, 1)."""
        return x.clip(min=0)[:, None]


class Stream:
    """Numbers that no library version changes: numpy promises a bit generator's raw stream."""

    def __init__(self, number: int) -> None:
        import numpy as np

        self._bits = np.random.PCG64(number)

    def uniform(self, *shape: int) -> np.ndarray:
        """Return numbers of [0, 1) with 53 bits."""
        return (self._bits.random_raw(math.prod(shape)) >> 11).reshape(shape) * 2.0**-53

    def normal(self, *shape: int) -> np.ndarray:
        """Return standard normal numbers (Box & Muller 1958)."""
        import numpy as np

        radius = np.sqrt(-2 * np.log(1 - self.uniform(*shape)))
        return radius * np.cos(2 * np.pi * self.uniform(*shape))


def helix(x: np.ndarray) -> np.ndarray:
    """Return (y cos y, y sin y, y) / 8 pi at y = 5 pi + 3 pi x: from 2 pi to 8 pi over [-1, 1]."""
    import numpy as np

    y = 5 * np.pi + 3 * np.pi * x
    return np.stack([y * np.cos(y), y * np.sin(y), y], axis=1) / (8 * np.pi)


def neighbours(squares: np.ndarray, rings: np.ndarray) -> np.ndarray:
    """Return the second likeliest ring of each point: that across the border that is nearer.

    Likelihoods are those of the planted classes, whose slopes double from ring to ring.

    >>> import numpy as np
    >>> neighbours(np.array([0.1, 0.3, 0.45, 0.9]), np.array([0, 1, 1, 3]))
    array([1, 0, 2, 2])
    """
    import numpy as np

    inner = np.concatenate([[-np.inf], BOUNDS])[rings]
    outer = np.concatenate([BOUNDS, [np.inf]])[rings]
    # The next slope is twice the own and the one before half of it.
    return np.where((outer - squares) < (squares - inner) / 2, rings + 1, rings - 1)


def unexplained(answers: Tensor, truth: Tensor) -> float:
    """Return the percentage of the variance that answers leave, at their best scale from 0 up.

    A planted subnetwork has the shape of the function, not its size, which training gives;
    the paper compares answers so too. A constant 0 has 100 or more.

    Args:
        answers: (n, outputs) float64.
        truth: (n,) or (n, outputs) float64.
    """
    truth = truth.reshape(len(truth), -1)
    power = answers.square().sum()
    scale = ((answers * truth).sum() / power).clamp(min=0) if power > 0 else power
    left = (truth - scale * answers).square().sum()
    return (100.0 * left / (truth - truth.mean(0)).square().sum()).item()
