"""Controls: a ticket with one ingredient destroyed.

A *ticket control* is a function ``(draft, seed) -> draft`` that changes the masks or the
start; those that choose another mask by a rule are in :mod:`lth_zoo.random_controls`. A *search
control* changes how the mask is searched: ``chain -> chain``; its ticket is then trained as
usual. A *model control* puts another network in the ticket's place. Dense, ticket and controls
of one seed share the data order.

Where a ticket has edges of a graph too, the controls here leave those as they are; the ones of
:mod:`lth_zoo.graph_controls` are about them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .chain import Chain
from .coverage import covered_of, pools_of
from .errors import BadInput
from .given import own_graph
from .jobs import Level, iterations_of
from .protocols import Signature, adapter_of
from .recipe import finder_name
from .seeds import generator, seeded
from .widths import parameters_of

if TYPE_CHECKING:
    from torch import Tensor

    from .masks import Masks

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Draft:
    """A ticket in memory as a control sees it.

    ``state`` is the full state the ticket starts from, pruned positions included; ``fresh()``
    returns a newly initialised one, ``initial()`` and ``trained()`` those of the dense run at its
    beginning and end, and ``order()`` the prunable tensors from the input to the output.
    """

    masks: Masks
    state: Mapping[str, Tensor]
    fresh: Callable[[], Mapping[str, Tensor]]
    trained: Callable[[], Mapping[str, Tensor]] = dict
    order: Callable[[], Sequence[str]] = tuple
    initial: Callable[[], Mapping[str, Tensor]] = dict

    @property
    def density(self) -> Fraction:
        """Kept share, exact."""
        return Fraction(self.masks.kept, self.masks.size)


def changes(
    what: Literal["masks", "start", "init", "search", "model", "both"],
    *,
    graph: bool = False,
    trained: bool = False,
    initial: bool = False,
) -> Callable[[F], F]:
    """Declare what a control changes, so that only that is stored (default: ``both``).

    ``start`` keeps the ticket's place in the schedule; ``init`` is a start that has seen no
    training, and is trained whole; ``model`` is another network in the ticket's place. ``graph``
    marks a control of tickets with edges, ``trained`` one that reads the trained dense network,
    ``initial`` one that reads its initial state.
    """

    def mark(control: F) -> F:
        control.changes, control.needs_graph = what, graph  # type: ignore[attr-defined]
        control.needs_trained = trained  # type: ignore[attr-defined]
        control.needs_initial = initial  # type: ignore[attr-defined]
        return control

    return mark


def changed_by(control: Any) -> str:
    """Return what a control changes: see :func:`changes`."""
    return str(getattr(control, "changes", "both"))


@changes("init")
def reinit(draft: Draft, seed: int) -> Draft:  # noqa: ARG001 - the draft's own draw is seeded
    """Same mask, a fresh initialisation (Frankle & Carbin 2019, section 2)."""
    return replace(draft, state=draft.fresh())


@changes("masks")
def shuffle(draft: Draft, seed: int) -> Draft:
    """Permute the mask inside each layer: layer densities stay (Frankle et al. 2021)."""
    rng = generator(seed, "prune", "shuffle")
    return replace(draft, masks=_shuffled(draft.masks, rng))


@changes("start")
def shuffle_weights(draft: Draft, seed: int) -> Draft:
    """Same mask; permute the surviving weights inside each layer (Su et al. 2020)."""
    import torch

    rng = generator(seed, "prune", "shuffle-weights")
    state = dict(draft.state)
    for name, mask in draft.masks.weights.items():
        kept = state[name][mask]
        state[name] = state[name].clone()
        state[name][mask] = kept[torch.randperm(len(kept), generator=rng)]
    return replace(draft, state=state)


@changes("masks")
def random_layer(draft: Draft, seed: int) -> Draft:
    """Keep a random set with the ticket's layer counts: the law of ``shuffle``, another draw."""
    return replace(draft, masks=_shuffled(draft.masks, generator(seed, "prune", "random-layer")))


@changes("start")
def shuffle_blocks(draft: Draft, seed: int) -> Draft:
    """Same mask; permute the weights among blocks of one build (Chen et al. 2020, theta_0'').

    Blocks are the numbered members of one list (``encoder.layer.3``) whose tensors have the
    same names and shapes.

    Raises:
        BadInput: the model has no two such blocks.
    """
    import torch

    rng = generator(seed, "prune", "shuffle-blocks")
    state = dict(draft.state)
    for group in _twins(draft.state):
        order = list(range(len(group)))
        while order == sorted(order):  # blocks that stay in place would be no control
            order = torch.randperm(len(group), generator=rng).tolist()
        for target, source in zip(group, (group[i] for i in order), strict=True):
            for suffix in {n.removeprefix(target) for n in draft.state if n.startswith(target)}:
                state[target + suffix] = draft.state[source + suffix]
    return replace(draft, state=state)


@changes("search")
def inverted(chain: Chain) -> Chain:
    """Search with the scores negated: keep the lowest (Frankle et al. 2021)."""
    return chain.corrupted(invert=True)


@changes("search")
def random_scores(chain: Chain) -> Chain:
    """Search with random scores: the same schedule, counts and structure (Prasanna et al. 2020)."""
    return chain.corrupted(blind=True)


@changes("search")
def random_labels(chain: Chain) -> Chain:
    """Search on permuted training labels, then train on the true ones (Su et al. 2020)."""
    return chain.corrupted(labels="random")


@changes("search")
def random_pixels(chain: Chain) -> Chain:
    """Search on permuted labels and shuffled pixels, then train on the data (Su et al. 2020)."""
    return chain.corrupted(labels="random-pixels")


@changes("search")
def half_data(chain: Chain) -> Chain:
    """Search on half of the training part, then train on all of it (Su et al. 2020)."""
    share = chain.recipe.data_fraction / 2
    return replace(chain, recipe=replace(chain.recipe, data_fraction=share))


@changes("model")
def equal_compute(chain: Chain, level: Level, signature: Signature) -> Level:  # noqa: ARG001
    """Train the dense network for as many iterations as the ticket's search and training took.

    Counted as planned, each job once, less judges and a pre-training, which the dense network is
    given too; a step of a sparse network counts as one of the dense one.
    The schedule is stretched: its milestones and warm-up move along.
    """
    assert level.train is not None
    whole = chain.lasting(sum(map(iterations_of, own_graph(level.train))))
    start = whole.initial()
    return Level(level.index, start, None, whole.train(start, keep="metrics"))


@changes("model")
def equal_size(chain: Chain, level: Level, signature: Signature) -> Level:
    """Train a dense network of the same architecture, narrower: as many parameters as the ticket.

    Nearest from below; of the recipe's ``only`` parts alone where it has any. It has a start of its
    own and a whole training, by the same hyper-parameters on the same batches.

    Raises:
        BadInput: the models come in one width, or the ticket's size is not known beforehand.
    """
    recipe = chain.recipe
    left = _parameters_left(chain, level, signature)
    name = _narrowed(recipe.model, signature, left, recipe.only)
    narrow = replace(chain, recipe=replace(recipe, model=name))
    start = narrow.initial()
    return Level(level.index, start, None, narrow.train(start, keep="metrics"))


@cache
def _narrowed(model: str, signature: Signature, parameters: int, parts: tuple[str, ...]) -> str:
    return adapter_of(model).sized(model, signature, parameters, parts)


def _parameters_left(chain: Chain, level: Level, signature: Signature) -> int:
    """Return how many parameters a level's masks will leave: of ``only`` parts, if there are any.

    Raises:
        BadInput: the size is what a search leaves, not what it was told.
    """
    assert level.masks is not None
    config, recipe = level.masks.config, chain.recipe
    if not {"density", "scope", "overrides", "total"} <= config.keys() or config.get("shares"):
        raise BadInput(
            "control 'equal-size' needs the ticket's size before it is found, and that of finder "
            f"{finder_name(recipe.finder)!r}, as it is set, is known only then: choose one of "
            "exact counts, such as imp or one-shot"
        )
    adapter = adapter_of(recipe.model)
    with seeded(0, "init"):
        model = adapter.build(recipe.model, signature)
    covered = covered_of(config, adapter, model)
    kept = sum(pool.keep for pool in pools_of(config, model, covered))
    size = sum(model.get_parameter(name).numel() for name in covered)
    return parameters_of(model, recipe.only) - size + kept


def _shuffled(masks: Masks, rng: Any) -> Masks:
    import torch

    return masks.joined(
        type(masks)(
            {
                n: m.reshape(-1)[torch.randperm(m.numel(), generator=rng)].reshape(m.shape)
                for n, m in masks.weights.items()
            }
        )
    )


def _twins(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the prefixes (``encoder.layer.0.``) of blocks that are built alike, by list."""
    blocks: dict[str, list[Any]] = {}
    for name in sorted(state):
        for found in re.finditer(r"\.\d+\.", name):
            tensor = name[found.end() :], tuple(state[name].shape)
            blocks.setdefault(name[: found.end()], []).append(tensor)
    lists: dict[str, list[str]] = {}
    for prefix, build in blocks.items():
        around = re.sub(r"\d+\.$", "", prefix)
        lists.setdefault(repr((around, build)), []).append(prefix)
    alike = [group for group in lists.values() if len(group) > 1]
    outer = [g for g in alike if not any(g[0].startswith(o[0]) and g is not o for o in alike)]
    if not outer:
        raise BadInput("control 'shuffle-blocks' found no two blocks of one build in the model")
    return outer
