"""What can go wrong in a user's hands; the command line prints these without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LthZooError(Exception):
    """Base of every error that carries its own advice."""


class BadInput(LthZooError, ValueError):
    """A value the user gave is not usable; raised before any long work starts."""


class DataError(LthZooError):
    """A data set is missing, truncated, or not what its name says."""


class StoreError(LthZooError):
    """The store cannot be written or holds a damaged file."""


class StoreUnwritable(StoreError):
    """The disk is full or the folder not writable: no job can go on, the whole run stops."""


class TicketError(LthZooError):
    """A ticket folder is damaged or does not fit the model."""


class Diverged(LthZooError):
    """Training met a loss or weight that is not finite."""


class JobFailed(LthZooError):
    """Some jobs of a graph failed; the others are done, and running it again resumes."""


def unknown(kind: str, value: object, allowed: Iterable[str]) -> BadInput:
    """Return the one error for a name that does not exist, with the nearest matches.

    >>> print(unknown("task", "mnits", ["mnist", "cora"]))
    unknown task 'mnits'; did you mean 'mnist'? Known: cora, mnist
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return BadInput(f"unknown {kind} {value!r}{hint} Known: {shown or 'none'}")
