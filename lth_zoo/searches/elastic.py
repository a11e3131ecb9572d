"""What a job of kind ``elastic`` does: stretch or squeeze a ticket to a deeper or shallower model.

Chen et al. 2021 (*The Elastic Lottery Ticket Hypothesis*, NeurIPS, arXiv:2103.16547): the blocks of
a stage take mask and weights of the source's blocks. The first one of each stage, which changes
the shape, is the source's first; so is all outside blocks (stem and head). The others repeat
or leave out the source's others, nearest to equally.

The config names the ``source`` model, the ``order`` and a ``map`` (empty: worked out).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, StoreError
from ..masks import Masks
from ..protocols import Adapter, Signature, adapter_of
from ..prunable import within
from ..rewind import Snapshot
from ..seeds import seeded

if TYPE_CHECKING:
    from torch import nn

    from ..session import Session

#: Modules of one block, in the same order in every block.
Block = tuple[str, ...]


def elastic_job(session: Session) -> None:
    """Write the source's masks and start as the target's model has them.

    Raises:
        BadInput: see :func:`origins`.
    """
    masks, start = session.masks("masks"), session.snapshot("source")
    if masks is None:
        raise StoreError(f"{session.job.label} has no masks")
    signature = session.task.signature
    source = _built(session.config["source"], signature)
    found = origins(session.config, session.adapter, session.build(), source)
    carried = Masks({ours: masks[theirs] for ours, theirs in found.items() if theirs in masks})
    session.write_masks(carried)
    # A new start has no past: its optimiser and generators begin anew.
    state = {ours: start.state[theirs] for ours, theirs in found.items()}
    session.write_start(Snapshot(state, start.iteration))
    session.write_json(
        {
            "masks": carried.counts,
            "kept": carried.kept,
            "prunable": carried.size,
            "source": {"kept": masks.kept, "prunable": masks.size},
        }
    )


def check_elastic(
    config: Mapping[str, Any], adapter: Adapter, model: nn.Module, signature: Signature
) -> nn.Module:
    """Assert, before any work, that a ticket of the source fits a model; return the source's.

    Raises:
        BadInput: see :func:`origins`.
    """
    source = _built(config["source"], signature)
    origins(config, adapter, model, source)
    return source


def _built(name: str, signature: Signature) -> nn.Module:
    with seeded(0, "init"):
        return adapter_of(name).build(name, signature)


def origins(
    config: Mapping[str, Any], adapter: Adapter, model: nn.Module, source: nn.Module
) -> dict[str, str]:
    """Return which tensor of the source each tensor of a model comes from.

    Raises:
        BadInput: a family says no blocks, a map does not fit, a stage of one block is to be
            stretched, or a tensor has another shape in the source.
    """
    name = config["source"]
    ours = _stages(adapter, model, config["model"])
    theirs = _stages(adapter_of(name), source, name)
    if len(ours) != len(theirs):
        raise BadInput(
            f"{config['model']!r} has {len(ours)} stages of blocks, {name!r} has {len(theirs)}: "
            "a ticket is stretched between models that differ in the depth of their stages"
        )
    lengths = [(len(a), len(b)) for a, b in zip(theirs, ours, strict=True)]
    chosen = maps(lengths, config["order"], config["map"])
    modules = {
        mine: other
        for stage, blocks, picks in zip(ours, theirs, chosen, strict=True)
        for block, pick in zip(stage, picks, strict=True)
        for mine, other in zip(block, blocks[pick], strict=True)
    }
    return _tensors(modules, model.state_dict(), source.state_dict(), config["model"], name)


def _stages(adapter: Adapter, model: nn.Module, name: str) -> Sequence[Sequence[Block]]:
    stages = adapter.blocks(model)
    if not stages:
        raise BadInput(
            f"the blocks of {name!r} are not known; finder elastic fits those of the family cnn "
            "that have stages: vgg-11 and resnet-20 and their like"
        )
    return stages


def _tensors(
    modules: Mapping[str, str],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    target: str,
    source: str,
) -> dict[str, str]:
    found = {}
    for name, tensor in ours.items():
        place = next((m for m in modules if within(name, m)), "")
        found[name] = modules[place] + name.removeprefix(place) if place else name
        other = theirs.get(found[name])
        if other is None or other.shape != tensor.shape:
            shape = "missing" if other is None else tuple(other.shape)
            raise BadInput(
                f"a ticket of {source!r} does not fit {target!r}: {name} is {tuple(tensor.shape)}, "
                f"{found[name]} is {shape} there; choose a source of the same widths"
            )
    return found


# -- maps ----------------------------------------------------------------------------------


def maps(lengths: Sequence[tuple[int, int]], order: str, text: str = "") -> list[list[int]]:
    """Return, for each block of the target, the source's block in the same stage.

    ``lengths`` has the blocks of the source and of the target in each stage; ``text`` is a map in
    the published form, source:targets, for every stage or, between slashes, for each.

    >>> maps([(3, 5)], "append"), maps([(3, 5)], "interpolate")
    ([[0, 1, 2, 1, 2]], [[0, 1, 1, 2, 2]])
    >>> maps([(3, 5), (3, 5)], "append", "0:0;1:1,2;2:3,4")
    [[0, 1, 1, 2, 2], [0, 1, 1, 2, 2]]
    >>> maps([(5, 3)], "append"), maps([(5, 3)], "interpolate")
    ([[0, 1, 2]], [[0, 1, 3]])

    Raises:
        BadInput: a map does not fit, or a stage of one block is to be stretched.
    """
    if not text:
        return [_worked_out(theirs, ours, order) for theirs, ours in lengths]
    parts = text.split("/")
    if len(parts) not in (1, len(lengths)):
        raise BadInput(
            f"finder.map {text!r} has {len(parts)} stages, the models have {len(lengths)}: give "
            "one map for all, or one for each between slashes"
        )
    parts = parts * len(lengths) if len(parts) == 1 else parts
    return [_parsed(part, *length) for part, length in zip(parts, lengths, strict=True)]


def _worked_out(theirs: int, ours: int, order: str) -> list[int]:
    """Replicate or drop all blocks but the first as equally as can be; early ones have the rest."""
    if theirs == 1 < ours:
        raise BadInput(
            "the source has a stage of one block, which changes the shape and is not replicated: "
            "choose a deeper source, such as resnet-14 in place of resnet-8"
        )
    movable, places = theirs - 1, range(ours - 1)
    if order == "append":
        return [0, *(1 + j % movable for j in places)]
    return [0, *(1 + j * movable // (ours - 1) for j in places)]


def _parsed(text: str, theirs: int, ours: int) -> list[int]:
    picks: dict[int, int] = {}
    try:
        for entry in text.split(";"):
            source, _, targets = entry.partition(":")
            for target in targets.split(","):
                if int(target) in picks:
                    raise ValueError
                picks[int(target)] = int(source)
    except ValueError:
        picks = {}
    fits = sorted(picks) == list(range(ours)) and all(0 <= p < theirs for p in picks.values())
    if not fits or [target for target, pick in picks.items() if pick == 0] != [0]:
        example = ";".join(
            f"{s}:{','.join(str(t) for t, p in enumerate(row) if p == s)}"
            for row in [_worked_out(theirs, ours, "interpolate")]
            for s in sorted(set(row))
        )
        raise BadInput(
            f"finder.map {text!r} does not say once for each of the {ours} blocks of a stage which "
            f"of the source's {theirs} it comes from, the first from the first: such as {example}"
        )
    return [picks[target] for target in range(ours)]
