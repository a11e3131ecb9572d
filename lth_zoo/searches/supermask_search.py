"""What a job of kind ``supermask`` does: learn which frozen weights stay, by a method of its own.

The search is one training in the one loop, of a :class:`~lth_zoo.relax.ScoredModel` whose weights
never move. Its config holds, beside what a training and a prune job read:

- ``method``: a name of ``METHODS``; ``strength`` of its penalty, ``frozen`` shares (edge-popup,
  biprop), ``samples`` (supermask), ``period`` (gem-miner), where it has them;
- ``weights``: a law of :data:`lth_zoo.strong.LAWS` in place of the start's; ``finish``: what the
  weights go through besides, and are in the result: ``binary``, ``rescaled`` or nothing;
- ``first``, ``cool_down``: the cubic schedule of the density;
- ``settle``: how many batches the running statistics of the result are from; at 0 they are the
  start's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from ..allocate import Pool, exact
from ..coverage import covered_of, pools_of
from ..errors import BadInput
from ..hooks import Hook
from ..kinds import learned, trained
from ..masks import Masks
from ..relax import ScoredModel, Straight, cubic
from ..rewind import Snapshot, clone_state
from ..seeds import generator, seeded
from ..session import Session
from ..strong import finish, lay, settle
from .learn import one_loss, through_masks
from .supermasks import Bernoulli, Gem, Popup, Relaxed, Scores, Supermask

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..protocols import Prunable, Task
    from ..train import Loop

#: method -> (its config, the pools of the ticket) -> how it relaxes masks
METHODS: dict[str, Callable[[Mapping[str, Any], list[Pool]], Supermask]] = {
    "edge-popup": lambda config, pools: Popup(pools, config["finish"]),
    "supermask": lambda config, pools: Bernoulli(pools, config["finish"]),
    "bernoulli-gates": lambda config, pools: Relaxed(pools, config["strength"]),
    "gem-miner": lambda config, pools: Gem(pools, config["strength"]),
}

#: Where a checkpoint keeps the masks of a search, beside the optimiser's tensors.
FIXED = "fixed:"


def supermask_job(session: Session) -> None:
    """Learn the scores of a frozen start, harden them, and write masks and state.

    Raises:
        BadInput: the task has several losses, each with parameters of its own.
        Diverged: a loss or a score is not finite.
    """
    config, inner, task = session.config, session.build(), learned(session)
    one_loss(task, inner)
    inner.load_state_dict(session.snapshot("start").state)
    covered, rng = covered_of(config, session.adapter, inner), _drawing(config, "weights")
    lay(inner, covered, config["weights"], float(exact(config["density"])), rng)
    before = clone_state(inner)
    model, about = scored(config, inner, covered)
    found = model.relaxation
    assert isinstance(found, Supermask)
    course = Course(config, inner, covered)
    if config["method"] == "gem-miner":
        course.rounds = rounds_of(config, task)
    loop = trained(session, model, lambda: None, [course], task=through_masks(task))

    scores = {n: s.detach() for n, s in model.by_name().items()}
    about |= {"relaxed": found.count(scores), "own": {"validation": _own(loop, found, config)}}
    found.pools = course.pools(config["density"])
    masks = Masks({n: m.cpu() for n, m in found.masks(scores).items()})
    finish(inner, masks, config["finish"])
    model.relaxation = Fixed({n: m.to(scores[n].device) for n, m in masks.items()})
    if batches := config["settle"]:
        with seeded(loop.seed, "dropout"):
            size = loop.training.batch_size
            model.through(lambda masked: settle(masked, task, loop.seed, batches, size))
        metrics, state = loop.evaluate("validation"), clone_state(inner)
    else:  # what is trained next begins where the search did
        metrics, state = loop.evaluate("validation"), before
    session.write_masks(masks)
    session.write_start(Snapshot(state))
    session.write_json(
        {
            "masks": masks.counts,
            "kept": masks.kept,
            "prunable": masks.size,
            **about,
            "metrics": {"validation": metrics},
            "iterations": loop.end - loop.begin,
        }
    )


def scored(
    config: Mapping[str, Any], inner: nn.Module, covered: Mapping[str, Prunable]
) -> tuple[ScoredModel, dict[str, Any]]:
    """Return a model with scores beside its covered weights, and what is told of their start."""
    relaxation = METHODS[config["method"]](config, pools_of(config, inner, covered))
    shapes = {n: inner.get_parameter(n).shape for n in sorted(covered)}
    scores = relaxation.start(shapes, _drawing(config, "scores"))
    about = {}
    if frozen := config.get("frozen"):
        assert isinstance(relaxation, Popup)
        density, rng = exact(config["density"]), _drawing(config, "frozen")
        shares = float(exact(frozen[0]) / density), float(exact(frozen[1]) / (1 - density))
        about["frozen"] = relaxation.freeze(shapes, *shares, rng)
    return ScoredModel(inner, scores, relaxation), about


def _drawing(config: Mapping[str, Any], what: str) -> torch.Generator:
    return generator(config["seed"], "prune", "supermask", what)


@torch.no_grad()
def _own(loop: Loop, found: Supermask, config: Mapping[str, Any]) -> dict[str, float]:
    """Return what the search by itself says of the validation part, before it is made exact.

    It is the mean over ``samples`` where that is drawn.
    """
    model, measured = loop.model, []
    assert isinstance(model, ScoredModel)
    model.relaxation = Own(found)
    for sample in range(config.get("samples", 1)):
        with seeded(loop.seed, "noise", "evaluation", sample):
            if loop.backend.device.type == "cuda":
                torch.cuda.manual_seed(sample)
            measured.append(loop.task.evaluate(model, "validation"))
    return {key: sum(one[key] for one in measured) / len(measured) for key in measured[0]}


# -- the course of a search ----------------------------------------------------------------------


class Course(Hook):
    """Moves the density along its schedule, adds the penalty, and freezes out what is due."""

    def __init__(
        self, config: Mapping[str, Any], inner: nn.Module, covered: Mapping[str, Prunable]
    ) -> None:
        self.config, self._inner, self._covered = config, inner, covered
        #: Of Gem-Miner: iteration -> the share that lives on from there.
        self.rounds: dict[int, str] = {}
        self._last = ""
        self._restored: dict[str, Tensor] = {}

    def pools(self, density: object) -> list[Pool]:
        """Return the pools of a density, exact counts."""
        return pools_of({**self.config, "density": str(density)}, self._inner, self._covered)

    def on_start(self, loop: Loop) -> None:
        """Put the search's masks where the scores are, and set what the next step needs."""
        found, scores = _parts(loop)
        for key, masks in found.fixed.items():
            for name in masks:
                mask = self._restored.get(f"{key}/{name}", masks[name])
                masks[name] = mask.view(scores[name].shape).to(scores[name].device)
        self._set(loop)

    def on_gradients(self, loop: Loop) -> None:
        """Add the gradient of the penalty; the recorded loss stays the task's own."""
        found, scores = _parts(loop)
        penalty = found.penalty(scores)
        if penalty is not None:
            penalty.backward()

    def on_step(self, loop: Loop) -> None:
        """Bring the scores back into bounds; freeze out; set what the next step needs."""
        found, scores = _parts(loop)
        found.after_step(scores)
        if loop.iteration in self.rounds:
            assert isinstance(found, Gem)
            found.freeze_out(scores, self.pools(self.rounds[loop.iteration]))
        self._set(loop)

    def _set(self, loop: Loop) -> None:
        config, (found, _) = self.config, _parts(loop)
        first, last = float(exact(config["first"])), float(exact(config["density"]))
        now = cubic(loop.iteration, loop.end, first, last, 0.0, config["cool_down"])
        asked = config["density"] if now == last else str(now)
        if asked != self._last:
            self._last, found.pools = asked, self.pools(asked)

    def on_snapshot(self, loop: Loop, snapshot: Snapshot) -> None:
        """Put the search's masks into a checkpoint."""
        found, _ = _parts(loop)
        for key, masks in found.fixed.items():
            kept = {f"{FIXED}{key}/{n}": m.cpu().clone() for n, m in masks.items()}
            snapshot.optimizer |= kept

    def restore(self, snapshot: Snapshot) -> None:
        """Take them out of a checkpoint."""
        for key in [key for key in snapshot.optimizer if key.startswith(FIXED)]:
            self._restored[key.removeprefix(FIXED)] = snapshot.optimizer.pop(key)


def _parts(loop: Loop) -> tuple[Supermask, Scores]:
    assert isinstance(loop.model, ScoredModel)
    assert isinstance(loop.model.relaxation, Supermask)
    return loop.model.relaxation, loop.model.by_name()


def rounds_of(config: Mapping[str, Any], task: Task) -> dict[int, str]:
    """Return Gem-Miner's iteration -> density of what lives on, the last one exactly as asked.

    After every ``period`` epochs of the E of a search all but the share ``k^(1 / R)`` of the living
    die, with ``R = floor((E - 1) / period)``.

    Raises:
        BadInput: the search is too short for one round.
    """
    training, period = config["training"], config["period"]
    batches = len(task.epoch(training["batch_size"], generator(config["seed"], "data", 0)))
    epoch = batches / training["accumulation"]
    epochs = int(config["end"] / epoch)
    rounds = (epochs - 1) // period
    if rounds < 1:
        raise BadInput(
            f"finder.period is {period} epochs, and a search of {config['end']} iterations has "
            f"{epochs} of {epoch:g}: choose finder.iterations of at least "
            f"{int(-(-(period + 1) * epoch // 1))}, or a shorter period"
        )
    share = float(exact(config["density"])) ** (1 / rounds)
    found = {int(-(-r * period * epoch // 1)): str(share**r) for r in range(1, rounds)}
    return found | {int(-(-rounds * period * epoch // 1)): config["density"]}


# -- what is measured ----------------------------------------------------------------------------


@dataclass
class Fixed(Straight):
    """Masks that are what they are."""

    fixed: Mapping[str, Tensor]

    def masks(self, scores: Scores) -> dict[str, Tensor]:  # noqa: ARG002 - the protocol
        """Return them."""
        return dict(self.fixed)

    def penalty(self, scores: Scores) -> None:
        """Return None."""


@dataclass
class Own(Straight):
    """What a search by itself is tested with."""

    found: Supermask

    def masks(self, scores: Scores) -> dict[str, Tensor]:
        """Return the exact masks of the search."""
        return self.found.masks(scores)

    def penalty(self, scores: Scores) -> None:
        """Return None."""

    def effective(
        self,
        weights: Mapping[str, Tensor],
        scores: Scores,
        training: bool,  # noqa: ARG002 - the protocol
    ) -> dict[str, Tensor]:
        """Return the weights times the search's own gates."""
        return self.found.times(weights, self.found.own(scores))


# -- before any work -----------------------------------------------------------------------------


def check_supermask(config: Mapping[str, Any], task: Task, model: nn.Module) -> None:
    """Assert that masks of a model can be learned on a task; warn where the premise is broken.

    Raises:
        BadInput: the task has several losses, or the search is too short.
    """
    one_loss(task, model)
    if config["method"] == "gem-miner":
        rounds_of(config, task)
    elif broken := _broken(model):
        # Biprop learns as edge-popup does, and makes the weights that are left binary.
        name = "biprop" if config.get("finish") == "binary" else config["method"]
        _warn(name, config["model"], broken)


def _broken(model: nn.Module) -> tuple[str, ...]:
    """Return the biases that are not 0 and the scales that are not 1."""
    found = []
    for place, module in model.named_modules():
        for name, value in module.named_parameters(place, recurse=False):
            plain = 0.0 if name.endswith("bias") else 1.0
            if value.dim() == 1 and bool((value != plain).any()):
                found.append(name)
    return tuple(found)


@cache
def _warn(method: str, model: str, broken: tuple[str, ...]) -> None:
    shown = ", ".join(broken[:3]) + (" ..." if len(broken) > 3 else "")
    print(
        f"lth-zoo: warning: {method} trains nothing but scores, and supposes biases of 0 and norms "
        f"of scale 1; {len(broken)} of {model!r} start otherwise ({shown}): they stay as they are",
        file=sys.stderr,
    )
