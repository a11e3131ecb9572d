"""Networks by name: sizes, shapes, initial draws, and models of the user's own."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from lth_zoo.adapters.cnn import CNN, parse
from lth_zoo.errors import BadInput
from lth_zoo.protocols import Signature, adapter_of, default_prunable
from lth_zoo.seeds import seeded

GREY = Signature((1, 28, 28), 10)
COLOUR = Signature((3, 32, 32), 10)
TINY = Signature((1, 8, 8), 10)
CHEAP = ("lenet-300-100", "lenet-5", "conv-4x0.25", "vgg-11x0.1", "resnet-20", "judge")


def build(name: str, signature: Signature = COLOUR, seed: int = 0) -> nn.Module:
    with seeded(seed, "init"):
        return adapter_of(name).build(name, signature)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def weights(model: nn.Module) -> int:
    return sum(model.get_parameter(name).numel() for name in default_prunable(model))


def resnet_weights(depth: int, channels: int, classes: int, width: int = 1) -> int:
    """Count from the definition: the first layer, n blocks a stage, two projections, the head."""
    wide, n = [16 * width, 32 * width, 64 * width], (depth - 2) // 6
    total = 9 * channels * wide[0] + wide[2] * classes
    for before, after in zip([wide[0], *wide], wide, strict=False):
        total += 9 * before * after + (2 * n - 1) * 9 * after**2
        total += before * after if before != after else 0
    return total


def vgg_weights(convolutions: list[int], classes: int) -> int:
    return sum(9 * a * b for a, b in zip([3, *convolutions], convolutions, strict=False)) + (
        convolutions[-1] * classes
    )


@pytest.mark.parametrize(
    ("name", "signature", "prunable", "everything"),
    [
        ("lenet-300-100", GREY, 266_200, 266_610),
        ("lenet-5", GREY, 430_500, 431_080),
        ("lenet-5-same", GREY, 150 + 2400 + 784 * 120 + 120 * 84 + 840, 107_786),
        ("lenet-300-100x2", GREY, 784 * 600 + 600 * 200 + 2000, 593_210),
        # Frankle & Carbin (2019), figure 2, print 4.3 M, 2.4 M and, unlike its layers, 1.7 M.
        ("conv-2", COLOUR, 38_592 + 256 * (16_384 + 256 + 10), 4_301_642),
        ("conv-4", COLOUR, 259_776 + 256 * (8_192 + 256 + 10), 2_425_930),
        ("conv-6", COLOUR, 1_144_512 + 256 * (4_096 + 256 + 10), 2_262_602),
        ("vgg-16", COLOUR, vgg_weights([64] * 2 + [128] * 2 + [256] * 3 + [512] * 6, 10), None),
        ("vgg-11", COLOUR, vgg_weights([64, 128] + [256] * 2 + [512] * 4, 10), None),
        ("vgg-13", COLOUR, vgg_weights([64] * 2 + [128] * 2 + [256] * 2 + [512] * 4, 10), None),
        ("vgg-19", COLOUR, vgg_weights([64] * 2 + [128] * 2 + [256] * 4 + [512] * 8, 10), None),
        # Frankle & Carbin's 270 K convolution weights, and the head's 640.
        ("resnet-20", COLOUR, 270_256 + 640, 272_474),
        *(
            (f"resnet-{d}", COLOUR, resnet_weights(d, 3, 10), None)
            for d in (8, 14, 26, 32, 44, 56, 110)
        ),
        ("resnet-20x4", COLOUR, resnet_weights(20, 3, 10, 4), None),
        ("judge", GREY, 9 * 16 + 9 * 16 * 32 + 7 * 7 * 32 * 64 + 64 * 10, 105_914),
    ],
)
def test_sizes_are_the_published_ones(name, signature, prunable, everything):
    with torch.device("meta"):
        model = adapter_of(name).build(name, signature)
    assert weights(model) == prunable
    if everything is None:  # all but the weights: two a batch norm channel, biases of the head
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        everything = prunable + sum(2 * m.num_features for m in norms) + signature.output
    assert parameters(model) == everything


@pytest.mark.parametrize("name", CNN.models)
@pytest.mark.parametrize("signature", [GREY, COLOUR, Signature((3, 32, 32), 100)], ids=str)
def test_every_model_answers_every_image_size(name, signature):
    with torch.device("meta"):
        model = adapter_of(name).build(name, signature)
        assert model(torch.empty(2, *signature.input)).shape == (2, signature.output)


@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2", "conv-6", "resnet-20", "judge"])
def test_digits_fit_what_pools_at_most_three_times(name):
    assert build(name, TINY)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", ["lenet-5", "conv-8", "vgg-11"])
def test_too_small_an_image_is_named_with_the_smallest(name):
    with pytest.raises(BadInput, match=r"at least 16x16, the task's are 8x8"):
        build(name, TINY)
    assert build(name, Signature((1, 16, 16), 10))(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


def test_vectors_fit_lenet_300_100_alone():
    assert build("lenet-300-100", Signature((20,), 3))(torch.zeros(2, 20)).shape == (2, 3)
    with pytest.raises(BadInput, match=r"takes images .* not inputs of \(20,\)"):
        build("conv-2", Signature((20,), 3))


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet-21", "resnet-20"), ("lenet-300", "lenet-300-100"), ("vgg16", "vgg-16")],
)
def test_unknown_names_meet_near_ones(name, near):
    with pytest.raises(BadInput, match=f"unknown model '{name}'; did you mean .*'{near}'"):
        adapter_of(name)


@pytest.mark.parametrize("width", ["x", "x0", "x04", "x0.50", "x4.0", "x-1", "x1e2", "x4 ", "X4"])
def test_widths_have_one_spelling(width):
    assert not CNN().owns(f"resnet-20{width}")
    with pytest.raises(BadInput):
        parse(f"resnet-20{width}")


def test_widths_parse():
    assert parse("conv-4x0.25") == ("conv-4", 0.25)
    assert parse("resnet-110x16") == ("resnet-110", 16)
    assert parse("vgg-16") == ("vgg-16", 1)
    assert build("resnet-20x1.5").fc.in_features == 96


@pytest.mark.parametrize("name", CHEAP)
def test_the_seed_decides_the_draw(name):
    first, same, other = (build(name, seed=s).state_dict() for s in (0, 0, 1))
    assert all(first[key].equal(same[key]) for key in first)
    assert not any(first[key].equal(other[key]) for key in default_prunable(build(name)))


@pytest.mark.parametrize("name", CHEAP)
def test_reset_draws_what_build_draws(name):
    model, adapter = build(name), adapter_of(name)
    for buffer in model.buffers():
        buffer.add_(1)
    with seeded(1, "init"):
        adapter.reset(model, name, COLOUR)
    assert all(
        a.equal(b)
        for a, b in zip(
            model.state_dict().values(), build(name, seed=1).state_dict().values(), strict=True
        )
    )


@pytest.mark.parametrize("name", CHEAP)
def test_models_are_plain_modules(name):
    model = build(name)
    twin = copy.deepcopy(model)
    batch = torch.randn(2, *COLOUR.input)
    expected = model.eval()(batch)
    assert twin.eval()(batch).equal(expected)
    loaded = build(name, seed=1).eval()
    loaded.load_state_dict(model.state_dict())
    assert loaded(batch).equal(expected)
    exported = torch.export.export(model, (batch,)).module()  # one graph: no break to compile
    torch.testing.assert_close(exported(batch), expected)


def test_lenet_layers_have_the_names_of_the_paper():
    model = build("lenet-300-100", GREY)
    assert list(default_prunable(model)) == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert [p.role for p in default_prunable(model).values()] == ["linear", "linear", "output"]


@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2"])
def test_glorot_normal_with_zero_biases(name):
    model = build(name)
    fan = sum(nn.init._calculate_fan_in_and_fan_out(model.fc1.weight))
    assert model.fc1.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.01)
    assert model.fc1.weight.abs().max() > 3 * math.sqrt(2 / fan)  # normal: not cut off
    assert not any(m.bias.any() for m in model.modules() if hasattr(m, "bias"))


@pytest.mark.parametrize("name", ["vgg-11x0.5", "resnet-20"])
def test_he_normal_with_uniform_batch_norm(name):
    model = build(name)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    largest = max(convolutions, key=lambda m: m.weight.numel())
    fan = nn.init._calculate_fan_in_and_fan_out(largest.weight)[0]
    assert largest.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.02)
    norms = torch.cat([m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert norms.min() >= 0
    assert norms.max() < 1
    assert norms.mean().item() == pytest.approx(0.5, abs=0.05)


def test_listing_names_loads_no_torch():
    code = """
        import sys
        import lth_zoo.adapters.cnn, lth_zoo.adapters.custom, lth_zoo.tasks.vision
        import lth_zoo.tasks.embedded
        heavy = {"torch", "numpy", "sklearn", "datasets"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
