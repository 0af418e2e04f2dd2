"""Importing lines of several models, samples of one question, grades, CSV and JSON arrays, and hostile files."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.work.imports.reading import read_import
from nsd.runner.work.imports.run import ImportedRun


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(folder: Path, text: str, name: str = "results.csv") -> Path:
    (path := folder / name).write_bytes(text.encode())
    return path


def ok(path: Path, **options: Any) -> ImportedRun:
    (run,) = read_import(path, **{"name": "run", "id_field": "id", "correct": "ok", **options})
    return run


TWO_MODELS = [{"id": i, "model": model, "ok": i == 0 or model == "a"} for i in range(3) for model in "ab"]


# --------------------------------------------------------------------------- several lines with one id


def test_lines_that_a_field_tells_apart_are_refused_with_the_field_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        ok(written(tmp_path, *TWO_MODELS))
    assert str(error.value) == (
        f"{tmp_path}/results.jsonl: 3 ids have several lines, which differ in 'model' (a, b). Take those of one: "
        "--where model=a. If they are the samples of each question, say how many (--samples 2) or which field numbers "
        "them (--sample FIELD)"
    )


def test_every_field_that_tells_lines_apart_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"differ in 'model' \(a, b\); 'seed' \(1, 2\)"):
        ok(written(tmp_path, *({**row, "seed": 1 if row["model"] == "a" else 2} for row in TWO_MODELS)))


def test_a_model_with_fewer_questions_is_seen_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="differ in 'model'"):
        ok(written(tmp_path, *TWO_MODELS[:-1]))


def pairs_of(i: int) -> str:
    """Which two of three arms answered a question, so that no two are together at most of them."""
    return ("uv", "vw", "uw")[i % 3]


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([{"id": i, "meta": {"model": m}, "ok": m == "a"} for i in range(5) for m in "ab"], "'meta.model' (a, b)"),
        ([{"id": i, "run": {"at": {"z": m}}, "ok": 1} for i in range(5) for m in "ab"], "'run.at.z' (a, b)"),
        ([{"id": i, "z": m * 100, "ok": 1} for i in range(5) for m in "ab"], "'z' (a long text)"),
        ([{"id": i, "ok": 1, **({"z": "b"} if m == "b" else {})} for i in range(5) for m in "ab"], "'z' (b, null)"),
        ([{"id": i, "z": z, "ok": 1} for i in range(9) for z in pairs_of(i)], "'z' (u, v, w)"),
        ([{"id": i, "temperature": t, "ok": 1} for i in range(9) for t in (0.5, 1.5)], "'temperature' (0.5, 1.5)"),
        ([{"id": i, "z": [1] if i == 0 else z, "ok": 1} for i in range(9) for z in "ab"], "'z' (a, b)"),
        ([{"id": i, "Model": m, "ok": 1} for i in range(9) for m in ("ab" if i < 2 else "aa")], "'Model' (a, b)"),
        ([{"id": i, "sample": s, "ok": 1} for i in range(3) for s in (0, 1, 0, 1)], "'sample' (0, 1)"),
    ],
    ids=["nested", "deep", "long", "half there", "in pairs", "a number", "not always", "seldom", "numbered twice"],
)
def test_arms_are_never_averaged_unnamed(tmp_path: Path, rows: list[dict[str, Any]], field: str) -> None:
    with pytest.raises(InputError) as error:
        ok(written(tmp_path, *rows))
    assert f"have several lines, which differ in {field}" in str(error.value)


def test_what_the_error_says_of_a_field_that_half_of_the_lines_lack_can_be_done(tmp_path: Path) -> None:
    rows = [{"id": i, "ok": m == "a", **({"model": "b"} if m == "b" else {})} for i in range(5) for m in "ab"]
    with pytest.raises(InputError, match="--where model=null"):
        ok(written(tmp_path, *rows))
    assert ok(written(tmp_path, *rows), where={"model": ["null"]}).eval_info()["mean"] == 1.0


def test_the_answers_of_other_models_in_a_line_are_no_arms(tmp_path: Path) -> None:
    """Two samples of each model in a line of its own: what the other one said is no field that tells them apart."""
    rows = [{"id": i, "ok": {"a": s, "b": 1 - s}} for i in range(6) for s in (0, 1)]
    run = ok(written(tmp_path, *rows), correct="ok.a")
    assert run.eval_info()["samples"] == 2 and run.eval_info()["mean"] == 0.5


def test_a_question_drawn_several_times_is_no_mixture(tmp_path: Path) -> None:
    rows = [{"id": 1, "ok": 1, "text": f"{s}" * 200, "seconds": 0.5 + s} for s in range(4)]
    assert ok(written(tmp_path, *rows)).eval_info()["samples"] == 4


def test_where_takes_the_lines_of_one(tmp_path: Path) -> None:
    run = ok(written(tmp_path, *TWO_MODELS), where={"model": ["b"]})
    assert run.values == [("0", 1.0), ("1", 0.0), ("2", 0.0)]
    assert "3 lines left out by --where" in run.describe()


def test_where_with_two_fields_takes_lines_that_fit_both(tmp_path: Path) -> None:
    rows = [{"id": i, "m": m, "s": s, "ok": m == "a" and s == 2} for i in range(3) for m in "ab" for s in (1, 2)]
    run = ok(written(tmp_path, *rows), where={"m": ["a"], "s": ["2"]})
    assert [value for _, value in run.values] == [1.0, 1.0, 1.0]


def test_where_without_a_line_says_what_the_field_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no line has 'c' in the field 'model'; it holds 'a', 'b'"):
        ok(written(tmp_path, *TWO_MODELS), where={"model": ["c"]})


def test_where_with_a_misspelt_field_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'model'"):
        ok(written(tmp_path, *TWO_MODELS), where={"modell": ["a"]})


def test_samples_that_end_differently_are_samples(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [
        {"id": i, "ok": draw.random() < 0.5, "why": draw.choice(["stop", "length"]), "tokens": draw.randrange(500)}
        | {"sample": s, "text": f"{draw.random()}", "cut": draw.random() < 0.5}
        for i in range(50)
        for s in range(4)
    ]
    assert ok(written(tmp_path, *rows)).eval_info()["samples"] == 4


def test_samples_in_another_order_have_their_own_numbers(tmp_path: Path) -> None:
    rows = [{"id": "a", "try": 2, "ok": 0}, {"id": "a", "try": 1, "ok": 1}]
    run = ok(written(tmp_path, *rows), sample="try")
    assert [(sample["sample"], sample["correct"]) for sample in run.samples] == [(0, True), (1, False)]


def test_a_sample_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    rows = [{"id": "a", "try": 1, "ok": 0}, {"id": "a", "try": 1, "ok": 1}]
    with pytest.raises(InputError, match=r"results\.jsonl:2: sample 1 of question 'a' is here and on line 1"):
        ok(written(tmp_path, *rows), sample="try")


def test_the_ids_1_as_number_and_as_text_are_not_merged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.jsonl:2: the id is the text 1 here and the number 1 on line 1"):
        ok(written(tmp_path, {"id": 1, "ok": 1}, {"id": "1", "ok": 0}))


def test_numbers_and_texts_that_differ_are_ids_beside_each_other(tmp_path: Path) -> None:
    assert ok(written(tmp_path, {"id": 1, "ok": 1}, {"id": "x", "ok": 0})).values == [("1", 1.0), ("x", 0.0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "id,ok\nnan,1\nnan,0\n",
            "results.csv:3: the id field 'id' says 'nan' here and on line 2: these lines have no id",
        ),
        ("id,ok\nNone,1\nNone,1\n", "says 'None' here and on line 2"),
        ("id,ok\nq1,1\nq1 ,0\n", "results.csv:3: the id is the text 'q1 ' here and the text q1 on line 2"),
        ("id,ok\n1.23457E+17,1\n1.23457E+17,0\n", "the id is '1.23457E+17' here and on line 2: a spreadsheet has"),
        ("id,ok\n1,1\n1.0,0\n", "results.csv:3: the id is the text 1.0 here and the text 1 on line 2"),
        ("id,ok\n\u00e9,1\ne\u0301,0\n", "one question, or two?"),
    ],
)
def test_ids_that_may_be_one_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        ok(table(tmp_path, text))
    assert words in str(error.value)


def test_an_id_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.jsonl:1: the id field 'id' holds nan"):
        ok(written(tmp_path, {"id": float("nan"), "ok": 1}))


def test_one_question_may_be_called_na_and_blanks_around_an_id_are_none_of_it(tmp_path: Path) -> None:
    assert ok(table(tmp_path, "id,ok\nNA,1\n q2 ,0\n")).values == [("NA", 1.0), ("q2", 0.0)]


def test_a_folder_says_what_it_holds(tmp_path: Path) -> None:
    written(tmp_path, {"id": 1, "ok": 1})
    with pytest.raises(InputError, match=r"is a folder: import each file of results by itself.*: results\.jsonl"):
        ok(tmp_path)


# --------------------------------------------------------------------------- how many samples


def test_a_sample_that_is_not_there_is_wrong_and_counted(tmp_path: Path) -> None:
    run = ok(written(tmp_path, {"id": "a", "ok": [1, 1]}, {"id": "b", "ok": [1]}, {"id": "c", "ok": []}), samples=2)
    assert run.values == [("a", 1.0), ("b", 0.5), ("c", 0.0)]
    assert "3 samples not there, counted as wrong" in run.describe()
    assert [(s["question_id"], s["sample"]) for s in run.samples][-3:] == [("b", 1), ("c", 0), ("c", 1)]


def test_an_empty_sample_is_wrong_and_counted(tmp_path: Path) -> None:
    run = ok(written(tmp_path, {"id": "a", "ok": [1, None]}, {"id": "b", "ok": ["", 1]}), samples=2)
    assert run.values == [("a", 0.5), ("b", 0.5)] and run.metadata["missing_answers"] == 2


def test_more_samples_than_told_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.jsonl:2: question 'b' has 3 samples, more than the 2 of --samples"):
        ok(written(tmp_path, {"id": "a", "ok": [1, 1]}, {"id": "b", "ok": [1, 0, 1]}), samples=2)


def test_ragged_lists_are_named(tmp_path: Path) -> None:
    run = ok(written(tmp_path, {"id": "a", "ok": [1, 1, 0]}, {"id": "b", "ok": [1]}, {"id": "c", "ok": [1, 0]}))
    assert run.describe().endswith(
        "RAGGED: 2 of 3 questions have fewer than 3 samples: 'b' (line 2) has 1, 'c' (line 3) has 2 (--samples 3 "
        "counts the missing ones as wrong)"
    )


def test_samples_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--samples 0: a question has at least one"):
        ok(written(tmp_path, {"id": "a", "ok": 1}), samples=0)


# --------------------------------------------------------------------------- grades


def test_grades_keep_their_value_and_are_called_scores(tmp_path: Path) -> None:
    rows = [{"id": i, "f1": f1} for i, f1 in enumerate([0.25, 1, "0.5", True, float("nan"), None, 1e-3])]
    run = ok(written(tmp_path, *rows), correct=None, score="f1")
    assert [value for _, value in run.values] == [0.25, 1.0, 0.5, 1.0, 0.0, 0.0, 0.001]
    assert (run.eval_info()["metric"], run.metadata["missing_answers"]) == ("score", 2)
    assert [sample["correct"] for sample in run.samples] == [False, True, False, True, False, False, False]


@pytest.mark.parametrize("value", [1.5, -0.1, "high", float("inf"), {"a": 1}, "1,0"])
def test_a_grade_that_is_none_names_its_line(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path, {"id": "a", "f1": 0.5}, {"id": "b", "f1": value})
    with pytest.raises(InputError, match=r"results\.jsonl:2: the field 'f1' holds .*a score between 0 and 1"):
        ok(path, correct=None, score="f1")


def test_a_grade_where_right_or_wrong_was_told_says_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds \"0\.5\", .* say --score instead of --correct"):
        ok(written(tmp_path, {"id": "a", "ok": 0.5}))


@pytest.mark.parametrize("value", ["yes", "True!", 2, "right"])
def test_a_word_that_is_no_truth_value_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match="where 0, 1, true or false was expected"):
        ok(written(tmp_path, {"id": "a", "ok": value}))


# --------------------------------------------------------------------------- seeds and texts


def test_a_seed_makes_a_run_one_of_several(tmp_path: Path) -> None:
    run = ok(written(tmp_path, {"id": "a", "ok": 1}), seed=3)
    assert (run.run, run.condition, run.seed) == ("run/seed3", "run", 3)


def test_two_texts_of_one_id_in_a_file_are_refused(tmp_path: Path) -> None:
    rows = [{"id": "a", "q": "Why?", "ok": 1}, {"id": "a", "q": "Who?", "ok": 1}]
    with pytest.raises(InputError, match=r"results\.jsonl:2: question 'a' has another text here than on line 1"):
        ok(written(tmp_path, *rows), text="q")


def test_a_question_without_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.jsonl:2: no text of the question in the field 'q'"):
        ok(written(tmp_path, {"id": "a", "q": "Why?", "ok": 1}, {"id": "b", "ok": 1}), text="q")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "pairing rests on ids alone: no text of a question is known (--text FIELD, or --id FIELD --id-is-text)"),
        ({"text": "q"}, "pairing: by id; runs whose question texts differ are not compared"),
        ({"id_field": "q", "id_is_text": True}, ""),
    ],
)
def test_what_pairing_rests_on_is_said(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    assert ok(written(tmp_path, {"id": "a", "q": "Why?", "ok": 1}), **options).paired() == said


# --------------------------------------------------------------------------- other files


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_is_read_whatever_parts_its_cells(tmp_path: Path, separator: str) -> None:
    lines = [["id", "ok", "said"], ["a", "1", '"x, y; z"'], ["b", "FALSE", '"two\nlines"'], ["c", "", ""]]
    text = "\n".join(separator.join(cells) for cells in lines)
    run = ok(table(tmp_path, text))
    assert run.values == [("a", 1.0), ("b", 0.0), ("c", 0.0)] and run.metadata["missing_answers"] == 1


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_mark_of_the_byte_order_is_no_part_of_the_first_name(tmp_path: Path, line_end: str) -> None:
    text = line_end.join(["\ufeffid;ok", "a;1", ""])
    assert ok(table(tmp_path, text)).values == [("a", 1.0)]
    assert ok(table(tmp_path, '\ufeff{"id": "a", "ok": 1}', "x.jsonl")).values == [("a", 1.0)]
    assert ok(table(tmp_path, '\ufeff[{"id": "a", "ok": 1}]', "x.json")).values == [("a", 1.0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,ok,ok\na,1,0\n", r"results\.csv:1: the header names 'ok' twice"),
        ("id,ok\na,1\nb,1,0\n", r"results\.csv:3: 3 cells, where the header has 2"),
        ("id,ok\na,1\nb\n", r"results\.csv:3: 1 cells, where the header has 2"),
        ('id,ok\na,1\n"b,1\n', r"results\.csv:3: not CSV"),
        ("id,ok\n", "has no lines to import"),
        ("", "has no lines to import"),
        ("ident,ok\na,1\n", "there is no field 'id'"),
    ],
)
def test_a_broken_table_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ok(table(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "name", "options", "values"),
    [
        ('"a, b";ok\nx;1\ny;0\n', "results.csv", {"id_field": "a, b"}, [("x", 1.0), ("y", 0.0)]),
        ("id;ok, so\nx;1\ny;0\n", "results.csv", {"correct": "ok, so"}, [("x", 1.0), ("y", 0.0)]),
        ("id\tok,a,b,c\nx\t1\n", "results.tsv", {"correct": "ok,a,b,c"}, [("x", 1.0)]),
        ('id;ok;"a,b,c"\nx;1;"p, q"\n', "results.csv", {}, [("x", 1.0)]),
    ],
)
def test_a_separator_is_what_cuts_every_line_alike(
    tmp_path: Path, text: str, name: str, options: dict[str, Any], values: list[tuple[str, float]]
) -> None:
    assert ok(table(tmp_path, text, name), **options).values == values


@pytest.mark.parametrize("counts", [False, True])
def test_two_separators_that_cut_alike_are_named(tmp_path: Path, counts: bool) -> None:
    path = table(tmp_path, "condition;correct,n\na;1,2\nb;1,2\n")
    with pytest.raises(InputError, match=r"results\.csv:1: the first lines can be cut at ',' or at ';': put quotation"):
        read_import(path, counts=True) if counts else ok(path)


def test_counts_take_other_separators_too(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffcondition;correct;n\na;1;2\n")
    assert [(run.run, run.counts) for run in read_import(path, counts=True)] == [("a", (1, 2))]


def test_an_array_is_read_and_its_items_are_named(tmp_path: Path) -> None:
    rows = [{"id": "a", "ok": 1}, {"id": "b", "ok": 0}]
    assert ok(table(tmp_path, json.dumps(rows, indent=1), "x.json")).values == [("a", 1.0), ("b", 0.0)]
    with pytest.raises(InputError, match=r"x\.json: item 2: a number, where a JSON object was expected"):
        ok(table(tmp_path, json.dumps([rows[0], 5]), "x.json"))


@pytest.mark.parametrize("text", ["[]", "", " \n\n", "\ufeff"])
def test_a_file_of_nothing_has_nothing_to_import(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="has no lines to import"):
        ok(table(tmp_path, text, "x.json"))


def test_a_last_line_that_was_torn_off_is_said_to_be(tmp_path: Path) -> None:
    path = table(tmp_path, '{"id": "a", "ok": 1}\n{"id": "b", "o', "x.jsonl")
    with pytest.raises(InputError, match=r"x\.jsonl:2: not a JSON object .*cut off, or is still being written"):
        ok(path)


def test_a_broken_line_in_the_middle_is_not_said_to_be_torn(tmp_path: Path) -> None:
    path = table(tmp_path, '{"id": "a", "o\n{"id": "b", "ok": 1}\n', "x.jsonl")
    with pytest.raises(InputError, match=r"x\.jsonl:1: not a JSON object \(.*\)$"):
        ok(path)


def test_long_texts_that_nobody_asked_for_are_not_kept(tmp_path: Path) -> None:
    path = written(tmp_path, *({"id": i, "ok": 1, "completion": f"{i}" * 20_000} for i in range(500)))
    size = path.stat().st_size
    tracemalloc.start()
    ok(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 4
