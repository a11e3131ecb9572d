"""A network that scores the edges of any graph with the same features: ICPG's learned pruner.

The job that learned one (:mod:`lth_zoo.searches.scorer_search`) wrote it beside its masks. So::

    scorer = lz.edge_scorer.load(ticket)          # or of a file that scorer.save(path) wrote
    graph = lth_zoo.graph.Graph.of(x, edge_index)  # one that no search has seen
    scores = scorer.score(graph)                   # (edges,), higher = kept
    smaller = graph.restricted(scorer.masks(graph, 0.8))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .allocate import Pool, exact, round_half_up
from .chain import Chain
from .edge_scores import ranks
from .errors import BadInput, StoreError
from .formats import dump_tensors, load_tensors
from .graph import EDGES, Graph
from .jobs import Job
from .masks import Masks
from .recipe import Recipe, finder_name
from .seeds import generator
from .select import select
from .store import Store, atomic_write

if TYPE_CHECKING:
    from .ticket import Ticket

#: What the job that learns a scorer calls its file.
SCORER = "scorer.safetensors"
#: What is dropped between the two convolutions, as in the published code.
DROPOUT = 0.5


class EdgeScorer(nn.Module):
    """Two graph convolutions, then for each edge a number in (0, 1) of what its ends became.

    s(i, j) = sigmoid(v relu(A h_i + B h_j + c) + d): one hidden layer on the ends' embeddings, as
    wide as those (Sui et al. 2023, ICPG, section 3.2).

    Args:
        features: numbers a node.
        width: numbers of an embedding.
    """

    def __init__(self, features: int, width: int = 64) -> None:
        from torch_geometric.nn import GCNConv

        super().__init__()
        self.features, self.width = features, width
        self.first = GCNConv(features, width)
        self.second = GCNConv(width, width)
        self.source = nn.Linear(width, width, bias=False)
        self.target = nn.Linear(width, width)
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor, tied: bool = True) -> Tensor:
        """Return the scores of pairs of nodes, (pairs,), differentiable.

        ``x`` is (nodes, features), ``edge_index`` (2, columns), ``pairs`` (2, pairs) int64. Where
        directions are tied a score is the mean of both.
        """
        h = self.first(x, edge_index).relu()
        h = nn.functional.dropout(h, DROPOUT, self.training)
        h = self.second(h, edge_index)
        # By node, then by edge: the same as a layer on both embeddings, with less to multiply.
        source, target = self.source(h), self.target(h)

        def directed(i: Tensor, j: Tensor) -> Tensor:
            hidden: Tensor = (source[i] + target[j]).relu()
            return torch.sigmoid(self.last(hidden).squeeze(1))

        i, j = pairs
        return (directed(i, j) + directed(j, i)) / 2 if tied else directed(i, j)

    @torch.no_grad()
    def score(self, graph: Graph, entry: str = EDGES) -> Tensor:
        """Return the score of each edge of a graph, (elements,), higher = kept.

        ``entry`` says whether that is an undirected edge (``graph/edges``, the default) or a
        direction (``graph/arcs``).

        Raises:
            BadInput: the graph has other features.
        """
        if graph.x.shape[1] != self.features:
            raise BadInput(
                f"the scorer reads {self.features} features a node, the graph has "
                f"{graph.x.shape[1]}"
            )
        training, device = self.training, self.last.weight.device
        self.eval()
        try:
            given = (t.to(device) for t in (graph.x, graph.edge_index, graph.elements(entry)))
            return self(*given, tied=entry == EDGES).cpu()
        finally:
            self.train(training)

    def masks(self, graph: Graph, density: float, entry: str = EDGES, seed: int = 0) -> Masks:
        """Return the mask that keeps ``density`` of a graph's edges, the highest scores.

        Of equals a random one stays, by ``seed``. Pass it to ``graph.restricted``.

        Raises:
            BadInput: the graph has other features, or the density is outside [0, 1].
        """
        scores = self.score(graph, entry)
        keep = round_half_up(exact(density) * len(scores))
        placed = ranks(scores, generator(seed, "prune", "scorer"))
        return select({entry: placed}, [Pool((entry,), keep)])

    def dumped(self) -> bytes:
        """Return the scorer as a safetensors file."""
        state = {n: t.detach().cpu().clone() for n, t in self.state_dict().items()}
        return dump_tensors(state, {"features": self.features, "width": self.width})

    def save(self, path: Path | str) -> Path:
        """Write the scorer to a file that :func:`load` reads.

        Raises:
            StoreError: it cannot be written.
        """
        path = Path(path)
        try:
            atomic_write(path, self.dumped())
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error
        return path


def load(source: Path | str | Ticket, store: Path | str = "lth-store") -> EdgeScorer:
    """Return a scorer: of a file, or of a ticket that ``icpg`` found.

    A ticket does not hold its scorer. It is read from the ``store`` that the search wrote to; to
    give it away, :meth:`EdgeScorer.save` it.

    Raises:
        BadInput: the ticket was found by a finder without a scorer, or elsewhere, or there is no
            such file.
        StoreError: the file is damaged or of something else.
    """
    if isinstance(source, Path | str):
        try:
            return _read(Path(source).read_bytes(), str(source))
        except OSError as error:
            raise BadInput(f"cannot read a scorer from {source}: {error.strerror}") from error
    job = _job_of(source)
    entry = Store(Path(store)).entry(job)
    if entry is None:
        raise BadInput(
            f"{job.label}, which learned the ticket's scorer, is not in {store}; give the store "
            "of its search, or a file that scorer.save(path) wrote"
        )
    return _read(entry.read(SCORER), job.label)


def _read(data: bytes, what: str) -> EdgeScorer:
    tensors, info = load_tensors(data, what)
    try:
        scorer = EdgeScorer(int(info["features"]), int(info["width"]))
        scorer.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StoreError(f"{what} is no edge scorer: {error}") from error
    return scorer.eval()


def _job_of(ticket: Ticket) -> Job:
    """Return the job that made a ticket's masks.

    Raises:
        BadInput: it learned no scorer, or the ticket does not say how it was found.
    """
    meta: dict[str, Any] = ticket.meta
    if "recipe" not in meta:
        raise BadInput("the ticket carries no recipe (it was imported), so it has no edge scorer")
    recipe = Recipe.from_dict(meta["recipe"])
    chain = Chain(recipe, meta["seed"], meta["data"])
    found = [lv.masks for lv in recipe.finder.search(chain) if lv.index == meta["level"]]
    if not found or found[0] is None or found[0].kind != "scorer":
        name = finder_name(recipe.finder)
        raise BadInput(f"a ticket of finder {name!r} has no edge scorer; find one with icpg")
    return found[0]
