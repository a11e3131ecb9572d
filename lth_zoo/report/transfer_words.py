"""What the parts of a transfer matrix are called: tasks and tickets, or backbones and edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lth_zoo.trials.cells import TransferResults


@dataclass(frozen=True)
class Names:
    """The words of one kind of matrix.

    ``row`` heads the sources and ``on`` a target; ``column`` is a target; ``own`` is its own ticket
    and ``short`` that in a table; ``others`` are the cells that are not; ``overlap`` and ``chance``
    say what is compared of two masks; ``hidden`` are fields of the recipe that mean nothing.
    """

    row: str
    on: str
    column: str
    own: str
    short: str
    others: str
    overlap: str
    chance: str
    hidden: tuple[str, ...]


_HIDDEN = ("name", "paper", "expected", "controls", "controls_at")
TASKS = Names(
    row="mask from",
    on="on",
    column="target",
    own="the same-task ticket",
    short="same task",
    others="cells of another source",
    overlap="kept weights, heads left out",
    chance="the same densities in every tensor",
    hidden=(*_HIDDEN, "task"),
)
BACKBONES = Names(
    row="edges from",
    on="under",
    column="backbone",
    own="the backbone's own edges",
    short="own edges",
    others="cells of other edges",
    overlap="kept edges",
    chance="as many edges",
    hidden=(*_HIDDEN, "model"),
)


def names_of(results: TransferResults) -> Names:
    """Return the words for a matrix."""
    return BACKBONES if results.of_backbones else TASKS


def transfer_name(results: TransferResults) -> str:
    """Return the recipe's name, or the model or the task that all of it is about."""
    recipe = results.recipe
    if results.of_backbones:
        name = recipe.get("name")
        return f"{name}: backbones" if name else f"backbones on {recipe['task']}"
    return str(recipe.get("name") or f"transfer of {recipe['model']}")


def asked(results: TransferResults) -> str:
    """Return what was compared, in one sentence."""
    recipe, seeds = results.recipe, counted(len(results.recipe["seeds"]), "seed")
    sparsity = f"{100 * float(recipe['sparsity']):g} %"
    edges = f"{100 * float(recipe.get('graph_sparsity') or 0):g} %"
    if results.of_backbones:
        return (
            f"The edges of {counted(len(results.targets), 'backbone')}, by degree and at random, "
            f"under each backbone on {recipe['task']} at {edges} graph sparsity, {seeds}: edges "
            f"alone, found beside {sparsity} weight sparsity, with every weight kept."
        )
    carried = {
        "mask": "the masks alone, on theta_0",
        "mask+state": "the masks with the source tickets' trained weights",
        "mask+signs": "the masks with the signs of the source tickets' trained weights",
    }[results.carry]
    own = "own head"
    if recipe.get("graph_sparsity"):
        sparsity, own = f"{sparsity} weight and {edges} graph", "own head and edges"
    return (
        f"{counted(len(results.sources), 'source')} to {counted(len(results.targets), 'target')} "
        f"at {sparsity} sparsity, {seeds}: {carried}, with the target's {own}."
    )


def rule(results: TransferResults, hits: int, ruled: int) -> str:
    """Return how many cells have at least the mean of the target's own ticket."""
    if results.of_backbones:
        return f"Mean at least that on the backbone's own edges: {hits} of {ruled}."
    return (
        "By the rule of Chen et al. 2020 (mean at least the same-task ticket's), "
        f"{hits} of {ruled} transfer."
    )


def transfer_limits(results: Sequence[TransferResults]) -> tuple[str, ...]:
    """Return what a reader must not take from matrices."""
    said = []
    if any(not found.of_backbones for found in results):
        said.append(
            "Transfer: a cell without a mark is undecided, not equal. All sources have the same "
            "sparsity, the target's own start, head and data order, and no hyper-parameters tuned "
            "for them; another sparsity can order them otherwise."
        )
    if any(found.of_backbones for found in results):
        said.append(
            "Backbones: a cell without a mark is undecided, not equal. All have the recipe's "
            "hyper-parameters, tuned for none of them, and every weight: a ticket that prunes "
            "weights too can order the edges otherwise."
        )
    return tuple(said)


def counted(n: int, what: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "seed"), counted(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{n} {what}{'s' * (n != 1)}"
