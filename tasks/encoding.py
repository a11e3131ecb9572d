"""Texts as token ids: tokenised once, held without padding, kept on disk between runs.

The ids of all examples of a split lie in one flat array with offsets; padding is added when
a batch is drawn, up to its own longest example.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

#: The environment variable that names the folder of what can be made again.
VARIABLE = "LTH_ZOO_CACHE"
#: Texts handed to the tokenizer at once.
CHUNK = 20_000
#: Raised when the arrays of a cached file change their meaning.
FORMAT = 1


@dataclass(frozen=True)
class Encoded:
    """The examples of one split: ``ids`` flat int32, ``offsets`` (n + 1,) int64 into it.

    ``types`` are the token types, flat uint8, where the tokenizer makes them. ``extra`` is
    whatever else a task derives while it tokenises (answer positions, for one).
    """

    ids: np.ndarray
    offsets: np.ndarray
    types: np.ndarray | None = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each example, (n,) int64."""
        import numpy as np

        return np.diff(self.offsets)

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.offsets) - 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by name, as it is kept on disk."""
        plain = {"ids": self.ids, "offsets": self.offsets}
        typed = {} if self.types is None else {"types": self.types}
        return plain | typed | {f"extra.{name}": a for name, a in self.extra.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Encoded:
        """Return what :meth:`arrays` was called on."""
        extra = {n.removeprefix("extra."): a for n, a in arrays.items() if n.startswith("extra.")}
        return cls(arrays["ids"], arrays["offsets"], arrays.get("types"), extra)


def encode(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, length: int
) -> Encoded:
    """Tokenise texts, or pairs of texts, each cut to ``length`` tokens (the longer side first)."""
    typed = "token_type_ids" in tokenizer.model_input_names
    ids: list[list[int]] = []
    types: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        first = list(texts[start : start + CHUNK])
        second = None if pairs is None else list(pairs[start : start + CHUNK])
        found = tokenizer(
            first,
            second,
            truncation=True,
            max_length=length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=typed,
        )
        ids += found["input_ids"]
        types += found["token_type_ids"] if typed else []
    return ragged(ids, types if typed else None)


def ragged(
    ids: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Encoded:
    """Return lists of token ids, and of token types, laid end to end."""
    import numpy as np

    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(row) for row in ids], out=offsets[1:])
    total = int(offsets[-1])
    flat = np.fromiter(chain.from_iterable(ids), np.int32, total)
    kinds = None if types is None else np.fromiter(chain.from_iterable(types), np.uint8, total)
    return Encoded(flat, offsets, kinds, extra or {})


def fingerprint_of(tokenizer: Any) -> str:
    """Return sha256 of what a tokenizer does: its rules, vocabulary and special tokens.

    Where it was loaded from does not count, nor what it was last asked to truncate or pad.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    else:
        rules = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    said = {
        "rules": rules,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "inputs": list(tokenizer.model_input_names),
        "sides": [tokenizer.padding_side, tokenizer.truncation_side],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def padding_of(tokenizer: Any) -> tuple[int, bool]:
    """Return the id that pads and whether it goes to the left.

    A tokenizer without one (GPT-2's) pads with its end of text, which the mask hides.
    """
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad = next(int(i) for i in known if i is not None)
    return pad, tokenizer.padding_side == "left"


class Tokens:
    """The examples of a split on a device, from which padded batches are cut."""

    def __init__(self, encoded: Encoded, device: torch.device) -> None:
        import torch

        def moved(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.lengths = torch.from_numpy(encoded.lengths)  # stays here: the width needs no wait
        self.ids, self.begins = moved(encoded.ids), moved(encoded.offsets[:-1].copy())
        self.counts = moved(encoded.lengths)
        self.types = None if encoded.types is None else moved(encoded.types)

    def inputs(self, indices: Tensor, pad: int, left: bool = False) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` and, where there are any, ``token_type_ids``.

        All are (n, longest of these) int64.
        """
        import torch

        indices = indices.cpu()
        width = max(1, int(self.lengths[indices].max())) if len(indices) else 1
        at = indices.to(self.begins.device)
        counts = self.counts[at][:, None]
        place = torch.arange(width, device=at.device)
        place = place - (width - counts) if left else place.expand(len(at), width)
        seen = (place >= 0) & (place < counts)
        source = (self.begins[at][:, None] + place).clamp_(0, max(0, len(self.ids) - 1))
        if not len(self.ids):
            ids = torch.full_like(source, pad)
        else:
            ids = self.ids[source].long().masked_fill_(~seen, pad)
        found = {"input_ids": ids, "attention_mask": seen.long()}
        if self.types is not None:
            found["token_type_ids"] = self.types[source].long().masked_fill_(~seen, 0)
        return found


# -- on disk ----------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return where tokenised texts are kept: below ``LTH_ZOO_CACHE``, or the user's cache."""
    named = os.environ.get(VARIABLE)
    return (Path(named) if named else Path.home() / ".cache" / "lth_zoo") / "tokens"


def cached(key: str, make: Callable[[], Encoded]) -> Encoded:
    """Return what is kept under a key (64 hex digits), or make it and keep it.

    A damaged file is made again; a folder that cannot be written is not an error.
    """
    import tokenizers

    said = f"{key}/{FORMAT}/{tokenizers.__version__}"
    path = cache_folder() / f"{hashlib.sha256(said.encode()).hexdigest()}.safetensors"
    kept = _load(path)
    if kept is not None:
        return kept
    made = make()
    _save(path, made)
    return made


def _load(path: Path) -> Encoded | None:
    """Return what a file holds; None if it is missing, damaged, or not what its hash says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stated = (file.metadata() or {}).get("sha256")
        return Encoded.of(arrays) if stated == _digest(arrays) else None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _save(path: Path, encoded: Encoded) -> None:
    """Write a file whole or not at all; say nothing where that cannot be done."""
    from safetensors.numpy import save

    arrays = encoded.arrays()
    data = save(arrays, metadata={"sha256": _digest(arrays)})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    import numpy as np

    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, str(array.dtype), array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
