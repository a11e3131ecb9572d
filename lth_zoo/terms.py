"""What adapters, tasks and finders tell the engine: shapes, losses, yardsticks, starts, choices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
    ``answer`` is what they are: scores of ``classes``, a ``value`` each, the start and end scores
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


@dataclass(frozen=True)
class Finder:
    """A method that yields tickets: a frozen dataclass of its hyper-parameters.

    ``search(chain)`` yields one :class:`~lth_zoo.jobs.Level` after another, built with the
    primitives of the :class:`~lth_zoo.chain.Chain` it is given. It runs nothing itself.
    """

    #: The four choices that describe a method, printed by ``lth-zoo ls finders``.
    describes: ClassVar[Mapping[str, str]] = {}
    paper: ClassVar[str] = ""
    #: Whether it prunes the edges of a graph, down to the recipe's ``graph_sparsity``.
    prunes_graph: ClassVar[bool] = False
    #: Whether it learns gates on the edges, which the model must honour.
    needs_gates: ClassVar[bool] = False
    #: Modules that a model must have for it.
    needs_parts: ClassVar[tuple[str, ...]] = ()
    #: Modules of which it prunes the one that a model has, and nothing else; empty for all.
    prunes: ClassVar[tuple[str, ...]] = ()

    def search(self, chain: Any) -> Iterator[Any]:
        """Yield level 0 (dense) and then each level down to the target."""
        raise NotImplementedError
