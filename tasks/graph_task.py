"""What every task on a graph shares: where the graph lies, and how a model is judged."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lth_zoo.errors import BadInput, unknown
from lth_zoo.protocols import SPLITS, Objective, Split, Task, adapter_of
from lth_zoo.tasks.evaluation import evaluating
from lth_zoo.tasks.graph_data import Variant, variant_of
from lth_zoo.tasks.graph_sampler import Ground

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lth_zoo.graph import Graph, View


class GraphTask(Task):
    """A task whose batches are ``(View, targets)`` of one graph.

    Subclasses write :meth:`full_graph`, :meth:`described`, :meth:`size`, :meth:`batch` and
    :meth:`measured`; and :meth:`answer` and :meth:`criterion` where it is not a matter of classes.
    """

    #: Suffixes that the name may have: see :func:`~lth_zoo.tasks.graph_data.variant_of`.
    suffixes: ClassVar[Sequence[str]] = ()
    #: Whether the registry gives this class the names that have suffixes.
    variants: ClassVar[bool] = True
    #: Whether a batch smaller than the train part is drawn at random.
    augment: bool = True
    loss_name: ClassVar[str] = "cross-entropy"

    def __init__(self, name: str, data: Path | None = None) -> None:
        super().__init__(name, data)
        self.variant: Variant = variant_of(name, self.suffixes)
        # Shared by copies of a task, so that moving one moves what it was copied from.
        self._held: dict[str, Any] = {"device": None}
        self._grounds: dict[Any, Ground] = {}
        self._graph: Graph | None = None
        self._sparse = False

    # -- what subclasses write ---------------------------------------------------------------

    def full_graph(self) -> Graph:
        """Return the graph as it was read, on the CPU; read on the first use.

        Raises:
            DataError: the data is missing or damaged.
        """
        raise NotImplementedError

    def described(self) -> str:
        """Return what identifies the data and how batches are made of it, for the fingerprint."""
        raise NotImplementedError

    def measured(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the metrics of a split but ``loss``, of what a model answers for all of it."""
        raise NotImplementedError

    def answer(self, model: nn.Module, view: View) -> Tensor:
        """Return what a model says about the rows of a view, (rows, outputs)."""
        answers: Tensor = model(view.x, view.edge_index)
        return answers[view.rows]

    def criterion(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of answers."""
        from torch.nn import functional as F

        return F.cross_entropy(answers, targets)

    def prepared(self, model: str, length: int | None = None) -> GraphTask:
        """Return the task as a model of that name reads it: sparse features as CSR, if it can.

        Raises:
            BadInput: a length is given.
        """
        super().prepared(model, length)
        self._sparse = adapter_of(model).sparse_features
        return self

    # -- the graph ---------------------------------------------------------------------------

    def graph(self) -> Graph:
        """Return the graph that batches are made of, on the CPU; its edges may be pruned."""
        return self.full_graph() if self._graph is None else self._graph

    def on_graph(self, graph: Graph) -> GraphTask:
        """Return the task on another graph over the same nodes; splits and targets stay.

        Raises:
            BadInput: the graph has other nodes, or the batches are not the task's own any more.
        """
        if graph.nodes != self.full_graph().nodes:
            raise BadInput(
                f"task {self.name!r} has {self.full_graph().nodes:,} nodes; the graph has "
                f"{graph.nodes:,}"
            )
        if "batch" in vars(self):
            # A replaced ``batch`` would go on dealing the graph of the task it was taken from.
            raise BadInput(f"batches of task {self.name!r} are changed; change those of on_graph")
        other = copy.copy(self)
        other._graph, other._grounds = graph, {}
        return other

    def to(self, device: torch.device) -> None:
        """Move what batches are made of to a device; copies of this task move with it."""
        self._held["device"] = device

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        import torch

        return self._held["device"] or torch.device("cpu")

    @property
    def ground(self) -> Ground:
        """The graph on the task's device."""
        if self.device not in self._grounds:
            self._grounds[self.device] = Ground.of(self.graph(), self.device, self._sparse)
        return self._grounds[self.device]

    # -- learning and measuring --------------------------------------------------------------

    def fingerprint(self) -> str:
        """Return sha256 over features, edges, targets, splits and the making of batches.

        It is that of the data as read, whatever graph the task is on. Computed once.
        """
        if "fingerprint" not in self._held:
            self._held["fingerprint"] = hashlib.sha256(self.described().encode()).hexdigest()
        return str(self._held["fingerprint"])

    def objectives(self, model: nn.Module) -> Sequence[Objective]:  # noqa: ARG002
        """Return the one loss, over every parameter."""

        def loss(model: nn.Module, batch: tuple[View, Tensor], _: torch.Generator) -> Tensor:
            view, targets = batch
            return self.criterion(self.answer(model, view), targets)

        return [Objective(self.loss_name, loss)]

    def answers(
        self,
        model: nn.Module,
        batch: tuple[View, Tensor],
        rng: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the logits of the rows of a batch: nodes or graphs, (rows, classes)."""
        return self.answer(model, batch[0])

    def answered(self, model: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
        """Return a model's answers for a whole split in evaluation mode, and the targets."""
        import torch

        view, targets = self.batch(split, torch.arange(self.size(split)))
        with evaluating(model):
            return self.answer(model, view), targets

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the metrics of a split from one pass over the whole graph, and ``loss``.

        The model's modes and the global generators are as before afterwards.
        """
        answers, targets = self.answered(model, split)
        loss = self.criterion(answers.double(), targets).item()
        return {**self.measured(answers, targets), "loss": loss}

    def flags(self, model: nn.Module) -> tuple[str, ...]:
        """Return ``("constant",)`` for a model that has one answer for all of validation."""
        answers = self.answered(model, "validation")[0].argmax(1)
        return ("constant",) if bool((answers == answers[0]).all()) else ()


def accuracy_of(answers: Tensor, targets: Tensor) -> float:
    """Return the share of rows whose largest answer is the target, in percent."""
    return 100.0 * int((answers.argmax(1) == targets).sum()) / len(targets)


def check_split(split: str) -> None:
    """Assert that there is a split of that name.

    Raises:
        BadInput: there is none.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
