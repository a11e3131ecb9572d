"""LoRA over a ticket: unmerged it stays as it is, merged it stays as sparse, or it is said."""

from __future__ import annotations

import copy

import hf_models
import pytest
import torch
from fake_bert import CLASSES, FAMILY, FakeBert, found, logits
from test_callback import hooks_of, trainer
from toys import pruned_are_zero, some_masks

import lth_zoo as lz
from lth_zoo import registry
from lth_zoo.errors import BadInput, TicketError
from lth_zoo.integrations.lora import check_sparsity, masks_in, merge_lora, revived
from lth_zoo.masks import Masks

peft = pytest.importorskip("peft")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return hf_models.tiny_model("bert")


@pytest.fixture
def masks(model) -> Masks:
    found = some_masks(model)
    ours = Masks({n: m for n, m in found.items() if ".layer." in n})
    ours.apply_(model)
    return ours


def wrapped(model, **settings):
    """Return the model under LoRA adapters that have learned something."""
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], **settings
    )
    adapted = peft.get_peft_model(model, config)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=rng))
    return adapted


def test_the_masks_find_the_weights_below_the_adapters(model, masks):
    adapted = wrapped(model)
    live = masks_in(adapted, masks)
    assert [m.sum() for m in live.values()] == [m.sum() for m in masks.values()]
    assert sum(n.endswith(".base_layer.weight") for n in live) == 4
    assert masks_in(adapted, live) == live


def test_an_unmerged_adapter_leaves_the_ticket_alone(model, masks):
    plain = logits(model)
    adapted = wrapped(model)
    check_sparsity(adapted, masks)
    assert not logits(adapted).equal(plain)
    with adapted.disable_adapter():
        assert logits(adapted).equal(plain)


def test_a_plain_merge_is_denser_and_each_tensor_is_named(model, masks):
    merged = wrapped(model).merge_and_unload()
    denser = revived(merged, masks)
    touched = [n for n in masks if n.endswith(("query.weight", "value.weight"))]
    assert denser == {n: int((~masks[n]).sum()) for n in touched}
    with pytest.raises(TicketError, match=rf"'{touched[0]}' \(\d+\).* and 1 more tensors; merge"):
        check_sparsity(merged, masks)


def test_a_merge_under_the_mask_is_the_masked_sum(model, masks):
    adapted = wrapped(model)
    sums = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "get_delta_weight"):
            plain = name.removeprefix("base_model.model.") + ".weight"
            sums[plain] = module.weight + module.get_delta_weight("default")
    assert len(sums) == 4
    kept = {n: t.detach().clone() for n, t in model.named_parameters()}
    merged = merge_lora(adapted, masks)
    assert type(merged) is type(model)
    assert not any("lora" in n or "base_layer" in n for n in merged.state_dict())
    for name, mask in masks.items():
        wanted = sums.get(name, kept.get(name)) * mask
        torch.testing.assert_close(merged.get_parameter(name), wanted)
    assert pruned_are_zero(merged, masks)
    assert revived(merged, masks) == {}


def test_merging_what_is_no_ticket_is_refused_before_anything_is_merged(model, masks):
    with pytest.raises(BadInput, match="BertForSequenceClassification has no merge_and_unload"):
        merge_lora(model, masks)
    with torch.no_grad():
        model.get_parameter(next(iter(masks))).fill_(1.0)
    adapted = wrapped(model)
    with pytest.raises(TicketError, match="pruned weights are not 0"):
        merge_lora(adapted, masks)
    assert any("lora" in n for n in adapted.state_dict())
    odd = Masks({"other.weight": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(TicketError, match="fit no tensor"):
        merge_lora(adapted, odd)


def test_a_trainer_trains_the_adapters_and_the_ticket_stays(model, masks, tmp_path):
    adapted = wrapped(model)
    before = copy.deepcopy(adapted.state_dict())
    ours = trainer(adapted, tmp_path, [lz.LotteryTicketCallback(masks)])
    ours.train()
    after = adapted.state_dict()
    moved = {n for n in after if not after[n].equal(before[n])}
    assert moved
    assert all("lora_" in n or "modules_to_save" in n for n in moved)
    check_sparsity(adapted, masks)
    assert all("ticket/sparsity" in row for row in ours.state.log_history)
    assert hooks_of(adapted) == 0


def test_merging_while_it_trains_is_noticed(model, masks, tmp_path):
    from transformers import TrainerCallback

    class Merge(TrainerCallback):
        def on_step_end(self, args, state, control, model, **_):
            model.merge_adapter()

    callback = lz.LotteryTicketCallback(masks)
    with callback, pytest.raises(TicketError, match=r"base_layer\.weight"):
        trainer(wrapped(model), tmp_path, [callback, Merge()], max_steps=2).train()


def test_a_module_that_peft_copies_is_masked_in_both_copies(model):
    name = "bert.pooler.dense.weight"
    masks = Masks({name: some_masks(model)[name]})
    masks.apply_(model)
    adapted = wrapped(model, modules_to_save=["classifier", "pooler"])
    live = masks_in(adapted, masks)
    assert len(live) == 2
    with live.enforced(adapted):
        optimizer = torch.optim.AdamW(adapted.parameters(), 0.1)
        ids = torch.arange(12).reshape(2, 6) + 5
        adapted(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
    assert pruned_are_zero(merge_lora(adapted, masks), masks)


def test_a_ticket_itself_finds_its_place_below_the_adapters(tmp_path, monkeypatch):
    family = FakeBert(hf_models.save_tiny(tmp_path / "bert", answer="base"))
    monkeypatch.setitem(registry._ROWS["adapters"], FAMILY, lambda: family)
    ticket = found(family, CLASSES)
    plain = ticket.materialize()
    masks = ticket.masks_for(plain)
    adapted = wrapped(plain)
    trainer(adapted, tmp_path, [lz.LotteryTicketCallback(ticket)]).train()
    assert pruned_are_zero(merge_lora(adapted, masks), masks)
