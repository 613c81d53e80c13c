"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data and weights: `ANYBIT_DATA`, else `../shared/data` beside the repository. Skips where it is absent."""
    root = Path(os.environ.get("ANYBIT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"real data not found at {root}; set ANYBIT_DATA to its folder")
    return root
