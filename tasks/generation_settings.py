"""What a generative model is trained with: its own settings, and what a task's name changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import BadInput, unknown

if TYPE_CHECKING:
    from torch import nn

#: Length of the signed step of adversarial features (Chen et al. 2021, arXiv:2103.00397).
ADVERSARIAL = 0.01
#: Kind of model -> what it may minimise.
LOSSES = {
    "gan": ("hinge", "non-saturating", "wasserstein"),
    "vae": ("bernoulli", "gaussian"),
    "ae": ("bernoulli", "gaussian"),
}


@dataclass(frozen=True)
class Settings:
    """What a model is trained with: its own, or what the task's name says."""

    kind: str
    loss: str
    critic: int = 1
    beta: float = 1.0
    adversarial: float = 0.0


def options_of(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Return what the words after a task's name set.

    Raises:
        BadInput: a word is none of them, or out of range.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, _, number = word.rpartition("-")
        if word in (known := {loss for kind in LOSSES.values() for loss in kind}):
            found["loss"] = word
        elif word == "adv-aug":
            found["adversarial"] = ADVERSARIAL
        elif key == "critic" and number.isdecimal() and int(number):
            found["critic"] = int(number)
        elif key == "beta" and re.fullmatch(r"\d+(\.\d+)?", number):
            found["beta"] = float(number)
        else:
            raise unknown(f"option of {name!r}", word, {*known, "adv-aug", "critic-5", "beta-4"})
    return found


def settings_of(model: Any, options: Mapping[str, Any], name: str) -> Settings:
    """Return how a model is trained under the options of a task of that name.

    Raises:
        BadInput: the model is of no known kind, or an option is not for its kind.
    """
    kind = kind_of(model)
    own: dict[str, Any] = {"kind": kind, "loss": model.loss}
    if kind == "gan":
        own |= {"critic": model.critic_steps, "adversarial": 0.0}
    if kind == "vae":
        own["beta"] = model.beta
    loss = options.get("loss", model.loss)
    if loss not in LOSSES[kind]:
        raise unknown(f"loss of a {kind} (task {name!r})", loss, LOSSES[kind])
    if odd := [key for key in options if key not in own]:
        raise BadInput(f"task {name!r}: {odd[0]} is no setting of model kind {kind!r}")
    return Settings(**{**own, **options})


def part_of(name: str) -> Callable[[Any], Iterable[nn.Parameter]]:
    """Return what takes the parameters of a network out of a model."""

    def taken(model: Any) -> Iterable[nn.Parameter]:
        found: Iterable[nn.Parameter] = model.get_submodule(name).parameters()
        return found

    return taken


def kind_of(model: Any) -> str:
    """Return ``ae``, ``vae`` or ``gan``.

    Raises:
        BadInput: the model has no such kind.
    """
    kind = getattr(model, "kind", None)
    if kind not in LOSSES:
        raise BadInput(
            f"model {type(model).__name__} has kind {kind!r}; a model that makes images says ae, "
            "vae or gan, and has encoder and decoder, or generator and discriminator"
        )
    return str(kind)
