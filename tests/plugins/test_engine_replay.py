"""Recorded completions come back as recorded, and a file that does not fit is told with place and count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nsd.plugins.api import Completion, Request, Sampling, StopReason, question_id
from nsd.plugins.engines.replay import ReplayEngine
from nsd.plugins.errors import InputError
from nsd.plugins.registry import find
from support import shared_data


def write(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path = folder / "recorded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def engine(path: Path, missing: str = "error", **fields: Any) -> ReplayEngine:
    return ReplayEngine(ReplayEngine.Config.model_validate({"path": str(path), "fields": fields, "missing": missing}))


def replay(made: ReplayEngine, questions: Sequence[str], n: int) -> list[Completion]:
    requests = [Request(question_id(question), question) for question in questions]
    batches = made.generate(None, requests, Sampling(n, 1.0, 99), 0)
    return [one for batch in batches for one in batch]


def test_a_list_of_completions_per_question(tmp_path: Path) -> None:
    path = write(tmp_path, [{"q": "One?", "all": ["a", "b"]}, {"q": "Two?", "all": ["c", "d", "e"]}])
    found = replay(engine(path, question="q", completion="all"), ["Two?", "One?"], 2)
    assert [(one.question_id, one.sample, one.text) for one in found] == [
        (question_id("Two?"), 0, "c"),
        (question_id("Two?"), 1, "d"),
        (question_id("One?"), 0, "a"),
        (question_id("One?"), 1, "b"),
    ]
    assert {one.stop_reason for one in found} == {StopReason.STOP}


def test_repeated_questions_count_up(tmp_path: Path) -> None:
    rows = [{"question": "One?", "completion": "a"}, {"question": " One? ", "completion": "b"}]
    assert [one.text for one in replay(engine(write(tmp_path, rows)), ["One?"], 2)] == ["a", "b"]


def test_sample_numbers_and_dotted_names(tmp_path: Path) -> None:
    rows = [
        {"in": {"q": "One?"}, "out": [{"text": "b", "end": "length", "tokens": 7}], "s": 1},
        {"in": {"q": "One?"}, "out": [{"text": "a", "end": None, "tokens": 5}], "s": 0},
    ]
    names = {"question": "in.q", "completion": "out.0.text", "sample": "s", "finish": "out.0.end"}
    found = replay(engine(write(tmp_path, rows), tokens="out.0.tokens", **names), ["One?"], 2)
    assert [(one.text, one.stop_reason, one.tokens) for one in found] == [
        ("a", StopReason.STOP, 5),
        ("b", StopReason.LENGTH, 7),
    ]


def test_rows_may_go_by_question_id(tmp_path: Path) -> None:
    rows = [{"id": question_id("One?"), "completion": "a"}]
    assert replay(engine(write(tmp_path, rows), id="id"), ["One?"], 1)[0].text == "a"


def test_failed_completions_stay_failures(tmp_path: Path) -> None:
    rows = [{"question": "One?", "completion": ["a", None, "c"], "finish": ["stop", None, "content_filter"]}]
    found = replay(engine(write(tmp_path, rows), finish="finish"), ["One?"], 3)
    assert [(one.text, one.stop_reason, one.error) for one in found] == [
        ("a", StopReason.STOP, None),
        ("", StopReason.ERROR, "recorded without a text"),
        ("c", StopReason.ERROR, "recorded as 'content_filter'"),
    ]


def test_too_few_samples_are_told_with_question_and_counts(tmp_path: Path) -> None:
    path = write(tmp_path, [{"question": "One?", "completion": ["a", "b"]}])
    with pytest.raises(InputError) as caught:
        replay(engine(path), ["One?", "Two?"], 3)
    assert f"2 of the 3 completions wanted for question {question_id('One?')} ('One?')" in str(caught.value)
    assert "so do 1 more of 2 questions" in str(caught.value)


def test_too_few_samples_can_count_as_wrong_instead(tmp_path: Path) -> None:
    path = write(tmp_path, [{"question": "One?", "completion": ["a"]}])
    found = replay(engine(path, missing="empty"), ["One?", "Two?"], 2)
    assert [one.stop_reason for one in found] == [StopReason.STOP, *[StopReason.ERROR] * 3]
    assert found[1].error == "no recorded completion in recorded.jsonl"


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([{"question": "One?"}], {}, r"recorded.jsonl:1: no field 'completion'"),
        ([{"question": "One?", "completion": 3}], {}, "should hold text, not int"),
        ([{"question": "One?", "completion": "a", "f": "tired"}], {"finish": "f"}, "'tired', not one of stop, eos"),
        ([{"question": "One?", "completion": ["a"], "f": []}], {"finish": "f"}, "0 entries for 1 completions"),
        ([{"question": "One?", "completion": ["a"], "s": 0}], {"sample": "s"}, "holds one completion, not a list"),
        ([{"question": "One?", "completion": "a", "s": -1}], {"sample": "s"}, "a whole number from 0, it is -1"),
        ([{"question": "One?", "completion": "a", "s": 0}] * 2, {"sample": "s"}, r":2: sample 0 .* recorded twice"),
        ([{"id": None, "completion": "a"}], {"id": "id"}, "a question id is needed"),
    ],
)
def test_a_row_that_does_not_fit_is_told_by_its_place(
    tmp_path: Path, rows: list[dict[str, Any]], fields: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replay(engine(write(tmp_path, rows), **fields), ["One?"], 1)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for use in (lambda made: made.content_hash(), lambda made: replay(made, ["One?"], 1)):
        with pytest.raises(InputError, match="nowhere"):
            use(engine(tmp_path / "nowhere.jsonl"))


def test_one_field_cannot_be_question_and_completion(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="both read from 'text'"):
        engine(tmp_path / "x.jsonl", question="text", completion="text")


def test_the_digest_holds_the_content_and_not_the_path(tmp_path: Path) -> None:
    rows = [{"question": "One?", "completion": "a"}]
    (tmp_path / "elsewhere").mkdir()
    here, there = engine(write(tmp_path, rows)), engine(write(tmp_path / "elsewhere", rows))
    assert here.digest_extra() == there.digest_extra()
    write(tmp_path, [*rows, *rows])
    assert here.digest_extra() != there.digest_extra()


@settings(deadline=None)
@given(st.sets(st.integers(0, 39)))
def test_a_resumed_call_gives_the_rest(tmp_path_factory: pytest.TempPathFactory, done: set[int]) -> None:
    questions = [f"Question {index}?" for index in range(10)]
    folder = tmp_path_factory.mktemp("replay")
    made = engine(write(folder, [{"question": q, "completion": [q + letter for letter in "abcd"]} for q in questions]))
    requests = [Request(question_id(question), question) for question in questions]
    keys = [(request.question_id, sample) for request in requests for sample in range(4)]
    held = frozenset(keys[index] for index in done)
    rest = [one for batch in made.generate(None, requests, Sampling(4, 1.0, 9), 0, held) for one in batch]
    assert [(one.question_id, one.sample) for one in rest] == [key for key in keys if key not in held]


def test_eight_recorded_responses_of_a_real_model() -> None:
    path = shared_data("samples/qwen25math_math100x8/math_cot_100.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    made = find("engine", "replay")
    assert made is ReplayEngine
    found = replay(engine(path, completion="response"), [row["question"] for row in rows], 8)
    assert [one.text for one in found] == [text for row in rows for text in row["response"]]
    assert len(found) == 800
    with pytest.raises(InputError, match=r"has 8 of the 9 completions wanted .* 99 more of 100 questions"):
        replay(engine(path, completion="response"), [row["question"] for row in rows], 9)
