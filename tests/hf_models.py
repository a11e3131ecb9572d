"""Tiny Hugging Face models for tests: random configs of ten families, and saved folders."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

#: Model types as ``transformers`` writes them into a config.
FAMILIES = (
    "bert",
    "roberta",
    "electra",
    "distilbert",
    "albert",
    "deberta-v2",
    "modernbert",
    "t5",
    "gpt2",
    "vit",
)

#: Every tiny text model has this many embeddings, 2 blocks of 2 heads, 16 wide, 24 in the FFN.
VOCABULARY, HIDDEN, FFN, HEADS, LAYERS, POSITIONS = 64, 16, 24, 2, 2, 48

#: What the tiny tokenizer knows besides the special tokens and single letters.
WORDS = (
    *("the", "a", "cat", "dog", "bird", "sat", "ran", "sang", "on", "under", "mat", "tree"),
    *("is", "was", "good", "bad", "not", "red", "blue", "big", "small", "and", "or", "##s"),
)
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

_BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": FFN,
    "max_position_embeddings": POSITIONS,
}
_T5_LIKE = {"d_model": HIDDEN, "d_kv": 8, "d_ff": FFN, "num_layers": LAYERS, "num_heads": HEADS}
_SETTINGS: dict[str, dict[str, Any]] = {
    "bert": _BERT_LIKE,
    "roberta": _BERT_LIKE | {"max_position_embeddings": POSITIONS + 2, "pad_token_id": 0},
    "electra": _BERT_LIKE | {"embedding_size": 8},
    "distilbert": {
        "vocab_size": VOCABULARY,
        "dim": HIDDEN,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "hidden_dim": FFN,
        "max_position_embeddings": POSITIONS,
    },
    "albert": _BERT_LIKE | {"embedding_size": 8},
    "deberta-v2": _BERT_LIKE
    | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True},
    "modernbert": _BERT_LIKE
    | {
        "pad_token_id": 0,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "t5": _T5_LIKE | {"vocab_size": VOCABULARY, "decoder_start_token_id": 0},
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": HIDDEN,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_inner": FFN,
        "n_positions": POSITIONS,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "vit": {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": FFN,
        "image_size": 8,
        "patch_size": 4,
    },
}


def tiny_config(family: str, **settings: Any) -> Any:
    """Return a small config of one of the families; ``settings`` go over it."""
    from transformers import AutoConfig

    return AutoConfig.for_model(family, **{**_SETTINGS[family], **settings})


@functools.lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz"
    entries = list(dict.fromkeys([*SPECIAL.values(), *WORDS, *letters, *".,?"]))
    vocabulary = {word: place for place, word in enumerate(entries)}
    assert len(vocabulary) <= VOCABULARY
    fast = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=40))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(t, vocabulary[t]) for t in ("[CLS]", "[SEP]")],
    )
    return fast


def tiny_tokenizer() -> Any:
    """Return a word-piece tokenizer of 58 entries that makes token types, as BERT's does."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL,
    )


def tiny_model(family: str, answer: str = "classes", labels: int = 2, **settings: Any) -> Any:
    """Return a random tiny model with the head for an answer: see ``protocols.Signature``."""
    import transformers

    config = tiny_config(family, **settings)
    kinds = {
        "classes": "SequenceClassification",
        "value": "SequenceClassification",
        "span": "QuestionAnswering",
        "tokens": "MaskedLM",
        "base": "",
    }
    kind = kinds[answer]
    if family == "vit" and kind:
        kind = "ImageClassification"
    if answer in ("classes", "value"):
        config.num_labels = labels
        config.pad_token_id = 0
    return getattr(transformers, f"AutoModelFor{kind}" if kind else "AutoModel").from_config(config)


def save_tiny(
    folder: Path, family: str = "bert", labels: int = 2, answer: str = "classes", seed: int = 0
) -> Path:
    """Write a tiny random model and its tokenizer as ``save_pretrained`` does; returns the folder.

    ``answer`` may be ``base`` for a folder without any head.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = tiny_model(family, answer, labels)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return Path(folder)
