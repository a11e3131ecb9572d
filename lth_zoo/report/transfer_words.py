"""What the parts of a matrix are called: tasks and tickets, backbones and edges, or models."""

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
MAKERS = Names(
    row="mask from",
    on="in",
    column="model",
    own="the model's own ticket",
    short="own ticket",
    others="cells of another source",
    overlap="kept weights of the decoders and generators",
    chance="the same densities in every tensor",
    hidden=(*_HIDDEN, "model", "only"),
)


def names_of(results: TransferResults) -> Names:
    """Return the words for a matrix."""
    return BACKBONES if results.of_backbones else MAKERS if results.of_makers else TASKS


def transfer_name(results: TransferResults) -> str:
    """Return the recipe's name, or the model or the task that all of it is about."""
    recipe = results.recipe
    if results.of_backbones or results.of_makers:
        name, what = recipe.get("name"), "backbones" if results.of_backbones else "models"
        return f"{name}: {what}" if name else f"{what} on {recipe['task']}"
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
    if results.of_makers:
        start = {
            "mask": "all on the model's own start",
            "mask+start": "each model's on the start it was found from",
        }[results.carry]
        return (
            f"Masks of the network that makes images, of {counted(len(results.targets), 'model')}, "
            f"one-shot and random, in each model on {recipe['task']} at {sparsity} sparsity of "
            f"that network, {seeds}: {start}, the other network dense."
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


def no_worse(results: TransferResults) -> tuple[str, str]:
    """Return the sign and the words of a mean that is no worse, as the targets' metrics go."""
    directions = {target.higher_is_better for target in results.targets}
    if len(directions) > 1:
        return "no worse than", "at least as good as"
    return ("≥", "at least") if True in directions else ("≤", "at most")


def rule(results: TransferResults, hits: int, ruled: int) -> str:
    """Return how many cells' means are no worse than that of the target's own ticket."""
    words = no_worse(results)[1]
    if results.of_backbones:
        return f"Mean {words} that on the backbone's own edges: {hits} of {ruled}."
    if results.of_makers:
        return f"Mean {words} that of the model's own ticket: {hits} of {ruled}."
    return (
        f"By the rule of Chen et al. 2020 (mean {words} the same-task ticket's), "
        f"{hits} of {ruled} transfer."
    )


def transfer_limits(results: Sequence[TransferResults]) -> tuple[str, ...]:
    """Return what a reader must not take from matrices."""
    said = []
    if any(names_of(found) is TASKS for found in results):
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
    if any(found.of_makers for found in results):
        said.append(
            "Models that make images: a cell without a mark is undecided, not equal. All have the "
            "recipe's hyper-parameters, tuned for none of them, and metrics of different models "
            "are not compared. One-shot and random masks train from the model's own start."
        )
    return tuple(said)


def counted(n: int, what: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "seed"), counted(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{n} {what}{'s' * (n != 1)}"
