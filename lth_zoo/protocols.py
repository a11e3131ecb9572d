"""The contracts: what a family, a task, an objective and a finder are.

Adapters and tasks subclass the small classes below; models stay plain ``nn.Module``s.
Nothing here imports torch at run time, so that names can be listed in an instant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from . import registry
from .errors import BadInput, unknown
from .graph_models import ANSWERS, graph_example
from .prunable import Prunable, Units, check_fit, count_macs, default_prunable, head_of
from .terms import SPLITS, Checkpoint, Finder, Objective, Pretraining, Signature, Split, Yardstick
from .widths import widest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .graph import Graph
    from .masks import Masks
    from .permutations import Permutable

__all__ = [
    "SPLITS",
    "Adapter",
    "Checkpoint",
    "Finder",
    "Objective",
    "Pretraining",
    "Signature",
    "Split",
    "Task",
    "Yardstick",
    "adapter_of",
    "task_of",
]


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
    #: Whether the margin is a share of the dense mean.
    relative: ClassVar[bool] = False
    licence: ClassVar[str] = "not stated"
    source: ClassVar[str] = ""
    #: Whether a batch is (inputs, labels) with a label an example, which may be permuted.
    labelled: ClassVar[bool] = True

    def __init__(self, name: str, data: Path | None = None) -> None:
        self.name = name
        self.data = data

    def prepared(self, model: str, length: int | None = None) -> Task:  # noqa: ARG002
        """Return the task as a model of that name reads it; text is tokenised for it.

        ``length`` is the largest number of tokens of one example, None the task's own.

        Raises:
            BadInput: the model cannot read it, or a length is given and it is no text.
        """
        if length is not None:
            raise BadInput(f"max_length is {length}, but task {self.name!r} reads no text")
        return self

    def yardstick(self, model: str) -> Yardstick:  # noqa: ARG002 - for subclasses
        """Return what a model of that name is judged by: the class attributes by default."""
        return Yardstick(self.headline, self.higher_is_better, self.margin, self.relative)

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
        return [b for b in order.split(batch_size) if len(b) == batch_size] or [order]

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        """Return what one iteration of training minimises."""
        raise NotImplementedError

    def answers(
        self,
        model: nn.Module,  # noqa: ARG002 - for subclasses
        batch: Any,  # noqa: ARG002
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return what a model says of a batch, differentiable and in its mode, (n, ...).

        The last dimension holds the scores of classes, but where :class:`Signature` says that the
        answer is a ``value`` or ``images``, in [0, 1]. ``rng`` draws codes where there are any.

        Raises:
            BadInput: the task does not say.
        """
        raise BadInput(
            f"task {self.name!r} has no answers to a batch in which two networks could be compared"
        )

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the metrics of a split, the headline metric and ``loss`` among them."""
        raise NotImplementedError

    def flags(self, model: nn.Module) -> tuple[str, ...]:  # noqa: ARG002 - for subclasses
        """Return what is degenerate about a trained model: ``constant`` if it answers one thing."""
        return ()

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002 - for subclasses
        """Return images that show what a trained model does, uint8, by name; none by default."""
        return {}

    def frechet(self, model: nn.Module, features: Any, count: int) -> dict[str, float]:  # noqa: ARG002
        """Return ``fid``, the Frechet distance of ``count`` new images to real ones, and ``floor``.

        ``features`` maps images (n, channels, height, width) in [0, 1] to (n, d). Raises BadInput
        where the task makes no images, or they are too few.
        """
        raise BadInput(f"task {self.name!r} makes no images that a distance could be of")

    def judges(self) -> Sequence[Pretraining]:
        """Return the networks that evaluation reads, trained beforehand; none by default."""
        return ()

    def judged_by(self, judges: Mapping[str, Callable[[], Mapping[str, Tensor]]]) -> None:
        """Take in the trained :meth:`judges`, in order: job key -> what returns the state."""

    def taught(self, teacher: nn.Module) -> Task:  # noqa: ARG002 - for subclasses
        """Return the task with losses that a trained network has a part in.

        Raises:
            BadInput: none of its losses does.
        """
        raise BadInput(f"task {self.name!r} has no loss that a trained network could teach")

    def matched(self) -> Task:
        """Return the task with one loss that needs no adversary, by which masks are learned.

        Raises:
            BadInput: it has none.
        """
        raise BadInput(f"task {self.name!r} has no moments that generated images could match")

    def to(self, device: torch.device) -> None:
        """Move what batches are made of to a device."""

    def graph(self) -> Graph | None:
        """Return the graph whose edges may be pruned, None where the task has none."""
        return None

    def on_graph(self, graph: Graph) -> Task:  # noqa: ARG002 - for subclasses
        """Return the task on another graph over the same nodes: some edges are left out.

        Raises:
            BadInput: the task has no graph.
        """
        raise BadInput(f"task {self.name!r} has no graph whose edges could be pruned")


class Adapter:
    """A family of models: what is prunable, how it is built, how its tickets move."""

    #: Every name that ``lth-zoo ls models`` shows; ``owns`` may accept more.
    models: Sequence[str] = ()
    #: What a level's head is by default: see ``Recipe.head``.
    heads: ClassVar[Literal["rewind", "fresh", "carry"]] = "rewind"
    #: Whether its models may read a graph, ``model(x, edge_index)``.
    graphs: ClassVar[bool] = True
    #: Whether its graph models take features as a sparse matrix (CSR).
    sparse_features: ClassVar[bool] = False
    #: Whether its models make images: both networks of a generator in one module.
    generates: ClassVar[bool] = False
    #: Whether a name may end in a factor of every width, as in ``resnet-20x0.5``.
    widths: ClassVar[bool] = False
    #: The embedded task whose shapes ``lth-zoo show MODEL`` takes.
    shown_on: ClassVar[str] = "digits"

    def owns(self, name: str) -> bool:
        """Say whether this family builds a model of that name."""
        return name in self.models

    def build(self, name: str, signature: Signature) -> nn.Module:
        """Return a freshly initialised model.

        The caller has seeded torch's global generator; draw from it.
        """
        raise NotImplementedError

    def sized(
        self, name: str, signature: Signature, parameters: int, parts: Sequence[str] = ()
    ) -> str:
        """Return the model of the same architecture, at a width that has so many parameters.

        Nearest from below; only those of ``parts`` count where any are given.

        Raises:
            BadInput: names have no widths, or even the narrowest has more.
        """
        return widest(self, name, signature, parameters, parts)

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

    def optional(self, model: nn.Module) -> dict[str, Prunable]:  # noqa: ARG002 - for subclasses
        """Return what is dense unless a recipe's ``include`` names its layer."""
        return {}

    def units(self, model: nn.Module) -> list[Units]:  # noqa: ARG002 - for subclasses
        """Return the structured units that may be removed whole; none by default."""
        return []

    def permutations(self, model: nn.Module) -> list[Permutable]:  # noqa: ARG002 - for subclasses
        """Return the groups of hidden units that may change places; none by default."""
        return []

    def blocks(self, model: nn.Module) -> Sequence[Sequence[tuple[str, ...]]]:  # noqa: ARG002
        """Return each stage's blocks, as modules; those after its first are of one build."""
        return ()

    def head(self, model: nn.Module) -> frozenset[str]:
        """Return the tensors that are replaced on a different task: the last prunable layer's."""
        return head_of(model, self.prunable(model))

    def fit(self, masks: Masks, model: nn.Module) -> Masks:  # noqa: ARG002 - for subclasses
        """Return the masks under the names that this model has for the same tensors."""
        return masks

    def carry(self, masks: Masks, model: nn.Module) -> Masks:
        """Return the masks as they fit another task's model: all but the head's.

        Raises:
            BadInput: a tensor is missing or has another shape; the message names them.
        """
        head = self.head(model)
        fitted = self.fit(masks, model)
        carried = fitted.without(*(n for n in fitted if n in head))
        check_fit(carried, model)
        return carried

    def planted(self, state: Mapping[str, Tensor]) -> Masks | None:  # noqa: ARG002 - for subclasses
        """Return where a model's initial state hides a known solution; None where it does not."""
        return None

    def tokenizer(self, name: str) -> Any:
        """Return the tokenizer that belongs to a model of that name.

        Raises:
            BadInput: the family reads no text.
        """
        raise BadInput(f"model {name!r} reads no text; text tasks need one of the family bert")

    def prefix(self, name: str) -> str:  # noqa: ARG002 - for subclasses
        """Return what stands before the base model's tensor names in a task's model, or ""."""
        return ""

    def checkpoint(self, name: str) -> Checkpoint | None:  # noqa: ARG002 - for subclasses
        """Return the public pre-trained start of a model, None where it is drawn."""
        return None

    def pretraining(self, name: str) -> Pretraining | None:  # noqa: ARG002 - for subclasses
        """Return how a model's pre-trained start is made here, None where it is not."""
        return None

    def example(self, signature: Signature) -> Any:
        """Return a batch of one, zeros in the shape of the task's input; a ring for a graph's."""
        if signature.answer in ANSWERS:
            return graph_example(signature.input[0])
        import torch

        return torch.zeros(1, *signature.input)

    def macs(self, model: nn.Module, example: Any) -> dict[str, int]:
        """Return the dense multiply-accumulates of one example, by prunable name."""
        return count_macs(model, example, self.prunable(model))


def adapter_of(name: str) -> Adapter:
    """Return the family that builds a model of that name.

    Raises:
        BadInput: no family does; the message has the nearest names.
    """
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
    task: Task = registry.find("tasks", name)(name, data)
    if not hasattr(task, "margin"):
        raise BadInput(f"task {name!r} states no margin")
    return task
