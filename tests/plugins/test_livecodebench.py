"""LiveCodeBench from files of its columns: the window, the prompt, both forms of tests, and rows that are broken."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import SideFile, without_truth
from nsd.plugins.datasets import livecodebench
from nsd.plugins.datasets.livecodebench import LiveCodeBench
from nsd.plugins.datasets.sources import Row
from nsd.plugins.errors import InputError

STARTER = "class Solution:\n    def addUp(self, nums: List[int], k: int) -> int:\n        "


def packed(content: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(content))).decode()


def row(**changes: Any) -> dict[str, Any]:
    stdin = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
    made = {
        "question_title": "A",
        "question_content": "Add two numbers.",
        "platform": "atcoder",
        "question_id": "abc_a",
        "contest_id": "abc",
        "contest_date": "2025-02-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "0 0\n", "output": "0\n", "testtype": "stdin"}]),
        "private_test_cases": packed(json.dumps(stdin)),
        "metadata": "{}",
    }
    return made | changes


def functional(**changes: Any) -> dict[str, Any]:
    tests = [{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]
    return row(
        question_content="Add up.",
        starter_code=STARTER,
        private_test_cases=json.dumps(tests),
        metadata=json.dumps({"func_name": "addUp"}),
        **changes,
    )


def dataset(folder: Path, *rows: dict[str, Any], **config: Any) -> LiveCodeBench:
    (folder / "test6.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return LiveCodeBench(LiveCodeBench.Config.model_validate({"path": str(folder), **config}))


def test_a_program_and_a_function_become_questions_with_tests(tmp_path: Path) -> None:
    program, function = dataset(tmp_path, row(), functional()).pools().train
    assert program.meta["tests"] == [{"kind": "stdin", "input": "1 2\n", "output": "3\n"}]
    assert "function" not in program.meta and program.meta["question_id"] == "abc_a"
    assert function.meta["tests"] == [{"kind": "functional", "input": [[1, 2], 3], "output": 6}]
    assert (function.meta["function"], function.meta["seconds"]) == ("addUp", 6.0)
    assert function.place == f"{tmp_path}/test6.jsonl:2"


def test_the_prompt_is_that_of_the_source(tmp_path: Path) -> None:
    program, function = dataset(tmp_path, row(), functional()).pools().train
    begin = (
        "You are a coding expert. You will be given a coding problem, and you need to write a correct Python program "
        "that matches the specification and passes all tests. The time limit is 1 second. You may start by outlining "
        "your thought process. In the end, please provide the complete code in a code block enclosed with ``` ```.\n\n"
    )
    prompt = LiveCodeBench.default_prompt
    assert prompt.render(program) == [{"role": "user", "content": f"{begin}Add two numbers."}]
    assert prompt.render(function) == [
        {
            "role": "user",
            "content": f"{begin}Add up.\n\nYour solution should have the following signature: ```python\n"
            "def addUp(nums: List[int], k: int) -> int:\n```",
        }
    ]


def test_public_tests_come_first_and_are_marked_where_all_are_wanted(tmp_path: Path) -> None:
    (program,) = dataset(tmp_path, row(), tests="all").pools().train
    assert [(test["input"], test.get("public", False)) for test in program.meta["tests"]] == [
        ("0 0\n", True),
        ("1 2\n", False),
    ]


@pytest.mark.parametrize(
    ("day", "inside"),
    [("2025-01-31", False), ("2025-02-01", True), ("2025-04-30T23:59:59", True), ("2025-05-01T00:00:00", False)],
)
def test_the_window_begins_with_february_and_ends_before_may(tmp_path: Path, day: str, inside: bool) -> None:
    kept = row(question_content="Kept.", contest_date="2025-03-01")
    questions = dataset(tmp_path, kept, row(contest_date=day)).pools().train
    assert len(questions) == 1 + inside


def test_another_window_is_a_matter_of_two_fields(tmp_path: Path) -> None:
    made = dataset(tmp_path, row(contest_date="2024-09-01"), row(), start="2024-09-01", end="2025-02-01")
    assert [one.meta["contest_date"] for one in made.pools().train] == ["2024-09-01"]
    with pytest.raises(ValueError, match="2025-02-01 is not before end"):
        LiveCodeBench.Config.model_validate({"end": "2025-01-01"})
    with pytest.raises(ValueError, match="should be a day like 2025-02-01"):
        LiveCodeBench.Config.model_validate({"start": "February"})


def test_a_window_without_rows_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of 1 rows is of a contest from 2025-02-01 to before 2025-05-01"):
        dataset(tmp_path, row(contest_date="2023-01-01")).pools()


def test_rows_are_numbers_in_the_window_from_0_in_their_own_order(tmp_path: Path) -> None:
    rows = [row(question_content=f"Q{number}") for number in range(4)]
    early = row(contest_date="2024-01-01")
    questions = dataset(tmp_path, early, *rows, rows=[3, 1, 3]).pools().train
    assert [one.text for one in questions] == ["Q3", "Q1"]
    with pytest.raises(InputError, match=r"rows: there is no row 4, the window has 4 \(0 to 3\)"):
        dataset(tmp_path, early, *rows, rows=[4]).pools()


def test_tests_stay_with_a_question_whose_answer_is_hidden(tmp_path: Path) -> None:
    made = dataset(tmp_path, functional())
    (question,) = made.pools().train
    assert set(without_truth(question, made.shown()).meta) == {"tests", "function", "seconds"}


def test_a_large_list_of_tests_is_a_side_file_with_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tests = [{"input": "9" * 9000, "output": "9", "testtype": "stdin"} for _ in range(3)]
    made = dataset(tmp_path, row(private_test_cases=packed(json.dumps(tests))))
    (question,) = made.pools().train
    side = question.meta["tests"]
    assert isinstance(side, SideFile) and side.size > livecodebench.INLINE
    assert side.json() == [{"kind": "stdin", "input": "9" * 9000, "output": "9"}] * 3
    assert made.pools().train[0] == question
    side.path.write_text("[]")  # somebody tore it: it is written again
    assert made.pools().train[0].meta["tests"].json() == side.json()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil-was-here"),))


def test_a_pickle_of_anything_but_a_text_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"test6\.jsonl:2: private_test_cases is neither JSON nor .*it asks for"):
        dataset(tmp_path, row(), row(private_test_cases=packed(Evil()))).pools()
    assert not (tmp_path / "evil-was-here").exists()
    with pytest.raises(InputError, match="it holds a list where a text belongs"):
        dataset(tmp_path, row(private_test_cases=packed([1]))).pools()


STDIN = {"input": "1", "output": "1", "testtype": "stdin"}
ZLIB = zlib.compress(pickle.dumps("[]" * 500))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"private_test_cases": "not base64!"}, "private_test_cases is neither JSON nor base64"),
        ({"private_test_cases": base64.b64encode(b"no zlib").decode()}, "private_test_cases is neither JSON nor"),
        ({"private_test_cases": base64.b64encode(ZLIB[:-9]).decode()}, "it ends too early"),
        (
            {"private_test_cases": base64.b64encode(zlib.compress(b"no pickle")).decode()},
            "private_test_cases is neither",
        ),
        ({"private_test_cases": packed("{")}, "private_test_cases is not JSON"),
        ({"private_test_cases": packed('{"a": 1}')}, "private_test_cases should be a list of tests"),
        ({"private_test_cases": "[1]"}, "private_test_cases, test 1 should have the texts `input` and `output`"),
        ({"private_test_cases": "[]"}, "there is no test"),
        ({"private_test_cases": None}, "private_test_cases should be a list of tests"),
        ({"private_test_cases": json.dumps([STDIN | {"testtype": "x"}])}, "testtype should be stdin or functional"),
        ({"private_test_cases": json.dumps([STDIN | {"testtype": "functional"}])}, "metadata has no func_name"),
        ({"contest_date": "soon"}, "contest_date should be a day like 2025-02-01, it is 'soon'"),
        ({"question_content": " "}, "field 'question_content' is empty"),
        ({"starter_code": "class Solution:"}, "starter_code has no `def`"),
        ({"metadata": "{"}, "metadata is not JSON"),
        ({"metadata": "[1]"}, "metadata should be a JSON object"),
        ({"metadata": '{"func_name": "os.system"}'}, "metadata.func_name should be a function's name"),
    ],
)
def test_a_broken_row_is_named_with_file_and_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        dataset(tmp_path, row(question_content="Fine."), row(**changes)).pools()
    assert f"{tmp_path}/test6.jsonl:2: " in str(caught.value) and said in str(caught.value)


@given(st.binary(max_size=60))
def test_no_bytes_in_place_of_a_pickle_raise_anything_else(content: bytes) -> None:
    place = Row("test6.jsonl:1", {})
    encoded = base64.b64encode(zlib.compress(content)).decode()
    with contextlib.suppress(InputError):
        livecodebench._listed(encoded, place, "private_test_cases")


def test_arguments_that_are_no_json_are_named(tmp_path: Path) -> None:
    broken = functional() | {"private_test_cases": json.dumps([STDIN | {"testtype": "functional", "input": "[1"}])}
    with pytest.raises(InputError, match=r"jsonl:1: private_test_cases, test 1: not JSON, one argument a line"):
        dataset(tmp_path, broken).pools()


def test_the_files_are_what_the_folder_has_under_their_names(tmp_path: Path) -> None:
    made = dataset(tmp_path, row(), files=["test5.jsonl", "test6.jsonl"])
    assert [file.name for file in made.source_files()] == ["test5.jsonl", "test6.jsonl"]
    with pytest.raises(InputError, match=r"test5\.jsonl: there is no such file"):
        made.pools()


def test_of_the_hub_the_release_file_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    (tmp_path / "got.jsonl").write_text(json.dumps(row()))
    asked: list[Any] = []

    def download(repository: str, name: str, **given: Any) -> str:
        asked.append((repository, name, given))
        return str(tmp_path / "got.jsonl")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    made = LiveCodeBench(LiveCodeBench.Config(revision="abc"))
    assert len(made.pools().train) == 1 and made.source_files() == []
    assert asked == [
        ("livecodebench/code_generation_lite", "test6.jsonl", {"repo_type": "dataset", "revision": "abc"}),
    ]


def test_without_a_network_the_error_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(*_: Any, **__: Any) -> str:
        raise OSError("unreachable")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(InputError, match=r"cannot load 'test6\.jsonl'.*\n.*give a local folder or file"):
        LiveCodeBench().pools()
