"""Ten families of Transformers: what is pruned, its roles, and where heads and neurons lie."""

from __future__ import annotations

import copy

import pytest
import torch
from hf_models import FAMILIES, FFN, HEADS, HIDDEN, LAYERS, tiny_config, tiny_model
from torch import nn

from lth_zoo.adapters import blocks
from lth_zoo.adapters.bert import Bert
from lth_zoo.errors import BadInput
from lth_zoo.seeds import seeded

#: family -> (base, block, attention layers, feed-forward layers), the blocks in module order
BERT = (
    *("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
)
T5_FF = "DenseReluDense.wi", "DenseReluDense.wo"
TABLE = {
    "bert": ("bert.", "encoder.layer.{}.", BERT, ("intermediate.dense", "output.dense")),
    "roberta": ("roberta.", "encoder.layer.{}.", BERT, ("intermediate.dense", "output.dense")),
    "electra": ("electra.", "encoder.layer.{}.", BERT, ("intermediate.dense", "output.dense")),
    "distilbert": (
        "distilbert.",
        "transformer.layer.{}.",
        tuple(f"attention.{x}_lin" for x in ("q", "k", "v", "out")),
        ("ffn.lin1", "ffn.lin2"),
    ),
    "albert": (
        "albert.",
        "encoder.albert_layer_groups.{}.albert_layers.0.",
        tuple(f"attention.{x}" for x in ("query", "key", "value", "dense")),
        ("ffn", "ffn_output"),
    ),
    "deberta-v2": (
        "deberta.",
        "encoder.layer.{}.",
        (*(f"attention.self.{x}_proj" for x in ("query", "key", "value")), BERT[-1]),
        ("intermediate.dense", "output.dense"),
    ),
    "modernbert": ("model.", "layers.{}.", ("attn.Wqkv", "attn.Wo"), ("mlp.Wi", "mlp.Wo")),
    "gpt2": ("transformer.", "h.{}.", ("attn.c_attn", "attn.c_proj"), ("mlp.c_fc", "mlp.c_proj")),
    "vit": (
        "vit.",
        "layers.{}.",
        tuple(f"attention.{x}_proj" for x in "qkvo"),
        ("mlp.fc1", "mlp.fc2"),
    ),
}
#: weights of the blocks by hand; attention has 4 squares, the feed-forward part 2 oblongs
SQUARE, OBLONG = HIDDEN * HIDDEN, HIDDEN * FFN
WEIGHTS = dict.fromkeys(FAMILIES, 2 * (4 * SQUARE + 2 * OBLONG)) | {
    "albert": 4 * SQUARE + 2 * OBLONG,  # one group, used twice
    "modernbert": 2 * (4 * SQUARE + 3 * OBLONG),  # gated
    "t5": 2 * (4 * SQUARE + 2 * OBLONG) + 2 * (8 * SQUARE + 2 * OBLONG),  # the decoder reads too
}
POOLERS = {"bert": "bert.pooler.dense", "albert": "albert.pooler", "deberta-v2": "pooler.dense"}


def expected(family):
    """Return name -> (role, depth) of a tiny model, from the table above."""
    if family == "t5":
        return {
            f"transformer.{stack}.block.{i}.layer.{layer}.{tensor}.weight": (role, i + first)
            for stack, first, parts in (
                ("encoder", 0, [("SelfAttention", "qkvo"), ("", T5_FF)]),
                (
                    "decoder",
                    2,
                    [("SelfAttention", "qkvo"), ("EncDecAttention", "qkvo"), ("", T5_FF)],
                ),
            )
            for i in range(2)
            for layer, (attention, tensors) in enumerate(parts)
            for role in ["attention" if attention else "ffn"]
            for tensor in (f"{attention}.{t}" if attention else t for t in tensors)
        }
    base, block, attention, ffn = TABLE[family]
    return {
        f"{base}{block.format(i)}{tensor}.weight": (role, i)
        for i in range(1 if family == "albert" else 2)
        for role, tensors in (("attention", attention), ("ffn", ffn))
        for tensor in tensors
    }


def wide_model(family, **settings):
    """Return a tiny model whose weights are large enough for every one to show in the output."""
    with seeded(0, "init"):
        model = tiny_model(family, **settings)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(std=0.4)
    return model.eval()


def inputs_of(family):
    rng = torch.Generator().manual_seed(3)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=rng)}
    ids = torch.randint(4, 50, (2, 9), generator=rng)
    ids[:, -1] = 1  # T5 reads its answer off the end token
    return {"input_ids": ids}


@torch.no_grad()
def output(model, family):
    return model(**inputs_of(family)).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_names_roles_and_depths_are_those_of_the_table(family):
    model = tiny_model(family)
    found = Bert().prunable(model)
    assert {n: (p.role, p.depth) for n, p in found.items()} == expected(family)
    order = [n for n, _ in model.named_parameters(remove_duplicate=False) if n in found]
    assert list(found) == order, "in module order"
    assert sum(model.get_parameter(n).numel() for n in found) == WEIGHTS[family]
    assert all(f"{p.layer}.weight" == n for n, p in found.items())
    assert {p.axis for p in found.values()} == {1 if family == "gpt2" else 0}


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "vit"])
def test_the_set_does_not_depend_on_the_head(family):
    base = blocks.prunable_of(tiny_model(family, "base"))
    prefix = blocks.prefix_of(tiny_model(family))
    for answer in ("classes", "span", *(["tokens"] if family not in ("t5", "gpt2") else [])):
        model = tiny_model(family, answer)
        # T5's model for spans keeps its base's modules beside the head.
        given = "" if (family, answer) == ("t5", "span") else prefix
        assert blocks.prefix_of(model) == given
        assert [n.removeprefix(given) for n in blocks.prunable_of(model)] == list(base)
        assert not blocks.prunable_of(model).keys() & blocks.head_of(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_all_that_is_not_the_base(family):
    model = tiny_model(family)
    head, base = Bert().head(model), set(tiny_model(family, "base").state_dict())
    rest = {n.removeprefix(blocks.prefix_of(model)) for n in model.state_dict().keys() - head}
    assert head
    assert rest <= base
    lacking = {n.partition(".")[0] for n in base - rest}
    assert lacking <= {"pooler"}
    if family == "t5":
        assert Bert().head(tiny_model("t5", "span")) == {"qa_outputs.weight", "qa_outputs.bias"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pooler_is_optional_wherever_it_is(family):
    layers = [p.layer for p in Bert().optional(tiny_model(family)).values()]
    assert layers == ([POOLERS[family]] if family in POOLERS else [])
    if family in ("bert", "albert", "deberta-v2"):
        assert Bert().optional(tiny_model(family, "tokens")) == {}


def test_an_embedding_and_a_tensor_of_two_layers_are_counted_once_or_not_at_all():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(6, 4)
            self.outside = nn.Linear(4, 4)
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.tied = nn.ModuleList([nn.Linear(4, 6)])
            self.layers[2].weight = self.layers[0].weight
            self.tied[0].weight = self.words.weight

    assert list(blocks.prunable_of(Net())) == ["layers.0.weight", "layers.1.weight"]


def test_a_model_without_blocks_is_refused_with_what_it_has():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.LayerNorm(2))
    with pytest.raises(BadInput, match="ModuleList of Sequential, found 1 LayerNorm, 2 Linear"):
        Bert().prunable(model)


# -- units ------------------------------------------------------------------------------------

SMOOTH = {"feed_forward_proj": "gelu"}  # of relu's neurons some are dead
VARIANTS = [(family, SMOOTH if family == "t5" else {}) for family in FAMILIES] + [
    ("t5", {"feed_forward_proj": "gated-gelu"}),
    ("t5", {"d_kv": 4, **SMOOTH}),  # heads narrower than the model
    ("deberta-v2", {"share_att_key": False}),
    ("albert", {"inner_group_num": 2}),
    ("albert", {"num_hidden_groups": 2}),
]
SIZES = {"head": HEADS, "neuron": FFN}


def lines(model, part, unit):
    """Return the slice of a tensor that is a unit's, as a view."""
    at = part.offset + unit * part.width
    return model.get_parameter(part.tensor).detach().narrow(part.axis, at, part.width)


@pytest.mark.parametrize(("family", "settings"), VARIANTS, ids=str)
def test_a_unit_is_exactly_what_its_last_slice_reads(family, settings):
    model = wide_model(family, **settings)
    units = Bert().units(model)
    prunable = Bert().prunable(model)
    assert {part.tensor for u in units for part in u.parts} == prunable.keys()
    assert [u.count for u in units] == [SIZES[u.role] for u in units]
    before = output(model, family)
    assert before.isfinite().all()
    for u in units:
        unit, (*makers, reader) = u.count - 1, u.parts
        pruned, changed = copy.deepcopy(model), copy.deepcopy(model)
        lines(pruned, reader, unit).zero_()
        removed = output(pruned, family)
        assert not removed.equal(before), "the unit does something"
        for part in makers:
            lines(pruned, part, unit).normal_()
            lines(changed, part, unit).normal_()
        assert output(pruned, family).equal(removed), u
        assert not output(changed, family).equal(before), u


@pytest.mark.parametrize(("family", "settings"), VARIANTS, ids=str)
def test_units_cover_every_prunable_weight_once(family, settings):
    model = tiny_model(family, **settings)
    times = {n: torch.zeros(model.get_parameter(n).shape) for n in Bert().prunable(model)}
    for u in Bert().units(model):
        for unit in range(u.count):
            for part in u.parts:
                at = part.offset + unit * part.width
                times[part.tensor].narrow(part.axis, at, part.width).add_(1)
    assert all((t == 1).all() for t in times.values())


def test_layers_whose_units_cannot_be_told_apart_are_left_out():
    small = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "vocab_size": 30}
    shared = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    for family, settings, roles in (
        ("llama", shared, ["neuron", "neuron"]),  # two heads to one key
        ("gpt_neox", {"num_attention_heads": 2}, ["neuron", "neuron"]),  # q, k, v head by head
    ):
        from transformers import AutoConfig, AutoModelForSequenceClassification

        config = AutoConfig.for_model(family, **small, **settings)
        model = AutoModelForSequenceClassification.from_config(config)
        assert {p.role for p in Bert().prunable(model).values()} == {"attention", "ffn"}
        assert [u.role for u in Bert().units(model)] == roles


def test_positions_are_counted_as_the_family_does():
    most = {f: blocks.positions_of(tiny_model(f)) for f in FAMILIES if f != "vit"}
    assert most.pop("t5") is None
    assert most.pop("roberta") == 49  # its first place is that of the padding
    assert set(most.values()) == {48}
    relative = tiny_model("deberta-v2", position_biased_input=False)
    assert blocks.positions_of(relative) is None


def test_every_tiny_config_has_the_layers_that_the_tests_count_on():
    for family in FAMILIES:
        assert tiny_config(family).num_hidden_layers == LAYERS
