"""What a job of kind ``scorer`` does: learn to score edges, drop the lowest and prune weights.

A scorer (:class:`~lth_zoo.edge_scorer.EdgeScorer`) is trained beside the weights; its scores are
the gates of the edges (Sui et al. 2023, ICPG). The search is one training in the one loop; its
config holds, beside what a training and a prune job read:

- ``entry`` and ``edge_density``: which bits there are, and the share of all edges that stays;
- ``scorer``: its ``width``, and the ``rate`` of learning and ``weight_decay`` of its own;
- ``weights``: None: they are ranked by their own magnitude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..edge_scorer import SCORER, EdgeScorer
from ..gates import EDGES, Gated
from ..graph import EDGES as TIED
from ..kinds import restricted, trained
from ..masks import Masks
from ..rewind import Snapshot
from ..seeds import seeded
from ..session import Session
from .gate_search import hardener

if TYPE_CHECKING:
    from torch import nn

    from ..graph import Graph


def scorer_job(session: Session) -> None:
    """Train weights and scorer on the edges that are left, write masks, weights and scorer.

    Raises:
        BadInput: the model takes no gates, or batches show parts of the graph only.
        Diverged: a loss or a weight is not finite.
    """
    config, before = session.config, session.masks("within")
    graph = restricted(session.task, before).graph()
    assert graph is not None, "checked before the run"
    inner = session.build()
    inner.load_state_dict(session.snapshot("start").state)
    how = config["scorer"]
    with seeded(config["seed"], "init", "scorer"):
        scorer = EdgeScorer(graph.x.shape[1], how["width"])
    model = Scored(inner, graph, config["entry"], scorer)
    own = {
        "rate": how["rate"] / config["training"]["learning_rate"],
        "weight_decay": how["weight_decay"],
    }
    groups = {n: own for n, _ in model.named_parameters() if n.startswith("scorer.")}
    fixed = None
    if before is not None:  # the loop's own, and those of the graph that it is shown
        weights = {f"inner.{n}": m for n, m in before.weights.items()}
        fixed = Masks(weights | dict(before.data))
    loop = trained(session, model, lambda: None, masks=fixed, groups=groups)

    metrics = loop.evaluate("validation")
    state = loop.final_state()
    model.load_state_dict(state)
    scores = scorer.score(graph, config["entry"])
    masks = hardener(session, inner, before)({**state, EDGES: scores})
    session.write_masks(masks)
    session.write_state(Snapshot(model.inner_state(state), loop.iteration))
    session.write(SCORER, scorer.dumped())
    session.write_json(
        {
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            "scores": spread(scores),
            "iterations": loop.iteration - loop.begin,
            "metrics": {"validation": metrics},
        }
    )


def spread(scores: Tensor) -> dict[str, Any]:
    """Return the least, the middle and the largest of scores: all alike say nothing of edges."""
    if not len(scores):
        return {}
    low, high = scores.aminmax()
    return {"least": low.item(), "median": scores.median().item(), "most": high.item()}


class Scored(Gated):
    """A network on one whole graph whose gates are what a scorer says of its edges."""

    pairs: Tensor

    def __init__(self, inner: nn.Module, graph: Graph, entry: str, scorer: EdgeScorer) -> None:
        ends = graph.elements(entry)
        super().__init__(inner, graph, entry, graph.x.new_ones(ends.shape[1]))
        del self.edges  # gates are computed, not kept
        self.scorer, self.tied = scorer, entry == TIED
        self.register_buffer("pairs", ends, persistent=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return what the inner model says of the graph under the scores, (nodes, outputs).

        Raises:
            BadInput: the graph is not the one that the gates are of.
        """
        self._check(edge_index)
        scores = self.scorer(x, edge_index, self.pairs, self.tied)
        answers: Tensor = self.inner(
            x, edge_index, edge_weight=scores.index_select(0, self.element_of)
        )
        return answers
