"""Tickets out of the store, and recipes out of tickets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import registry
from .errors import BadInput
from .experiment import Arm
from .formats import load_masks
from .jobs import DENSE, TICKET
from .masks import Masks
from .pretrained import Pretrained, borrowed
from .protocols import Adapter, adapter_of
from .recipe import Recipe
from .runs import recipe_key
from .session import MASKS, public_tensors, read_state, task_for
from .store import Store
from .ticket import Ticket
from .trials.results import Results

if TYPE_CHECKING:
    from torch import Tensor

    from .api import Finished
    from .graph import Graph


def ticket_of(arm: Arm, finished: Finished, store: Store, data: Path | None = None) -> Ticket:
    """Return the ticket of one arm of a finished run."""
    level, recipe = arm.level, finished.experiment.recipe
    trained, start = store.entry(arm.goal), store.entry(level.start)
    masks = store.entry(level.masks) if level.masks else None
    if trained is None or start is None or masks is None:
        raise BadInput(
            f"seed {arm.seed} has no ticket at level {level.index}: its search did not end"
        )
    one = replace(recipe, seeds=(arm.seed,), controls=())
    record = trained.manifest["record"]
    task = task_for(recipe, data)
    meta: dict[str, Any] = {
        "model": recipe.model,
        "signature": asdict(task.signature),
        "recipe": recipe.to_dict(),
        "recipe_key": recipe_key(one),
        "data": finished.experiment.fingerprint,
        "level": level.index,
        "seed": arm.seed,
        "headline": finished.results.headline,
        "metrics": trained.json()["metrics"],
        "curve": _curve(finished.results, arm),
        "cost": finished.results.cost,
        "versions": {name: record[name] for name in ("lth_zoo", "torch")},
    }
    for verdict in finished.verdicts:
        if verdict.level == level.index and len(recipe.seeds) > 1:
            meta["verdict"] = verdict.to_json()
    state = read_state(start, "start").state
    found, family = load_masks(masks.read(MASKS)), adapter_of(recipe.model)
    return assembled(found, state, meta, family, task.graph() if found.data else None)


def assembled(
    masks: Masks,
    state: Mapping[str, Tensor],
    meta: dict[str, Any],
    family: Adapter,
    graph: Graph | None = None,
) -> Ticket:
    """Return the ticket of masks and a start that have the names of ``meta["model"]``.

    Its names lose the family's prefix. Where every masked tensor that the model's public
    checkpoint has is bit for bit the same in the start, what the checkpoint holds is left to it.
    ``graph`` is what masks of edges are of.
    """
    prefix, public = family.prefix(meta["model"]), family.checkpoint(meta["model"])
    ours = public_tensors(state, public, prefix) if public else {}
    if prefix:  # tensor names are the library's
        library = {"transformers": version("transformers")}
        meta = {**meta, "versions": {**meta.get("versions", {}), **library}}
    masks = Masks({n.removeprefix(prefix): m for n, m in masks.items()})
    plain = {n.removeprefix(prefix): t for n, t in state.items()}
    shared = borrowed(plain, {n.removeprefix(prefix): k for n, k in ours.items()})
    known = set(masks) & public.digests.keys() if public else set()
    if public is None or not known or not known <= shared:
        return Ticket(masks, plain, meta, graph)
    theirs = {n: t for n, t in plain.items() if n in shared}
    pointer = Pretrained.of(public, theirs, masks, transformers=version("transformers"))
    own = {n: t for n, t in plain.items() if n not in shared}
    return Ticket(masks, own, {**meta, "pretrained": pointer.to_meta()}, graph)


def _curve(results: Results, arm: Arm) -> list[dict[str, float]]:
    rows = []
    for level in results.levels():
        for run in results.select(TICKET if level else DENSE, level):
            if run.seed == arm.seed and level <= arm.level.index:
                value = run.metrics["test"][results.headline]
                row = {"level": level, "density": run.density, "value": value}
                if results.prunes_edges:
                    row["edge_density"] = 1.0 - run.graph_sparsity
                rows.append(row)
    return rows


def recipe_of(
    ticket: Ticket, seeds: tuple[int, ...], controls: tuple[str, ...] | None = None
) -> Recipe:
    """Return the recipe that found a ticket, down to its level, for several seeds.

    Raises:
        BadInput: the ticket was imported and carries none, or its model is an object that is
            not at hand.
    """
    if "recipe" not in ticket.meta:
        raise BadInput(
            "the ticket carries no recipe (it was imported), so its search cannot be repeated"
        )
    recipe = Recipe.from_dict(ticket.meta["recipe"])
    _check_model(recipe.model)
    finder = recipe.finder
    if hasattr(finder, "levels"):
        finder = replace(finder, levels=ticket.meta["level"])  # type: ignore[call-arg]
    default = Recipe().controls
    chosen = controls if controls is not None else (recipe.controls or default)
    return replace(recipe, finder=finder, seeds=seeds, controls=chosen)


def _check_model(name: str) -> None:
    """Raise if a ticket's model is an object of Python that is not registered now."""
    at_hand = [known for known in registry.names("adapters") if known.startswith("object/")]
    if name.startswith("object/") and name not in at_hand:
        given = (
            f"the model given is {at_hand[0]!r}, another one" if at_hand else "it is not at hand"
        )
        raise BadInput(
            f"the ticket's model {name!r} is an object of Python, and {given}; give the same "
            "object, untrained, to lz.verify(ticket, model=...), or find the ticket under a name "
            "(--model module:function)"
        )
