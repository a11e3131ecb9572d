"""Autoencoders, VAEs and GANs: sizes, names, what may be pruned, and tickets that move."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from test_enforced import residue
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from toys import pruned_are_zero, same, some_masks

from lth_zoo.adapters.generative import DESIGNS, Generative, channels_of, parse
from lth_zoo.adapters.generative_networks import spectral
from lth_zoo.errors import BadInput
from lth_zoo.masks import Masks
from lth_zoo.protocols import Signature, adapter_of, default_prunable
from lth_zoo.seeds import seeded

SHAPES = {"digits": (1, 8, 8), "grey": (1, 28, 28), "colour": (3, 32, 32)}


def images(shape=SHAPES["digits"]):
    return Signature(shape, math.prod(shape), "images")


def build(name, shape=SHAPES["digits"], seed=0):
    with seeded(seed, "init"):
        return adapter_of(name).build(name, images(shape))


def small(base, latent=6):
    return build(f"{base}-{latent}x0.1")


def networks(model):
    return [name for name, _ in model.named_children()]


#: name -> latent size, and parameters of both networks for the three shapes, in thousands.
SIZES = {
    "ae-linear": (32, 25, 210, 798),
    "ae-conv": (128, 396, 1871, 2367),
    "vae": (64, 1251, 3463, 6832),
    "beta-vae": (64, 1251, 3463, 6832),
    "resnet-vae": (128, 1284, 3502, 2504),
    "dcgan": (64, 1121, 1869, 5791),
    "wgan-gp": (64, 1120, 1869, 5790),
    "sngan": (128, 3679, 5165, 5329),
    "resnet-gan": (128, 1742, 2485, 2257),
}


@pytest.mark.parametrize("base", DESIGNS)
def test_sizes_are_those_that_the_class_prints(base):
    latent, *thousands = SIZES[base]
    for shape, count in zip(SHAPES.values(), thousands, strict=True):
        model = build(base, shape)
        assert model.latent == latent
        assert round(sum(p.numel() for p in model.parameters()) / 1000) == count
        row = next(line for line in Generative.__doc__.splitlines() if line.split()[:1] == [base])
        assert row.split()[-3:] == [f"{n:,}" for n in thousands]


def test_sizes_by_hand():
    # DCGAN for 32x32: 512 channels of 4x4, then 256, 128 and the image, and the way back.
    generator = 64 * 512 * 16 + 16 * (512 * 256 + 256 * 128 + 128 * 3) + 2 * (512 + 256 + 128) + 3
    critic = 16 * (3 * 128 + 128 * 256 + 256 * 512) + 128 + 2 * (256 + 512) + 512 * 16 + 1
    model = build("dcgan", SHAPES["colour"])
    assert [sum(p.numel() for p in n.parameters()) for n in model.children()] == [generator, critic]


@pytest.mark.parametrize("shape", [*SHAPES.values(), (2, 16, 12)], ids=str)
@pytest.mark.parametrize("base", DESIGNS)
def test_a_model_is_two_networks_of_known_shapes(base, shape):
    model = build(f"{base}-6x0.05", shape)
    x, z = torch.rand(2, *shape), torch.randn(2, 6)
    design = DESIGNS[base]
    assert (model.kind, model.latent) == (design.kind, 6)
    if model.kind == "gan":
        assert networks(model) == ["generator", "discriminator"]
        assert model.generator(z).shape == (2, *shape)
        assert model.discriminator(x).shape == model(x).shape == (2,)
        assert model.loss in ("hinge", "non-saturating", "wasserstein")
        assert model.critic_steps == (5 if base in ("sngan", "wgan-gp") else 1)
    else:
        assert networks(model) == ["encoder", "decoder"]
        assert model.encoder(x).shape == (2, 12 if model.kind == "vae" else 6)
        assert model.decoder(z).shape == model(x).shape == (2, *shape)
        assert model.loss == ("bernoulli" if shape[0] == 1 else "gaussian")
        assert model.beta == (4.0 if base == "beta-vae" else 1.0)
    assert not list(model.buffers(recurse=False))
    assert not list(model.parameters(recurse=False))
    assert model.generator(z).isfinite().all() if model.kind == "gan" else True


@pytest.mark.parametrize("base", DESIGNS)
def test_what_reads_images_is_fed_their_distance_from_grey(base):
    model = small(base)
    seen = []
    first = default_prunable(model)
    place = next(p.layer for p in first.values() if p.layer.startswith(("encoder", "discrim")))
    model.get_submodule(place).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    black = torch.zeros(2, 1, 8, 8)
    (model.discriminator if model.kind == "gan" else model.encoder)(black)
    assert (seen[0] == -1).all()


def test_a_reconstruction_is_that_of_the_mean():
    model = small("vae").eval()
    with torch.no_grad():
        model.encoder.read.weight[6:].normal_()  # the log-variances
    x = torch.rand(3, 1, 8, 8)
    mean = model.encoder(x)[:, :6]
    assert model(x).equal(model.decoder(mean))


def test_batch_norm_is_where_the_papers_have_it():
    norms = {b: [m.num_features for m in critic_norms(small(b))] for b in DESIGNS if "gan" in b}
    assert norms == {
        "dcgan": [26],
        "wgan-gp": [],
        "sngan": [],
        "resnet-gan": [],
    }


def critic_norms(model):
    return [m for m in model.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]


# -- names -----------------------------------------------------------------------------------


def test_names_hold_the_latent_size_and_the_width():
    for name, latent, width in [
        ("vae", 64, 1.0),
        ("dcgan-100", 100, 1.0),
        ("dcgan-64x0.25", 64, 0.25),
        ("snganx0.5", 128, 0.5),
        ("ae-linear-8x2", 8, 2.0),
    ]:
        assert parse(name) == (DESIGNS[name.rstrip("-.x0123456789")], latent, width)
        assert type(adapter_of(name)) is Generative
    wide, plain = build("resnet-gan-4x0.5"), build("resnet-gan-4x0.25")
    assert wide.generator.image.weight.shape == (1, 64, 3, 3)
    assert plain.generator.image.weight.shape == (1, 32, 3, 3)


@pytest.mark.parametrize("name", ["vea", "vae-0", "vae-064", "vaex0", "vaex1.0", "vae-4-8", "vae-"])
def test_a_name_that_is_none_is_answered_with_the_nearest(name):
    assert not Generative().owns(name)
    with pytest.raises(BadInput, match=r"did you mean .*'vae'"):
        parse(name)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (Signature((1, 8, 8), 10), r"asks for classes: .* generation/.* family cnn"),
        (Signature((6,), 3, "nodes"), r"asks for nodes: .* family gnn"),
        (Signature((128,), 2, "span"), r"asks for span: .* family bert"),
        (images((1, 6, 8)), r"multiples of 4 from 8 up.* \(1, 6, 8\)"),
        (images((1, 4, 8)), r"multiples of 4 from 8 up.* \(1, 4, 8\)"),
        (images((64,)), r"images \(channels, height, width\).* \(64,\)"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(signature, message):
    with pytest.raises(BadInput, match=message):
        Generative().build("dcgan-4x0.1", signature)
    if len(signature.input) == 3 and signature.answer == "images":
        assert Generative().build("ae-linear-4", signature)(torch.rand(2, *signature.input)).shape


# -- what may be pruned ------------------------------------------------------------------------


@pytest.mark.parametrize("base", DESIGNS)
def test_every_layer_of_both_networks_may_be_pruned(base):
    model, adapter = small(base), Generative()
    clean = residue(model)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    prunable = adapter.prunable(model)
    assert same(before, model.state_dict()), "looking changes nothing"
    assert list(dict.fromkeys(p.role for p in prunable.values())) == networks(model)
    assert all(n.startswith(f"{p.role}.") for n, p in prunable.items())
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    assert [p.layer for p in prunable.values()] == [
        n for n, m in model.named_modules() if isinstance(m, layers)
    ]
    for name, entry in prunable.items():
        transposed = isinstance(model.get_submodule(entry.layer), nn.ConvTranspose2d)
        assert entry.axis == (1 if transposed else 0)
        assert model.get_parameter(name).dim() >= 2, "no bias, no norm"
    rest = [n for n, p in model.named_parameters() if n not in prunable]
    assert all(model.get_parameter(n).dim() == 1 for n in rest)
    assert adapter.head(model) == frozenset()
    macs = adapter.macs(model, adapter.example(images()))
    assert macs.keys() == prunable.keys()
    assert min(macs.values()) > 0
    assert residue(model) == clean


def test_multiply_accumulates_of_both_networks_by_hand():
    # 13 and 26 channels; 2x2, 4x4 and 8x8 places. A transposed convolution's input is the smaller.
    model = small("dcgan")
    assert Generative().macs(model, torch.zeros(1, 1, 8, 8)) == {
        "generator.project.weight": 6 * 26 * 4,
        "generator.stages.0.conv.weight": 4 * 26 * 13 * 16,
        "generator.stages.1.conv.weight": 16 * 13 * 16,
        "discriminator.stages.0.conv.weight": 16 * 13 * 16,
        "discriminator.stages.1.conv.weight": 4 * 13 * 26 * 16,
        "discriminator.read.weight": 26 * 4,
    }


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_outputs_of_a_transposed_convolution_lie_along_axis_one(kind):
    model = nn.Sequential(kind(5, 7, 3), nn.Conv1d(7, 2, 1))
    found = default_prunable(model)
    assert [(n, p.axis, p.role) for n, p in found.items()] == [
        ("0.weight", 1, "conv"),
        ("1.weight", 0, "output"),
    ]
    assert model.get_parameter("0.weight").shape[found["0.weight"].axis] == 7


@pytest.mark.parametrize(
    ("norm", "raw"),
    [
        (spectral_norm, "parametrizations.weight.original"),
        (torch.nn.utils.spectral_norm, "weight_orig"),
    ],
)
def test_under_spectral_norm_the_raw_weight_is_pruned(norm, raw):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), norm(nn.Linear(3, 2))).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    found = default_prunable(model)
    assert list(found) == ["0.weight", f"2.{raw}"]
    assert [p.layer for p in found.values()] == ["0", "2"]
    assert same(before, model.state_dict()), "no power iteration has run"
    masks = some_masks(model)
    masks.apply_(model)
    model(torch.rand(2, 2, 3, 3))
    assert (model[2].weight[~masks[f"2.{raw}"]] == 0).all(), "what the layer multiplies with"


@pytest.mark.parametrize(
    "norm",
    [
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.orthogonal,
        lambda layer: spectral_norm(torch.nn.utils.parametrizations.orthogonal(layer)),
    ],
)
def test_a_weight_computed_in_another_way_is_refused(norm):
    with pytest.raises(BadInput, match=r"weight of \w*Linear is computed from other tensors"):
        default_prunable(nn.Sequential(norm(nn.Linear(3, 3))))


# -- spectral norm -----------------------------------------------------------------------------


def test_every_layer_of_the_discriminator_has_spectral_norm_and_no_other():
    model = build("sngan-6x0.1")
    raw = [n for n in Generative().prunable(model) if n.endswith(".original")]
    assert raw == [n for n, p in Generative().prunable(model).items() if p.role == "discriminator"]
    with torch.no_grad():
        model.discriminator.read.parametrizations.weight.original.mul_(5)
    model.train()
    for _ in range(30):
        model.discriminator(torch.rand(4, 1, 8, 8))
    weight = model.eval().discriminator.read.weight
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, rel=1e-4)


def test_the_vectors_of_the_power_iteration_are_state_and_come_back_to_the_bit():
    model, x = small("sngan").train(), torch.rand(4, 1, 8, 8)
    vectors = [n for n in model.state_dict() if n.endswith(("._u", "._v"))]
    assert len(vectors) == 2 * sum(n.endswith(".original") for n in model.state_dict())
    states = [copy.deepcopy(model.state_dict())]
    for _ in range(2):
        model.discriminator(x)
        states.append(copy.deepcopy(model.state_dict()))
    inner = [n for n in vectors if "conv2" in n]  # others may have rank 1: those vectors stand
    for before, after in pairwise(states):
        assert not any(before[n].equal(after[n]) for n in inner)
    scores = model.eval().discriminator(x)
    other = build("sngan-6x0.1", seed=1)
    other.load_state_dict(states[-1])
    assert same(other.state_dict(), states[-1])
    assert other.eval().discriminator(x).equal(scores)
    other.train().discriminator(x)
    model.train().discriminator(x)
    assert same(other.state_dict(), model.state_dict())


def test_spectral_norm_is_torchs_own_and_an_emptied_layer_stays_zero():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    for layer, norm in ((ours, spectral), (theirs, spectral_norm)):
        torch.manual_seed(1)
        norm(layer)
    for _ in range(3):
        assert ours.weight.equal(theirs.weight)
    assert same(ours.state_dict(), theirs.state_dict())
    with torch.no_grad():
        ours.parametrizations.weight.original.zero_()
    for _ in range(2):
        ours(torch.rand(3, 5)).sum().backward()
        assert (ours.weight == 0).all()
    assert (ours.parametrizations.weight.original.grad == 0).all()
    assert all(t.isfinite().all() for t in ours.state_dict().values())


@pytest.mark.parametrize("base", DESIGNS)
def test_twenty_steps_of_adam_on_both_networks_keep_zeros(base):
    model = small(base).train()
    masks, start = some_masks(model), copy.deepcopy(model)
    optimizers = [torch.optim.Adam(n.parameters(), 0.01, (0.5, 0.9)) for n in model.children()]
    with masks.enforced(model):
        for _ in range(20):
            for optimizer in optimizers:
                optimizer.zero_grad()
                z, x = torch.randn(4, 6), torch.rand(4, 1, 8, 8)
                if model.kind == "gan":
                    answer = model.discriminator(model.generator(z).sigmoid())
                    answer = answer - model.discriminator(x)
                else:
                    answer = model(x)
                answer.square().mean().backward()
                optimizer.step()
                assert pruned_are_zero(model, masks)
    for name, mask in masks.items():
        changed = model.get_parameter(name) != start.get_parameter(name)
        assert changed[mask].any(), name


# -- tickets that move ---------------------------------------------------------------------------


@pytest.mark.parametrize(("auto", "gan"), [("vae", "dcgan"), ("resnet-vae", "resnet-gan")])
def test_a_decoder_is_the_generator_of_the_gan_of_its_kind(auto, gan):
    decoder, generator = build(auto).decoder, build(gan).generator
    assert type(decoder) is type(generator)
    assert DESIGNS[auto].latent == DESIGNS[gan].latent
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (decoder, generator)]
    assert shapes[0] == shapes[1]


def ticket(model, seed=0):
    prunable = Generative().prunable(model)
    rng = torch.Generator().manual_seed(seed)
    return Masks(
        {n: torch.rand(model.get_parameter(n).shape, generator=rng) < 0.5 for n in prunable}
    )


@pytest.mark.parametrize(
    ("source", "target"),
    [("vae", "dcgan"), ("beta-vae", "wgan-gp"), ("resnet-vae", "resnet-gan"), ("dcgan", "vae")],
)
def test_a_ticket_of_a_decoder_lands_on_a_generator_and_back(source, target):
    adapter, ours, theirs = Generative(), small(source), small(target)
    masks = ticket(ours)
    carried = adapter.carry(masks, theirs)
    maker, other = ("decoder", "generator") if ours.kind == "vae" else ("generator", "decoder")
    assert {n.partition(".")[0] for n in carried} == {other}
    assert set(carried) == {n for n, p in adapter.prunable(theirs).items() if p.role == other}
    for name, mask in carried.items():
        assert mask.equal(masks[name.replace(other, maker)])
    if source != "beta-vae":  # the critic's names apart
        back = adapter.carry(carried, ours)
        assert back == Masks({n: m for n, m in masks.items() if n.startswith(maker)})


def test_a_ticket_of_the_same_networks_is_carried_whole():
    adapter = Generative()
    for name in ("sngan", "vae", "ae-linear"):
        masks = ticket(small(name))
        assert adapter.carry(masks, build(f"{name}-6x0.1", seed=3)) == masks
        assert adapter.fit(masks, small(name)) == masks
    both = ticket(small("wgan-gp"))
    assert adapter.carry(both, small("dcgan")) == both


def test_fitting_renames_and_leaves_nothing_out():
    masks = ticket(small("vae"))
    fitted = Generative().fit(masks, small("dcgan"))
    assert len(fitted) == len(masks)
    assert {n.partition(".")[0] for n in fitted} == {"encoder", "generator"}
    assert Generative().fit(masks, nn.Sequential(nn.Linear(2, 2))) == masks


@pytest.mark.parametrize("target", ["vae-9x0.1", "dcgan-9x0.1"])
def test_another_latent_size_is_one_clear_error(target):
    with pytest.raises(BadInput, match=r"^latent 6 in the ticket, 9 in the model"):
        Generative().carry(ticket(small("vae")), build(target))


@pytest.mark.parametrize(
    ("masks", "target", "message"),
    [
        ("dcgan-6x0.2", "dcgan-6x0.1", r"conv.weight is \(\d+.*\) in the ticket, \(\d+.*\) in the"),
        ("vae-6x0.1", "resnet-gan-6x0.1", r"missing in the model"),
        ("ae-linear-6x0.1", "dcgan-6x0.1", r"is \(\d+, \d+\) in the ticket"),
    ],
)
def test_a_ticket_of_another_shape_is_refused(masks, target, message):
    with pytest.raises(BadInput, match=message):
        Generative().carry(ticket(build(masks)), build(target))


def test_a_ticket_of_no_network_of_the_model_is_refused():
    masks = ticket(small("vae"))
    encoder = masks.without(*(n for n in masks if n.startswith("decoder")))
    said = "nothing of the ticket fits: it has masks of the encoder, .* the generator and the discr"
    with pytest.raises(BadInput, match=said):
        Generative().carry(encoder, small("dcgan"))
    assert Generative().carry(encoder, small("beta-vae")) == encoder


# -- channels ----------------------------------------------------------------------------------

UNITS = {
    "ae-linear": 0,
    "ae-conv": 1 + 2,
    "vae": 1 + 2,
    "beta-vae": 1 + 2,
    "resnet-vae": 2 + 2,
    "dcgan": 2 + 1,
    "wgan-gp": 2,
    "sngan": 2,
    "resnet-gan": 2,
}


def shrink(model, units, kept):
    """Take the channels that are not kept out of a model's tensors."""
    for unit in units:
        stay = kept[unit.layer]
        for part in (*unit.parts, *unit.beside):
            place, _, tensor = part.tensor.rpartition(".")
            module = model.get_submodule(place)
            old = getattr(module, tensor)
            index = stay.repeat_interleave(part.width).nonzero().flatten()
            new = old.detach().index_select(part.axis, index)
            setattr(module, tensor, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)


@torch.no_grad()
def noisy(model):
    """Give biases and norms values of their own, the running statistics too; no tiny weights."""
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1 and tensor.is_floating_point() and "parametrizations" not in name:
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() > 1:
            tensor.uniform_(-0.3, 0.3)
    return model.eval()


@pytest.mark.parametrize("base", DESIGNS)
def test_a_channel_without_weights_and_norm_is_a_channel_removed(base):
    model = noisy(small(base))
    units = Generative().units(model)
    assert len(units) == UNITS[base]
    assert [u.layer for u in units] == [c.made for c in channels_of(model)]
    rng = torch.Generator().manual_seed(0)
    kept = {u.layer: torch.rand(u.count, generator=rng) < 0.6 for u in units}
    zeroed, smaller = copy.deepcopy(model), copy.deepcopy(model)
    for unit in units:
        assert unit.role == "channel"
        assert unit.count == model.get_parameter(unit.scale).numel()
        for part in (*unit.parts, *unit.beside):
            tensor = zeroed.state_dict()[part.tensor]
            assert tensor.shape[part.axis] == unit.count * part.width
            part.rows(unit.count, tensor)[~kept[unit.layer]]  # the sizes fit
            lines = tensor.movedim(part.axis, 0)
            if "running" not in part.tensor:
                lines[~kept[unit.layer].repeat_interleave(part.width)] = 0
    shrink(smaller, units, kept)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (zeroed, smaller)]
    assert sizes[1] < sizes[0] or not units
    x, z = torch.rand(3, 1, 8, 8), torch.randn(3, 6)
    made, read = ("generator", "discriminator") if model.kind == "gan" else ("decoder", "encoder")
    for network, inputs in ((made, z), (read, x)):
        before, after, whole = (m.get_submodule(network)(inputs) for m in (zeroed, smaller, model))
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
        if any(u.layer.startswith(network) for u in units):
            assert not torch.allclose(after, whole, rtol=1e-3)


def test_a_channel_that_a_linear_layer_makes_or_reads_spans_every_place():
    units = {u.layer: u for u in Generative().units(build("dcgan-6x0.1", (1, 28, 28)))}
    project = units["generator.project"]
    assert [(p.tensor, p.axis, p.width) for p in project.parts] == [
        ("generator.project.weight", 0, 49),
        ("generator.stages.0.conv.weight", 0, 1),
    ]
    last = units["discriminator.stages.1.conv"]
    assert [(p.tensor, p.axis, p.width) for p in last.parts] == [
        ("discriminator.stages.1.conv.weight", 0, 1),
        ("discriminator.read.weight", 1, 49),
    ]
