"""Transformers of the Hugging Face library for text, by hub id, folder or config."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

from lth_zoo import registry
from lth_zoo.adapters import blocks, pretrained
from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import Adapter, Checkpoint, Pretraining, Signature
from lth_zoo.prunable import check_fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from lth_zoo.masks import Masks
    from lth_zoo.prunable import Prunable, Units

MINI = "bert-mini"
#: BERT of 2 layers (Turc et al. 2019 have it as "tiny"); the vocabulary is the tokenizer's.
#: It learns in a few hundred steps or not at all, so its weights are drawn at 1/sqrt(width)
#: and nothing is dropped: from BERT's own 0.02 with 10 % dropout it stays at chance.
_MINI_CONFIG: Mapping[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
    "initializer_range": 0.09,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_MINI_TRAINING: Mapping[str, Any] = {
    "iterations": 600,
    "batch_size": 16,
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "weight_decay": 0.01,
    "schedule": "linear",
    "warmup": 60,
    "clip_norm": 1.0,
    "evaluate_every": 200,
}


class Bert(Adapter):
    """Any text model of ``transformers``: ``org/name[@revision]``, a folder, a ``.json`` config.

    A checkpoint gives the start; only what it lacks is drawn: the head. A config, and
    ``bert-mini``, draw everything.
    """

    models: Sequence[str] = (
        MINI,
        *pretrained.PACKAGED,
        "google-bert/bert-base-uncased",
        "google-bert/bert-base-cased",
        "google-bert/bert-large-uncased",
        "FacebookAI/roberta-base",
        "google/electra-base-discriminator",
        "distilbert/distilbert-base-uncased",
        "albert/albert-base-v2",
        "microsoft/deberta-v3-base",
        "answerdotai/ModernBERT-base",
        "google-t5/t5-small",
        "openai-community/gpt2",
    )
    heads = "fresh"
    shown_on: ClassVar[str] = "pydocs/order"
    graphs: ClassVar[bool] = False

    def owns(self, name: str) -> bool:
        """Say whether the name is a hub id, a path, a config file, or ``bert-mini``."""
        return name in self.models or pretrained.is_place(name)

    # -- building --------------------------------------------------------------------------

    def build(self, name: str, signature: Signature) -> nn.Module:
        """Return the model with a head for the task; what the checkpoint lacks is drawn.

        Raises:
            BadInput: the task is not text, the length exceeds the model's positions, the
                tokenizer has more entries than the model, or weights are missing.
            DataError: the checkpoint cannot be had or read.
        """
        if len(signature.input) != 1:
            raise BadInput(
                f"model {name!r} reads text, and the task's input has shape {signature.input}: "
                "choose a text task, or a model of the family cnn"
            )
        place = _place(name)
        loaded = pretrained.load(place, signature.answer) if place and place.has_weights else None
        config = copy.deepcopy(loaded.config) if loaded else _config(name)
        words = _tokenizer_or_none(name)
        _prepare(config, signature, words)
        if loaded:
            model = loaded.build(config)
        else:
            head = pretrained.head_class(name, config, signature.answer)
            model = head.from_config(config)
        _check_positions(name, model, signature.input[0])
        _check_vocabulary(name, model, words)
        return model.train()

    def reset(self, model: nn.Module, name: str, signature: Signature) -> None:  # noqa: ARG002
        """Draw every tensor anew, the pre-trained ones too: theta_0' of Chen et al. (2020)."""
        kind: Any = type(model)
        model.load_state_dict(kind(copy.deepcopy(model.config)).state_dict())

    def fingerprint(self, name: str, model: nn.Module) -> str:  # noqa: ARG002 - the contract
        """Return a hash of the config and, where there is a checkpoint, of its tensors."""
        place, public = _place(name), self.checkpoint(name)
        config = pretrained.raw_config(place) if place else _mini_values()
        parts = (pretrained.digest_of(config), public.fingerprint if public else "")
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def tokenizer(self, name: str) -> Any:
        """Return the tokenizer that lies beside the model, one that can pad.

        Raises:
            DataError: there is none, or it cannot be had or read.
        """
        place = _place(name)
        return pretrained.tokenizer(place) if place else _mini_tokenizer()

    def checkpoint(self, name: str) -> Checkpoint | None:
        """Return the public start; None for a config and for ``bert-mini``."""
        place = _place(name)
        return pretrained.checkpoint(place) if place and place.has_weights else None

    def pretraining(self, name: str) -> Pretraining | None:
        """Return how ``bert-mini`` gets its start; None for every other model."""
        if name != MINI:
            return None
        return Pretraining("pydocs/mlm", _MINI_TRAINING, pretrained.digest_of(_mini_values()))

    # -- what is where ---------------------------------------------------------------------

    def prunable(self, model: nn.Module) -> dict[str, Prunable]:
        """Return the linear layers of the blocks: see :func:`~lth_zoo.adapters.blocks.prunable_of`.

        Raises:
            BadInput: the model has none.
        """
        return blocks.prunable_of(model)

    def optional(self, model: nn.Module) -> dict[str, Prunable]:
        """Return the pooler's layer, which the published tickets prune and others do not have."""
        return blocks.pooler_of(model)

    def units(self, model: nn.Module) -> list[Units]:
        """Return attention heads and feed-forward neurons."""
        return blocks.units_of(model)

    def head(self, model: nn.Module) -> frozenset[str]:
        """Return every tensor outside the base model."""
        return blocks.head_of(model)

    def prefix(self, name: str) -> str:
        """Return the library's name for the base model, dot included: ``bert.``."""
        import transformers

        place = _place(name)
        config = transformers.CONFIG_MAPPING[_architecture(place)]
        kind: Any = transformers.AutoModel._model_mapping[config]
        return f"{kind.base_model_prefix}."

    def example(self, signature: Signature) -> Any:
        """Return one text of the task's full length."""
        import torch

        ids = torch.zeros(1, *signature.input, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def macs(self, model: nn.Module, example: Any) -> dict[str, int]:
        """Return the dense multiply-accumulates of one text, by prunable name."""
        end = getattr(model.config, "eos_token_id", None)
        if isinstance(end, int) and getattr(model.config, "is_encoder_decoder", False):
            ids = example["input_ids"].clone()
            ids[:, -1] = end  # where its answer is read off
            example = {**example, "input_ids": ids}
        trained = [p for p in model.parameters() if p.requires_grad]
        model.requires_grad_(False)  # torch's counter trips over a weight that a module is given
        try:
            return super().macs(model, example)
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    # -- tickets ---------------------------------------------------------------------------

    def fit(self, masks: Masks, model: nn.Module) -> Masks:
        """Return the masks under this model's names: with its prefix, or another's, or none.

        Names of an older version of the library are brought up to date by its own rules.
        """
        from lth_zoo.masks import Masks

        known = dict(model.named_parameters(remove_duplicate=False))
        prefix, usual = blocks.prefix_of(model), f"{getattr(model, 'base_model_prefix', '')}."
        renamings = None
        found = {}
        for name, mask in masks.items():
            base = name.removeprefix(usual)
            if prefix + base not in known and name not in known:
                renamings = _renamings(model) if renamings is None else renamings
                base = _renamed(name, renamings).removeprefix(usual)
            ours = next((n for n in (prefix + base, name) if n in known), name)
            found[ours] = mask
        return Masks(found)

    def carry(self, masks: Masks, model: nn.Module) -> Masks:
        """Return the masks as they fit another task's model: less its head, less a lost pooler.

        Raises:
            BadInput: naming the tensors that do not fit (another architecture, width, depth).
        """
        fitted, theirs = self.fit(masks, model), self.head(model)
        known = dict(model.named_parameters(remove_duplicate=False))
        gone = [n for n in fitted if n in theirs or ("pooler" in n.split(".") and n not in known)]
        carried = fitted.without(*gone)
        check_fit(carried, model)
        blocks.check_depth(carried, model)
        return carried


# -- names -----------------------------------------------------------------------------------


def _place(name: str) -> pretrained.Place | None:
    return None if name == MINI else pretrained.place_of(name)


def _architecture(place: pretrained.Place | None) -> str:
    return str(pretrained.raw_config(place)["model_type"]) if place else "bert"


def _config(name: str) -> Any:
    place = _place(name)
    if place is not None:
        return pretrained.config_of(place)
    return pretrained.make_config(name, "bert", _mini_values())


def _mini_values() -> dict[str, Any]:
    words = _mini_tokenizer()
    return {**_MINI_CONFIG, "vocab_size": len(words), "pad_token_id": words.pad_token_id}


def _mini_tokenizer() -> Any:
    return registry.load("lth_zoo.tasks.pydocs:tokenizer")()


def _tokenizer_or_none(name: str) -> Any:
    try:
        return Bert().tokenizer(name)
    except DataError:  # a task that reads text has asked for it before, and said what is wrong
        return None


# -- configs ---------------------------------------------------------------------------------


def _prepare(config: Any, signature: Signature, words: Any) -> None:
    """Set what a task decides about a config, in place."""
    if signature.answer in ("classes", "value"):
        config.num_labels = signature.output
        kind = "regression" if signature.answer == "value" else "single_label_classification"
        config.problem_type = kind
    elif signature.answer == "span":
        config.num_labels = 2
    if getattr(config, "pad_token_id", None) is None and words is not None:
        config.pad_token_id = words.pad_token_id
    config.use_cache = False  # nothing is generated


def _check_positions(name: str, model: nn.Module, length: int) -> None:
    limit = blocks.positions_of(model)
    if limit is not None and length > limit:
        raise BadInput(
            f"max_length is {length}, and model {name!r} has {limit} positions; "
            f"choose at most {limit}"
        )


def _check_vocabulary(name: str, model: nn.Module, words: Any) -> None:
    rows = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if words is not None and len(words) > rows:
        raise BadInput(
            f"model {name!r}: its tokenizer has {len(words)} entries and its embedding {rows}; "
            "they do not belong together"
        )


def _renamings(model: nn.Module) -> list[Any]:
    """Return the library's rules from names in older checkpoints to those in memory."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    rules = get_model_conversion_mapping(model)
    return [rule for rule in rules if isinstance(rule, WeightRenaming)]


def _renamed(name: str, rules: list[Any]) -> str:
    from transformers.core_model_loading import apply_renamings

    return str(apply_renamings(name, rules))
