"""How every ratio is measured: interleaved arms, medians of CPU time, one thread."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Row:
    """One line of a table: two figures in one unit, their ratio, and what was asked of it.

    The target is of the ratio, or of ``ours`` where there is no ratio; with ``least`` it
    must be reached, else it must not be passed. A row without a target only informs.
    """

    name: str
    ours: float | None = None
    other: float | None = None
    unit: str = ""
    ratio: float | None = None
    target: float | None = None
    least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None where there is none, or nothing was measured."""
        value = self.ours if self.ratio is None else self.ratio
        if value is None or self.target is None:
            return None
        return value >= self.target if self.least else value <= self.target


def speedup(
    name: str, ours: float, other: float, unit: str, target: float | None = None, note: str = ""
) -> Row:
    """Return a row whose ratio is other / ours: how many times faster."""
    return Row(name, ours, other, unit, other / ours, target, least=True, note=note)


def cpu_seconds(work: Callable[..., object], *args: Any, **options: Any) -> float:
    """Return the CPU time that this process takes for a call, garbage collected before."""
    gc.collect()
    began = time.process_time()
    work(*args, **options)
    return time.process_time() - began


def interleaved(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure every arm once a round, A B C A B C ...; return each arm's seconds by round.

    An arm prepares itself and returns its seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            times[name].append(arm())
    return times


def paired(ours: list[float], other: list[float]) -> float:
    """Return the median of the ratios within a round: what drifts on the machine meets both."""
    return median([a / b for a, b in zip(ours, other, strict=True)])


def compared(
    name: str, ours: list[float], other: list[float], target: float | None = None, note: str = ""
) -> Row:
    """Return a row of seconds by round, shown in ms: medians, and the paired ratio."""
    figures = (1e3 * median(ours), 1e3 * median(other))
    return Row(name, *figures, "ms", paired(ours, other), target, note=note)


def resident() -> float:
    """Return the megabytes of memory that this process holds now.

    The C library first gives back what it has free: it keeps up to a model's size for the
    next allocation, more or less of it from one moment to the other.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def peak() -> float:
    """Return the most megabytes of memory that this process held since the last call."""
    status = Path("/proc/self/status").read_text()
    most = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's way to start anew
    return int(most.split()[1]) * 1024 / 1e6
