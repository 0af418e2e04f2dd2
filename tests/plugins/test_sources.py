"""Reading rows of files and the hub: formats, places in errors, other datasets as unlabeled pool."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nsd.plugins.api import Question, SplitConfig
from nsd.plugins.datasets.gsm8k import Gsm8k
from nsd.plugins.datasets.jsonl import Jsonl
from nsd.plugins.datasets.math import MathProblems
from nsd.plugins.datasets.numinamath import NuminaMath
from nsd.plugins.datasets.sources import _read_hub, read, read_file
from nsd.plugins.datasets.split import data_hash, split
from nsd.plugins.errors import InputError
from nsd.plugins.verifiers.numeric import Numeric
from support import shared_data

ROWS = [{"question": "2 + 3?", "answer": "5"}, {"question": "4 + 4?", "answer": "8"}]


def jsonl_file(path: Path, rows: list[dict[str, object]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def jsonl_dataset(train: str, **config: object) -> Jsonl:
    return Jsonl(Jsonl.Config(train=train, **config))


def test_four_formats_give_the_same_questions(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    jsonl_file(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    (tmp_path / "c.csv").write_text("question,answer\n2 + 3?,5\n4 + 4?,8\n", encoding="utf-8-sig")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    jsonl_file(tmp_path / "e.json", ROWS)  # JSON lines under the other name
    found = [jsonl_dataset(str(file)).pools().train for file in sorted(tmp_path.iterdir())]
    assert [(q.text, q.answer) for q in found[0]] == [("2 + 3?", "5"), ("4 + 4?", "8")]
    assert all(questions == found[0] for questions in found)


def test_dotted_fields_numbers_and_ids(tmp_path: Path) -> None:
    row = {"chat": [{"content": "How many?"}], "label": {"final": 18, "worked": "so\n#### 18"}, "key": 7, "a.b": "hint"}
    fields = {
        "question": "chat.0.content",
        "answer": "label.final",
        "solution": "label.worked",
        "context": "a.b",
        "id": "key",
    }
    question = jsonl_dataset(jsonl_file(tmp_path / "x.jsonl", [row]), fields=fields).pools().train[0]
    assert (question.text, question.answer, question.solution) == ("How many?", "18", "so\n#### 18")
    assert (question.context, question.meta) == ("hint", {"id": "7"})


NUMBERS = ["0.00001", "1e-05", "1e22", "1E+22", "3.0", "3", "-0.5", "0.1000", "123456789012345678901234567890"]
NUMBERS += ["0.1234567890123456789012", "-1e-7", "12345678.9", "1e400"]


@pytest.mark.parametrize("written", NUMBERS)
def test_a_json_number_keeps_its_value_and_has_no_exponent(tmp_path: Path, written: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "How many?", "answer": ' + written + "}")
    (question,) = jsonl_dataset(str(tmp_path / "x.jsonl")).pools().train
    assert question.answer is not None and Decimal(question.answer) == Decimal(written)
    assert "e" not in question.answer.lower()
    assert Decimal(str(Numeric().normalise(question.answer))) == Decimal(written)


def test_numbers_of_a_parquet_file_keep_their_value(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    answers = [1e-05, 1e22, 3.0, -0.25, float("nan"), float("inf"), None]
    rows = [{"question": f"q{i}", "answer": answer} for i, answer in enumerate(answers)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    found = [question.answer for question in jsonl_dataset(str(tmp_path / "x.parquet")).pools().train]
    assert found == ["0.00001", "1" + "0" * 22, "3.0", "-0.25", None, "Infinity", None]


def test_a_narrow_number_of_a_parquet_file_is_the_one_that_was_written(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {"question": pyarrow.array(["a", "b"]), "answer": pyarrow.array([123.45, None], pyarrow.float32())}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    assert [q.answer for q in jsonl_dataset(str(tmp_path / "x.parquet")).pools().train] == ["123.45", None]


@pytest.mark.parametrize("by", ["file", "hub"])
def test_a_narrow_number_inside_another_value_is_the_one_that_was_written(tmp_path: Path, by: str) -> None:
    import pyarrow
    import pyarrow.parquet

    number = pyarrow.float32()
    columns = {
        "flat": pyarrow.array([123.45, None], number),
        "object": pyarrow.array([{"v": 0.1, "n": 2**40}, None], pyarrow.struct([("v", number), ("n", "int64")])),
        "list": pyarrow.array([[1.1], [2.2]], pyarrow.list_(number)),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "train.parquet")
    if by == "hub":
        pytest.importorskip("datasets")
        first, second = _read_hub(str(tmp_path), "train", None, None)
    else:
        first, second = read_file(tmp_path / "train.parquet")
    assert [first.text(name) for name in ("flat", "object.v", "object.n", "list.0")] == [
        "123.45",
        "0.1",
        str(2**40),
        "1.1",
    ]
    assert [second.text(name) for name in ("flat", "object.v", "list.0")] == [None, None, "2.2"]


@pytest.mark.parametrize("written", ["1e1001", "1e-1001", "1e999999999", "-1e999999999", "1e" + "9" * 19])
def test_a_number_too_long_to_write_out_stays_as_it_is(tmp_path: Path, written: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "How many?", "answer": ' + written + "}")
    (question,) = jsonl_dataset(str(tmp_path / "x.jsonl")).pools().train
    assert question.answer is not None and len(question.answer) < 25
    assert Numeric().normalise(question.answer) is None


NOTHING = ["", "   ", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", " NA ", "<NA>", "#N/A"]
NOTHING += ["-nan", "-1.#IND"]


@pytest.mark.parametrize("written", NOTHING)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_cell_that_says_nothing_is_no_answer_and_counted(tmp_path: Path, written: str, suffix: str) -> None:
    file = tmp_path / f"x.{suffix}"
    if suffix == "csv":
        file.write_text(f"question,answer,solution\nfirst,5,so 5\nsecond,{written},{written}\n")
    else:
        row = {"question": "second", "answer": written, "solution": written}
        jsonl_file(file, [{"question": "first", "answer": "5", "solution": "so 5"}, row])
    fields = {"solution": "solution"}
    pools = jsonl_dataset(str(file), fields=fields).pools()
    assert [(q.answer, q.solution) for q in pools.train] == [("5", "so 5"), (None, None)]
    place = f"{file}:{3 if suffix == 'csv' else 2}"
    assert pools.notes == (f"1 row without a gold answer: {place}",)
    dropped = jsonl_dataset(str(file), fields=fields, missing_answer="drop").pools()
    assert [q.text for q in dropped.train] == ["first"]
    assert dropped.notes == (f"1 row left out, without a gold answer: {place}",)


@pytest.mark.parametrize("written", ["none", "Na", "0", "nothing", "N", "null set"])
def test_words_that_may_be_an_answer_are_one(tmp_path: Path, written: str) -> None:
    rows: list[dict[str, object]] = [{"question": "a", "answer": written}]
    assert jsonl_dataset(jsonl_file(tmp_path / "x.jsonl", rows)).pools().train[0].answer == written


def test_a_json_nan_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "a", "answer": NaN}\n{"question": "b", "answer": Infinity}\n')
    assert [q.answer for q in jsonl_dataset(str(tmp_path / "x.jsonl")).pools().train] == [None, "Infinity"]


def test_gsm8k_and_math_rows_that_say_nothing_have_no_answer(tmp_path: Path) -> None:
    for split_name in ("train", "test"):
        jsonl_file(tmp_path / "gsm" / f"{split_name}.jsonl", [{"question": "a", "answer": "hm\n#### NA"}])
        row: dict[str, object] = {"problem": "a", "solution": r"so \boxed{ }", "level": "Level 1", "type": "x"}
        jsonl_file(tmp_path / "math" / f"{split_name}.jsonl", [row])
    gsm8k = Gsm8k(Gsm8k.Config(path=str(tmp_path / "gsm"))).pools()
    math = MathProblems(MathProblems.Config(path=str(tmp_path / "math"))).pools()
    assert [q.answer for q in [*gsm8k.train, *math.train]] == [None, None]
    assert all(len(pools.notes) == 2 for pools in (gsm8k, math))


def test_a_question_says_in_which_row_it_stands_and_is_the_same_without(tmp_path: Path) -> None:
    file = jsonl_file(tmp_path / "x.jsonl", [{"question": "a", "answer": "1"}])
    (found,) = jsonl_dataset(file).pools().train
    assert found.place == f"{file}:1"
    bare = Question(id=found.id, text="a", answer="1")
    assert found == bare and data_hash([found]) == data_hash([bare])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"question": "a", "answer": "1"}\n\n{"quesiton": "b", "answer": "2"}\n',
            r"x\.jsonl:3: no field 'question'; did you mean 'quesiton'\?.*quesiton, answer",
        ),
        ('{"question": "a", "answer": "1"}\n{"question": ', r"x\.jsonl:2: not JSON"),
        ("[1, 2]\n", r"x\.jsonl:1: a row should be an object"),
        ('{"question": "", "answer": "1"}\n', r"x\.jsonl:1: field 'question' is empty"),
        ('{"question": "a", "answer": ["1"]}\n', r"x\.jsonl:1: field 'answer' should be text or a number, it is list"),
        ('{"question": "a", "answer": true}\n', r"field 'answer' should be text or a number, it is bool"),
        ('{"question": "a", "answer": ' + "9" * 5000 + "}\n", r"x\.jsonl:1: not JSON"),
        ("[" * 100_000 + "\n", r"x\.jsonl:1: not JSON"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        jsonl_dataset(str(tmp_path / "x.jsonl")).pools()


def test_csv_with_a_short_row_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("question,answer\na,1\nb\n")
    with pytest.raises(InputError, match=r"x\.csv:3: the row has not as many cells"):
        jsonl_dataset(str(tmp_path / "x.csv")).pools()


def test_bytes_that_are_no_text_or_no_parquet(tmp_path: Path) -> None:
    for name in ("x.jsonl", "x.json", "x.csv", "x.parquet"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00garbage")
        with pytest.raises(InputError, match="x"):
            jsonl_dataset(str(tmp_path / name)).pools()


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        jsonl_dataset(str(tmp_path / "none.jsonl")).pools()
    (tmp_path / "x.xlsx").touch()
    with pytest.raises(InputError, match=r"cannot read a \.xlsx, only \.jsonl"):
        jsonl_dataset(str(tmp_path / "x.xlsx")).pools()
    with pytest.raises(InputError, match=r"wanted train\.jsonl"):
        read(str(tmp_path), "train")


@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_an_input_error(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name in ("x.jsonl", "x.json", "x.csv"):
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                list(read_file(path))
            except InputError as error:
                assert name in str(error)


def test_null_answers_are_kept_and_noted_or_left_out_and_noted(tmp_path: Path) -> None:
    path = jsonl_file(tmp_path / "x.jsonl", [*ROWS, {"question": "why?", "answer": None}])
    kept, dropped = jsonl_dataset(path).pools(), jsonl_dataset(path, missing_answer="drop").pools()
    assert (len(kept.train), len(dropped.train)) == (3, 2)
    assert kept.notes == (f"1 row without a gold answer: {path}:3",)
    assert dropped.notes == (f"1 row left out, without a gold answer: {path}:3",)


def test_several_files_and_an_unlabeled_one(tmp_path: Path) -> None:
    one, two = jsonl_file(tmp_path / "1.jsonl", ROWS[:1]), jsonl_file(tmp_path / "2.jsonl", ROWS[1:])
    more = jsonl_file(tmp_path / "3.jsonl", [{"question": f"unlabeled {i}"} for i in range(3)])
    dataset = Jsonl(Jsonl.Config(train=[one], test=two, unlabeled=more))
    splits, report = split(dataset.pools(), SplitConfig(labeled=1, unlabeled=3, test=1))
    assert [q.text for q in splits.labeled + splits.test] == ["2 + 3?", "4 + 4?"]
    assert sorted(q.text for q in splits.unlabeled) == ["unlabeled 0", "unlabeled 1", "unlabeled 2"]
    assert report.notes() == []
    assert [path.name for path in dataset.source_files()] == ["1.jsonl", "2.jsonl", "3.jsonl"]


def test_config_dumps_and_loads_again(tmp_path: Path) -> None:
    config = Jsonl.Config(train="x.jsonl", fields={"question": "q"}, unlabeled_from={"use": "numinamath"})
    assert Jsonl.Config.model_validate(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"unlabeled_from": {"use": "numinamth"}}, "did you mean 'numinamath'"),
        ({"unlabeled_from": {"path": "x"}}, "needs `use:`"),
        ({"unlabeled_from": {"use": "numinamath", "sauces": ["x"]}}, "sauces: Extra inputs"),
        ({"unlabeled_from": {"use": "numinamath", "split": {}}}, "takes no `split:`"),
        ({"missing_answer": "maybe"}, "'keep' or 'drop'"),
    ],
)
def test_a_wrong_inner_block_is_an_error_of_the_config(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Gsm8k.Config(**config)


NUMINA = [
    {"source": "orca_math", "problem": "a?", "solution": r"so \boxed{18}"},
    {"source": "orca_math", "problem": "b?", "solution": r"so \boxed{1,800.5}"},
    {"source": "orca_math", "problem": "c?", "solution": r"so \boxed{\frac{1}{2}}"},
    {"source": "olympiads", "problem": "Prove it.", "solution": "It holds."},
]


def numina(tmp_path: Path, **config: object) -> NuminaMath:
    return NuminaMath(NuminaMath.Config(path=jsonl_file(tmp_path / "numina.jsonl", NUMINA), **config))


def test_numinamath_filters_are_counted(tmp_path: Path) -> None:
    assert [q.answer for q in numina(tmp_path).pools().train] == ["18", "1,800.5", r"\frac{1}{2}", None]
    number = numina(tmp_path, answers="number").pools()
    assert [q.answer for q in number.train] == ["18", "1,800.5"]
    assert "answers: number left out 2 of 4 rows" in number.notes
    assert len(numina(tmp_path, answers="known").pools().train) == 3
    assert len(numina(tmp_path, sources=["olympiads"]).pools().train) == 1
    with pytest.raises(InputError, match=r"there are: orca_math \(3\), olympiads \(1\)"):
        numina(tmp_path, sources=["orca"]).pools()


def test_gsm8k_labeled_with_numinamath_unlabeled(tmp_path: Path) -> None:
    folder = shared_data("gsm8k")
    gsm8k_question = json.loads((folder / "test.jsonl").read_text().splitlines()[0])["question"]
    rows = [*NUMINA, {"source": "gsm8k", "problem": gsm8k_question, "solution": r"\boxed{18}"}]
    inner = {"use": "numinamath", "path": jsonl_file(tmp_path / "n.jsonl", rows)}
    dataset = Gsm8k(Gsm8k.Config(path=str(folder), unlabeled_from=inner))
    splits, report = split(dataset.pools(), SplitConfig(labeled=1000, unlabeled=4, test=500))
    assert sorted(q.text for q in splits.unlabeled) == ["Prove it.", "a?", "b?", "c?"]
    assert [q.text for q in report.leaked] == [gsm8k_question]
    alone = Gsm8k(Gsm8k.Config(path=str(folder)))
    assert splits.labeled == split(alone.pools(), SplitConfig(labeled=1000, unlabeled=4, test=500))[0].labeled


def test_hub_reader_goes_through_the_datasets_library(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "hub"
    folder.mkdir()
    jsonl_file(folder / "train.jsonl", ROWS)
    rows = list(_read_hub(str(folder), "train", None, None))
    assert [row.values["answer"] for row in rows] == ["5", "8"]
    assert rows[1].place.endswith("[train] row 2")


def test_hub_without_network_says_what_to_do() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(InputError, match=r"cannot load 'nobody/nothing'.*\n.*give a local folder"):
        read("nobody/nothing", "train")


def test_sharded_parquet_as_the_hub_stores_it(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "main").mkdir()
    for number, row in enumerate(ROWS):
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist([row]), tmp_path / "main" / f"train-0000{number}-of-00002.parquet"
        )
    assert [row.values["answer"] for row in read(str(tmp_path), "train", "main")] == ["5", "8"]
