"""Controls: a ticket with one ingredient destroyed.

A *ticket control* is a function ``(draft, seed) -> draft`` that changes the masks or the
start. A *search control* changes how the mask is searched: ``chain -> chain``; its ticket is
then trained as usual. Dense, ticket and controls of one seed share the data order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .jobs import Chain
from .seeds import generator

if TYPE_CHECKING:
    from torch import Tensor

    from .masks import Masks

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Draft:
    """A ticket in memory as a control sees it.

    ``state`` is the full state the ticket starts from, pruned positions included; ``fresh()``
    returns a newly initialised one.
    """

    masks: Masks
    state: Mapping[str, Tensor]
    fresh: Callable[[], Mapping[str, Tensor]]

    @property
    def density(self) -> Fraction:
        """Kept share, exact."""
        return Fraction(self.masks.kept, self.masks.size)


def changes(what: Literal["masks", "start", "init", "search", "both"]) -> Callable[[F], F]:
    """Declare what a control changes, so that only that is stored (default: ``both``).

    ``start`` keeps the ticket's place in the schedule; ``init`` is a start that has seen no
    training, and is trained whole.
    """

    def mark(control: F) -> F:
        control.changes = what  # type: ignore[attr-defined]
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
    for name, mask in draft.masks.items():
        kept = state[name][mask]
        state[name] = state[name].clone()
        state[name][mask] = kept[torch.randperm(len(kept), generator=rng)]
    return replace(draft, state=state)


@changes("masks")
def random_global(draft: Draft, seed: int) -> Draft:
    """Keep a random set of the same size over all layers."""
    return _random(draft, seed, "global")


@changes("masks")
def random_erk(draft: Draft, seed: int) -> Draft:
    """Keep a random set of the same size, layer densities by the Erdos-Renyi kernel."""
    return _random(draft, seed, "erk")


@changes("masks")
def random_layer(draft: Draft, seed: int) -> Draft:
    """Keep a random set with the ticket's layer counts: the law of ``shuffle``, another draw."""
    return replace(draft, masks=_shuffled(draft.masks, generator(seed, "prune", "random-layer")))


@changes("search")
def inverted(chain: Chain) -> Chain:
    """Search with the scores negated: keep the lowest (Frankle et al. 2021)."""
    return chain.corrupted(invert=True)


@changes("search")
def random_labels(chain: Chain) -> Chain:
    """Search on permuted training labels, then train on the true ones (Su et al. 2020)."""
    return chain.corrupted(labels="random")


def _shuffled(masks: Masks, rng: Any) -> Masks:
    import torch

    return type(masks)(
        {
            n: m.reshape(-1)[torch.randperm(m.numel(), generator=rng)].reshape(m.shape)
            for n, m in masks.items()
        }
    )


def _random(draft: Draft, seed: int, scope: str) -> Draft:
    import torch

    from .select import allocate, select

    rng = generator(seed, "prune", "random", scope)
    shapes = {n: tuple(m.shape) for n, m in draft.masks.items()}
    scores = {n: torch.rand(shape, generator=rng) for n, shape in shapes.items()}
    return replace(draft, masks=select(scores, allocate(shapes, draft.density, scope)))
