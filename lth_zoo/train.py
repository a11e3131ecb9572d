"""The one training loop: pausable at any iteration, resumable to the bit.

Everything an iteration draws (its batch, augmentation, dropout, noise) is a pure function of
(root seed, iteration), so a loop that starts from a snapshot at iteration k does exactly
what the uninterrupted one would have done.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .backend import backend_for, grouped, optimizer_for
from .enforce import Enforcer, elementwise, unwrap
from .errors import Diverged, LthZooError
from .hooks import Hook, overridden
from .ledger import Ledger
from .masks import Masks
from .protocols import Objective, Task
from .recipe import Training
from .rewind import Snapshot, clone_state, load_optimizer, optimizer_tensors
from .seeds import derive, generator, seeded


@dataclass
class _Part:
    """An objective with its parameters and its optimiser."""

    objective: Objective
    parameters: list[nn.Parameter]
    optimizer: Any
    others: list[nn.Parameter] = field(default_factory=list)


class Loop:
    """One training of one model from iteration ``begin`` to ``end``.

    Args:
        model: trained in place.
        task: what it learns.
        training: the hyper-parameters.
        seed: root seed of data order, augmentation, dropout and noise.
        masks: kept weights; None trains the dense network.
        start: a snapshot to continue from, optimiser included; its iteration is ``begin``.
        begin, end: iterations; the schedule and the data order follow them.
        hooks: observers.
        groups: parameter name -> options of its own for the optimiser; ``rate`` multiplies the
            learning rate.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...

    Raises:
        Diverged: a loss or a weight is not finite; the message has the iteration.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        training: Training,
        *,
        seed: int,
        masks: Masks | None = None,
        start: Snapshot | None = None,
        begin: int = 0,
        end: int | None = None,
        hooks: Sequence[Hook] = (),
        groups: Mapping[str, Mapping[str, float]] | None = None,
        device: str = "cpu",
    ) -> None:
        self.backend = backend_for(device, training.precision)
        self.model, self.task, self.training, self.seed = model, task, training, seed
        self.iteration = start.iteration if start else begin
        self.begin, self.end = begin, training.iterations if end is None else end
        self.rows: list[dict[str, float]] = []
        model.to(self.backend.device)
        task.to(self.backend.device)
        self.names = {p: n for n, p in model.named_parameters()}
        self.parts = self._build_parts(groups or {})
        self.average = self._start_average()
        self.ledger = Ledger([part.objective.name for part in self.parts])
        self.masks: Masks | None = None
        self.enforcer: Enforcer | None = None
        if start is not None:
            self._restore(start)
        if masks is not None:
            self.set_masks(masks)
        self._epoch = -1
        self._batches: Sequence[Tensor] = ()
        self._per_epoch = len(task.epoch(training.batch_size, generator(seed, "data", 0)))
        fresh = (p.objective.repeats for p in self.parts if p.objective.batch == "fresh")
        # The first objective has nobody to share with: it draws one.
        first = self.parts[0].objective.batch == "shared"
        self._drawn = (sum(fresh) + first) * training.accumulation
        self._hooks = overridden(hooks)
        # Seeded anew for each use: making a generator costs more than seeding one.
        self._noise, self._augment = torch.Generator(), torch.Generator()

    # -- set-up -------------------------------------------------------------------------

    def _build_parts(self, options: Mapping[str, Mapping[str, float]]) -> list[_Part]:
        every = [p for p in self.model.parameters() if p.requires_grad]
        parts = []
        for objective in self.task.objectives(self.model):
            own = list(objective.parameters(self.model)) if objective.parameters else every
            groups = grouped(own, self.names, options)
            optimizer = self.backend.wrap(optimizer_for(self.training, groups))
            ids = {id(p) for p in own}
            parts.append(_Part(objective, own, optimizer, [p for p in every if id(p) not in ids]))
        return parts

    def _start_average(self) -> dict[nn.Parameter, Tensor]:
        if self.training.average is None:
            return {}
        live = [part for part in self.parts if not part.objective.averaged]
        left = {id(p) for part in live for p in part.parameters}
        return {p: p.detach().clone() for p in self.model.parameters() if id(p) not in left}

    def _restore(self, start: Snapshot) -> None:
        self.model.load_state_dict(start.state)
        for part in self.parts:
            load_optimizer(
                unwrap(part.optimizer), self.names, start.optimizer, f"{part.objective.name}:"
            )
        for parameter, value in self.average.items():
            value.copy_(start.average.get(self.names[parameter], parameter.detach()))
        self.rows = list(start.extra.get("rows", []))
        self.backend.load_scaler(start.extra.get("scaler") or {})
        if "losses" in start.extra:
            self.ledger.load(start.extra["losses"])
        if "python" in start.extra:
            version, numbers, gauss = start.extra["python"]
            self._generators = ((version, tuple(numbers), gauss), start.extra["numpy"])

    _generators: tuple[Any, Any] | None = None

    def set_masks(self, masks: Masks) -> None:
        """Prune to these masks now: weights, average and optimiser state at once."""
        self.masks, self.enforcer = masks, masks.on(self.model)
        self.enforcer.weights_()
        self.enforcer.tensors_(self.average)
        for part in self.parts:
            self.enforcer.state_(part.optimizer)
        self._extra_multiply = not all(elementwise(part.optimizer) for part in self.parts)

    _extra_multiply = False

    # -- running ------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end."""
        with seeded(self.seed, "dropout"), self.backend.settings(self.training):
            if self._generators is not None:
                random.setstate(self._generators[0])
                np.random.set_state(tuple(self._generators[1]))  # noqa: NPY002
            self._call("on_start")
            self.model.train()
            while self.iteration < self.end:
                self._iterate()
            self.check()
            self._call("on_end")

    def _iterate(self) -> None:
        iteration, training = self.iteration, self.training
        noise = self._seed_iteration(iteration)
        rate, draws = training.rate_at(iteration), self._draws(iteration)
        batch: Any = None
        losses = []
        for part in self.parts:
            for parameter in part.others:
                parameter.requires_grad_(False)
            for group in part.optimizer.param_groups:
                group["lr"] = rate * group.get("rate", 1.0)
            for _ in range(part.objective.repeats):
                for _ in range(training.accumulation):
                    if batch is None or part.objective.batch == "fresh":
                        batch = self._batch(next(draws))
                    with self.backend.autocast():
                        loss = part.objective.loss(self.model, batch, noise)
                    if training.accumulation > 1:
                        loss = loss / training.accumulation
                    self.backend.backward(loss)
                self._update(part)
            losses.append(loss.detach())
            for parameter in part.others:
                parameter.requires_grad_(True)
        if training.accumulation > 1:
            losses = [training.accumulation * loss for loss in losses]
        self.ledger.add(iteration, losses)
        if self.average and self.training.average is not None:
            with torch.no_grad():
                values = [p.detach() for p in self.average]
                torch._foreach_lerp_(list(self.average.values()), values, 1 - self.training.average)
        self.iteration += 1
        self._after_step()

    def _update(self, part: _Part) -> None:
        optimizer = part.optimizer
        self.backend.unscale(optimizer)
        self._call("on_gradients")
        if self.enforcer is not None:
            self.enforcer.grads_()
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(part.parameters, self.training.clip_norm)
        optimizer.step()
        for parameter in part.parameters:  # optimizer.zero_grad, without what it logs
            parameter.grad = None
        if self.enforcer is not None and self._extra_multiply:
            self.enforcer.weights_()
            self.enforcer.state_(optimizer)

    def _after_step(self) -> None:
        self._call("on_step")
        if (self.iteration * self._drawn) % self._per_epoch < self._drawn:
            self._call("on_epoch")
        if self.iteration % self.training.evaluate_every == 0 or self.iteration == self.end:
            self._look()
        self._call("on_iteration")

    # -- randomness -----------------------------------------------------------------------

    def _seed_iteration(self, iteration: int) -> torch.Generator:
        seed = derive(self.seed, "dropout", iteration)
        torch.default_generator.manual_seed(seed)
        if self.backend.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return self._noise.manual_seed(derive(self.seed, "noise", iteration))

    def _draws(self, iteration: int) -> Any:
        """Yield the numbers of the batches that this iteration draws."""
        return iter(range(iteration * self._drawn, (iteration + 1) * self._drawn))

    def _batch(self, number: int) -> Any:
        epoch, place = divmod(number, self._per_epoch)
        if epoch != self._epoch:
            order = generator(self.seed, "data", epoch)
            self._batches = self.task.epoch(self.training.batch_size, order)
            self._epoch = epoch
        rng = self._augment.manual_seed(derive(self.seed, "data", "augment", number))
        return self.task.batch("train", self._batches[place], rng)

    # -- looking ----------------------------------------------------------------------------

    def check(self) -> None:
        """Assert what must always hold: finite losses and weights, exact zeros.

        Raises:
            Diverged: a loss or weight, pruned positions included, is not finite.
        """
        self.ledger.flush()
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter.detach()).all():
                raise Diverged(f"diverged: {name!r} is not finite at iteration {self.iteration}")
        if self.enforcer is not None and not self.enforcer.exact():
            raise LthZooError(f"a pruned weight is not 0 at iteration {self.iteration}")

    def _look(self) -> None:
        self.check()
        row: dict[str, float] = {
            "iteration": self.iteration,
            "learning_rate": self.training.rate_at(self.iteration - 1),
            **self.ledger.means(),
        }
        self.ledger.clear()
        row |= {f"validation_{k}": v for k, v in self.evaluate("validation").items()}
        self.rows.append(row)
        for hook in self._hooks["on_row"]:
            hook(self, row)

    def evaluate(self, split: Any) -> dict[str, float]:
        """Return the metrics of a split, with the averaged weights if there is an average.

        Whatever a task draws here from the global generators is always the same, and leaves
        the training's own draws as they were.
        """
        with self.averaged(), seeded(self.seed, "noise", "evaluation"):
            return self.task.evaluate(self.model, split)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the model inside, if there are any."""
        live = {p: p.detach().clone() for p in self.average}
        with torch.no_grad():
            for parameter, value in self.average.items():
                parameter.copy_(value)
            yield
            for parameter, value in live.items():
                parameter.copy_(value)

    # -- results ----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return everything to continue from, cloned."""
        self.ledger.flush()
        optimizer: dict[str, Tensor] = {}
        for part in self.parts:
            prefix = f"{part.objective.name}:"
            optimizer |= optimizer_tensors(unwrap(part.optimizer), self.names, prefix)
        name, keys, *rest = np.random.get_state()  # noqa: NPY002
        snapshot = Snapshot(
            state=clone_state(self.model),
            iteration=self.iteration,
            optimizer=optimizer,
            average={self.names[p]: v.cpu().clone() for p, v in self.average.items()},
            extra={
                "rows": list(self.rows),
                "losses": self.ledger.state(),
                "scaler": self.backend.scaler_state(),
                "python": random.getstate(),
                "numpy": [name, np.asarray(keys).tolist(), *rest],
            },
        )
        for hook in self._hooks["on_snapshot"]:
            hook(self, snapshot)
        return snapshot

    def final_state(self) -> dict[str, Tensor]:
        """Return the trained state, averaged weights in place of live ones if there are any."""
        every = self.model.named_parameters(remove_duplicate=False)  # both names of tied weights
        averaged = {n: self.average[p].cpu().clone() for n, p in every if p in self.average}
        return clone_state(self.model) | averaged

    def _call(self, event: str) -> None:
        for hook in self._hooks[event]:
            hook(self)
