"""What every test shares: one thread, no network, repeatable examples, the real data."""

from __future__ import annotations

import os
from pathlib import Path

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
