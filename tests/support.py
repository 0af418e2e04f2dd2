"""Helpers shared by tests: where the real data lies."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_data(relative: str) -> Path:
    """Path of a real data file beside the checkout; skips the test, saying so, where it is absent."""
    path = REPOSITORY.parent / "shared" / "data" / relative
    if not path.exists():
        pytest.skip(f"real data absent: ../shared/data/{relative}")
    return path
