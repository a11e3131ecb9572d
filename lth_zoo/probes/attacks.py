"""Attacks on image classifiers within an L-infinity ball, in the units of a pixel from 0 to 1.

Own code, so that each step can be read. Images are as a batch holds them; a :class:`Space` says
where black and white lie there, and so how long a pixel's way is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

#: Images (n, channels, height, width) -> scores of classes (n, classes).
Answers = Callable[[Tensor], Tensor]
Loss = Literal["cross-entropy", "margin"]


@dataclass(frozen=True)
class Space:
    """What a batch holds for pixels of 0 and of 1, (channels, 1, 1) each."""

    black: Tensor
    white: Tensor

    def near(self, x: Tensor, centre: Tensor, eps: Tensor) -> Tensor:
        """Return the nearest images within eps (n, 1, 1, 1) of the centre that are images."""
        reach = eps * (self.white - self.black)
        found = torch.minimum(torch.maximum(x, centre - reach), centre + reach)
        return torch.minimum(torch.maximum(found, self.black), self.white)

    def moved(self, x: Tensor, way: Tensor, by: Tensor) -> Tensor:
        """Return images moved along a way of -1 to 1 for each pixel."""
        return x + by * (self.white - self.black) * way


def wrong(answers: Answers, x: Tensor, y: Tensor) -> Tensor:
    """Return which images are not answered y, (n,) bool."""
    with torch.no_grad():
        return answers(x).argmax(1) != y


def uphill(answers: Answers, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Tensor:
    """Return the gradient of the loss by the images.

    ``margin`` is the best wrong score less the right one: it has a slope where a softmax is so
    sure that cross-entropy has none (Carlini and Wagner 2017, arXiv:1608.04644).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        scores = answers(x)
        if loss == "margin":
            right = F.one_hot(y, scores.shape[1]).bool()
            best = scores.masked_fill(right, -torch.inf).amax(1)
            total = (best - scores[right]).sum()
        else:
            total = F.cross_entropy(scores.double(), y, reduction="sum")
        return torch.autograd.grad(total, x)[0]


def noised(x: Tensor, eps: Tensor, space: Space, rng: torch.Generator) -> Tensor:
    """Return images with every pixel moved by eps, up or down at random."""
    way = torch.randint(0, 2, x.shape, generator=rng).to(x) * 2 - 1
    return space.near(space.moved(x, way, eps), x, eps)


def fgsm(
    answers: Answers, x: Tensor, y: Tensor, eps: Tensor, space: Space, loss: Loss = "cross-entropy"
) -> Tensor:
    """Move every pixel by eps, uphill (Goodfellow et al. 2015, arXiv:1412.6572)."""
    way = uphill(answers, x, y, loss).sign()
    return space.near(space.moved(x, way, eps), x, eps)


def pgd(
    answers: Answers,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    space: Space,
    steps: int,
    rng: torch.Generator | None = None,
    loss: Loss = "cross-entropy",
) -> tuple[Tensor, Tensor]:
    """Go uphill in steps of 2.5 eps / steps within the ball (Madry et al. 2018, arXiv:1706.06083).

    With ``rng`` it starts at random in the ball, else at the image. Returned are the last images,
    and which were answered wrong at any step.
    """
    found = x
    if rng is not None:
        way = torch.rand(x.shape, generator=rng).to(x) * 2 - 1
        found = space.near(space.moved(x, way, eps), x, eps)
    fooled = wrong(answers, found, y)
    for _ in range(steps):
        way = uphill(answers, found, y, loss).sign()
        found = space.near(space.moved(found, way, 2.5 * eps / steps), x, eps)
        fooled |= wrong(answers, found, y)
    return found, fooled


def fooled_by_pgd(
    answers: Answers,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    space: Space,
    steps: int,
    restarts: int,
    rng: torch.Generator,
    loss: Loss = "cross-entropy",
) -> Tensor:
    """Return which images any of several starts fools: the image itself, the others at random."""
    fooled = wrong(answers, x, y)
    for start in range(restarts):
        left = (~fooled).nonzero().view(-1)
        if not len(left):
            break
        draw = rng if start else None
        again = pgd(answers, x[left], y[left], eps[left], space, steps, draw, loss)[1]
        fooled[left] = again
    return fooled


def smallest(
    answers: Answers,
    x: Tensor,
    y: Tensor,
    space: Space,
    steps: int,
    rounds: int = 12,
    loss: Loss = "cross-entropy",
) -> Tensor:
    """Return the smallest eps at which PGD fools each image, by bisection, to 2 ** -rounds.

    It is 0 where the image itself is answered wrong, and an upper bound: another attack may need
    less. 1 stands for images that no eps below 1 fools.
    """
    low, high = torch.zeros(len(x)).to(x), torch.ones(len(x)).to(x)
    high[wrong(answers, x, y)] = 0.0
    for _ in range(rounds):
        middle = (low + high) / 2
        fooled = pgd(answers, x, y, middle.view(-1, 1, 1, 1), space, steps, None, loss)[1]
        high = torch.where(fooled, middle, high)
        low = torch.where(fooled, low, middle)
    return high
