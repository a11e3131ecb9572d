"""Where the arithmetic of a training runs.

Plain CPU float32 costs nothing; a device or mixed precision goes through Accelerate, which is
loaded only then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .errors import BadInput
from .recipe import Training


def grouped(
    parameters: list[torch.nn.Parameter],
    names: Mapping[torch.nn.Parameter, str],
    options: Mapping[str, Mapping[str, float]],
) -> list[Any]:
    """Return what an optimiser takes: parameters with equal options share a group."""
    if not options:
        return parameters
    groups: dict[str, dict[str, Any]] = {}
    for parameter in parameters:
        own = options.get(names[parameter], {})
        group = groups.setdefault(repr(sorted(own.items())), {"params": [], **own})
        group["params"].append(parameter)
    return list(groups.values())


def optimizer_for(training: Training, parameters: list[Any]) -> torch.optim.Optimizer:
    """Return the optimiser of a training, fused where torch has a fused kernel.

    ``parameters`` are parameters or groups of them.
    """
    common: dict[str, Any] = {
        "lr": training.learning_rate,
        "weight_decay": training.weight_decay,
    }
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            **common,
            momentum=training.momentum,
            nesterov=training.nesterov,
            fused=True,
        )
    if training.betas is not None:
        common["betas"] = training.betas
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, **common, fused=True)
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **common, fused=True)
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, **common, momentum=training.momentum)
    if training.optimizer == "nadam":
        return torch.optim.NAdam(parameters, **common)
    return torch.optim.Adafactor(parameters, **common)


class Plain:
    """Float32 on the CPU."""

    device = torch.device("cpu")

    @contextmanager
    def settings(self, training: Training) -> Iterator[None]:
        """Set torch's threads and determinism inside, put them back after."""
        threads, deterministic = (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
        )
        torch.set_num_threads(training.threads)
        if training.deterministic:  # cuBLAS refuses to be deterministic without it
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(training.deterministic)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which the forward pass runs."""
        return nullcontext()

    def wrap(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return the optimiser to step."""
        return optimizer

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""
        loss.backward()

    def unscale(self, optimizer: Any) -> None:
        """Bring the gradients to their true scale."""

    def scaler_state(self) -> dict[str, Any]:
        """Return the loss scale and its history as plain data; empty where there is none."""
        return {}

    def load_scaler(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`scaler_state` returned."""


class Accelerated(Plain):
    """A device or mixed precision, through Accelerate."""

    def __init__(self, device: str, precision: str) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        # The state is a singleton of the process; workers run jobs of several precisions.
        AcceleratorState._reset_state(reset_partial_state=True)
        self._accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision={"fp32": "no"}.get(precision, precision),
        )
        self.device = torch.device(device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the mixed-precision context."""
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def wrap(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return Accelerate's optimiser, which knows of skipped steps."""
        return self._accelerator.prepare_optimizer(optimizer)

    def backward(self, loss: Tensor) -> None:
        """Scale the loss if need be, and accumulate gradients."""
        self._accelerator.backward(loss)

    def unscale(self, optimizer: Any) -> None:
        """Undo the scale of the loss in the gradients."""
        self._accelerator.unscale_gradients(optimizer)

    def scaler_state(self) -> dict[str, Any]:
        """Return the state of fp16's loss scaler."""
        scaler = self._accelerator.scaler
        return dict(scaler.state_dict()) if scaler is not None else {}

    def load_scaler(self, state: dict[str, Any]) -> None:
        """Put back the loss scaler's state."""
        if state and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state)


def backend_for(device: str, precision: str) -> Plain:
    """Return where a training runs.

    Raises:
        BadInput: the device is not there, or cannot do that precision.
    """
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    apple = ["mps"] if torch.backends.mps.is_available() else []
    here = ["cpu", *(["cuda", *gpus] if gpus else []), *apple]
    if device not in here:
        raise BadInput(f"device {device!r} is not available; this machine has: {', '.join(here)}")
    if device == "cpu" and precision == "fp16":
        raise BadInput("precision fp16 needs a GPU; the CPU has fp32 and bf16")
    if device == "cpu" and precision == "fp32":
        return Plain()
    return Accelerated(device, precision)
