"""Find, judge, move and ship lottery tickets.

``find`` a ticket, ``verify`` it against controls, save and load it as a ``Ticket``; ``Masks``
are held in anyone's own training loop by ``masks.enforced(model, optimizer)``. Names load
their module, and torch with it, when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` does it
    from .api import find as find
    from .api import transfer as transfer
    from .api import verify as verify
    from .integrations.trainer import LotteryTicketCallback as LotteryTicketCallback
    from .masks import Masks as Masks
    from .recipe import Recipe as Recipe
    from .sanity import battery as battery
    from .studies.run import study as study
    from .ticket import Ticket as Ticket

__version__ = "0.1.0"

_HOMES = {
    "LotteryTicketCallback": "integrations.trainer",
    "Masks": "masks",
    "Recipe": "recipe",
    "Ticket": "ticket",
    "battery": "sanity",
    "find": "api",
    "study": "studies.run",
    "transfer": "api",
    "verify": "api",
}
_ROOMS = ("controls", "edge_scorer", "finders", "registry", "scores")


def _guard() -> None:
    # A checkout on sys.path hides an installed copy; adapters/ and tasks/, which only an
    # install maps below lth_zoo, would then be missing or come from the other copy.
    here = Path(__file__).resolve().parent
    spec = find_spec("lth_zoo.adapters")
    found = Path(spec.origin).resolve().parent if spec and spec.origin else None
    if found not in (here / "adapters", here.parent / "adapters"):
        raise ImportError(
            f"lth_zoo is read from {here}, but its adapters from {found or 'nowhere'}:"
            " run `pip install -e .` in the checkout, or work from another folder"
        )


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"lth_zoo.{name}")
    if name in _HOMES:
        return getattr(import_module(f"lth_zoo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lth_zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})


_guard()
