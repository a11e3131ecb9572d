"""Masks inside other people's training loops: Hugging Face's ``Trainer`` and Lightning's."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F
from toys import Blobs, mlp, pruned_are_zero, some_masks


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
