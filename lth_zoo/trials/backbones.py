"""A graph mask found with one model, used by others: which edges, and nothing else.

A *source* is a backbone whose search gives the edges, or one of two scores that no search is
behind: ``degree`` and ``random``, with as many edges. A *target* is a backbone trained on them,
from the start of its own ticket, with every weight kept. On its own ticket's edges that is the
control ``graph-only`` of ``find``, and *dense* its dense run on the whole graph: the same jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from .. import registry
from ..errors import BadInput
from ..experiment import experiment
from ..graph import EDGES
from ..jobs import Job
from ..protocols import Task, adapter_of
from ..prunable import arguments_of
from ..recipe import Recipe, finder_name
from ..seeds import seeded
from ..session import task_for
from .cells import GRAPH_MASK
from .footing import Footing
from .transfer_study import CellJob, TransferStudy, check_start

#: Sources that no search is behind: scores of edges.
SCORED = ("degree", "random")


@dataclass(frozen=True)
class Backbones(TransferStudy):
    """A checked study of edges from model to model: the sources are all targets, and scores."""

    axis = "model"

    @property
    def title(self) -> str:
        """What a person calls it."""
        recipe = self.recipe
        return f"{recipe.name}: backbones" if recipe.name else f"backbones on {recipe.task}"

    def _cell(self, source: str, target: str, seed: int) -> CellJob:
        arm, chain = self.tickets[target, seed], self.chain(target, seed)
        masks = self._edges(source, target, seed)
        return CellJob(source, target, seed, masks, chain.again(arm.goal, arm.level.start, masks))

    def _edges(self, source: str, target: str, seed: int) -> Job:
        """Return the job that leaves a source's masks without weights."""
        whose = target if source in SCORED else source
        level = self.tickets[whose, seed].level
        if source in SCORED:
            level = replace(level, masks=self._scored(source, target, seed))
        alone = self.chain(whose, seed).control("graph-only", level, "masks").masks
        assert alone is not None
        return alone

    def _scored(self, score: str, target: str, seed: int) -> Job:
        """Return the masks of the edges that a score of the graph keeps: as many as a ticket's.

        The job is the target's own, so that it stays where other backbones come and go; every
        target gets the same edges.
        """
        chain = self.chain(target, seed)
        name, density = kept_edges(self.tickets[target, seed].level.masks, chain.edge_density)
        edges = {"entry": name, "score": score, "density": density}
        return chain.prune(chain.initial(), None, density=Fraction(1), edges=edges)

    def masks_of(self, source: str, seed: int) -> Job | None:
        """Return a source's masks, weights and all: see :meth:`TransferStudy.masks_of`."""
        if source in SCORED:
            return self._scored(source, self.targets[0], seed)
        return self.tickets[source, seed].level.masks


def kept_edges(masks: Job | None, usual: Fraction) -> tuple[str, Fraction]:
    """Return the entry of the edges that a search's last masks have, and the share it keeps.

    ``usual`` is the share where the job does not say, in a finder's own kind of job.
    """
    assert masks is not None
    if masks.kind == "prune":
        edges = masks.config["edges"]
        return edges["entry"], Fraction(edges["density"])
    density = masks.config.get("edge_density", usual)
    return masks.config.get("entry", EDGES), Fraction(density)


# -- asking for one ------------------------------------------------------------------------


def backbone_matrix(
    recipe: Recipe, backbones: Sequence[str], data: Path | None = None
) -> Backbones:
    """Check a study of edges from backbone to backbone on the recipe's task, and lay it out.

    The recipe's own model and controls are not used.

    Raises:
        BadInput: a model that does not exist or reads no graph, or a recipe whose tickets prune
            no edges.
        DataError: the data of the task is missing or damaged.
    """
    if isinstance(backbones, str) or not all(isinstance(name, str) for name in backbones):
        raise BadInput(f"backbones are {backbones!r}; give a list of names of models")
    names = list(dict.fromkeys(backbones))
    if not names:
        raise BadInput("no backbones; give models that read a graph, at least one")
    _check_edges(recipe)
    task = task_for(replace(recipe, model=names[0]), data)
    for name in names:
        check_reads_graph(name, task)
    recipe = replace(recipe, model=names[0], controls=())
    found = {name: experiment(replace(recipe, model=name), data) for name in names}
    for one in found.values():
        check_start(one.recipe)
    recipe = replace(recipe, head=found[names[0]].recipe.head)
    prints = {name: one.fingerprint for name, one in found.items()}
    iterations = {name: one.recipe.training.iterations for name, one in found.items()}
    masks = found[names[0]].tickets()[0].level.masks
    base = Footing({kept_edges(masks, Fraction(1))[0]: "edges"}, notes=_notes(masks))
    sources = (*names, *SCORED)
    return Backbones(recipe, sources, tuple(names), GRAPH_MASK, prints, iterations, base)


def _check_edges(recipe: Recipe) -> None:
    """Raise if the recipe's tickets have no edges to bring anywhere."""
    if not recipe.finder.prunes_graph:
        able = [n for n in registry.names("finders") if registry.find("finders", n).prunes_graph]
        raise BadInput(
            f"finder {finder_name(recipe.finder)!r} prunes no edges, so there is no graph mask to "
            f"bring anywhere; choose {' or '.join(able)}"
        )
    if recipe.graph_sparsity == 0:
        raise BadInput(
            "graph_sparsity is 0: there is no graph mask to bring anywhere; give one above 0"
        )


def check_reads_graph(name: str, task: Task) -> None:
    """Assert that a model can be called as those of a graph task are: ``model(x, edge_index)``.

    Raises:
        BadInput: no such model, or it reads something else.
    """
    adapter = adapter_of(name)
    why = "" if adapter.graphs else "no model of its family reads one"
    try:
        with seeded(0, "init"):
            if not why and len(arguments_of(adapter.build(name, task.signature))) < 2:
                why = "its forward takes no edge_index"
    except (LookupError, TypeError, ValueError) as error:
        why = f"it cannot be built for that: {type(error).__name__}: {error}"
    if why:
        raise BadInput(
            f"backbone {name!r} does not read the graph of task {task.name!r}: {why}; give models "
            "of the family gnn, such as gcn-64, gin-64 or gat-8x8, or graph models of your own"
        )


def _notes(masks: Job | None) -> tuple[str, ...]:
    """Say so where edges come from the graph alone, whatever model is searched with."""
    if masks is None or masks.kind != "prune":
        return ()
    return (
        f"Edges are those of the score {masks.config['edges']['score']!r}, which reads the graph "
        "and no model: every backbone's ticket has the same ones, and so their rows differ in "
        "nothing. A finder that learns edges, such as ugs, has other ones for each backbone.",
    )
