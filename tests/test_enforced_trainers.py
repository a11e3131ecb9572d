"""Masks with other people's tools: Trainers, Accelerate, the compiler, attention, tied weights."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from loops import OPTIMIZERS, TASK, by_hand, held, train
from torch import nn
from torch.nn import functional as F
from toys import INPUTS, Blobs, mlp, pruned_are_zero, same, some_masks

from lth_zoo.enforce import unwrap
from lth_zoo.masks import Masks


def check_trained(model, masks, start):
    """Assert exact zeros, and that every masked tensor has moved where it is kept."""
    assert pruned_are_zero(model, masks)
    for name, mask in masks.items():
        assert (model.get_parameter(name) != start.get_parameter(name))[mask].any()
        assert start.get_parameter(name)[~mask].any()
    for parameter in model.parameters():
        assert not getattr(parameter, "_post_accumulate_grad_hooks", None)


def test_a_hugging_face_trainer_that_builds_its_optimiser_late(tmp_path):
    import transformers

    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    start, masks = copy.deepcopy(model), some_masks(model)
    rows = [{"input_ids": [i, i + 1, 2], "labels": i % 2} for i in range(12)]
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        weight_decay=0.1,
        max_grad_norm=0.1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )

    class Watch(transformers.TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, model, **_):
            assert pruned_are_zero(model, masks)
            self.steps += 1

    watch = Watch()
    with masks.enforced(model):
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[watch]).train()
    assert watch.steps == 4
    check_trained(model, masks, start)


def test_a_lightning_trainer(tmp_path):
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def training_step(self, batch, _):
            inputs, labels = batch
            return F.cross_entropy(self.net(inputs), labels)

        def on_train_batch_end(self, *_):
            assert pruned_are_zero(self, masks)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 0.01, weight_decay=0.1)

    model = Lit()
    start, masks = copy.deepcopy(model), some_masks(model)
    batches = [Blobs().batch("train", torch.arange(8))] * 4
    trainer = lightning.Trainer(
        max_steps=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=0.1,
        default_root_dir=tmp_path,
    )
    with masks.enforced(model):
        trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))
    assert trainer.global_step == 4
    check_trained(model, masks, start)


def test_accelerates_wrapped_optimiser():
    from accelerate import Accelerator

    model = mlp()
    reference, masks = copy.deepcopy(model), some_masks(model)
    by_hand(reference, masks, OPTIMIZERS["muon"](held(reference, "muon")))
    optimizer = OPTIMIZERS["muon"](held(model, "muon"))
    wrapped = Accelerator(cpu=True).prepare_optimizer(optimizer)
    assert unwrap(wrapped) is unwrap(type(wrapped)(wrapped)) is optimizer
    with masks.enforced(model, wrapped):
        train(model, wrapped)
    assert same(model.state_dict(), reference.state_dict())


def test_a_compiled_model():
    model = mlp()
    reference, masks = copy.deepcopy(model), some_masks(model)
    by_hand(reference, masks, OPTIMIZERS["adam fused"](reference.parameters()), steps=3)
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = OPTIMIZERS["adam fused"](compiled.parameters())
    with warnings.catch_warnings(), masks.enforced(model, optimizer):
        warnings.simplefilter("ignore")
        train(compiled, optimizer, steps=3)
    assert pruned_are_zero(model, masks)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(INPUTS, 2, batch_first=True)
        self.out = nn.Linear(INPUTS, 3)

    def forward(self, x):
        x = x[:, None, :] * torch.ones(1, 4, 1, dtype=x.dtype)
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(INPUTS, INPUTS)
        self.decoder = nn.Linear(INPUTS, INPUTS)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x)))[:, :3]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Attention, ["attention.in_proj_weight", "attention.out_proj.weight", "out.weight"]),
        (Tied, ["encoder.weight"]),
        (Tied, ["decoder.weight"]),
    ],
)
def test_attention_and_tied_weights_in_training_and_evaluation(kind, names):
    torch.manual_seed(0)
    model = kind()
    rng = torch.Generator().manual_seed(0)
    shapes = dict(model.named_parameters(remove_duplicate=False))
    masks = Masks({n: torch.rand(shapes[n].shape, generator=rng) < 0.5 for n in names})
    optimizer = OPTIMIZERS["adamw fused"](model.parameters())
    inputs, _ = TASK.batch("test", torch.arange(4))
    with masks.enforced(model, optimizer):
        for _ in range(3):
            train(model.train(), optimizer, steps=2)
            assert pruned_are_zero(model, masks)
            zeroed = copy.deepcopy(model).eval()
            tensors = dict(zeroed.named_parameters(remove_duplicate=False))
            for name, mask in masks.items():
                tensors[name].data[~mask] = 0
            with torch.no_grad():  # attention has a fast path of its own here
                assert model.eval()(inputs).equal(zeroed(inputs))
