"""Alignment: declared permutations keep every network's function; known ones are found again."""

from __future__ import annotations

import pytest
import torch
from toys import HERE, tiny_recipe

from lth_zoo import kinds
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.formats import load_masks
from lth_zoo.masks import Masks
from lth_zoo.permutations import Permutable, inverse, permutable, permuted
from lth_zoo.probes.align import _Sums, apart, correlations, matched
from lth_zoo.protocols import Signature, Task, adapter_of
from lth_zoo.prunable import Part
from lth_zoo.seeds import seeded
from lth_zoo.session import read_state
from lth_zoo.store import Store
from lth_zoo.studies.alignment import Alignment
from lth_zoo.studies.alignment_words import rows_of
from lth_zoo.studies.base import Measured
from lth_zoo.terms import Yardstick

SHAPES = {
    "lenet-300-100x0.2": (1, 8, 8),
    "lenet-5x0.3": (3, 16, 16),
    "lenet-5-samex0.5": (1, 8, 8),
    "conv-2x0.2": (3, 8, 8),
    "conv-6x0.1": (1, 8, 8),
    "vgg-11x0.1": (3, 16, 16),
    "resnet-20x0.5": (3, 8, 8),
    "resnet-32x0.25": (1, 8, 8),
    "judge": (1, 8, 8),
}


class Noise(Task):
    """Random images without labels: all that matching needs."""

    def __init__(self, shape):
        super().__init__("noise")
        self.images = torch.randn(200, *shape, generator=torch.Generator().manual_seed(0))

    def answers(self, model, batch, rng=None):
        return model(batch)


def network(name, shape, seed=0):
    """A network in evaluation mode whose norms have statistics of their own, few units dead."""
    with seeded(seed, "init"):
        model = adapter_of(name).build(name, Signature(shape, 10))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, 0.8, 1.2)
                torch.nn.init.normal_(module.running_mean, std=0.3)
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
            elif getattr(module, "bias", None) is not None:
                torch.nn.init.uniform_(module.bias, 0.5, 1.5)
    return model.eval()


def shuffles(spec):
    rng = torch.Generator().manual_seed(3)
    return [torch.randperm(units.count, generator=rng) for units in spec]


@pytest.mark.parametrize("name", SHAPES)
def test_reordered_units_compute_the_same_and_are_recovered_exactly(name):
    task, model = Noise(SHAPES[name]), network(name, SHAPES[name])
    spec = adapter_of(name).permutations(model)
    orders = shuffles(spec)
    assert any(not order.equal(torch.arange(len(order))) for order in orders)
    state = {n: t.clone() for n, t in model.state_dict().items()}
    other = network(name, SHAPES[name], seed=1)
    other.load_state_dict(permuted(state, spec, orders))
    batches = list(task.images.split(50))
    assert apart([model, other], task, batches[0]) < 1e-4
    for order, found in zip(orders, correlations([model, other], spec, task, batches), strict=True):
        alive = found.abs().amax(1) > 0  # units that answer nothing have no order to be found
        assert alive.double().mean() > 0.5
        assert matched(found)[alive].equal(order[alive])
    back = permuted(other.state_dict(), spec, [inverse(order) for order in orders])
    assert all(back[n].equal(t) for n, t in state.items())


@pytest.mark.parametrize("name", SHAPES)
def test_every_axis_of_a_hidden_layer_is_declared_once(name):
    model = network(name, SHAPES[name])
    declared = {}
    for units in adapter_of(name).permutations(model):
        for part in units.parts:
            assert (part.tensor, part.axis) not in declared
            declared[part.tensor, part.axis] = units.count * part.width
    state, prunable = model.state_dict(), adapter_of(name).prunable(model)
    first, *_, last = prunable
    expected = {(n, axis) for n in prunable for axis in (0, 1)}
    expected |= {(n, 0) for n, t in state.items() if t.dim() == 1}
    expected -= {(first, 1), (last, 0), (last.replace("weight", "bias"), 0)}
    assert set(declared) == expected
    assert all(state[n].shape[axis] == size for (n, axis), size in declared.items())


def test_masks_move_with_their_weights():
    name, shape = "lenet-5x0.3", SHAPES["lenet-5x0.3"]
    model = network(name, shape)
    spec = adapter_of(name).permutations(model)
    orders, state = shuffles(spec), model.state_dict()
    masks = Masks({n: state[n].abs() > 0.05 for n in adapter_of(name).prunable(model)})
    moved, weights = permuted(masks, spec, orders), permuted(state, spec, orders)
    assert all(moved[n].equal(weights[n].abs() > 0.05) for n in masks)
    assert Masks(moved).counts == masks.counts


def test_orders_and_widths_by_hand():
    # Two channels of two places each, read by a linear layer; channel 1 comes first.
    units = [Permutable("reader", "input", 2, (Part("w", 1, 2), Part("b", 0)))]
    found = permuted(
        {"w": torch.tensor([[1, 2, 3, 4]]), "b": torch.tensor([7, 8]), "other": torch.tensor(1)},
        units,
        [torch.tensor([1, 0])],
    )
    assert found["w"].tolist() == [[3, 4, 1, 2]]
    assert found["b"].tolist() == [8, 7]
    assert found["other"] == 1
    order = torch.tensor([2, 0, 1])
    assert order[inverse(order)].tolist() == [0, 1, 2]


def test_transposed_convolutions_have_their_outputs_on_the_second_axis():
    model = torch.nn.Sequential(torch.nn.ConvTranspose2d(2, 3, 2), torch.nn.Conv2d(3, 4, 1))
    (units,) = [permutable(model, ("0",), ("1",))]
    assert [(p.tensor, p.axis) for p in units.parts] == [
        ("0.weight", 1),
        ("0.bias", 0),
        ("1.weight", 1),
    ]
    assert (units.seen, units.side, units.count) == ("1", "input", 3)


def test_correlation_by_hand_and_the_best_match():
    # Units of 0: (1, 2, 3) and a constant; of 1: (3, 2, 1) and (2, 4, 6).
    sums = _Sums(2)
    a, b = torch.tensor([[1.0, 5], [2, 5], [3, 5]]), torch.tensor([[3.0, 2], [2, 4], [1, 6]])
    sums.add(a[:2], b[:2])
    sums.add(a[2:], b[2:])
    found = sums.correlation()
    assert torch.allclose(found, torch.tensor([[-1.0, 0], [1, 0]], dtype=torch.float64))
    assert matched(found).tolist() == [1, 0]  # place 1 takes unit 0: -0 + 1 beats -1 + 0


def test_a_job_reorders_masks_and_state_and_notes_that_the_function_stays(tmp_path):
    store = Store(tmp_path)
    probes = Alignment(points=("init",), batches=3).lay_out(tiny_recipe(sparsity=0.5), None)
    (align,) = (p.job for p in probes if p.of.get("what") == "align")
    assert not run([align, align.inputs["masks"]], store, HERE).failed
    found, entry = store.entry(align).json(), store.entry(align)
    assert found["difference"] < 1e-4
    assert 0.5 < found["moved"] <= 1
    assert all(group["matched"] > group["before"] for group in found["groups"])
    before = load_masks(store.entry(align.inputs["masks"]).read("masks.safetensors"))
    after = load_masks(entry.read("masks.safetensors"))
    assert after.counts == before.counts
    assert after != before
    trained = read_state(store.entry(align.inputs["state-0"])).state
    moved = read_state(entry).state["fc1.bias"]
    assert moved.sort().values.equal(trained["fc1.bias"].sort().values)
    assert kinds.outputs(align) == ("masks.safetensors", "state.safetensors")


def test_a_wrong_declaration_is_caught(tmp_path, monkeypatch):
    from lth_zoo.adapters.cnn import CNN

    whole = CNN.permutations

    def wrong(self, model):
        first, *rest = whole(self, model)
        return [Permutable(first.seen, first.side, first.count, first.parts[:1]), *rest]

    monkeypatch.setattr(CNN, "permutations", wrong)
    probes = Alignment(points=("init",)).lay_out(tiny_recipe(sparsity=0.5), None)
    (align,) = (p.job for p in probes if p.of.get("what") == "align")
    (error,) = run([align], Store(tmp_path), HERE).failed.values()
    assert "declares permutations that are not its own" in error


def test_all_masks_of_a_point_train_alike_from_the_other_network():
    probes = Alignment(points=("init", "step=3")).lay_out(tiny_recipe(sparsity=0.5), None)
    for point in (0, 3):
        jobs = {p.of["arm"]: p.job for p in probes if p.of.get("point") == point}
        assert list(jobs) == ["ticket", "permuted", "naive", "random"]
        starts = {arm: job.inputs["start"] for arm, job in jobs.items()}
        assert starts["permuted"] == starts["naive"] == starts["random"] != starts["ticket"]
        assert jobs["naive"].inputs["masks"] == jobs["ticket"].inputs["masks"]
        assert jobs["permuted"].inputs["masks"].kind == "align"
        assert {job.config["begin"] for job in jobs.values()} == {point}
        assert len({job.config["seed"] for job in jobs.values()}) == 1
    first = jobs["naive"].inputs["start"].inputs["start"]
    assert first.config["draw"] == 1


def test_the_gap_that_is_closed_by_hand():
    def runs(arm, values):
        for seed, value in enumerate(values):
            result = {"metrics": {"test": {"accuracy": value}}}
            of = {"arm": arm, "point": 0, "level": 1, "seed": seed}
            yield Measured(of, result, None)  # type: ignore[arg-type]

    arms = {"ticket": (90, 91, 92), "naive": (80, 81.5, 82), "permuted": (85, 86, 87)}
    measured = [m for arm, values in arms.items() for m in runs(arm, values)]
    rows = {row["arm"]: row for row in rows_of(measured, Yardstick("accuracy", True, 1.0))}
    # naive is 81.1667, ticket 91, permuted 86: 4.8333 of 9.8333
    assert rows["permuted"]["closed"] == pytest.approx(4.8333 / 9.8333, abs=1e-4)
    assert rows["permuted"]["difference"] == pytest.approx(4.8333, abs=1e-4)
    assert "difference" not in rows["naive"]


def test_what_cannot_be_is_said_before_anything_runs():
    with pytest.raises(BadInput, match=r"batches is 0"):
        Alignment(batches=0)
    with pytest.raises(BadInput, match=r"toys:custom.*declares none.*resnet-N"):
        Alignment().lay_out(tiny_recipe(model="toys:custom"), None)
    with pytest.raises(BadInput, match=r"no ticket"):
        Alignment().lay_out(tiny_recipe(sparsity=0.0), None)
