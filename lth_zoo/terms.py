"""What adapters and tasks tell the engine, as plain data: shapes, losses, yardsticks, starts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Signature:
    """What a task feeds a model and wants back, without the batch axis.

    ``input`` is the shape of one example (channels, height, width for images; the largest
    number of tokens for text); ``output`` the number of values the model returns for it.
    ``answer`` is what they are: scores of ``classes``, one ``value``, the start and end scores
    of a ``span`` of the text, or scores of the vocabulary for each of the ``tokens``; on a graph,
    scores of classes for its ``nodes`` or for whole ``graphs``, or an embedding for ``links``;
    or new ``images`` like those it was fed.
    """

    input: tuple[int, ...]
    output: int
    answer: Literal["classes", "value", "span", "tokens", "nodes", "links", "graphs", "images"] = (
        "classes"
    )


@dataclass(frozen=True)
class Checkpoint:
    """A public pre-trained start: where it is from, and what it holds.

    ``digests`` maps the base model's tensors to the sha256 of dtype, shape and values;
    ``load()`` returns them by the same names.
    """

    id: str
    revision: str
    digests: Mapping[str, str]
    load: Callable[[], Mapping[str, Tensor]]

    @property
    def fingerprint(self) -> str:
        """sha256 over the sorted tensors."""
        return hashlib.sha256(repr(sorted(self.digests.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Pretraining:
    """A network that is trained beforehand, cached as a job: an embedded start, or a judge.

    ``fingerprint`` identifies the model's configuration, which its name does not; ``model`` is
    given where it is not the one that the start is for.
    """

    task: str
    training: Mapping[str, Any]
    fingerprint: str = ""
    seed: int = 0
    model: str = ""


@dataclass(frozen=True)
class Objective:
    """One loss over one set of parameters; most tasks have one, a GAN has two.

    ``loss(model, batch, rng)`` returns a scalar tensor; ``rng`` is a ``torch.Generator``
    for noise, a pure function of (root seed, iteration). One iteration of the training
    loop runs every objective ``repeats`` times. Where a recipe asks for averaged weights, those
    of objectives that are not ``averaged`` (a discriminator's) stay as they are.
    """

    name: str
    loss: Callable[[nn.Module, Any, torch.Generator], Tensor]
    parameters: Callable[[nn.Module], Iterable[nn.Parameter]] | None = None
    repeats: int = 1
    batch: Literal["fresh", "shared"] = "fresh"
    averaged: bool = True


@dataclass(frozen=True)
class Yardstick:
    """What a model is judged by; a ``relative`` margin is a share of the dense mean."""

    headline: str
    higher_is_better: bool
    margin: float
    relative: bool = False
