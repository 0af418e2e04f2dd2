"""Completions and verdicts as rows: what is written comes back, and what is none of them is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.plugins.api import Completion, Confidence, Score, Scored, StopReason
from nsd.runner.store import tables
from nsd.runner.store.shapes import Broken

VALUES = {name: 0.25 + number for number, name in enumerate(Confidence.__dataclass_fields__)}
SURE = Confidence(**VALUES)
DRAWN = [
    Completion("a", 0, "two", 3, StopReason.STOP, None, SURE),
    Completion("a", 1, "", 0, StopReason.ERROR, "gone"),
    Completion("b", 0, "long", 9, StopReason.LENGTH),
    Completion("b", 1, "", 0, StopReason.ERROR),
]


def test_completions_come_back_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    tables.write_completions(tmp_path / "c.parquet", DRAWN)
    assert tables.read_completions(tmp_path / "c.parquet") == DRAWN
    assert list(tables.stream_completions(tmp_path / "c.parquet")) == DRAWN


def test_why_completions_failed_is_nothing_for_those_that_did_not(tmp_path: Path) -> None:
    tables.write_completions(tmp_path / "c.parquet", DRAWN)
    assert list(tables.stream_failed(tmp_path / "c.parquet")) == [None, "gone", None, ""]


def test_verdicts_come_back_with_their_numbers_written_in_order(tmp_path: Path) -> None:
    scores = [Score(0.5, True, "2", "why", {"z": 1.0, "a": 0.5}), Score(0.0, False, None)]
    scored = [Scored(one, score) for one, score in zip(DRAWN[:2], scores, strict=True)]
    tables.write_scored(tmp_path / "s.parquet", scored)
    assert tables.read_scored(tmp_path / "s.parquet") == scored
    assert [row["numbers"] for row in tables.read(tmp_path / "s.parquet")] == ['{"a": 0.5, "z": 1.0}', None]


@pytest.mark.parametrize("lacking", sorted(tables.CONFIDENCES.values()))
def test_a_confidence_that_lacks_a_part_is_none(lacking: str) -> None:
    row = {column: VALUES[name] for name, column in tables.CONFIDENCES.items()}
    assert tables.confidence_of(row) == SURE
    assert tables.confidence_of({**row, lacking: None}) is None
    assert tables.confidence_of({name: value for name, value in row.items() if name != lacking}) is None


@pytest.mark.parametrize("row", [{"question_id": "a"}, {"stop_reason": "asleep"}])
def test_rows_that_are_no_completions_are_broken_by_their_file(tmp_path: Path, row: dict[str, str]) -> None:
    path = tmp_path / "c.parquet"
    tables.write(path, dict.fromkeys(row, "text"), [row])
    with pytest.raises(Broken, match="it holds no completions") as raised:
        tables.read_completions(path)
    assert raised.value.path == path
