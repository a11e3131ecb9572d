"""Models handed over as objects: any ``nn.Module``, for as long as one call runs."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from . import registry
from .formats import state_fingerprint
from .graph_models import check_layers
from .identity import settings_of, source_of
from .protocols import Adapter, Signature


@contextmanager
def registered(model: Any, store: Path | str) -> Iterator[tuple[str, Path]]:
    """Yield a name for the model and the store to use for it.

    A name passes through. An object is keyed by its classes' source, the plain attributes of
    its modules, and its state; without source at hand two different models could share a key,
    so its results go to a store that is thrown away.
    """
    if isinstance(model, str):
        yield model, Path(store)
        return
    source = source_of(model)
    state = state_fingerprint(dict(model.state_dict()))
    digest = hashlib.sha256(f"{source}{settings_of(model)}{state}".encode()).hexdigest()[:16]
    name = f"object/{type(model).__name__}-{digest}"
    registry.register("adapters", name, lambda: ObjectAdapter(name, model))
    try:
        if source:
            yield name, Path(store)
        else:
            with tempfile.TemporaryDirectory() as place:
                yield name, Path(place)
    finally:
        registry.unregister("adapters", name)


class ObjectAdapter(Adapter):
    """One object of the user's own; every build is a copy, its state the initial one."""

    generates: ClassVar[bool] = True

    def __init__(self, name: str, model: Any) -> None:
        self.models = (name,)
        self._model = model

    def build(self, name: str, signature: Signature) -> Any:  # noqa: ARG002 - the contract
        """Return a copy of the object."""
        model = copy.deepcopy(self._model)
        check_layers(model)
        return model

    def reset(self, model: Any, name: str, signature: Signature) -> None:  # noqa: ARG002
        """Draw the copy anew through its own reset methods."""
        reset = registry.load("lth_zoo.adapters.custom:reset_in_place")
        reset(model, self.prunable(model))
