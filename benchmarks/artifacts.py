"""What a ticket and a search leave on disk: LeNet-300-100 on MNIST, 5 pruned levels.

Sizes do not depend on the length of training, so 10 iterations a level do. The store is
weighed after `gc`, which drops what can be made again. OpenLTH's 19.7 bytes a parameter and
level (start, end, checkpoint with optimiser, int32 mask) are cited from the comparison of
frameworks that this project began with, not measured here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from imp_run import LEVELS, TASK, recipe
from measure import Row

from lth_zoo.api import run_recipes
from lth_zoo.errors import DataError
from lth_zoo.gc import collect_garbage
from lth_zoo.protocols import task_of
from lth_zoo.session import Execution
from lth_zoo.store import Store
from lth_zoo.ticket import MASKS, Ticket
from lth_zoo.tickets import ticket_of

OPENLTH = 19.7


def bench() -> list[Row]:
    """Weigh a ticket and a store."""
    try:
        _ = task_of(TASK).fingerprint()
    except DataError as error:
        return [Row("LeNet on MNIST", note=f"skipped: {error}")]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        (finished,) = run_recipes([recipe("adam", steps=10)], store, Execution())
        ticket = ticket_of(finished.experiment.tickets()[0], finished, store)
        saved = ticket.save_pretrained(Path(folder) / "ticket")
        collect_garbage(store)
        return list(weighed(ticket, saved, store))


def weighed(ticket: Ticket, saved: Path, store: Store) -> Iterator[Row]:
    """Yield the sizes, against one bit a prunable weight and level."""
    counts, levels = ticket.counts(), LEVELS - 1
    prunable, parameters = counts["prunable"], counts["all"]
    bits = 8 * size(saved / MASKS)
    name = f"masks of a ticket folder, bits a prunable weight ({prunable:,})"
    yield Row(name, bits / prunable, 1.0, "bits", target=1.05)
    tensors = sum(size(p) for p in store.root.rglob("*.safetensors")) - 4 * parameters
    bits_each = 8 * tensors / prunable / levels
    name = "tensors of the store beyond one initial state, bits a prunable weight and level"
    yield Row(name, bits_each, 1.0, "bits", target=1.05)
    whole = sum(size(p) for p in store.root.rglob("*") if p.is_file())
    each = whole / parameters / LEVELS
    name = "whole store, bytes a parameter and level, against OpenLTH (cited)"
    note = f"{whole / 1e6:.2f} MB for {LEVELS} levels of {parameters:,} parameters"
    yield Row(name, each, OPENLTH, "bytes", each / OPENLTH, note=note)


def size(path: Path) -> int:
    """Return the bytes of a file."""
    return path.stat().st_size
