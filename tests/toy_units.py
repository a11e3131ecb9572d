"""Families whose hidden neurons are units: LeNet-300-100 as ``toy-units``, and ``toy-norms``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lth_zoo import registry
from lth_zoo.adapters.cnn import CNN
from lth_zoo.protocols import Adapter
from lth_zoo.prunable import Part, Units, channels_under

MODEL, NORMED = "toy-units", "toy-norms"


class ToyUnits(CNN):
    """30 neurons, then 10 units of another role, with 64 inputs and 10 classes on digits."""

    models = (MODEL,)

    def owns(self, name):
        return name == MODEL

    def build(self, name, signature):
        return super().build("lenet-300-100x0.1", signature)

    def units(self, model):
        first, second, last = (f"fc{i}.weight" for i in (1, 2, 3))
        return [
            Units("fc1", "neuron", 0, 30, (Part(first, 0), Part(second, 1))),
            Units("fc2", "channel", 1, 10, (Part(second, 0), Part(last, 1))),
        ]


class ToyNorms(Adapter):
    """The same sizes with batch norm over both hidden layers; the second has large scales."""

    models = (NORMED,)

    def build(self, name, signature):
        wide, narrow = nn.BatchNorm1d(30), nn.BatchNorm1d(10)
        nn.init.uniform_(wide.weight)
        nn.init.constant_(narrow.weight, 10)
        layers = [nn.Flatten(), nn.Linear(64, 30), wide, nn.ReLU()]
        layers += [nn.Linear(30, 10), narrow, nn.ReLU(), nn.Linear(10, signature.output)]
        return nn.Sequential(*layers)

    def units(self, model):
        prunable = self.prunable(model)
        places = (("1", "2", "4"), ("4", "5", "7"))
        return [channels_under(model, prunable, *modules) for modules in places]


@contextmanager
def registered() -> Iterator[None]:
    """Know the families inside."""
    families = {MODEL: ToyUnits, NORMED: ToyNorms}
    for name, family in families.items():
        registry.register("adapters", name, family)
    try:
        yield
    finally:
        for name in families:
            registry.unregister("adapters", name)
