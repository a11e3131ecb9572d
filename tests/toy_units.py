"""LeNet-300-100 as a family of its own whose hidden neurons are units: ``toy-units``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lth_zoo import registry
from lth_zoo.adapters.cnn import CNN
from lth_zoo.prunable import Part, Units

MODEL = "toy-units"


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


@contextmanager
def registered() -> Iterator[None]:
    """Know the family inside."""
    registry.register("adapters", MODEL, ToyUnits)
    try:
        yield
    finally:
        registry.unregister("adapters", MODEL)
