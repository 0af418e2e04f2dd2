"""A table that is none, or of another sort, is named with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nsd.plugins.api import Question
from nsd.runner.store import tables
from nsd.runner.store.shapes import Broken, Manifest, Served, read_manifest
from nsd.runner.store.stored import StoredQuestions
from nsd.runner.store.workspace import Workspace
from toy_workspace import finish

NO_PARQUET = "Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file."


@pytest.mark.parametrize("read", [lambda path: list(tables.batches(path)), tables.count])
def test_a_file_that_is_no_table_is_broken_in_one_line(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "torn.parquet"
    path.write_text("torn, and long enough to be one")
    with pytest.raises(Broken) as broken:
        read(path)
    assert str(broken.value) == f"{path} is broken: {NO_PARQUET}"


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (tables.read_completions, "it holds no completions ('sample')"),
        (tables.read_scores, "it holds no verdicts ('sample')"),
    ],
)
def test_a_table_of_another_sort_is_broken_by_its_first_lack(
    tmp_path: Path, read: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "values.parquet"
    tables.write(path, tables.VALUES, [{"question_id": "q", "value": 1.0}])
    with pytest.raises(Broken) as broken:
        read(path)
    assert str(broken.value) == f"{path} is broken: {said}"


def test_broken_questions_of_a_workspace_are_none_and_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path / "w")
    path = workspace.data_file("d" * 12)
    path.parent.mkdir(parents=True)
    path.write_text("torn")
    assert tables.held_questions(workspace, "d" * 12) == []
    assert not path.exists()
    assert "; the next `nsd run` of its spec writes it again" in capsys.readouterr().err


def test_stored_questions_that_are_torn_later_are_broken_by_their_name(tmp_path: Path) -> None:
    path = tmp_path / "questions.parquet"
    tables.write_questions(path, [Question("q", "?", answer="1")])
    stored = StoredQuestions(path)
    path.write_text("torn, and long enough to be one")
    with pytest.raises(Broken) as broken:
        stored[0]
    assert str(broken.value) == f"{path} is broken: {NO_PARQUET}"


def test_a_manifest_in_the_folder_of_another_stage_is_broken(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    finish(workspace, "first", [1.0])
    folder = workspace.folder("eval", "first").rename(workspace.folder("eval", "second"))
    with pytest.raises(Broken) as broken:
        read_manifest(folder)
    assert str(broken.value) == f"{folder / 'manifest.json'} is broken: it is of eval-first"


def test_an_unsafe_name_in_a_manifest_is_broken_by_its_place() -> None:
    with pytest.raises(Broken) as broken:
        Manifest.from_json({"kind": "eval", "digest": "../up"}, "there")
    assert str(broken.value) == ("there is broken: digest: value error, '../up' is no name of a file inside its folder")


def test_what_was_served_is_counted_as_whoever_asks_counts_it() -> None:
    numbers = {"requests": 3, "retries": 1, "prompt_tokens": 20, "completion_tokens": 9, "usd": 0.5}
    served = Served.from_json({**numbers, "unknown": 2, "unknown_usd": 0.25}, "there")
    usage = served.usage
    assert (usage.requests, usage.retries, usage.prompt_tokens, usage.completion_tokens) == (3, 1, 20, 9)
    assert (usage.usd, usage.unknown, usage.unknown_usd) == (0.5, 2, 0.25)
