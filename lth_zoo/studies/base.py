"""What a study is: a question whose jobs are laid out, run like any other, and then read.

A study is a frozen dataclass of its settings, registered under ``studies`` and called by
``lth-zoo study NAME``. It runs nothing itself: :meth:`Study.lay_out` says which jobs it reads,
:meth:`Study.answer` makes words, tables and figures of what they measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..jobs import Job

if TYPE_CHECKING:
    from ..protocols import Yardstick
    from ..recipe import Recipe
    from ..report.figures import Picture
    from ..report.tables import Table
    from ..store import Entry, Store


@dataclass(frozen=True)
class Probe:
    """One measurement: ``of`` says what of (arm, seed, level ...), the job's result holds it."""

    of: Mapping[str, Any]
    job: Job


@dataclass(frozen=True)
class Measured:
    """What a probe found: the job's ``result.json``, and its entry for what else it wrote.

    ``seconds`` is what the job took, ``cost`` that and all it rests on, each job once, less what
    every network of its kind is given (judges, a pre-training). ``store`` has what it rests on.
    """

    of: Mapping[str, Any]
    result: Mapping[str, Any]
    entry: Entry
    seconds: float = 0.0
    cost: float = 0.0
    store: Store | None = None


@dataclass(frozen=True)
class Answer:
    """What a study says: findings in words, figures and tables in reading order, plain data."""

    findings: tuple[str, ...]
    blocks: tuple[Picture | Table, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A question asked of a recipe's networks."""

    #: The recipe that is taken where none is named.
    recipe: ClassVar[str] = "quick"
    paper: ClassVar[str] = ""

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the measurements it needs.

        Raises:
            BadInput, DataError: the recipe does not suit it; nothing has run.
        """
        raise NotImplementedError

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:
        """Return what the measurements say; those whose job failed are not among them.

        ``by`` is what the recipe's model is judged by on its task.
        """
        raise NotImplementedError
