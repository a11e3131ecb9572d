"""A network whose edges, and weights if asked for, are multiplied by trainable numbers.

An edge's gate is 1 at first; at 0 its columns are as good as deleted, so that a mask of the
highest gates is a mask of edges (Chen et al. 2021, UGS, section 3.1). Only the edges that are
left from earlier levels have one: the task deals the graph of those alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .errors import BadInput, Diverged
from .graph_models import check_gates, check_layers
from .hooks import Hook

if TYPE_CHECKING:
    from .graph import Graph
    from .train import Loop

#: The name of the gates among the module's parameters.
EDGES = "edges"


class Gated(nn.Module):
    """A network on one whole graph, with a gate an element and a soft mask a covered weight.

    Its parameters are ``edges``, ``masks.0``, ``masks.1`` ... in the order of ``names``, and
    those of ``inner``. It is called as the inner model is, ``(x, edge_index)``.

    Args:
        inner: holds the weights, and takes gates as ``edge_weight``; it is used in place.
        graph: what the task deals, every column of it.
        entry: whether there is a gate an undirected edge or a direction: a name of
            :meth:`~lth_zoo.graph.Graph.elements`.
        gates: what they are at first, (elements,) float32.
        masks: name of a weight -> its soft mask at first; the weight is multiplied by it.
        keep: whether there is a place for the best state (:class:`Best`).

    Raises:
        BadInput: a layer of the inner model takes no gates.
    """

    edge_index: Tensor
    element_of: Tensor

    def __init__(
        self,
        inner: nn.Module,
        graph: Graph,
        entry: str,
        gates: Tensor,
        masks: Mapping[str, Tensor] | None = None,
        keep: bool = False,
    ) -> None:
        super().__init__()
        check_layers(inner)
        check_gates(inner, graph)
        elements = torch.arange(graph.elements(entry).shape[1])
        assert gates.shape == elements.shape
        masks = masks or {}
        self.inner, self.names = inner, tuple(sorted(masks))
        self.edges = nn.Parameter(gates.detach().clone())
        self.masks = nn.ParameterList([masks[n].detach().clone() for n in self.names])
        self.register_buffer("edge_index", graph.edge_index, persistent=False)
        self.register_buffer("element_of", graph.columns(entry, elements), persistent=False)
        self._seen: Tensor | None = None
        #: What the model said last while it was trained, (nodes, outputs), with its history.
        self.answers: Tensor | None = None
        self.best = Best(self.state()) if keep else None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return what the inner model says of the graph under the gates, (nodes, outputs).

        Raises:
            BadInput: the graph is not the one that the gates are of.
        """
        self._check(edge_index)
        gates = self.edges.index_select(0, self.element_of)
        given = (x, edge_index), {"edge_weight": gates}
        answers: Tensor = torch.func.functional_call(self.inner, self.masked(), *given)
        self.answers = answers if self.training else None
        return answers

    def _check(self, edge_index: Tensor) -> None:
        if edge_index is self._seen:  # comparing the columns every time would cost
            return
        check_whole(self.edge_index, edge_index)
        self._seen = edge_index

    def masked(self) -> dict[str, Tensor]:
        """Return the effective weights by name, differentiable; empty without soft masks."""
        weights = dict(self.inner.named_parameters(remove_duplicate=False))
        return {n: weights[n] * m for n, m in zip(self.names, self.masks, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """Return gates, soft masks and weights as they are: the state less :class:`Best`."""
        return {n: t for n, t in self.state_dict().items() if not n.startswith("best.")}

    def soft(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the soft masks of a state by the names of their weights."""
        return {n: state[f"masks.{i}"] for i, n in enumerate(self.names)}

    def inner_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the inner model's part of a state, its weights multiplied by their soft masks."""
        inner = {n.removeprefix("inner."): t for n, t in state.items() if n.startswith("inner.")}
        return inner | {n: inner[n] * m for n, m in self.soft(state).items()}


def check_whole(columns: Tensor, shown: Tensor) -> None:
    """Assert that a batch shows the columns of the whole graph, in their order.

    Raises:
        BadInput: it shows others: a sample, another graph, or a part of an inductive task.
    """
    if not shown.equal(columns):
        raise BadInput(
            f"there are gates on {columns.shape[1]:,} columns of a graph, but a batch shows other "
            f"ones ({shown.shape[1]:,}): edge masks are learned on the whole graph. Raise "
            "training.batch_size to the number of training nodes where a batch is a sample; else "
            "choose a finder without gates (graph-imp)"
        )


class Best(nn.Module):
    """A state kept aside while training goes on; it is part of the module's own state.

    So a checkpoint holds it, and a training that goes on after a kill knows of it. ``at`` is the
    iteration it is of, 0 for none; ``value`` says how good it is, higher is better.
    """

    at: Tensor
    value: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = tuple(state)
        self.register_buffer("at", torch.tensor(0))
        self.register_buffer("value", torch.tensor(-torch.inf))
        for place, tensor in enumerate(state.values()):
            self.register_buffer(f"kept_{place}", tensor.detach().clone())

    def offer(self, state: Mapping[str, Tensor], at: int, value: float) -> None:
        """Keep a state that is better than the one kept; of equals the first stays."""
        found = torch.tensor(value).to(self.value)
        if found > self.value:
            self.at.fill_(at)
            self.value.copy_(found)
            for name, kept in self.state().items():
                kept.copy_(state[name])

    def state(self) -> dict[str, Tensor]:
        """Return the state that is kept, not a copy."""
        return {name: self.get_buffer(f"kept_{i}") for i, name in enumerate(self.names)}


class Learning(Hook):
    """Pulls gates and soft masks down, keeps them within bounds, and stops where one is NaN.

    A config's ``edges`` and ``weights`` each hold ``strength``, whose slope (its sign times the
    number's) is added to the gradient, and ``bounds``, None for none. ``diverged`` is the
    iteration after which a number was not finite.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.diverged: int | None = None

    def _groups(self, loop: Loop) -> list[tuple[list[nn.Parameter], Mapping[str, Any]]]:
        assert isinstance(loop.model, Gated)
        groups = [([loop.model.edges], self.config["edges"])]
        return groups + [(list(loop.model.masks), how) for how in [self.config["weights"]] if how]

    @torch.no_grad()
    def on_gradients(self, loop: Loop) -> None:
        """Add the slope of ``strength * |number|``; the recorded loss stays the task's own."""
        for parameters, how in self._groups(loop):
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.add_(parameter.sign(), alpha=how["strength"])

    @torch.no_grad()
    def on_step(self, loop: Loop) -> None:
        """Clamp what has bounds.

        Raises:
            Diverged: a parameter is not finite: found at once, whenever the loop would look.
        """
        for parameters, how in self._groups(loop):
            for parameter in parameters if how["bounds"] else ():
                parameter.clamp_(*how["bounds"])
        # Of one pass each; a NaN or an infinity anywhere makes the sum one.
        sums = torch.stack([p.detach().sum() for p in loop.model.parameters()])
        if not sums.isfinite().all():
            self.diverged = loop.iteration
            raise Diverged(f"diverged: gates or weights at iteration {loop.iteration}")


class Keeping(Hook):
    """Looks at the validation part after every iteration, and keeps the best state.

    Iterations before ``earliest`` are not looked at: there gates have moved a few steps, and
    their order is that of the first gradients' signs.
    """

    def __init__(self, earliest: int) -> None:
        self.earliest = earliest

    def on_iteration(self, loop: Loop) -> None:
        """Offer the state as it is; with an average of the weights, the average."""
        assert isinstance(loop.model, Gated)
        assert loop.model.best is not None
        if loop.iteration - loop.begin < self.earliest:
            return
        found = loop.evaluate("validation")[loop.task.headline]
        with loop.averaged():
            state = loop.model.state()
            value = found if loop.task.higher_is_better else -found
            loop.model.best.offer(state, loop.iteration, value)
