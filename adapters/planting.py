"""A known sparse ReLU network, hidden inside a large random one (Fischer & Burkholz 2022).

:func:`target` builds the sparse network by hand, :class:`PlantedNetwork` draws the large one and
plants it: scaled copies of the target's neurons overwrite the random ones that are most like them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lth_zoo import registry
from lth_zoo.adapters.planted import BUFFER, PLANTS

#: What the tasks are: borders of the rings, and points of the helix over an array (n,).
BOUNDS: tuple[float, ...] = registry.load("lth_zoo.tasks.planted:BOUNDS")
helix: Callable[[Any], Any] = registry.load("lth_zoo.tasks.planted:helix")
#: Linear pieces that the squares of both axes have together, and that the helix has.
SQUARES, TURNS = 20, 30
#: How far beyond the outermost ring the squares are followed.
ROOM = 0.05
#: A change of slope below this is rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Layer:
    """One layer of a target: weights (out, in) and biases (out,), float64."""

    weight: Tensor
    bias: Tensor


class PlantedNetwork(nn.Module):
    """Linear layers ``fc1`` ... with ReLUs between, and a solution of the task among them.

    Weights are drawn from N(0, 2 / fan in) and the biases of layer l with the product of those
    deviations up to l: a sparse path shrinks the signal by so much a layer, and its biases with it.
    The buffer ``planted`` of each layer says which weights are planted. They are neither trained
    nor pruned, and survive wherever the state goes.
    """

    def __init__(self, base: str, width: int, depth: int) -> None:
        super().__init__()
        signature = PLANTS[base][0]
        sizes = [signature.input[0], *[width] * (depth - 1), signature.output]
        spread = 1.0
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes), 1):
            layer = nn.Linear(inputs, outputs)
            spread *= math.sqrt(2 / inputs)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
            nn.init.normal_(layer.bias, std=spread)
            layer.register_buffer(BUFFER, torch.zeros(outputs, inputs, dtype=torch.bool))
            self.add_module(f"fc{number}", layer)
        plant([m for m in self.children() if isinstance(m, nn.Linear)], target(base, depth))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs) to (batch, outputs)."""
        *hidden, last = self.children()
        for layer in hidden:
            x = layer(x).relu()
        return last(x)


# -- the targets ---------------------------------------------------------------------------------


def target(base: str, depth: int) -> list[Layer]:
    """Return a sparse ReLU network of so many linear layers that solves the task of that name."""
    makers = {"planted-circle": circle, "planted-helix": spiral, "planted-relu": chain}
    return makers[base](depth)


def chain(depth: int) -> list[Layer]:
    """Return max(x, 0): one weight of 1 a layer."""
    return [Layer(torch.ones(1, 1).double(), torch.zeros(1).double()) for _ in range(depth)]


def spiral(depth: int) -> list[Layer]:
    """Return the helix in linear pieces: x + 1, a unit a knot, the three values, handed on.

    On the way to a deeper end the values are raised by 1, so that no ReLU cuts them.
    """
    pieces = Pieces.of(lambda u: torch.from_numpy(helix(u.numpy() - 1)), 2.0, TURNS)
    one, eye = torch.ones(1, 1).double(), torch.eye(3).double()
    layers = [Layer(one, one[0]), Layer(pieces.signs[:, None], pieces.biases)]
    layers.append(Layer(pieces.weights.T, pieces.constant))
    for _ in range(depth - 3):
        layers.append(Layer(eye, torch.zeros(3).double()))
    if depth > 3:
        layers[2] = Layer(layers[2].weight, layers[2].bias + 1)
        layers[-1] = Layer(eye, -torch.ones(3).double())
    return layers


def circle(depth: int) -> list[Layer]:
    """Return the class of x1^2 + x2^2 as four lines, of which the highest changes at each border.

    |x1| and |x2| are read off two units each. Every further layer folds the plane along a
    diagonal, which leaves half of the angle and fewer pieces for the square of one axis; the radius
    stays as it is.
    """
    first = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]]).double()
    layers = [Layer(first, torch.zeros(4).double())]
    axes = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).double()
    angle, reach = math.pi / 2, math.sqrt(BOUNDS[-1]) + ROOM
    for _ in range(depth - 3):
        angle /= 2
        along = math.cos(angle) * axes[0] + math.sin(angle) * axes[1]
        across = math.sin(angle) * axes[0] - math.cos(angle) * axes[1]
        layers.append(Layer(torch.stack([along, across, -across]), torch.zeros(3).double()))
        axes = torch.tensor([[1, 0, 0], [0, 1, 1]]).double()
    wide = reach * (math.sin(angle) if depth > 3 else 1)
    few = max(3, round(SQUARES * wide / (reach + wide)))
    halves = [
        Pieces.of(lambda u: u.square()[:, None], reach, SQUARES - few),
        Pieces.of(lambda u: u.square()[:, None], wide, few),
    ]
    rows = [half.signs[:, None] * axis for half, axis in zip(halves, axes, strict=True)]
    layers.append(Layer(torch.cat(rows), torch.cat([half.biases for half in halves])))
    weights = torch.cat([half.weights for half in halves]).T
    # Between its knots a chord lies above the square, by a sixth of the squared step on average.
    excess = sum(half.step**2 / 6 for half in halves)
    constant = sum(half.constant for half in halves) - excess
    slopes = torch.tensor([5.0 * 2**ring for ring in range(len(BOUNDS) + 1)]).double()
    drops = slopes.diff() * torch.tensor(BOUNDS).double()
    heights = torch.cat([torch.zeros(1).double(), -drops.cumsum(0)])
    layers.append(Layer(slopes[:, None] * weights, slopes * constant + heights))
    return layers


@dataclass(frozen=True)
class Pieces:
    """A function on [0, end] as a layer of units and how they add up.

    Unit i is relu(``signs[i]`` z + ``biases[i]``); the values are ``weights.T @ units + constant``.
    """

    signs: Tensor
    biases: Tensor
    weights: Tensor
    constant: Tensor
    step: float

    @classmethod
    def of(cls, function: Callable[[Tensor], Tensor], end: float, count: int) -> Pieces:
        """Return the chords between ``count`` + 1 equally spaced points, one unit a chord.

        Every other unit looks the other way: relu(z - k) = relu(k - z) + z - k. What that adds is
        linear, and goes to the first unit, which is z itself.
        """
        knots = torch.linspace(0, end, count + 1, dtype=torch.float64)
        values = function(knots)
        slopes = values.diff(dim=0) / knots.diff()[:, None]
        signs = torch.ones(count).double()
        signs[1::2] = -1
        knots, turned = knots[:-1], signs < 0
        weights = slopes.diff(dim=0, prepend=torch.zeros_like(slopes[:1]))
        weights[weights.abs() < ROUNDING] = 0  # a straight line has no knots
        weights[0] += weights[turned].sum(0)
        constant = values[0] - (weights * knots[:, None])[turned].sum(0)
        return cls(signs, -signs * knots, weights, constant, end / count)


# -- planting ------------------------------------------------------------------------------------


@torch.no_grad()
def plant(layers: list[nn.Linear], hidden: list[Layer]) -> None:
    """Hide a target in drawn layers, in place, and note where.

    From the input on, each target neuron takes the place of the free random neuron it
    correlates with most, among those whose weights from the planted neurons before have its signs.
    The copy is scaled to its projection on that neuron, so that it is no larger than what stood
    there; the next layer divides by the scale. Outputs have one scale for all.
    """
    places, scales = torch.arange(layers[0].in_features), torch.ones(layers[0].in_features).double()
    for layer, wanted in zip(layers, hidden, strict=True):
        weight, last = wanted.weight / scales, layer is layers[-1]
        there = torch.cat([layer.bias[:, None], layer.weight[:, places]], 1).double()
        rows = torch.cat([wanted.bias[:, None], weight], 1)
        if last:
            taken = torch.arange(len(rows))
            ratio = there[:, 1:][weight != 0].norm() / weight.norm()
            scales = ratio.expand(len(rows))
        else:
            taken, scales = matched(rows, there)
        for row, scale, place in zip(rows, scales, taken, strict=True):
            used = row[1:] != 0
            layer.weight[place, places[used]] = (scale * row[1:][used]).float()
            layer.bias[place] = scale * row[0]
            layer.get_buffer(BUFFER)[place, places[used]] = True
        places = taken


def matched(rows: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Return which random neuron each target neuron replaces, and its scale.

    Args:
        rows: the targets (neurons, 1 + inputs), bias first; entries of 0 may be anything.
        there: the random neurons (width, 1 + inputs).
    """
    free = torch.ones(len(there), dtype=torch.bool)
    taken, scales = [], []
    for row in rows:
        used = row != 0
        used[0] = True  # a bias of 0 is planted too
        near, goal = there[:, used], row[used]
        likeness = near @ goal / (near.norm(dim=1) * goal.norm())
        signs = (near[:, 1:].sign() == goal[1:].sign()).all(1)
        # Signs come first, then likeness: a cosine is below 2.
        order = likeness.masked_fill(~free, -torch.inf) + 2 * signs
        place = int(order.argmax())
        free[place] = False
        projected = (near[place] @ goal / goal.square().sum()).item()
        # Where nothing free points its way, the copy has the length of what it replaces.
        length = (near[place].norm() / goal.norm()).item()
        taken.append(place)
        scales.append(projected if projected > 0 else length)
    return torch.tensor(taken), torch.tensor(scales, dtype=torch.float64)
