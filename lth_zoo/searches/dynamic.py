"""What a job of kind ``dynamic`` does: one training under masks that change on the way.

Its config holds, beside what a training and a prune job read:

- ``rule``: ``rigl``, ``set``, ``gradual``, ``deep-r`` or ``soft-deep-r``;
- ``every``: iterations between two updates (``epoch``: after each epoch);
- ``rigl``: ``stop``, the iteration that updates end before; ``share`` of the kept that is swapped
  at first, and whether it ``anneal``s; ``accumulate``, how many gradients an update reads;
  ``reset``, whether what goes and comes in one update starts anew;
- ``set``: ``share``; ``gradual``: ``first`` and ``last``, the iterations the cubic goes between;
- ``deep-r``: ``l1`` and ``noise``, times the learning rate; ``rate``, that at first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..coverage import covered_of, pools_of
from ..errors import BadInput
from ..kinds import learned, trained
from ..rewind import Snapshot
from ..seeds import generator
from .deep_r import DeepR, SoftDeepR
from .dynamic_hooks import Evolving, Fading, Rewiring, Rigging

if TYPE_CHECKING:
    from torch import nn

    from ..protocols import Task
    from ..prunable import Prunable
    from ..session import Session

RULES: dict[str, type[Rewiring]] = {
    "rigl": Rigging,
    "set": Evolving,
    "gradual": Fading,
    "deep-r": DeepR,
    "soft-deep-r": SoftDeepR,
}
#: Rules that move weights or read gradients by one loss over all of them.
ONE_LOSS = ("rigl", "deep-r", "soft-deep-r")


def dynamic_job(session: Session) -> None:
    """Train from the start under changing masks; write the last ones and the trained state.

    Raises:
        BadInput: see :func:`check_dynamic`.
        Diverged: a loss or a weight is not finite.
    """
    config, model = session.config, session.build()
    model.load_state_dict(session.snapshot("start").state)
    covered = covered_of(config, session.adapter, model)
    check_dynamic(config, learned(session), model, covered)
    hook = RULES[config["rule"]](config, model, covered)
    first = hook.masks
    loop = trained(session, model, lambda: None, [hook])

    masks = hook.masks
    session.write_masks(masks)
    session.write_state(Snapshot(loop.final_state(), loop.iteration))
    session.write_json(
        {
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            "new": sum(int((m & ~first[n]).sum()) for n, m in masks.items()) / masks.kept,
            **hook.said,
            "iterations": loop.iteration - loop.begin,
            "metrics": {"validation": loop.evaluate("validation")},
        }
    )


def check_dynamic(
    config: Mapping[str, Any], task: Task, model: nn.Module, covered: Mapping[str, Prunable]
) -> None:
    """Assert, before any work, that a network can be trained under such masks.

    Raises:
        BadInput: several losses where the rule is for one, a layer that would keep nothing, or
            epochs of which none ends before the training does.
    """
    objectives = task.objectives(model)
    if config["rule"] in ONE_LOSS and (len(objectives) != 1 or objectives[0].parameters):
        raise BadInput(
            f"{config['rule']} rewires by one loss over the whole model; task {task.name!r} has "
            f"{', '.join(o.name for o in objectives)}: choose finder set or gradual"
        )
    for pool in pools_of(config, model, covered):
        if pool.keep < len(pool.names):
            size = sum(model.get_parameter(n).numel() for n in pool.names)
            layers = ", ".join(covered[n].layer for n in pool.names)
            raise BadInput(
                f"scope {config['scope']!r} at density {config['density']} keeps {pool.keep} of "
                f"{size:,} weights of {layers}: at least one a layer is needed; choose a lower "
                "sparsity, or exclude the layer"
            )
    if config.get("every") == "epoch":
        batches = task.epoch(config["training"]["batch_size"], generator(0, "data", 0))
        length = -(-len(batches) // config["training"]["accumulation"])
        if length >= config["end"] - config["begin"]:
            raise BadInput(
                f"finder.every is an epoch, of {length} iterations, and the search has "
                f"{config['end']}: it would never update; give iterations (10) or a share (5%)"
            )
