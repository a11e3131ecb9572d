"""Models of the user's own: an importable function by name, or any module object."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from lth_zoo import registry
from lth_zoo.errors import BadInput
from lth_zoo.graph_models import check_layers
from lth_zoo.identity import settings_of, source_of
from lth_zoo.protocols import Adapter, Signature

if TYPE_CHECKING:
    from torch import nn

_NAME = re.compile(r"\w+(\.\w+)*:\w+")


class Custom(Adapter):
    """A model named ``module:function``, importable from the current folder too.

    The function (or class) returns an ``nn.Module``. It is called with the task's
    :class:`~lth_zoo.protocols.Signature` if its first parameter has no default value or is
    called ``signature``, else with nothing.
    """

    generates: ClassVar[bool] = True

    def owns(self, name: str) -> bool:
        """Say whether the name has the form ``module:function``."""
        return _NAME.fullmatch(name) is not None

    def build(self, name: str, signature: Signature) -> nn.Module:
        """Return what the user's function returns; its own errors pass through.

        Raises:
            BadInput: it cannot be imported, called so, or returns no ``nn.Module``.
        """
        from torch import nn

        with _current_folder():
            function = registry.load(name)
            if isinstance(function, nn.Module) or not callable(function):
                kind = type(function).__name__
                raise BadInput(f"{name!r} is a {kind}; expected a function that returns a model")
            model = function(*([signature] if takes_signature(name, function) else []))
        if not isinstance(model, nn.Module):
            raise BadInput(f"{name!r} returned a {type(model).__name__}; expected an nn.Module")
        check_layers(model)
        return model

    def fingerprint(self, name: str, model: nn.Module) -> str:
        """Return a hash of the module's file, of the model's classes and of their settings."""
        with _current_folder():
            registry.load(name)
        try:
            text = inspect.getsource(sys.modules[name.partition(":")[0]])
        except (OSError, TypeError):
            text = ""
        return hashlib.sha256(
            repr((text, source_of(model), settings_of(model))).encode()
        ).hexdigest()

    def reset(self, model: nn.Module, name: str, signature: Signature) -> None:
        """Draw every parameter and buffer anew by building the model again.

        A function that gives a prunable tensor the same values twice, and not one constant,
        does not draw it (it loads a checkpoint, say); the model is then reset as by
        :func:`reset_in_place`.

        Raises:
            BadInput: a prunable tensor has no way to be drawn anew.
        """
        first, second = (self.build(name, signature).state_dict() for _ in range(2))
        prunable = self.prunable(model)
        if any(first[n].equal(second[n]) and first[n].min() < first[n].max() for n in prunable):
            reset_in_place(model, prunable)
        else:
            model.load_state_dict(second)


def takes_signature(name: str, function: Any) -> bool:
    """Say whether a user's function wants the task's signature as its argument.

    Raises:
        BadInput: it needs more than that.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some functions written in C do not say
        return False
    empty = inspect.Parameter.empty
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is empty and p.kind not in variadic]
    keyword = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if len(needed) > 1 or set(needed) & set(keyword):
        raise BadInput(
            f"{name!r} needs the arguments {', '.join(needed)}; expected none, or the signature"
        )
    return bool(needed) or (bool(parameters) and parameters[0].name == "signature")


def reset_in_place(model: nn.Module, prunable: Iterable[str]) -> None:
    """Draw a model's parameters anew by the means its modules have: the re-init control.

    As in construction, every module first runs its own ``reset_parameters`` (or
    ``_reset_parameters``), then the ``_init_weights`` of the nearest Hugging Face (or timm)
    model around it, children before parents. A tensor that none of them draws keeps its
    values, unless it is one of ``prunable`` (names of parameters). Draws from torch's
    global generator.

    Raises:
        BadInput: nothing draws one of ``prunable``; the model is then as it was.
    """
    import torch

    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = {**parameters, **dict(model.named_buffers())}
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    marks = [p for p in parameters.values() if p.__dict__.pop("_is_hf_initialized", False)]
    with torch.no_grad():
        # NaN shows which tensors nobody draws, whatever the modules claim.
        for parameter in parameters.values():
            parameter.fill_(torch.nan)
        _reset(model)
        kept = [name for name, p in parameters.items() if p.isnan().any()]
        stuck = [name for name in prunable if name in kept]
        for name in before if stuck else kept:
            tensors[name].copy_(before[name])
    for parameter in marks:
        parameter._is_hf_initialized = True  # type: ignore[attr-defined]
    if stuck:
        layer = stuck[0].rpartition(".")[0]
        kind = type(model.get_submodule(layer)).__name__
        raise BadInput(
            f"cannot draw {stuck[0]!r} anew: {kind} has neither reset_parameters nor _init_weights"
        )


def _reset(model: nn.Module) -> None:
    """Do again what construction did: each module's own draw, then its family's over it."""
    families: dict[str, Callable[[nn.Module], Any] | None] = {}
    for name, module in model.named_modules():
        own = getattr(module, "_init_weights", None)
        around = families.get(name.rpartition(".")[0]) if name else None
        families[name] = own if _accepts_module(own) else around
    children_first = list(model.named_modules())[::-1]
    for _, module in children_first:
        methods = (getattr(module, m, None) for m in ("reset_parameters", "_reset_parameters"))
        method = next(filter(callable, methods), None)
        if method is not None:
            method()
    for name, module in children_first:
        initialise = families[name]
        if initialise is not None:
            initialise(module)


def _accepts_module(function: Any) -> bool:
    """Say whether a function can be called with one module, as Hugging Face's is."""
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        return False
    return True


@contextmanager
def _current_folder() -> Iterator[None]:
    """Let imports inside the block find the current folder, as ``python -m`` does."""
    if "" in sys.path:
        yield
        return
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")
