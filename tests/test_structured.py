"""Structured tickets: whole heads and neurons, by hand and on a tiny BERT."""

from __future__ import annotations

import copy
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
import toy_units
from hf_models import FAMILIES, FFN, HEADS, HIDDEN, LAYERS, tiny_model
from torch import nn
from toys import HERE, tiny_recipe

from lth_zoo.adapters.blocks import prunable_of
from lth_zoo.adapters.blocks import units_of as units_of_model
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import Structured
from lth_zoo.formats import load_masks
from lth_zoo.jobs import graph
from lth_zoo.masks import Masks
from lth_zoo.prunable import Part, Units
from lth_zoo.searches.structured import (
    alive_in,
    importances,
    keep_units,
    magnitudes,
    normalised,
    removable,
    shares_of,
    spread,
)
from lth_zoo.seeds import seeded
from lth_zoo.session import MASKS, RESULT
from lth_zoo.store import Store


class Pair(nn.Module):
    """Two linear layers of whole numbers, two hidden neurons, nothing between them."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        self.load_state_dict(
            {
                "one.weight": torch.tensor([[1.0, 2], [3, 4]]),
                "two.weight": torch.tensor([[2.0, -1]]),
            }
        )

    def forward(self, x):
        return self.two(self.one(x))


PAIR = Units("one", "neuron", 0, 2, (Part("one.weight", 0), Part("two.weight", 1)))


def summed(model, batch):
    return model(batch).sum()


def test_importance_by_hand():
    # Neurons answer 1 and 3 to (1, 0), and 2 and 4 to (0, 1), and are read by 2 and -1.
    batches = [torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1], [0, -1], [0, -1]])]
    (found,) = importances(Pair(), [PAIR], batches, summed)
    assert found.tolist() == [(2 + 4) / 2, (3 + 4) / 2]
    assert normalised(torch.tensor([3.0, 4.0])).allclose(torch.tensor([0.6, 0.8]))
    assert normalised(torch.zeros(2)).tolist() == [0, 0]
    with pytest.raises(BadInput, match="there are none"):
        importances(Pair(), [PAIR], [], summed)


def test_magnitude_by_hand():
    (found,) = magnitudes(Pair(), [PAIR])
    assert found.square().tolist() == pytest.approx([1 + 4 + 4, 9 + 16 + 1])


# -- BERT -------------------------------------------------------------------------------------


def tiny_bert():
    with seeded(0, "init"):
        return tiny_model("bert").eval()


def units_of(layers=LAYERS):
    """The heads and neurons of a BERT, by its published names."""
    width, found = HIDDEN // HEADS, []
    for i in range(layers):
        at = f"bert.encoder.layer.{i}."
        heads = [Part(f"{at}attention.self.{n}.weight", 0, width) for n in ("query", "key")]
        heads.append(Part(f"{at}attention.self.value.weight", 0, width))
        heads.append(Part(f"{at}attention.output.dense.weight", 1, width))
        found.append(Units(f"{at}attention", "head", 2 * i, HEADS, tuple(heads)))
        ffn = Part(f"{at}intermediate.dense.weight", 0), Part(f"{at}output.dense.weight", 1)
        found.append(Units(f"{at}ffn", "neuron", 2 * i + 1, FFN, ffn))
    return found


def tokens(seed):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 64, (3, 7), generator=rng), torch.randint(0, 2, (3,), generator=rng)


def bert_loss(model, batch):
    return model(input_ids=batch[0], labels=batch[1]).loss


def gate(unit, xi):
    """Multiply each unit's output by its xi, before the projection that reads it."""
    part = unit.parts[-1]

    def before(module, args):
        return (args[0] * xi.repeat_interleave(part.width),)

    return part.tensor.removesuffix(".weight"), before


def test_importance_is_the_slope_at_a_gate():
    model, units, batches = tiny_bert(), units_of(), [tokens(1), tokens(2)]
    found = importances(model, units, batches, bert_loss)
    for unit, score in zip(units, found, strict=True):
        xi = torch.ones(unit.count, requires_grad=True)
        layer, before = gate(unit, xi)
        handle = model.get_submodule(layer).register_forward_pre_hook(before)
        slopes = [torch.autograd.grad(bert_loss(model, b), xi)[0].abs() for b in batches]
        handle.remove()
        assert score.min() > 0
        torch.testing.assert_close(score.float(), sum(slopes) / 2, rtol=1e-4, atol=1e-8)


def pruned(model, share, keep_one=True):
    units = units_of()
    whole = Masks.ones(model, {p.tensor for u in units for p in u.parts})
    counts = shares_of(units, {"*": share}, keep_one)
    kept = keep_units(magnitudes(model, units), units, counts, None, keep_one)
    return units, kept, spread(kept, units, whole)


def test_a_unit_goes_whole_or_not_at_all():
    units, kept, masks = pruned(tiny_bert(), "1/2")
    assert sum(kept[f"head:{u.layer}"].sum() for u in units if u.role == "head") == 2
    assert sum(kept[f"neuron:{u.layer}"].sum() for u in units if u.role == "neuron") == FFN
    for unit in units:
        for part in unit.parts:
            lines = masks[part.tensor].movedim(part.axis, 0).reshape(unit.count, -1)
            assert lines.any(1).equal(lines.all(1))
            assert lines.all(1).equal(kept[f"{unit.role}:{unit.layer}"])
    # Every head is as large as every other, so is every neuron: half the units, half the weights.
    assert masks.density == 0.5
    assert alive_in(units, masks) == kept


def test_a_removed_unit_is_truly_unused():
    model = tiny_bert()
    units, kept, masks = pruned(model, "1/2")
    masks.apply_(model)
    expected = model(input_ids=tokens(3)[0]).logits
    for unit in units:
        removed = (~kept[f"{unit.role}:{unit.layer}"]).nonzero().reshape(-1).tolist()
        noisy = copy.deepcopy(model)
        with torch.no_grad():
            for part in unit.parts[:-1]:  # whatever feeds a removed unit, its bias included
                bias = noisy.get_parameter(part.tensor.replace(".weight", ".bias"))
                for u in removed:
                    place = slice(u * part.width, (u + 1) * part.width)
                    noisy.get_parameter(part.tensor)[place] = 3.0
                    bias[place] = -2.0
        assert removed or unit.role == "head"
        assert noisy(input_ids=tokens(3)[0]).logits.equal(expected)
    # The same change on units that stay is seen.
    loud = copy.deepcopy(model)
    with torch.no_grad():
        loud.get_parameter(units[1].parts[0].tensor).add_(1.0)
    assert not loud(input_ids=tokens(3)[0]).logits.equal(expected)


def noised(model, units, kept):
    """The model with other weights in all that feeds the units that are kept, or are not."""
    noisy = copy.deepcopy(model)
    with torch.no_grad():
        for unit in units:
            for part in unit.parts[:-1]:
                lines = noisy.get_parameter(part.tensor).movedim(part.axis, 0)
                chosen = kept[f"{unit.role}:{unit.layer}"].repeat_interleave(part.width)
                lines[chosen.nonzero().reshape(-1) + part.offset] = 3.0
    return noisy


@pytest.mark.parametrize("family", FAMILIES)
def test_removed_units_of_every_family_are_unused(family):
    with seeded(0, "init"):
        model = tiny_model(family).eval()
    prunable = prunable_of(model)
    units = removable(units_of_model(model), prunable)
    counts = shares_of(units, {"*": "1/2"})
    assert set(counts) == {"head", "neuron"}
    kept = keep_units(magnitudes(model, units), units, counts)
    masks = spread(kept, units, Masks.ones(model, prunable))
    assert masks.density == 0.5
    masks.apply_(model)
    text = {"input_ids": torch.tensor([[5, 9, 13, 40, 7, 1], [2, 30, 31, 32, 6, 1]])}
    image = {"pixel_values": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    batch = image if family == "vit" else text
    with torch.no_grad():
        expected = model(**batch).logits
        assert noised(model, units, ~kept)(**batch).logits.equal(expected)
        assert not noised(model, units, kept)(**batch).logits.equal(expected)


def test_fused_tensors_are_cut_at_their_offsets():
    """Two heads of width 2 in one matrix of queries, keys and values, as (input, output)."""
    parts = [Part("qkv", 1, 2, offset) for offset in (0, 4, 8)] + [Part("out", 0, 2)]
    unit = Units("attention", "head", 0, 2, tuple(parts))
    whole = Masks(
        {n: torch.ones(s, dtype=torch.bool) for n, s in {"qkv": (3, 12), "out": (4, 3)}.items()}
    )
    kept = Masks({"head:attention": torch.tensor([False, True])})
    masks = spread(kept, [unit], whole)
    assert masks["qkv"].int().tolist() == [[0, 0, 1, 1] * 3] * 3
    assert masks["out"].int().tolist() == [[0] * 3] * 2 + [[1] * 3] * 2
    assert whole.density == 1
    assert alive_in([unit], masks) == kept


# -- selection --------------------------------------------------------------------------------


def layer(name, count, role="neuron"):
    return Units(name, role, 0, count, (Part(f"{name}.weight", 0),))


def kept_of(scores, counts, **options):
    units = [layer(name, len(s)) for name, s in scores.items()]
    values = [torch.tensor(s) for s in scores.values()]
    kept = keep_units(values, units, counts, **options)
    return {n.removeprefix("neuron:"): m.int().tolist() for n, m in kept.items()}


def test_units_compete_over_layers_and_no_layer_is_emptied():
    scores = {"a": [9.0, 8.0, 7.0], "b": [1.0, 3.0, 2.0]}
    assert kept_of(scores, {"neuron": 3}, keep_one=False) == {"a": [1, 1, 1], "b": [0, 0, 0]}
    assert kept_of(scores, {"neuron": 3}) == {"a": [1, 1, 0], "b": [0, 1, 0]}
    assert kept_of(scores, {"neuron": 2}) == {"a": [1, 0, 0], "b": [0, 1, 0]}
    same = {"a": [0.0, 0.0], "b": [0.0, 0.0]}
    assert kept_of(same, {"neuron": 2}) == {"a": [1, 0], "b": [1, 0]}
    negative = {"a": [-1.0, -5.0], "b": [-9.0, -8.0]}
    assert kept_of(negative, {"neuron": 2}) == {"a": [1, 0], "b": [0, 1]}


def test_units_that_are_gone_stay_gone():
    alive = Masks({"neuron:a": torch.tensor([False, True]), "neuron:b": torch.tensor([True, True])})
    scores = {"a": [9.0, 1.0], "b": [2.0, 3.0]}
    assert kept_of(scores, {"neuron": 2}, alive=alive) == {"a": [0, 1], "b": [0, 1]}
    with pytest.raises(BadInput, match="cannot keep 4 of 3"):
        kept_of(scores, {"neuron": 4}, alive=alive)


def test_counts_are_exact_for_each_role():
    units = [layer("a", 5), layer("b", 5), layer("c", 4, "head"), layer("d", 4, "head")]
    assert shares_of(units, {"*": "1/4"}) == {"neuron": 3, "head": 2}  # 2.5 goes up
    assert shares_of(units, {"*": "1/2", "head": "3/4"}) == {"neuron": 5, "head": 6}
    assert shares_of(units, {"*": "0"}, keep_one=False) == {"neuron": 0, "head": 0}
    with pytest.raises(BadInput, match=r"0.1 of 10 neurons is 1, fewer than one for each of 2"):
        shares_of(units, {"*": "1/10"})


def test_what_cannot_be_removed_whole_stays():
    unit = PAIR
    assert removable([unit], ["one.weight", "two.weight", "x"]) == [unit]
    with pytest.raises(BadInput, match="lie in layers that the recipe does not prune"):
        removable([unit], ["one.weight"])
    with pytest.raises(BadInput, match="of this model are not known"):
        removable([], ["one.weight"])


# -- the finder -------------------------------------------------------------------------------


@pytest.fixture
def toys():
    with toy_units.registered():
        yield


def found(folder, finder, **fields):
    fields = {"sparsity": 0.5, "training": {"iterations": 4}, "model": toy_units.MODEL} | fields
    laid, store = experiment(tiny_recipe(finder=finder, **fields)), Store(folder)
    assert run(laid.goals, store, HERE).failed == {}
    jobs = [arm.level.masks for arm in laid.arms if arm.level.masks]
    return [(load_masks(store.entry(j).read(MASKS)), store.entry(j).json(RESULT)) for j in jobs]


def test_small_shares_level_by_level(tmp_path, toys):
    finder = Structured(levels=4, heads=0.5)
    assert finder.shares(1, Fraction(1, 5)) == {"head": "7/8", "*": "4/5"}
    assert finder.shares(4, Fraction(1, 5)) == {"head": "1/2", "*": "1/5"}
    levels = found(tmp_path, Structured(levels=3, neurons=0.3))
    units = [result["units"] for _, result in levels]
    assert [u["neuron"] for u in units] == [{"fc1": [n, 30]} for n in (27, 24, 21)]
    assert [u["channel"] for u in units] == [{"fc2": [n, 10]} for n in (8, 7, 5)]
    for (wide, _), (narrow, result) in pairwise(levels):
        assert (narrow & wide) == narrow
        assert result["density"] == narrow.density


def test_scores_differ_and_chance_is_drawn_by_the_seed(tmp_path, toys):
    scores = ("importance", "magnitude", "random")
    masks = {s: found(tmp_path, Structured(score=s))[0][0] for s in scores}
    other = found(tmp_path, Structured(score="random"), seeds=(1,))[0][0]
    assert len({m.digest() for m in [*masks.values(), other]}) == 4
    assert {m.kept for m in masks.values()} == {1085}


def test_at_the_start_nothing_is_trained_for_the_mask(toys):
    for after, trainings in (("start", 0), ("training", 1)):
        laid = experiment(
            tiny_recipe(finder=Structured(after=after), model=toy_units.MODEL, sparsity=0.5)
        )
        jobs = graph([arm.level.masks for arm in laid.arms if arm.level.masks])
        assert sum(job.kind == "train" for job in jobs) == trainings


def test_the_bad_subnetwork_is_the_inverted_one(tmp_path, toys):
    fields = {"controls": ("inverted",), "seeds": (0,)}
    (good, _), (bad, _) = found(tmp_path, Structured(), **fields)
    assert not (good & bad)["fc1.weight"].any()
    assert good.kept == bad.kept


def test_bad_input(tmp_path, toys):
    for values, message in (
        ({"heads": 1.0}, r"finder.heads is 1.0; it must be in \[0, 1\)"),
        ({"neurons": -0.1}, "finder.neurons is -0.1"),
        ({"levels": 0}, "finder.levels is 0; it must be at least 1"),
        ({"batches": 0}, "finder.batches is 0"),
    ):
        with pytest.raises(BadInput, match=message):
            Structured(**values)
    for fields, message in (
        ({"model": "lenet-300-100x0.1"}, "heads and neurons of this model are not known"),
        ({"exclude": ("fc2",)}, "lie in layers that the recipe does not prune"),
        ({"sparsity": 0.99}, "0.01 of 30 neurons is 0, fewer than one for each of 1 layers"),
    ):
        with pytest.raises(BadInput, match=message):  # before anything is trained
            found(tmp_path, Structured(), **fields)
    found(tmp_path, Structured(keep_one=False, after="start"), sparsity=0.95)
