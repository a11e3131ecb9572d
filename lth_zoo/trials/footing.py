"""What models share, of several tasks or several ones of a task: what a transfer stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..coverage import covered_of
from ..errors import BadInput
from ..graph_models import ANSWERS
from ..protocols import Signature, adapter_of
from ..recipe import Recipe
from ..seeds import seeded
from ..session import task_for

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Footing:
    """The masked tensors that every task's model has, heads aside, and remarks on their start.

    ``roles`` maps the base-relative name to the role; ``prefix`` stands before it in a model. Of
    backbones they share the edges alone; of models that make images the network that does, which
    ``parts`` names in each of them.
    """

    roles: Mapping[str, str]
    prefix: str = ""
    notes: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Footing:
        """Read what :meth:`to_json` returned."""
        parts = dict(data.get("parts", {}))
        return cls(dict(data["roles"]), data["prefix"], tuple(data["notes"]), parts)


@dataclass(frozen=True)
class _Facts:
    """One task's model: masked names -> role, every tensor's shape, what theta_0 is, its input."""

    roles: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    start: str
    signature: Signature


def footing(
    recipes: Sequence[Recipe], pairs: Sequence[tuple[str, str]], data: Path | None = None
) -> Footing:
    """Return what the models of the recipes, one a task, share.

    ``pairs`` are the (source, target) tasks between which masks are to be carried.

    Raises:
        BadInput: no pair's masks fit, or one pair's do not and the models make images; the
            message names what does not.
    """
    adapter = adapter_of(recipes[0].model)
    prefix = adapter.prefix(recipes[0].model)
    facts = {recipe.task: _facts(recipe, data, prefix) for recipe in recipes}
    misfits = {(s, t): odd for s, t in pairs if (odd := _misfit(facts[s], facts[t]))}
    # Images of two sizes share no tickets: whoever names both should know before any search.
    images = any(found.signature.answer == "images" for found in facts.values())
    if misfits and (images or len(misfits) == len(pairs)):
        (source, target), odd = next(iter(misfits.items()))
        raise BadInput(f"masks of {source} do not fit {recipes[0].model} on {target}: {odd}")
    notes = [f"Masks of {s} do not fit {t}: {odd}." for (s, t), odd in misfits.items()]
    starts: dict[str, list[str]] = {}
    for task, found in facts.items():
        starts.setdefault(found.start, []).append(task)
    if len(starts) > 1:
        groups = "; ".join(", ".join(tasks) for tasks in starts.values())
        notes.append(
            f"The model is drawn anew for each task, and not to the same theta_0: {groups}. "
            "Between these groups a cell tests a mask on another start than it was found on."
        )
    first, *others = facts.values()
    roles = {
        name: role
        for name, role in first.roles.items()
        if all(name in o.roles and o.shapes[name] == first.shapes[name] for o in others)
    }
    return Footing(roles, prefix, tuple(notes))


def _facts(recipe: Recipe, data: Path | None, prefix: str) -> _Facts:
    from ..formats import state_fingerprint

    adapter = adapter_of(recipe.model)
    task = task_for(recipe, data)
    with seeded(recipe.seeds[0], "init"):
        model = adapter.build(recipe.model, task.signature)
    given = adapter.checkpoint(recipe.model) or adapter.pretraining(recipe.model)
    head = adapter.head(model)
    state: dict[str, Tensor] = model.state_dict()
    base = {n.removeprefix(prefix): t for n, t in state.items() if n not in head}
    fields = ("exclude", "include", "prune_first", "prune_last")
    covered = covered_of({f: getattr(recipe, f) for f in fields}, adapter, model)
    return _Facts(
        roles={n.removeprefix(prefix): p.role for n, p in covered.items() if n not in head},
        shapes={name: tuple(tensor.shape) for name, tensor in base.items()},
        start="" if given else state_fingerprint(base),
        signature=task.signature,
    )


def _misfit(source: _Facts, target: _Facts) -> str:
    """Return what of the source's masks has no place in the target's model; empty if all has."""
    odd = [
        f"{name} is {source.shapes[name]} there, {target.shapes.get(name, 'missing')} here"
        for name in source.roles
        if target.shapes.get(name) != source.shapes[name]
    ]
    if not odd:
        return ""
    there, here = source.signature, target.signature
    answers, why = {there.answer, here.answer}, ""
    if there.input != here.input and answers <= set(ANSWERS):
        why = f"; a node has {there.input[0]:,} features there, {here.input[0]:,} here"
    if there.input != here.input and answers == {"images"}:
        why = f"; an image is {_size(there)} there, {_size(here)} here"
    return odd[0] + (f", and {len(odd) - 1} more" if odd[1:] else "") + why


def _size(images: Signature) -> str:
    return "x".join(map(str, images.input))
