"""``LotteryTicketCallback``: exact zeros in a ``Trainer``, clean checkpoints, nothing left."""

from __future__ import annotations

import copy
from pathlib import Path

import hf_models
import pytest
import torch
from fake_bert import CLASSES, FAMILY, FakeBert, found
from toys import pruned_are_zero, same, some_masks

import lth_zoo as lz
from lth_zoo import registry
from lth_zoo.errors import BadInput, TicketError
from lth_zoo.masks import Masks

ROWS = [{"input_ids": [5 + i % 50, 6 + i % 40, 7], "labels": i % 2} for i in range(32)]


def tiny(seed: int = 0):
    torch.manual_seed(seed)
    return hf_models.tiny_model("bert")


def trainer(model, folder: Path, callbacks=(), **more):
    import transformers

    given = {
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "max_grad_norm": 0.1,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 7,
    }
    arguments = transformers.TrainingArguments(str(folder), **{**given, **more})
    return transformers.Trainer(
        model, arguments, train_dataset=ROWS, eval_dataset=ROWS[:4], callbacks=list(callbacks)
    )


def hooks_of(model) -> int:
    from torch.optim import optimizer as torch_optimizer

    own = [getattr(p, "_post_accumulate_grad_hooks", None) or {} for p in model.parameters()]
    every = (
        *own,
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
    )
    return sum(map(len, every))


class Watch:
    """Makes a callback that looks at every step."""

    def __new__(cls, look):
        from transformers import TrainerCallback

        class Looking(TrainerCallback):
            steps = 0

            def on_step_end(self, args, state, control, model, **_):
                look(model)
                self.steps += 1

        return Looking()


def test_pruned_weights_stay_zero_and_the_sparsity_is_logged(tmp_path):
    model = tiny()
    start, masks = copy.deepcopy(model), some_masks(model)

    def look(live):
        assert pruned_are_zero(live, masks)

    before = hooks_of(model)
    callback, watch = lz.LotteryTicketCallback(masks), Watch(look)
    ours = trainer(model, tmp_path, [callback, watch])
    ours.train()
    assert watch.steps == 6
    assert pruned_are_zero(model, masks)
    for name, mask in masks.items():
        assert (model.get_parameter(name) != start.get_parameter(name))[mask].any()
        assert start.get_parameter(name)[~mask].any()
    assert hooks_of(model) == before
    rows = ours.state.log_history
    assert len([row for row in rows if "loss" in row]) == 3
    # Counted in the weights: the share that is 0, which some kept biases or rows may add to.
    assert all(row["ticket/sparsity"] >= masks.sparsity for row in rows)
    assert rows[-1]["ticket/sparsity"] == pytest.approx(masks.sparsity, abs=0.01)
    assert callback.sparsity is None


def test_what_is_logged_reaches_the_callbacks_after_it(tmp_path):
    from transformers import TrainerCallback

    seen = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs, **_):
            seen.append(logs.get("ticket/sparsity"))

    model = tiny()
    masks = some_masks(model)
    ours = trainer(model, tmp_path, [Tracker()])
    ours.callback_handler.callbacks.insert(0, lz.LotteryTicketCallback(masks))
    ours.train()
    assert len(seen) == 4
    assert None not in seen


def test_it_trains_as_the_masks_do_by_hand_so_clipping_sees_masked_gradients(tmp_path):
    one, two = tiny(), tiny()
    masks = some_masks(one)
    ours = trainer(one, tmp_path, [lz.LotteryTicketCallback(masks)])
    ours.train()
    with masks.enforced(two):
        trainer(two, tmp_path).train()
    assert same(one.state_dict(), two.state_dict())
    norms = [row["grad_norm"] for row in ours.state.log_history if "grad_norm" in row]
    dense = trainer(tiny(), tmp_path)
    masks.apply_(dense.model)
    dense.train()
    first = next(row["grad_norm"] for row in dense.state.log_history if "grad_norm" in row)
    assert norms[0] < first


def test_resuming_gives_the_uninterrupted_weights_from_clean_checkpoints(tmp_path):
    import safetensors.torch

    whole, half = tiny(), tiny()
    masks = some_masks(whole)
    saving = {"save_strategy": "steps", "save_steps": 2}
    trainer(whole, tmp_path / "a", [lz.LotteryTicketCallback(masks)], **saving).train()
    checkpoint = tmp_path / "a" / "checkpoint-4"
    saved = safetensors.torch.load_file(checkpoint / "model.safetensors")
    assert saved.keys() == whole.state_dict().keys()
    assert all(not saved[n][~m].any() for n, m in masks.items())
    callback = lz.LotteryTicketCallback(masks)
    trainer(half, tmp_path / "b", [callback], **saving).train(resume_from_checkpoint=checkpoint)
    assert same(half.state_dict(), whole.state_dict())
    reloaded = type(whole).from_pretrained(tmp_path / "a" / "checkpoint-6")
    assert same(reloaded.state_dict(), whole.state_dict())


def test_a_second_training_with_the_same_callback(tmp_path):
    callback = None
    for seed in (0, 1):
        model = tiny(seed)
        callback = callback or lz.LotteryTicketCallback(some_masks(model))
        trainer(model, tmp_path, [callback]).train()
        assert pruned_are_zero(model, some_masks(model))
        assert hooks_of(model) == 0


class Stop(Exception):
    pass


def stopping(live):
    raise Stop


@pytest.mark.parametrize("way", ["close", "with", "again", "forgotten"])
def test_nothing_is_left_after_an_exception(tmp_path, way):
    model, other = tiny(), tiny()
    masks = some_masks(model)
    callback = lz.LotteryTicketCallback(masks)
    ours = trainer(model, tmp_path, [callback, Watch(stopping)])
    with pytest.raises(Stop):
        ours.train()
    assert hooks_of(model) > 0
    if way == "close":
        callback.close()
    elif way == "with":
        with callback:
            pass
    elif way == "again":
        trainer(other, tmp_path, [callback]).train()
    else:
        import gc

        del callback, ours
        gc.collect()
    assert hooks_of(model) == 0
    assert pruned_are_zero(model, masks)


def test_a_weight_that_somebody_revives_is_named(tmp_path):
    model = tiny()
    masks = some_masks(model)
    name = list(masks)[1]

    def revive(live):
        with torch.no_grad():
            live.get_parameter(name)[~masks[name]] = 1.0

    count = int((~masks[name]).sum())
    callback = lz.LotteryTicketCallback(masks)
    with callback, pytest.raises(TicketError, match=f"{count} pruned weights .*'{name}'"):
        trainer(model, tmp_path, [callback, Watch(revive)]).train()
    assert hooks_of(model) == 0


def test_a_ticket_is_enforced_in_the_models_own_names(tmp_path, monkeypatch):
    folder = hf_models.save_tiny(tmp_path / "bert", answer="base")
    family = FakeBert(folder)
    monkeypatch.setitem(registry._ROWS["adapters"], FAMILY, lambda: family)
    ticket = found(family, CLASSES)
    model = hf_models.tiny_model("bert", labels=2)
    trainer(model, tmp_path, [lz.LotteryTicketCallback(ticket)]).train()
    assert pruned_are_zero(model, ticket.masks_for(model))


def test_masks_of_another_model_are_refused_before_a_step(tmp_path):
    masks = Masks({"encoder.odd.weight": torch.ones(2, 2, dtype=torch.bool)})
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TicketError, match=r"1 of 1 masks fit no tensor .*'encoder\.odd\.weight'"):
        trainer(model, tmp_path, [lz.LotteryTicketCallback(masks)]).train()
    assert same(model.state_dict(), before)


def test_what_is_no_ticket_is_refused():
    with pytest.raises(BadInput, match="a dict is neither a Ticket nor Masks"):
        lz.LotteryTicketCallback({})


def test_parameters_unfrozen_later_are_masked_too():
    from loops import train
    from toys import mlp

    model = mlp()
    masks = some_masks(model)
    name = next(iter(masks))
    model.get_parameter(name).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.1)
    start = copy.deepcopy(model)
    with masks.enforced(model, optimizer):
        train(model, optimizer, steps=1)
        masks.apply_(start)
        assert model.get_parameter(name).equal(start.get_parameter(name))
        model.get_parameter(name).requires_grad_(True)
        train(model, optimizer, steps=2, check=lambda: pruned_are_zero(model, masks))
        moments = optimizer.state[model.get_parameter(name)]["exp_avg"]
        assert not moments[~masks[name]].any()
        assert moments[masks[name]].any()
    assert not model.get_parameter(name).equal(start.get_parameter(name))
    assert hooks_of(model) == 0
