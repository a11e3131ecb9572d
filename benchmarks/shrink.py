"""A training step of a network whose channels are cut out, against the dense one's.

Half of the channels go, at random, wherever one layer alone reads them: of DCGAN's generator, of
both its networks, of VGG-11. The third figure is the step of the same masks on dense
tensors. The
share of multiply-accumulates that is left is counted on the networks themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import step
import torch
from measure import Row, compared, interleaved
from torch import Tensor, nn
from torch.nn import functional as F

from lth_zoo.compact import compact
from lth_zoo.masks import Masks
from lth_zoo.protocols import Objective, Signature, adapter_of, default_prunable, task_of
from lth_zoo.recipe import Training
from lth_zoo.searches.structured import keep_units, shares_of, spread

IMAGE = (1, 28, 28)


class Pictures(step.Ready):
    """Images alone, and the losses of a GAN."""

    def batch(self, split: str, indices: Tensor, rng: object = None) -> Any:  # noqa: ARG002
        return self.inputs[indices]

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        return task_of("generation/digits").objectives(model)


@dataclass(frozen=True)
class Pair:
    """A dense network, the masks of half of its channels, and the network without them."""

    dense: nn.Module
    masks: Masks
    smaller: nn.Module


def halved(name: str, signature: Signature) -> Pair:
    """Return a model without half of its channels in every layer where they may go."""
    adapter = adapter_of(name)
    model, rng = adapter.build(name, signature), torch.Generator().manual_seed(0)
    units = [replace(unit, role=unit.layer) for unit in adapter.units(model)]
    scores = [torch.rand(unit.count, generator=rng) for unit in units]
    kept = keep_units(scores, units, shares_of(units, {"*": "1/2"}))
    masks = spread(kept, units, Masks.ones(model, adapter.prunable(model)))
    return Pair(model, masks, compact(model, masks, units)[0])


def generator(pair: Pair) -> Pair:
    """Return the generators of two GANs."""
    place = "generator."
    own = {n.removeprefix(place): m for n, m in pair.masks.items() if n.startswith(place)}
    return Pair(pair.dense.generator, Masks(own), pair.smaller.generator)


def multiplications(model: nn.Module, example: Tensor) -> int:
    """Return the multiply-accumulates of one example in linear maps and convolutions."""
    from lth_zoo.prunable import count_macs

    return sum(count_macs(model, example, default_prunable(model)).values())


def cases() -> Iterator[tuple[step.Case, Pair, Tensor]]:
    """Yield what is measured: a case of the dense network, its pair, and one example."""
    rng = torch.Generator().manual_seed(0)
    gan = halved("dcgan", Signature(IMAGE, 784, "images"))
    adam = Training(batch_size=64, optimizer="adam", learning_rate=2e-4)
    pixels = torch.rand(256, *IMAGE, generator=rng)
    noise = torch.randn(256, gan.dense.latent, generator=rng)
    made = step.Ready(noise, pixels, F.binary_cross_entropy_with_logits)

    def case(name: str, task: Any, training: Training, pair: Pair, target: float) -> step.Case:
        return step.Case(name, lambda: pair.dense, task, training, 1, 2, 9, target)

    alone = generator(gan)
    yield case("DCGAN's generator, batch 64 of 28x28", made, adam, alone, 0.5), alone, noise[:1]
    both = Pictures(pixels, pixels, F.mse_loss)
    yield case("DCGAN, both networks, batch 64 of 28x28", both, adam, gan, 0.6), gan, pixels[:1]
    sgd = Training(batch_size=64, optimizer="sgd", learning_rate=0.05, momentum=0.9)
    vgg = halved("vgg-11x0.5", Signature(IMAGE, 10))
    photos = step.images(64, 4, IMAGE)
    yield case("vgg-11x0.5, batch 64 of 28x28", photos, sgd, vgg, 0.5), vgg, pixels[:1]


def bench() -> list[Row]:
    """Measure every case."""
    return [row for case in cases() for row in rows(*case)]


def rows(case: step.Case, pair: Pair, example: Tensor) -> Iterator[Row]:
    """Measure one case."""
    smaller = replace(case, build=lambda: pair.smaller)
    arms: dict[str, Callable[[], float]] = {
        "dense": lambda: step.looped(case, None),
        "half of the channels cut out": lambda: step.looped(smaller, None),
        "half of the channels masked": lambda: step.looped(case, pair.masks),
    }
    seconds = interleaved(arms, case.rounds)
    for name in list(arms)[1:]:
        target = case.target if "cut" in name else 1.05
        yield compared(f"{case.name}: {name}", seconds[name], seconds["dense"], target)
    macs = [multiplications(m, example) / 1e6 for m in (pair.smaller, pair.dense)]
    yield Row(f"{case.name}: multiply-accumulates", *macs, "M", macs[0] / macs[1])
