"""Whole units cut out of a module: it answers, learns and resumes as the masked one does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from toys import same

from lth_zoo.compact import compact, expand, narrow
from lth_zoo.masks import Masks
from lth_zoo.protocols import Signature, adapter_of
from lth_zoo.prunable import Part, Units, channels_under, default_prunable
from lth_zoo.rewind import Snapshot, clone_state, load_optimizer, optimizer_tensors
from lth_zoo.searches.structured import keep_units, shares_of, spread
from lth_zoo.seeds import seeded
from lth_zoo.widths import parameters_of

NETWORKS = [("vgg-11x0.25", 16), ("resnet-20x0.5", 8)]


class Maker(nn.Module):
    """A linear layer into a map, batch norm, a transposed convolution, and a linear layer back."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(5, 6 * 4)
        self.norm1 = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 8, 4, 2, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.read = nn.Linear(8 * 16, 3)

    def forward(self, x):
        x = F.relu(self.norm1(self.project(x).unflatten(1, (-1, 2, 2))))
        return self.read(F.leaky_relu(self.norm2(self.up(x)), 0.2).flatten(1))

    def units(self):
        prunable = default_prunable(self)
        places = (("project", "norm1", "up"), ("up", "norm2", "read"))
        return [channels_under(self, prunable, *modules) for modules in places]


def made(name, side):
    """A model that has run a while, its units, and a batch."""
    with seeded(0, "init"):
        if name == "maker":
            model, inputs = Maker(), torch.randn(16, 5)
            units = model.units()
        else:
            adapter = adapter_of(name)
            model = adapter.build(name, Signature((1, side, side), 3))
            units, inputs = adapter.units(model), torch.rand(16, 1, side, side)
        for tensor in model.state_dict().values():
            if tensor.dim() == 1:  # norms that are not at their start
                tensor.uniform_(0.2, 1.0)
    return model, units, (inputs, torch.arange(16) % 3)


def test_a_gan_is_cut_in_both_networks():
    """The generator ends where the discriminator begins: both learn, each by its own loss."""
    adapter, signature = adapter_of("dcgan-8x0.1"), Signature((1, 16, 16), 256, "images")
    with seeded(0, "init"):
        model, noise = adapter.build("dcgan-8x0.1", signature), torch.randn(12, 8)
    images, units = torch.rand(12, 1, 16, 16), adapter.units(model)
    layers = ["discriminator.stages.1.conv", "generator.project", "generator.stages.0.conv"]
    assert sorted(unit.layer for unit in units) == layers
    masks = halved(model, units)
    smaller, plan = compact(model, masks, units)
    assert parameters_of(smaller) < 0.6 * parameters_of(model)
    assert adapter.macs(smaller, images[:1]).keys() == masks.keys()
    started(smaller, model, plan)
    masks.apply_(model)
    for twin, bound in ((model, masks.on(model)), (smaller, None)):
        for _ in range(5):
            fake = twin.generator(noise).sigmoid()
            scores = twin.discriminator(images), twin.discriminator(fake)
            (F.softplus(-scores[0]).mean() + F.softplus(scores[1]).mean()).backward()
            if bound:
                bound.grads_()
            with torch.no_grad():
                for name, parameter in twin.named_parameters():
                    parameter -= (-0.05 if name.startswith("gen") else 0.05) * parameter.grad
                    parameter.grad = None
    assert close(narrow(Snapshot(clone_state(model)), plan).state, clone_state(smaller), 1e-4)
    with torch.no_grad():
        twins = [m.eval().generator(noise) for m in (model, smaller)]
    assert torch.allclose(*twins, rtol=0, atol=1e-4)


def halved(model, units, share="1/2"):
    """Masks that leave a share of the channels, by chance."""
    rng = torch.Generator().manual_seed(0)
    scores = [torch.rand(unit.count, generator=rng) for unit in units]
    kept = keep_units(scores, units, shares_of(units, {"*": share}))
    return spread(kept, units, Masks.ones(model, default_prunable(model)))


def started(smaller, model, plan):
    smaller.load_state_dict(narrow(Snapshot(clone_state(model)), plan).state)
    return smaller


def learn(model, batch, optimizer, masks=None, steps=5):
    """Five steps; the last loss and gradients."""
    inputs, labels = batch
    bound = masks.on(model) if masks else None
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        if bound:
            bound.grads_()
        optimizer.step()
    return loss


def close(a, b, within):
    return all(torch.allclose(a[n].double(), b[n].double(), 0, within) for n in a)


@pytest.mark.parametrize(("name", "side"), [*NETWORKS, ("maker", 0)])
def test_it_answers_and_learns_as_the_masked_model_does(name, side):
    model, units, batch = made(name, side)
    masks = halved(model, units)
    smaller, plan = compact(model, masks, units)
    assert plan.masks is None
    assert parameters_of(smaller) < 0.75 * parameters_of(model)
    started(smaller, model, plan)
    masks.apply_(model)
    for training in (False, True):
        twins = [copy.deepcopy(m).train(training)(batch[0]) for m in (model, smaller)]
        assert torch.allclose(*twins, rtol=0, atol=1e-5)

    optimizers = [torch.optim.SGD(m.parameters(), 0.02, momentum=0.9) for m in (model, smaller)]
    loss = learn(model, batch, optimizers[0], masks)
    assert torch.allclose(learn(smaller, batch, optimizers[1]), loss, rtol=0, atol=1e-4)
    ours = narrow(Snapshot(clone_state(model)), plan).state
    assert close(ours, clone_state(smaller), 1e-4)
    assert close(
        {n: p.grad for n, p in smaller.named_parameters()},
        narrow(Snapshot({n: p.grad for n, p in model.named_parameters()}), plan).state,
        1e-4,
    )
    whole = copy.deepcopy(model)
    whole.load_state_dict(expand(smaller.state_dict(), plan))
    twins = [m.eval()(batch[0]) for m in (whole, model, smaller)]
    assert torch.allclose(twins[0], twins[2], rtol=0, atol=1e-5)
    assert torch.allclose(twins[1], twins[2], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [*NETWORKS, ("maker", 0)])
def test_expanding_puts_values_among_zeros(name, side):
    model, units, _ = made(name, side)
    masks = halved(model, units)
    smaller, plan = compact(model, masks, units)
    state = {n: t.clone() for n, t in smaller.state_dict().items()}
    whole = expand(state, plan)
    assert {n: t.shape for n, t in whole.items()} == {
        n: t.shape for n, t in model.state_dict().items()
    }
    assert same(narrow(Snapshot(whole), plan).state, state)
    for entry, mask in masks.items():
        assert not whole[entry][~mask].any()
        assert whole[entry].count_nonzero() == state[entry].count_nonzero()
    for unit in units:
        gone = plan.lines[unit.scale][0].logical_not()
        for part in unit.beside:
            assert not part.rows(unit.count, whole[part.tensor])[gone].any()
    # The values are the model's own, and the model is as it was.
    assert same(narrow(Snapshot(clone_state(model)), plan).state, state)


@pytest.mark.parametrize(("name", "side"), NETWORKS)
def test_layers_know_their_new_sizes(name, side):
    model, units, _ = made(name, side)
    smaller, plan = compact(model, halved(model, units), units)
    for module in smaller.modules():
        if isinstance(module, nn.Conv2d):
            assert (module.out_channels, module.in_channels) == module.weight.shape[:2]
        elif isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == module.weight.shape
        elif isinstance(module, nn.BatchNorm2d):
            assert {module.num_features} == {len(t) for t in (module.weight, module.running_var)}
    assert all(p.requires_grad and p.is_leaf for p in smaller.parameters())
    adapter, image = adapter_of(name), torch.zeros(1, 1, side, side)
    dense, cut = (sum(adapter.macs(m, image).values()) for m in (model, smaller))
    kept = {n: [int(s.sum()) / len(s) for s in axes.values()] for n, axes in plan.lines.items()}
    expected = sum(
        count * torch.tensor(kept.get(n, [1.0])).prod().item()
        for n, count in adapter.macs(model, image).items()
    )
    assert cut == pytest.approx(expected)
    assert cut < 0.75 * dense


def test_the_stream_between_blocks_is_untouched():
    model, units, _ = made("resnet-20x0.5", 8)
    assert [unit.layer for unit in units] == [f"blocks.{i}.conv1" for i in range(9)]
    smaller, plan = compact(model, halved(model, units), units)
    ours, theirs = smaller.state_dict(), model.state_dict()
    changed = {n.rpartition(".")[0] for n in ours if ours[n].shape != theirs[n].shape}
    inner = {f"blocks.{i}.{layer}" for i in range(9) for layer in ("conv1", "bn1", "conv2")}
    assert changed == inner
    for i in range(9):
        # The second convolution reads fewer channels, and writes as many as before.
        (axis,) = plan.lines[f"blocks.{i}.conv2.weight"]
        assert axis == 1


def test_every_convolution_of_vgg_is_read_by_the_next():
    _, units, _ = made("vgg-11x0.25", 16)
    convs = [f"features.{i}" for i in (0, 4, 8, 11, 15, 18, 22, 25)]
    assert [unit.layer for unit in units] == convs
    assert [unit.parts[1].tensor for unit in units] == [
        *(f"{conv}.weight" for conv in convs[1:]),
        "fc.weight",
    ]
    assert [unit.depth for unit in units] == list(range(8))
    assert {len(unit.beside) for unit in units} == {4}
    assert adapter_of("conv-2").units(made("maker", 0)[0]) == []


def test_an_optimiser_goes_on_in_the_smaller_module():
    model, units, batch = made("maker", 0)
    learn(model, batch, adam := torch.optim.Adam(model.parameters(), 0.01))
    names = {p: n for n, p in model.named_parameters()}
    tensors = optimizer_tensors(adam, names, "loss:")
    masks = halved(model, units)
    smaller, plan = compact(model, masks, units)
    cut = narrow(Snapshot(clone_state(model), 5, tensors, {"up.bias": model.up.bias}), plan)
    assert cut.iteration == 5
    assert len(cut.average["up.bias"]) == smaller.up.out_channels
    started(smaller, model, plan)
    masks.apply_(model)
    masks.on(model).state_(adam)
    again = torch.optim.Adam(smaller.parameters(), 0.01)
    ours = {p: n for n, p in smaller.named_parameters()}
    load_optimizer(again, ours, cut.optimizer, "loss:")
    for parameter in smaller.parameters():
        assert again.state[parameter]["exp_avg"].shape == parameter.shape
    learn(model, batch, adam, masks)
    learn(smaller, batch, again)
    expected = narrow(Snapshot(clone_state(model)), plan).state
    assert close(expected, clone_state(smaller), 1e-4)


def test_an_optimiser_that_factors_its_state_is_cut_too():
    model, units, batch = made("maker", 0)
    learn(model, batch, factored := torch.optim.Adafactor(model.parameters()))
    names = {p: n for n, p in model.named_parameters()}
    smaller, plan = compact(model, halved(model, units), units)
    cut = narrow(Snapshot(clone_state(model), 5, optimizer_tensors(factored, names, "loss:")), plan)
    again = torch.optim.Adafactor(smaller.parameters())
    load_optimizer(again, {p: n for n, p in smaller.named_parameters()}, cut.optimizer, "loss:")
    learn(started(smaller, model, plan), batch, again)


# -- what stays ------------------------------------------------------------------------------


def test_weights_pruned_inside_what_stays_are_still_masked():
    model, units, batch = made("maker", 0)
    masks = halved(model, units)
    rng = torch.Generator().manual_seed(1)
    some = Masks({n: m & (torch.rand(m.shape, generator=rng) < 0.8) for n, m in masks.items()})
    edges = Masks({"graph/edges": torch.ones(4, dtype=torch.bool)})
    smaller, plan = compact(model, some.joined(edges), units)
    assert list(plan.masks) == ["graph/edges", "project.weight", "read.weight", "up.weight"]
    assert plan.masks.kept == some.kept
    assert plan.masks.size == masks.kept < some.size
    started(smaller, model, plan)
    some.apply_(model)
    plan.masks.apply_(smaller)
    assert torch.allclose(smaller(batch[0]), model(batch[0]), rtol=0, atol=1e-5)


def test_masks_of_single_weights_cut_nothing():
    model, units, _ = made("maker", 0)
    rng = torch.Generator().manual_seed(1)
    whole = Masks.ones(model, default_prunable(model))
    some = Masks({n: torch.rand(m.shape, generator=rng) < 0.5 for n, m in whole.items()})
    for masks in (some, whole, None):
        smaller, plan = compact(model, masks, units)
        assert same(smaller.state_dict(), model.state_dict())
        assert not plan.lines
        assert (plan.masks == some) if masks is some else plan.masks is None
    # A channel that nobody reads any more still learns where it is made: it is not gone.
    unread = Masks({**whole, "up.weight": whole["up.weight"].clone()})
    unread["up.weight"][2] = False
    assert not compact(model, unread, units)[1].lines


def test_the_last_of_a_layer_stays():
    model, units, batch = made("maker", 0)
    none = Masks({n: ~m for n, m in Masks.ones(model, default_prunable(model)).items()})
    smaller, plan = compact(model, none, units)
    assert [len(smaller.norm1.weight), len(smaller.norm2.weight)] == [1, 1]
    assert plan.masks.kept == 0
    none.apply_(model)
    plan.masks.apply_(smaller)
    assert torch.allclose(smaller(batch[0]), model(batch[0]), rtol=0, atol=1e-5)


def spectral(model):
    spectral_norm(model.up)


def tied(model):
    model.other = model.up


def subclassed(model):
    class Linear(nn.Linear):
        pass

    read = Linear(8 * 16, 3)
    read.load_state_dict(model.read.state_dict())
    model.read = read


def uncovered(units):
    return [Units(u.layer, u.role, u.depth, u.count, u.parts, u.scale, u.beside[1:]) for u in units]


@pytest.mark.parametrize("change", [spectral, tied, subclassed])
def test_what_cannot_be_cut_is_masked(change):
    model, _, batch = made("maker", 0)
    change(model)
    prunable = default_prunable(model)
    places = (("project", "norm1", "up"), ("up", "norm2", "read"))
    units = [channels_under(model, prunable, *modules) for modules in places]
    masks = halved(model, units)
    smaller, plan = compact(model, masks, units)
    assert not any(n.startswith(("norm2", "read", "up.bias")) for n in plan.lines)
    assert ("norm1.weight" in plan.lines) is (change is subclassed)
    assert plan.masks is not None
    started(smaller, model, plan)
    masks.apply_(model)
    plan.masks.apply_(smaller)
    twins = [m.eval()(batch[0]) for m in (model, smaller)]
    assert torch.allclose(*twins, rtol=0, atol=1e-5)


def test_units_whose_slices_are_not_all_known_are_masked():
    model, units, _ = made("maker", 0)
    masks = halved(model, units)
    assert units[0].beside[0] == Part("project.bias", 0, 4)
    _, plan = compact(model, masks, uncovered(units))  # the biases are missing
    assert not plan.lines
    assert plan.masks == masks
    # A layer that the recipe leaves dense keeps its inputs, and so its reader's channels.
    _, plan = compact(model, masks.without("read.weight"), units)
    assert set(plan.lines) == {p.tensor for p in (*units[0].parts, *units[0].beside)}


def test_grouped_channels_are_masked():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, groups=4, bias=False)
    )
    beside = tuple(Part(f"1.{n}", 0) for n in ("weight", "bias", "running_mean", "running_var"))
    unit = Units(
        *("0", "channel", 0, 4, (Part("0.weight", 0), Part("2.weight", 0))),
        *("1.weight", (Part("0.bias", 0), *beside)),
    )
    masks = Masks.ones(model, ["0.weight", "2.weight"])
    masks["0.weight"][1], masks["2.weight"][1] = False, False
    assert not compact(model, masks, [unit])[1].lines
