"""A family of models of one folder, with or without a checkpoint, and tickets as found in it."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path

import hf_models
import torch

from lth_zoo.masks import Masks
from lth_zoo.protocols import Adapter, Checkpoint, Signature
from lth_zoo.prunable import Prunable
from lth_zoo.seeds import seeded
from lth_zoo.ticket import Ticket
from lth_zoo.tickets import assembled

FAMILY = "fake-bert"


class FakeBert(Adapter):
    """Models of a folder, as the family of Hugging Face models has them, in few lines."""

    def __init__(self, folder: Path, public: bool = True) -> None:
        self.folder, self.public, self.models = folder, public, (FAMILY,)

    def build(self, name, signature):
        from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

        if signature.answer == "tokens":
            return AutoModelForMaskedLM.from_pretrained(self.folder)
        return AutoModelForSequenceClassification.from_pretrained(
            self.folder, num_labels=signature.output
        )

    def prunable(self, model):
        names = [n for n, p in model.named_parameters() if ".layer." in n and p.dim() == 2]
        return {n: Prunable(n.rpartition(".")[0], "linear", i) for i, n in enumerate(names)}

    def prefix(self, name):
        return "bert."

    @functools.cached_property
    def _checkpoint(self):
        from transformers import AutoModel

        tensors = AutoModel.from_pretrained(self.folder).state_dict()
        digests = {n: str(t.double().sum().item()) for n, t in tensors.items()}
        return Checkpoint("some/bert", "0123abc", digests, lambda: tensors)

    def checkpoint(self, name):
        return self._checkpoint if self.public else None


CLASSES, TOKENS = Signature((16,), 3), Signature((16,), hf_models.VOCABULARY, "tokens")


def some_of(model, names) -> Masks:
    rng = torch.Generator().manual_seed(3)
    return Masks({n: torch.rand(model.get_parameter(n).shape, generator=rng) < 0.4 for n in names})


def found(family: FakeBert, signature: Signature, step: int = 0, **masked) -> Ticket:
    """Return a ticket as a search leaves it: masks and a start in the model's own names."""
    with seeded(5, "init"):
        model = family.build(FAMILY, signature)
    if step:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
    masks = some_of(model, masked.get("names") or family.prunable(model))
    meta = {"model": FAMILY, "signature": asdict(signature), "recipe_key": "0"}
    return assembled(masks, model.state_dict(), meta, family)


def classifier(folder: Path, labels: int = 3):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)


def logits(model) -> torch.Tensor:
    ids = torch.arange(12).reshape(2, 6) + 5
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
