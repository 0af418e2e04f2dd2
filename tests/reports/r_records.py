"""Records of R (tests/reports/stats/r_reference.json) as cases of a test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nsd.reports import stats
from support import REPOSITORY

RECORDS = json.loads((REPOSITORY / "tests/reports/stats/r_reference.json").read_text())["records"]
CLOSE = {"abs": 1e-6, "rel": 1e-6}


def r_records(name: str) -> list[Any]:
    found = [record for record in RECORDS if record["name"] == name]
    assert found
    return [pytest.param(record["given"], record["found"], id=f"{name}-{i}") for i, record in enumerate(found)]


def one(values: dict[str, list[float]]) -> dict[str, Any]:
    """R has only vectors; a vector of one is a number here."""
    return {name: value[0] if len(value) == 1 else value for name, value in values.items()}


def limits(interval: stats.Interval | None) -> list[float]:
    assert interval is not None
    return [interval.low, interval.high]
