"""The contracts: what a family, a task, an objective and a prunable tensor are.

Adapters and tasks subclass the small classes below; models stay plain ``nn.Module``s.
Nothing here imports torch at run time, so that names can be listed in an instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .masks import Masks

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Signature:
    """What a task feeds a model and wants back, without the batch axis.

    ``input`` is the shape of one example (channels, height, width for images);
    ``output`` the number of values the model returns for it (classes).
    """

    input: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class Prunable:
    """One entry that a mask may cover.

    ``kind`` is ``parameter`` (a tensor of the model) or ``data`` (elements of the input,
    such as a graph's edges). ``layer`` names the module, ``role`` what it is in the
    family (``conv``, ``linear``, ``output``), ``depth`` its place from the input.
    """

    layer: str
    role: str
    depth: int
    kind: Literal["parameter", "data"] = "parameter"
    axis: int = 0


@dataclass(frozen=True)
class Objective:
    """One loss over one set of parameters; most tasks have one, a GAN has two.

    ``loss(model, batch, rng)`` returns a scalar tensor; ``rng`` is a ``torch.Generator``
    for noise, a pure function of (root seed, iteration). One iteration of the training
    loop runs every objective ``repeats`` times.
    """

    name: str
    loss: Callable[[nn.Module, Any, torch.Generator], Tensor]
    parameters: Callable[[nn.Module], Iterable[nn.Parameter]] | None = None
    repeats: int = 1
    batch: Literal["fresh", "shared"] = "fresh"


class Task:
    """A data set with its splits, its loss and its one headline metric.

    Subclasses set the class attributes and write ``fingerprint``, ``size``, ``batch``,
    ``objectives`` and ``evaluate``. They load nothing before the first call that needs it.
    """

    higher_is_better: ClassVar[bool] = True
    headline: ClassVar[str] = "accuracy"
    #: Largest loss of the headline metric (in its own unit) that still counts as matching;
    #: set from published spread before any run.
    margin: ClassVar[float]
    licence: ClassVar[str] = "not stated"
    source: ClassVar[str] = ""

    def __init__(self, name: str, data: Path | None = None) -> None:
        self.name = name
        self.data = data

    @property
    def signature(self) -> Signature:
        """Shapes of one example and of the model's answer."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Return a hash of the data itself; it enters the key of every job that reads it.

        Raises:
            DataError: the data is missing or damaged.
        """
        raise NotImplementedError

    def size(self, split: Split) -> int:
        """Return the number of examples of a split."""
        raise NotImplementedError

    def batch(self, split: Split, indices: Tensor, rng: torch.Generator | None = None) -> Any:
        """Return the examples at ``indices``; ``rng`` augments, None never does."""
        raise NotImplementedError

    def epoch(self, batch_size: int, rng: torch.Generator) -> Sequence[Tensor]:
        """Return the train indices of one epoch, batch by batch.

        The default is a shuffle whose last short batch is dropped.
        """
        import torch

        order = torch.randperm(self.size("train"), generator=rng)
        if batch_size >= len(order):
            return [order]
        return [b for b in order.split(batch_size) if len(b) == batch_size]

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        """Return what one iteration of training minimises."""
        raise NotImplementedError

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the metrics of a split, the headline metric and ``loss`` among them."""
        raise NotImplementedError

    def flags(self, model: nn.Module) -> tuple[str, ...]:  # noqa: ARG002 - for subclasses
        """Return what is degenerate about a trained model: ``constant`` if it answers one thing."""
        return ()

    def to(self, device: torch.device) -> None:
        """Move what batches are made of to a device."""


class Adapter:
    """A family of models: what is prunable, how it is built, how its tickets move."""

    #: Every name that ``lth-zoo ls models`` shows; ``owns`` may accept more.
    models: Sequence[str] = ()

    def owns(self, name: str) -> bool:
        """Say whether this family builds a model of that name."""
        return name in self.models

    def build(self, name: str, signature: Signature) -> nn.Module:
        """Return a freshly initialised model.

        The caller has seeded torch's global generator; draw from it.
        """
        raise NotImplementedError

    def fingerprint(self, name: str, model: nn.Module) -> str:  # noqa: ARG002 - for subclasses
        """Return what identifies the code of a model whose name does not; empty where it does."""
        return ""

    def reset(self, model: nn.Module, name: str, signature: Signature) -> None:
        """Draw every parameter and buffer anew, in place: the re-init control.

        Raises:
            BadInput: a prunable tensor has no way to be drawn anew.
        """
        model.load_state_dict(self.build(name, signature).state_dict())

    def prunable(self, model: nn.Module) -> dict[str, Prunable]:
        """Return what may be pruned, by parameter name, from the input to the output."""
        return default_prunable(model)

    def head(self, model: nn.Module) -> str:
        """Return the module that is replaced on a different task: the last prunable layer."""
        return list(self.prunable(model).values())[-1].layer

    def carry(self, masks: Masks, model: nn.Module) -> Masks:
        """Return the masks as they fit another task's model: all but the head's."""
        head = self.head(model)
        return masks.without(*(n for n, p in self.prunable(model).items() if p.layer == head))

    def macs(self, model: nn.Module, example: Any) -> dict[str, int]:
        """Return the dense multiply-accumulates of one example, by prunable name."""
        return count_macs(model, example, self.prunable(model))


def default_prunable(model: nn.Module) -> dict[str, Prunable]:
    """Return the weight of every linear and convolution module, in module order.

    Chosen by module type, not by name; a tensor shared by two modules is listed once;
    the last one has the role ``output``. Biases and norms are not prunable.
    """
    from torch import nn

    roles = {nn.Linear: "linear", nn.Conv1d: "conv", nn.Conv2d: "conv", nn.Conv3d: "conv"}
    found: dict[str, Prunable] = {}
    seen: set[int] = set()
    for layer, module in model.named_modules():
        role = next((r for t, r in roles.items() if isinstance(module, t)), None)
        if role is None or id(module.weight) in seen:
            continue
        seen.add(id(module.weight))
        name = f"{layer}.weight" if layer else "weight"
        found[name] = Prunable(layer, role, depth=len(found))
    if found:
        last = list(found)[-1]
        found[last] = Prunable(found[last].layer, "output", found[last].depth)
    return found


def count_macs(model: nn.Module, example: Any, prunable: Mapping[str, Prunable]) -> dict[str, int]:
    """Count multiply-accumulates by prunable layer with torch's own FLOP counter.

    ``example`` is a batch of one; the counter's FLOPs are halved.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(example)
    model.train(training)
    root = type(model).__name__
    counts = counter.get_flop_counts()
    return {
        name: sum(counts.get(f"{root}.{p.layer}" if p.layer else root, {}).values()) // 2
        for name, p in prunable.items()
    }


@dataclass(frozen=True)
class Finder:
    """A method that yields tickets: a frozen dataclass of its hyper-parameters.

    ``search(chain)`` yields one :class:`~lth_zoo.jobs.Level` after another, built with the
    primitives of the :class:`~lth_zoo.jobs.Chain` it is given. It runs nothing itself.
    """

    #: The four choices that describe a method, printed by ``lth-zoo ls finders``.
    describes: ClassVar[Mapping[str, str]] = {}
    paper: ClassVar[str] = ""

    def search(self, chain: Any) -> Iterator[Any]:
        """Yield level 0 (dense) and then each level down to the target."""
        raise NotImplementedError


def adapter_of(name: str) -> Adapter:
    """Return the family that builds a model of that name.

    Raises:
        BadInput: no family does; the message has the nearest names.
    """
    from . import registry
    from .errors import unknown

    known: list[str] = []
    for family in registry.names("adapters"):
        adapter: Adapter = registry.find("adapters", family)()
        if adapter.owns(name):
            return adapter
        known += adapter.models
    raise unknown("model", name, known)


def task_of(name: str, data: Path | None = None) -> Task:
    """Return the task of that name, reading from the folder ``data``.

    Raises:
        BadInput: no such task.
    """
    from . import registry

    task: Task = registry.find("tasks", name)(name, data)
    if not hasattr(task, "margin"):
        raise BadInput(f"task {name!r} states no margin")
    return task
