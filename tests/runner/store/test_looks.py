"""Looks: kept once for the same evidence, by many writers, and never in the way of a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nsd.runner.store import journal
from nsd.runner.store.index import Store
from nsd.runner.store.looks import read_looks, record_looks
from nsd.runner.store.shapes import Look
from nsd.runner.store.workspace import Workspace
from support import PATIENCE, REPOSITORY


def look(a: str = "toy/base", b: str = "toy/x", evals: tuple[str, str] = ("e1", "e2"), **more: Any) -> Look:
    found = {"experiment": "toy", "a": a, "b": b, "metric": "accuracy", "n": 9, "p": 0.2, "verdict": "UNRESOLVED"}
    sides = {"evidence": {"a": [evals[0]], "b": [evals[1]]}, "train": {"a": [], "b": ["t"]}}
    return Look.model_validate({**found, **sides, **more})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "place")
    workspace.create()
    return workspace


def test_a_look_comes_back_with_its_time_and_command(workspace: Workspace) -> None:
    assert len(record_looks(workspace, "compare", [look()])) == 1
    (held,) = read_looks(workspace)
    assert held.command == "compare" and held.looked_at.startswith("20") and held.train.b == ["t"]


def test_the_same_evidence_is_not_looked_at_twice(workspace: Workspace) -> None:
    record_looks(workspace, "run", [look(), look()])
    turned = look("toy/x", "toy/base", ("e2", "e1"))
    assert record_looks(workspace, "compare", [look(p=0.9), turned]) == []
    assert len(read_looks(workspace)) == 1


@pytest.mark.parametrize(
    "other",
    [
        look(evals=("e1", "e3")),
        look(evals=("e2", "e1")),
        look(metric="avg@4"),
        look(b="toy/y"),
        look(by="level"),
    ],
)
def test_other_evidence_pair_or_metric_is_another_look(workspace: Workspace, other: Look) -> None:
    record_looks(workspace, "run", [look()])
    assert len(record_looks(workspace, "run", [other])) == 1


def test_more_seeds_are_another_look(workspace: Workspace) -> None:
    record_looks(workspace, "run", [look()])
    assert record_looks(workspace, "run", [look(evidence={"a": ["e1", "e5"], "b": ["e2"]})])


def test_the_index_has_them(workspace: Workspace) -> None:
    record_looks(workspace, "run", [look(), look(b="toy/y", p=None)])
    with Store(workspace).write() as connection:
        rows = connection.execute(
            "SELECT b, json_extract_string(evidence, '$.evidence.b[0]'), json_extract_string(evidence, '$.train.b[0]'),"
            " n, p, command FROM looks ORDER BY b"
        ).fetchall()
    assert rows == [("toy/x", "e2", "t", 9, 0.2, "run"), ("toy/y", "e2", "t", 9, None, "run")]


def test_an_open_reader_of_the_index_does_not_stop_a_look(workspace: Workspace) -> None:
    store = Store(workspace)
    store.rebuild()
    with store.read():
        assert record_looks(workspace, "run", [look()])
    assert len(read_looks(workspace)) == 1


def test_a_place_that_cannot_be_written_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    workspace = Workspace(tmp_path / "file")
    for _ in range(2):
        assert record_looks(workspace, "run", [look()]) == []
    assert capfd.readouterr().err.count("not recorded") == 1


def test_a_journal_that_cannot_be_read_is_named_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(journal, "_told", set())
    workspace.looks.mkdir()
    assert [read_looks(workspace) for _ in range(2)] == [[], []]
    assert capsys.readouterr().err == f"nsd: {workspace.looks} cannot be read and is passed over: Is a directory\n"


def test_a_torn_last_line_is_passed_over_and_closed(workspace: Workspace) -> None:
    record_looks(workspace, "run", [look()])
    with workspace.looks.open("a") as file:
        file.write('{"looked_at": "20')
    record_looks(workspace, "run", [look(b="toy/y")])
    assert [one.b for one in read_looks(workspace)] == ["toy/x", "toy/y"]


def test_several_processes_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nsd.runner.store import journal\n"
        "path, who = Path(sys.argv[1]), sys.argv[2]\n"
        "for i in range(50):\n"
        "    journal.append(path, [{'who': who, 'i': i, 'text': 'x' * 5000}])\n"
    )
    path = tmp_path / "notes.jsonl"
    place = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), who], env=place) for who in "abc"]
    assert [writer.wait(PATIENCE) for writer in writers] == [0, 0, 0]
    found = journal.read(path)
    assert sorted((one["who"], one["i"]) for one in found) == [(who, i) for who in "abc" for i in range(50)]


def test_groups_by_another_field_are_another_look_and_by_the_same_are_not(workspace: Workspace) -> None:
    assert len(record_looks(workspace, "run", [look(by="level"), look(by="topic")])) == 2
    assert record_looks(workspace, "run", [look(by="topic"), look("toy/x", "toy/base", ("e2", "e1"), by="level")]) == []
    assert [one.by for one in read_looks(workspace)] == ["level", "topic"]


def test_a_journal_that_cannot_be_read_is_passed_over_and_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_told", set())
    (tmp_path / "looks.jsonl").mkdir()
    assert journal.read(tmp_path / "looks.jsonl") == journal.read(tmp_path / "looks.jsonl") == []
    said = f"nsd: {tmp_path}/looks.jsonl cannot be read and is passed over: Is a directory\n"
    assert capsys.readouterr().err == said
    assert journal.read(tmp_path / "none.jsonl") == [] and capsys.readouterr().err == ""


def test_lines_of_a_journal_that_are_no_object_are_passed_over() -> None:
    content = b'{"a": NaN, "b": 1}\n[1]\n\n\xff\n{"torn\n' + b"[" * 100_000 + b'\n{"c": Infinity}'
    assert journal.parse(content) == [{"a": None, "b": 1}, {"c": None}]
