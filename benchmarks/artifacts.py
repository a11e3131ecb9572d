"""What a ticket and a search leave on disk: LeNet-300-100 on MNIST, and one of BERT-base.

LeNet is pruned 5 levels. Sizes do not depend on the length of training, so 10 iterations a level
do. The store is weighed after `gc`, which drops what can be made again. OpenLTH's 19.7 bytes a
parameter and level (start, end, checkpoint with optimiser, int32 mask) are cited from the
comparison of frameworks that this project began with, not measured here. The BERT-base has
random weights and random masks, which weigh what real ones do; its seconds are of the clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from imp_run import LEVELS, TASK, recipe
from measure import Row

from lth_zoo.api import run_recipes
from lth_zoo.errors import DataError
from lth_zoo.gc import collect_garbage
from lth_zoo.masks import Masks
from lth_zoo.protocols import Adapter, Checkpoint, Signature, task_of
from lth_zoo.session import Execution
from lth_zoo.store import Store
from lth_zoo.ticket import MASKS, Ticket
from lth_zoo.tickets import assembled, ticket_of

OPENLTH = 19.7


def bench() -> list[Row]:
    """Weigh a ticket and a store, and a ticket of BERT-base."""
    return [*lenet(), *bert_base()]


def lenet() -> list[Row]:
    """Weigh a ticket and a store of LeNet."""
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


# -- BERT-base -----------------------------------------------------------------------------


class Public(Adapter):
    """A family whose one public checkpoint is the base of a model at hand."""

    def __init__(self, base: Mapping[str, torch.Tensor]) -> None:
        self._base = base

    def prefix(self, name: str) -> str:  # noqa: ARG002 - the contract
        return "bert."

    def checkpoint(self, name: str) -> Checkpoint:
        return Checkpoint(name, "none", dict.fromkeys(self._base, ""), lambda: self._base)


def bert_base(rounds: int = 5) -> Iterator[Row]:
    """Yield the size of a ticket of BERT-base at 70 %, and how long it takes to keep and read."""
    import transformers

    model = transformers.BertForSequenceClassification(transformers.BertConfig())
    rng = torch.Generator().manual_seed(0)
    layers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    names = [f"{n}.weight" for n in layers if ".layer." in n or ".pooler." in n]
    masks = {n: torch.rand(model.get_parameter(n).shape, generator=rng) < 0.3 for n in names}
    meta: dict[str, Any] = {"model": "bert-base", "signature": asdict(Signature((128,), 2))}
    state, family = model.state_dict(), Public(model.bert.state_dict())
    ticket = assembled(Masks(masks), state, meta, family)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ticket"
        save = seconds(lambda: ticket.save_pretrained(place), rounds)
        load = seconds(lambda: Ticket.from_pretrained(place), rounds)
        whole = sum(size(p) for p in place.iterdir()) / 2**20
    apply = seconds(lambda: ticket.apply_to(model), 1)
    counts = ticket.counts()
    note = f"{counts['prunable']:,} prunable of {counts['all']:,} values"
    yield Row("ticket folder of BERT-base", whole, unit="MiB", target=11.0, note=note)
    yield Row("save it (seconds)", save, unit="s", target=1.0)
    yield Row("load and check it (seconds)", load, unit="s", target=1.0)
    note = "digests of every tensor of the checkpoint"
    yield Row("check a model's start and mask it (seconds)", apply, unit="s", note=note)


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of a call by the clock."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)
