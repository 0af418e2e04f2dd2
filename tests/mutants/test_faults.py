"""The list of faults repeats, is a prefix of a longer one, and leaves wording out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("mutmut", reason="the extra `mutants` is not installed")

from . import faults

SOURCE = '''\
"""Docstring 1."""

from __future__ import annotations

LIMIT = 3
QUERY = "SELECT a FROM b"


def over(numbers: list[int] | None, note: str = "a long note") -> list[int]:
    """Docstring 2."""
    if not numbers:
        raise ValueError(f"there are {1 + 1} numbers")
    return [one for one in numbers if one > LIMIT]


class Thing:
    @property
    def double(self) -> int:
        return LIMIT * 2
'''


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toy.py").write_text(SOURCE)
    monkeypatch.setattr(faults, "ROOMS", {"toy": ["toy.py"]})
    return tmp_path


def test_each_statement_that_can_go_wrong_holds_one_fault_and_wording_holds_none(root: Path) -> None:
    drawn, sizes = faults.draw(root, 99, seed=1)
    lines = SOURCE.splitlines()
    assert sorted(lines[fault.line - 1].strip() for fault in drawn) == [
        "LIMIT = 3",
        'QUERY = "SELECT a FROM b"',
        "if not numbers:",
        "return LIMIT * 2",
        "return [one for one in numbers if one > LIMIT]",
    ]
    assert sizes == {"toy": 5}
    assert all(ast.dump(ast.parse(fault.mutated)) != ast.dump(ast.parse(SOURCE)) for fault in drawn)


def test_a_shorter_list_begins_a_longer_one_and_other_code_moves_no_fault(root: Path) -> None:
    drawn = faults.draw(root, 99, seed=1)[0]
    assert [one.key for one in faults.draw(root, 2, seed=1)[0]] == [one.key for one in drawn[:2]]
    assert [one.key for one in faults.draw(root, 99, seed=2)[0]] != [one.key for one in drawn]
    (root / "toy.py").write_text(SOURCE.replace("class Thing", "OTHER = 4\n\n\nclass Thing"))
    assert {one.key for one in drawn} < {one.key for one in faults.draw(root, 99, seed=1)[0]}


def test_other_letters_of_sql_are_no_fault(root: Path) -> None:
    (root / "toy.py").write_text('QUERY = "SELECT a FROM b"\nQUOTED = "SELECT a FROM b WHERE c = \'d\'"\n')
    drawn = [fault for seed in range(20) for fault in faults.draw(root, 2, seed)[0]]
    before = (root / "toy.py").read_text().casefold()
    same = {fault.line for fault in drawn if fault.mutated.casefold() == before}
    assert same == {2} and {fault.line for fault in drawn} == {1, 2}


def test_a_room_without_files_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "ROOMS", {"toy": ["gone.py"]})
    with pytest.raises(FileNotFoundError, match=r"gone\.py"):
        faults.draw(root, 1, seed=1)
