"""Reading recorded results: fields, samples, missing answers, and errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsd.plugins.api import question_id
from nsd.plugins.errors import InputError
from nsd.runner.work.imports.reading import read_import
from nsd.runner.work.imports.rows import get_field
from nsd.runner.work.imports.run import ImportedRun


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "results.jsonl"
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def judged(path: Path, answer: str = "answer") -> list[ImportedRun]:
    return read_import(path, name="run", id_field="id", answer=answer, gold="gold", verifier="numeric")


@pytest.mark.parametrize("right", [1, True, "1", "true", "True", 1.0])
def test_right_is_read_in_every_spelling(tmp_path: Path, right: Any) -> None:
    path = jsonl(tmp_path, {"id": "a", "ok": right}, {"id": "b", "ok": 0})
    (run,) = read_import(path, name="run", id_field="id", correct="ok")
    assert run.values == [("a", 1.0), ("b", 0.0)]


def test_recorded_answers_are_judged_by_the_verifier(tmp_path: Path) -> None:
    rows = [("a", "$18", "# 18"), ("b", "195,000", "70000"), ("c", 18.0, 18), ("d", "none", "4")]
    (run,) = judged(jsonl(tmp_path, *({"id": i, "answer": answer, "gold": gold} for i, answer, gold in rows)))
    assert [value for _, value in run.values] == [1.0, 0.0, 1.0, 0.0]
    assert [sample["answer"] for sample in run.samples] == ["18", "195000", "18", None]


def test_recorded_numbers_keep_their_value_and_recorded_sentences_their_answer(tmp_path: Path) -> None:
    texts = ["0.00001", "1e-05", '"5 hours"', '"3/4"', "1e22"]
    golds = ["1e-05", '"0.00001"', "5", "4", '"10,000,000,000,000,000,000,000"']
    pairs = enumerate(zip(texts, golds, strict=True))
    (run,) = judged(jsonl(tmp_path, *(f'{{"id": {i}, "answer": {a}, "gold": {g}}}' for i, (a, g) in pairs)))
    assert [value for _, value in run.values] == [1.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("gold", ["3/4", "5 1/2", "1, 2", "12,5", "about 5"])
def test_a_gold_answer_that_is_no_number_ends_the_import_with_its_line(tmp_path: Path, gold: str) -> None:
    path = jsonl(tmp_path, {"id": "a", "answer": "5", "gold": "5"}, {"id": "b", "answer": "5", "gold": gold})
    with pytest.raises(InputError, match=rf"results.jsonl:2: verifier 'numeric' finds no answer in the gold '{gold}'"):
        judged(path)


@pytest.mark.parametrize("nothing", [None, "", " ", "NA", "N/A", "None", float("nan")])
def test_what_says_nothing_is_no_gold_and_a_missing_answer(tmp_path: Path, nothing: Any) -> None:
    (run,) = judged(jsonl(tmp_path, {"id": "a", "answer": nothing, "gold": "5"}))
    assert (run.values, run.metadata["missing_answers"], run.samples[0]["text"]) == ([("a", 0.0)], 1, None)
    with pytest.raises(InputError, match=r"results.jsonl:1: no gold answer in the field 'gold'"):
        judged(jsonl(tmp_path, {"id": "a", "answer": "5", "gold": nothing}))


def test_a_number_beyond_all_numbers_is_no_crash(tmp_path: Path) -> None:
    huge = "1e" + "9" * 19
    (run,) = judged(jsonl(tmp_path, f'{{"id": 1, "answer": {huge}, "gold": 5}}'))
    assert run.values == [("1", 0.0)]
    with pytest.raises(InputError, match="finds no answer in the gold"):
        judged(jsonl(tmp_path, f'{{"id": 1, "answer": 5, "gold": {huge}}}'))


def test_a_failed_completion_is_wrong_whatever_was_recorded_and_a_cut_one_is_what_it_is(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "ok": [1, 1, 1], "said": ["5", "5", "5"], "end": ["stop", "error", "length"], "gold": "5"},
        {"id": "b", "ok": 1, "said": "5", "end": None, "gold": "5"},
    ]
    path = jsonl(tmp_path, *rows)
    by_answer = {"answer": "said", "gold": "gold", "verifier": "numeric"}
    for how in ({"correct": "ok"}, by_answer):
        (run,) = read_import(path, name="run", id_field="id", finish="end", **how)
        assert run.values == [("a", pytest.approx(2 / 3)), ("b", 1.0)]
        found = [(sample["stop_reason"], sample["correct"]) for sample in run.samples]
        assert found == [("stop", True), ("error", False), ("length", True), ("stop", True)]
        assert "1 failed, counted as wrong" in run.describe()
    assert [sample["answer"] for sample in run.samples] == ["5", None, "5", "5"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"ok": [1, 1], "end": ["error", "stop"]}, "1 of 2 completions of run failed: there is no accuracy in them"),
        ({"ok": [1, 1], "end": ["stop"]}, "results.jsonl:1: the field 'end' has 1 entries for 2 completions"),
        ({"ok": 1, "end": "tired"}, "results.jsonl:1: the field 'end' is 'tired', not one of stop"),
        ({"ok": 1, "ended": "stop"}, "results.jsonl:1: no field 'end'; did you mean 'ended'"),
    ],
)
def test_ends_that_leave_nothing_to_import(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_import(jsonl(tmp_path, {"id": "a", **row}), name="run", id_field="id", correct="ok", finish="end")


def test_several_lines_and_lists_are_samples_of_one_question(tmp_path: Path) -> None:
    lines = jsonl(tmp_path, {"id": 7, "ok": 1}, {"id": 8, "ok": 0}, {"id": 7, "ok": 0})
    (run,) = read_import(lines, name="run", id_field="id", correct="ok")
    assert run.values == [("7", 0.5), ("8", 0.0)]
    assert [(s["question_id"], s["sample"]) for s in run.samples] == [("7", 0), ("8", 0), ("7", 1)]
    (same,) = read_import(
        jsonl(tmp_path, {"id": 7, "ok": [True, False]}, {"id": 8, "ok": [False]}),
        name="run",
        id_field="id",
        correct="ok",
    )
    assert same.values == run.values


def test_null_and_absent_answers_are_wrong_and_counted(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {"id": "a", "answer": "1", "gold": "1"},
        {"id": "b", "answer": None, "gold": "1"},
        {"id": "c", "gold": "1"},
    )
    (run,) = judged(path)
    assert run.values == [("a", 1.0), ("b", 0.0), ("c", 0.0)]
    assert run.metadata["missing_answers"] == 2 and "2 without an answer, counted as wrong" in run.describe()


def test_an_absent_key_beside_other_models_is_a_question_not_asked(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {"id": "a", "gold": "1", "answers": {"x": "1", "y": "1"}},
        {"id": "b", "gold": "1", "answers": {"x": "2"}},
        {"id": "c", "gold": "1", "answers": {"x": None, "y": None}},
    )
    alone, together = judged(path, "answers.y"), judged(path, "answers.*")
    assert [run.run for run in together] == ["run/x", "run/y"]
    assert alone[0].values == together[1].values == [("a", 1.0), ("c", 0.0)]
    assert "INCOMPLETE: 1 questions" in together[1].describe()
    assert together[0].metadata["data_hash"] == together[1].metadata["data_hash"]


def test_an_empty_object_is_a_failed_answer_and_not_an_unasked_question(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"id": "a", "gold": "1", "out": {"answer": "1"}}, {"id": "b", "gold": "1", "out": {}})
    (run,) = judged(path, "out.answer")
    assert run.values == [("a", 1.0), ("b", 0.0)]


def test_keys_with_dots_are_taken_whole_first() -> None:
    row = {"a": {"b.c": 1, "b": {"c": 2, "d": 3}}, "a.b": {"d": 4, "e": 5}, "x.y": 6}
    assert get_field(row, "x.y") == 6
    assert get_field(row, "a.b.c") == 1
    assert get_field(row, "a.b.d") == 4
    assert get_field(row, "a.b.e") == 5


def test_a_pattern_fits_keys_with_dots_and_brackets(tmp_path: Path) -> None:
    answers = {"Llama-3.1-8B": "1", "Llama-3.1[x]": "2", "other": "1"}
    path = jsonl(tmp_path, {"id": "a", "gold": "1", "answers": answers})
    for pattern in ("answers.Llama-*", "answers.Llama-3.*"):
        assert [run.run for run in judged(path, pattern)] == ["run/Llama-3.1-8B", "run/Llama-3.1[x]"]


def test_a_misspelt_field_gets_the_nearest_one(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"id": "a", "gold": "1", "answers": {"Qwen2-7B": "1"}})
    with pytest.raises(InputError, match=r"did you mean 'answers\.Qwen2-7B'"):
        judged(path, "answers.Qwen2-8B")


def test_a_text_id_becomes_the_content_hash(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"q": "How  many?", "ok": 1})
    (run,) = read_import(path, name="run", id_field="q", correct="ok", id_is_text=True)
    assert run.values == [(question_id("How many?"), 1.0)]


def test_counts_become_runs(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text("\ufeffcondition,correct,n,note\nbase,105,500,x\noracle,162,500,\n", encoding="utf-8")
    assert [(run.run, run.counts) for run in read_import(path, counts=True)] == [
        ("base", (105, 500)),
        ("oracle", (162, 500)),
    ]
    assert read_import(path, counts=True, name="paper")[0].run == "paper/base"


BROKEN_LINES = {
    "not a JSON object": '{"id": "b", "ok": ',
    "a list, where": "[1]",
    "no id": '{"ok": 1}',
    "where 0, 1, true or false": '{"id": "b", "ok": 0.5}',
    "holds a list, not a text": '{"id": [1], "ok": 1}',
    "is empty": '{"id": " ", "ok": 1}',
    "empty list": '{"id": "b", "ok": []}',
    "nested too deeply": '{"id":' + "[" * 100_000 + "]" * 100_000 + "}",
}


@pytest.mark.parametrize("words", BROKEN_LINES)
def test_a_broken_line_ends_the_import_with_its_number(tmp_path: Path, words: str) -> None:
    path = jsonl(tmp_path, {"id": "a", "ok": 1}, "", BROKEN_LINES[words])
    with pytest.raises(InputError, match=words) as error:
        read_import(path, name="run", id_field="id", correct="ok")
    assert f"{path.name}:3" in str(error.value)


def test_bytes_that_are_no_text_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"id": "a", "ok": 1}\n{"id": "\xff", "ok": 1}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl:2: not UTF-8"):
        read_import(path, name="run", id_field="id", correct="ok")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": "b", "answer": "1"}, "no gold answer"),
        ({"id": "b", "answer": "1", "gold": "no number"}, "finds no answer in the gold"),
        ({"id": "a", "answer": "1", "gold": "2"}, "has the gold '2' here, '1' above"),
        ({"id": "b", "answer": {"x": 1}, "gold": "2"}, "holds a dict"),
    ],
)
def test_a_gold_answer_must_be_there_readable_and_one(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        judged(jsonl(tmp_path, {"id": "a", "answer": "1", "gold": "1"}, row))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"id_field": "id", "correct": "ok"}, "--name"),
        ({"name": "r", "correct": "ok"}, "--id"),
        ({"name": "r", "id_field": "id"}, "either --correct"),
        ({"name": "r", "id_field": "id", "correct": "ok", "answer": "x"}, "either --correct"),
        ({"name": "r", "id_field": "id", "answer": "x", "gold": "y"}, "go together"),
        ({"name": "r", "id_field": "id", "correct": "nope"}, "no line has a field 'nope'.*'id', 'ok'"),
        ({"name": "r", "id_field": "id", "correct": "nope.*"}, "no line has a field like"),
        ({"counts": True, "id_field": "id"}, "leave the field options out"),
        ({"name": "r", "id_field": "id", "answer": "ok", "gold": "ok", "verifier": "numerik"}, "numeric"),
    ],
)
def test_wrong_options_say_what_to_give(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_import(jsonl(tmp_path, {"id": "a", "ok": 1}), **options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("condition,right\na,1\n", "no column correct, n"),
        ("condition,correct,n\na,five,10\n", ":2: correct 'five'"),
        ("condition,correct,n\na,11,10\n", ":2: 11 correct of 10"),
        ("condition,correct,n\na,0,0\n", ":2: 0 correct of 0"),
        ("condition,correct,n\na,1,2\na,1,2\n", ":3: the condition 'a' stands here twice"),
        ("condition,correct,n\na,1\n", ":2: correct '1' and n None"),
        ("condition,correct,n\n", "no line below its header"),
        ("", "the first line has nothing"),
    ],
)
def test_a_wrong_csv_says_where(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_import(path, counts=True)


def test_no_file_and_an_empty_one_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_import(tmp_path / "none.jsonl", name="r", id_field="id", correct="ok")
    with pytest.raises(InputError, match="no lines"):
        read_import(jsonl(tmp_path), name="r", id_field="id", correct="ok")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "ok", "a.b", "x"]), inner),
    max_leaves=8,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(ANY_JSON, max_size=4), st.sampled_from(["ok", "x.ok", "a.b", "x.*"]))
def test_any_json_is_imported_or_refused_in_words(tmp_path: Path, rows: list[Any], correct: str) -> None:
    path = jsonl(tmp_path, *(json.dumps(row) for row in rows))
    try:
        runs = read_import(path, name="run", id_field="id", correct=correct)
    except InputError:
        return
    for run in runs:
        assert all(0 <= value <= 1 for _, value in run.values)
        assert len(run.samples) >= len(run.values) == len({question for question, _ in run.values}) > 0
