"""Tickets of what makes images, from model to model: a VAE's decoder in a GAN, and back.

A *source* is a model whose search gives the masks of its maker (the decoder or the generator), or
one of two that search nothing: ``one-shot`` (the largest weights of the target's start) and
``random`` (as many weights a layer as the target's own ticket). A *target* is a model trained with
these masks on its maker, its other network dense. *Own ticket* and *dense* are those of ``find``
with the recipe's ``only`` set to the maker: the same jobs (Kalibhat et al. 2021, arXiv:2010.02350).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..coverage import covered_of
from ..errors import BadInput, unknown
from ..experiment import experiment
from ..jobs import Job
from ..masks import Masks
from ..protocols import adapter_of
from ..recipe import Recipe
from ..rewind import Snapshot
from ..seeds import seeded
from ..session import task_for
from .backbones import backbone_matrix
from .footing import Footing
from .transfer import FREE
from .transfer_study import CellJob, TransferStudy, check_start

if TYPE_CHECKING:
    from torch import nn

#: Names of the network that makes images: an autoencoder's, a GAN's.
MAKERS = ("decoder", "generator")
#: What of a source's ticket comes along: the mask, or with it the weights it is rewound to.
MakerCarry = Literal["mask", "mask+start"]


@dataclass(frozen=True)
class Makers(TransferStudy):
    """A checked study of makers' tickets from model to model: every model is source and target."""

    axis = "model"

    @property
    def title(self) -> str:
        """What a person calls it."""
        recipe = self.recipe
        return f"{recipe.name}: models" if recipe.name else f"models on {recipe.task}"

    def recipe_of(self, name: str) -> Recipe:
        """Return the recipe of one search: of the model's own maker alone."""
        return of_maker(super().recipe_of(name), self.footing.parts[name])

    def prefix_of(self, source: str) -> str:
        """Return what stands before the shared tensors in a source's masks."""
        return f"{self.footing.parts.get(source, self.footing.parts[self.targets[0]])}."

    def _cell(self, source: str, target: str, seed: int) -> CellJob:
        arm, chain = self.tickets[target, seed], self.chain(target, seed)
        start = arm.level.start
        assert arm.level.masks is not None
        if source == target:
            return CellJob(source, target, seed, arm.level.masks, arm.goal)
        if source in FREE:
            masks = self._unsearched(source, target, seed)
        else:
            masks = self._brought(source, target, seed)
            start = start if self.carry == "mask" else masks
        return CellJob(source, target, seed, masks, chain.again(arm.goal, start, masks))

    def _unsearched(self, source: str, target: str, seed: int) -> Job:
        """Return the masks of a control of the target's own ticket."""
        control = {"one-shot": "one-shot", "random": "random-layer"}[source]
        level = self.tickets[target, seed].level
        masks = self.chain(target, seed).control(control, level, "masks").masks
        assert masks is not None
        return masks

    def _brought(self, source: str, target: str, seed: int) -> Job:
        """Return the job that brings a source's ticket to a target's maker."""
        theirs, ours = self.tickets[source, seed].level, self.tickets[target, seed].level
        assert theirs.masks is not None
        inputs = {"masks": theirs.masks}
        if self.carry == "mask+start":
            inputs |= {"source": theirs.start, "start": ours.start}
        first = self.chain(target, seed).initial().config
        config: dict[str, Any] = {k: v for k, v in first.items() if k != "draw"}
        config["changes"] = {"mask": "masks", "mask+start": "start"}[self.carry]
        config["parts"] = [self.footing.parts[name] for name in (source, target)]
        return Job("carry", config, inputs)

    def masks_of(self, source: str, seed: int) -> Job | None:
        """Return a source's masks, None for the random one: see :meth:`TransferStudy.masks_of`."""
        if source == "random":
            return None
        if source == "one-shot":
            return self._unsearched(source, self.targets[0], seed)
        return self.tickets[source, seed].level.masks


def of_maker(recipe: Recipe, part: str) -> Recipe:
    """Return a recipe that prunes one maker alone; excluded layers of either name are its own."""

    def own(layer: str) -> str:
        network, dot, rest = layer.partition(".")
        return part + dot + rest if network in MAKERS else layer

    return replace(recipe, only=(part,), exclude=tuple(map(own, recipe.exclude)))


# -- asking for one ------------------------------------------------------------------------


def between_models(
    recipe: Recipe, models: Sequence[str], carry: str = "mask", data: Path | None = None
) -> TransferStudy:
    """Check a study along models, on the recipe's task: of edges, or of what makes images.

    Raises:
        BadInput, DataError: see :func:`~.backbones.backbone_matrix` and :func:`maker_matrix`.
    """
    if isinstance(models, str) or not all(isinstance(name, str) for name in models):
        raise BadInput(f"backbones are {models!r}; give a list of names of models")
    if models and task_for(replace(recipe, model=models[0]), data).signature.answer == "images":
        return maker_matrix(recipe, models, carry, data)
    if carry != "mask":
        raise BadInput(
            "backbones have no sources, targets or carry: each one's edges are brought to all"
        )
    return backbone_matrix(recipe, models, data)


def maker_matrix(
    recipe: Recipe, models: Sequence[str], carry: str = "mask", data: Path | None = None
) -> Makers:
    """Check a study of makers' tickets from model to model on the recipe's task, and lay it out.

    The recipe's own model and controls are not used.

    Raises:
        BadInput: a model that does not exist or makes no images, makers of different shapes, or
            a recipe that prunes something else.
        DataError: the data of the task is missing or damaged.
    """
    if carry not in get_args(MakerCarry):
        raise unknown("carry between models", carry, get_args(MakerCarry))
    names = list(dict.fromkeys(models))
    if len(names) < 2:
        raise BadInput(f"models are {names}; give at least two, such as vae and dcgan")
    if recipe.sparsity == 0:
        raise BadInput("sparsity is 0: there is no ticket to bring anywhere; give one above 0")
    if odd := [part for part in recipe.only if part not in MAKERS]:
        raise BadInput(
            f"only is {odd[0]!r}; from model to model go tickets of the network that makes images, "
            "whatever its name is: leave it out"
        )
    recipe = replace(recipe, model=names[0], controls=(), only=())
    makers = {name: _maker(replace(recipe, model=name), data) for name in names}
    base = _footing(makers, carry)
    found = {
        name: experiment(of_maker(replace(recipe, model=name), base.parts[name]), data)
        for name in names
    }
    for one in found.values():
        check_start(one.recipe)
    recipe = replace(recipe, head=found[names[0]].recipe.head)
    prints = {name: one.fingerprint for name, one in found.items()}
    iterations = {name: one.recipe.training.iterations for name, one in found.items()}
    return Makers(recipe, (*names, *FREE), tuple(names), carry, prints, iterations, base)


@dataclass(frozen=True)
class _Maker:
    """A model, what its maker is called, whole masks of what a search prunes there, its start."""

    model: nn.Module
    part: str
    masks: Masks
    start: str

    @property
    def tensors(self) -> list[str]:
        """The masked tensors' names inside the maker."""
        return [name.removeprefix(f"{self.part}.") for name in self.masks]


def _maker(recipe: Recipe, data: Path | None) -> _Maker:
    from ..carry import renamed
    from ..formats import state_fingerprint

    adapter, task = adapter_of(recipe.model), task_for(recipe, data)
    with seeded(recipe.seeds[0], "init"):
        model = adapter.build(recipe.model, task.signature)
    part = next((name for name, _ in model.named_children() if name in MAKERS), "")
    if not part:
        children = ", ".join(name for name, _ in model.named_children())
        raise BadInput(
            f"model {recipe.model!r} has no {' or '.join(MAKERS)} whose ticket could be brought "
            f"to another model; it has {children or 'no parts'}"
        )
    recipe = of_maker(recipe, part)
    fields = ("exclude", "include", "only", "prune_first", "prune_last")
    covered = covered_of({f: getattr(recipe, f) for f in fields}, adapter, model)
    start = state_fingerprint(renamed(model.state_dict(), part, ""))
    return _Maker(model, part, Masks.ones(model, covered), start)


def _footing(makers: Mapping[str, _Maker], carry: str) -> Footing:
    """Return what all makers share.

    Raises:
        BadInput: the first one's tickets do not fit another's; the message says why.
    """
    from ..carry import renamed, with_part

    (first, ours), *others = makers.items()
    for name, theirs in others:
        try:
            masks = Masks(renamed(ours.masks, ours.part, theirs.part))
            adapter_of(name).carry(masks, theirs.model)
            if carry == "mask+start":
                start = renamed(ours.model.state_dict(), ours.part, theirs.part)
                with_part(Snapshot(theirs.model.state_dict()), start)
        except BadInput as error:
            raise BadInput(f"a ticket of {first} does not fit {name}: {error}") from error
        if odd := sorted(set(ours.tensors) ^ set(theirs.tensors)):
            whose = first if odd[0] in ours.tensors else name
            raise BadInput(
                f"the search would prune {odd[0]} of {whose} alone, and sparsities would differ: "
                "choose layers by --exclude, of the decoder or the generator, not by their place"
            )
    parts = {name: maker.part for name, maker in makers.items()}
    starts = {name: maker.start for name, maker in makers.items()}
    notes = _note(starts) if carry == "mask" else ()
    return Footing(dict.fromkeys(ours.tensors, "maker"), notes=notes, parts=parts)


def _note(starts: Mapping[str, str]) -> tuple[str, ...]:
    """Say so where models draw the same network to different starts."""
    groups: dict[str, list[str]] = {}
    for name, start in starts.items():
        groups.setdefault(start, []).append(name)
    if len(groups) < 2:
        return ()
    listed = "; ".join(", ".join(names) for names in groups.values())
    return (
        f"The network that makes images is not drawn to the same theta_0: {listed}. Between these "
        "groups a cell tests a mask on another start than it was found on; carry mask+start "
        "brings the start along.",
    )
