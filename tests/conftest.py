"""What every test shares: one thread, no network, repeatable examples, the real data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Before torch and the Hugging Face libraries read them; subprocesses inherit them.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    "LTH_ZOO_CACHE": str(ROOT / "build" / "test-cache"),
}

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real data: ``LTH_ZOO_DATA``, or ``shared/data`` beside the checkout."""
    named = os.environ.get("LTH_ZOO_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if named and not folder.is_dir():
        pytest.fail(f"LTH_ZOO_DATA names no folder: {named}")
    if not folder.is_dir():
        pytest.skip("no real data: set LTH_ZOO_DATA to a folder with mnist/, cifar10_subset/, ...")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for a store of the module's own."""
    return tmp_path_factory.mktemp("ticket") / "store"


@pytest.fixture(scope="module")
def ticket(store: Path) -> Any:
    """A tiny ticket of LeNet on digits, found once a module."""
    from forge import find

    return find(store)


@pytest.fixture
def folder(ticket: Any, tmp_path: Path) -> Path:
    """The folder of that ticket, to be damaged."""
    place: Path = ticket.save_pretrained(tmp_path / "ticket")
    return place
