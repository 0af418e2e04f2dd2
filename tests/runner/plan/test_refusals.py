"""What a plan refuses of a spec, `nsd validate` refuses too: a table of wrong specs run through both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nsd.plugins.api import question_id
from nsd.plugins.errors import InputError
from nsd.runner.cli.validate import validate_files
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.claimed import notes_on_looks
from nsd.runner.plan.refusals import refusals
from nsd.runner.spec.load import load_spec

TOP = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 20, split: {labeled: 8, unlabeled: 6, test: 5}}
trainer: {use: sft, batch_size: 4}
"""
MANY = TOP.replace(
    "test: 20, split: {labeled: 8, unlabeled: 6, test: 5}", "test: 60, split: {labeled: 8, unlabeled: 6}"
)
CONDITIONS = """\
conditions:
  base: {train_on: []}
  student: {train_on: [labeled]}
"""
LIES = "use: jsonl, train: rows.jsonl, test: rows.jsonl"


def with_eval(said: str, *more: str) -> str:
    return "".join((TOP, f"evals:\n  main: accuracy\n  other: {said}\n", CONDITIONS, *more))


def with_claim(said: str, *more: str) -> str:
    return "".join((TOP, CONDITIONS, *more, f"hypotheses:\n  - {said}\n"))


WRONG = {
    "a file that is not there": (
        with_eval("{data: {use: jsonl, train: nope.jsonl, test: nope.jsonl}}"),
        r"^evals\.other: .*nope\.jsonl: there is no such file",
    ),
    "a file of the spec's own data": (
        TOP.replace("wordmath, train: 60, test: 20", "jsonl, train: nope.jsonl") + CONDITIONS,
        r"^/.*nope\.jsonl: there is no such file",
    ),
    "no test rows": (with_eval("{data: {use: jsonl, train: rows.jsonl}}"), r"^evals\.other: split\.test: the data has"),
    "fewer rows than are taken": (
        with_eval(f"{{data: {{{LIES}, split: {{labeled: 8}}}}}}"),
        r"^evals\.other: split: labeled 8",
    ),
    "no field of this name": (
        with_eval(f"{{data: {{{LIES}, fields: {{question: quest}}}}}}"),
        r"^evals\.other: .*rows\.jsonl:1: no field 'quest'",
    ),
    "an empty file": (
        with_eval("{data: {use: jsonl, train: rows.jsonl, test: empty.jsonl, split: {labeled: 0, unlabeled: 0}}}"),
        r"^evals\.other: jsonl has no test question",
    ),
    "no recording": (
        TOP.replace("model: builtin:wordmath-1m", "engine: {use: replay, path: nope.jsonl}")
        + "conditions:\n  base: {train_on: []}\n",
        r"engine replay: .*nope\.jsonl cannot be read",
    ),
    "no folder of prepared data": (
        TOP.replace("wordmath, train: 60, test: 20", "tooluse, path: ./nowhere") + CONDITIONS,
        r"nowhere: there is no such file or folder. Put the rows there, .*: the prepared files come with the code",
    ),
    "no model": (TOP.replace("builtin:wordmath-1m", "./nomodel") + CONDITIONS, "there is no folder .*nomodel"),
    "questions that a sweep changes on one side": (
        with_eval(
            "{temperature: 0.2}",
            "sweep: {conditions: base, grid: {evals.other.data.seed: [1, 2]}}\n",
            "hypotheses:\n  - {compare: [student, base], better: true, on: other}\n",
        ),
        "the claim 'student > base-seed[12] on other' could never be judged: .* are asked different questions",
    ),
    "questions that a condition changes": (
        with_claim("apart > base", "  apart: {train_on: [], data: {seed: 3}}\n"),
        "the claim 'apart > base' could never be judged: base and apart are asked different questions",
    ),
    "no such field to tell questions apart by": (
        with_claim("{compare: [student, base], by: step}"),
        r"the claim 'student against base differs by step': no question has a field 'step' .* family, steps, length",
    ),
    "too few questions of each value": (
        with_claim("{compare: [student, base], by: steps}"),
        r"could never be judged: its test takes two groups of 10 questions or more, and there are 1 \(2\), 2 \(2\), 3",
    ),
    "a field with too many values": (
        with_eval(
            f"{{data: {{{LIES}, fields: {{id: number}}, split: {{labeled: 0, unlabeled: 0}}}}}}",
            "hypotheses:\n  - {compare: [student, base], by: id, on: other}\n",
        ),
        "'id' has 30 values in 30 questions, and at most 20",
    ),
}
RIGHT = {
    "a sweep that moves both sides": with_eval(
        "{temperature: 0.2}",
        "sweep: {conditions: [base, student], grid: {evals.other.data.seed: [1, 2]}}\n",
        "hypotheses:\n  - {compare: [student, base], better: true, on: other}\n",
    ),
    "other labeled questions, the same test questions": with_claim(
        "few > base", "  few: {train_on: [labeled], data: {split: {labeled: 4}}}\n"
    ),
    "a field of the questions": MANY + with_claim("{compare: [student, base], by: steps}").removeprefix(TOP),
}
# What leaves a claim, or a part of it, without a verdict: a plan says it, and so does validate.
NOTED = {
    "small groups": (
        RIGHT["a field of the questions"],
        r"the claim 'student against base differs by steps' leaves out groups of fewer than 10 questions: ",
    ),
    "two seeds at any look": (
        f"{TOP}{CONDITIONS}seeds: [1, 2]\nhypotheses:\n  looks: any\n  claims: [student > base]\n",
        r"looks: any, and 2 training seeds: no verdict about a recipe \(student > base\), which takes 3 of each",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1), "number": i} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "empty.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "toy.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", WRONG)
def test_what_a_plan_refuses_validate_refuses_too(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, told = WRONG[name]
    path = written(folder, text)
    with pytest.raises(InputError, match=told) as caught:
        build_plan(load_spec(path))
    assert validate_files([path], gold=False, run_files=False, as_json=False) == 2
    assert str(caught.value) in capsys.readouterr().err


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_plan_takes_validate_takes_too(name: str, folder: Path) -> None:
    spec = load_spec(written(folder, RIGHT[name]))
    assert build_plan(spec).runs and refusals(spec) == []


@pytest.mark.parametrize("name", NOTED)
def test_what_a_plan_notes_validate_notes_too(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, told = NOTED[name]
    path = written(folder, text)
    (note,) = [note for note in build_plan(load_spec(path)).notes if re.match(told, note)]
    assert validate_files([path], gold=False, run_files=False, as_json=False) == 0
    assert f"note: {note}" in capsys.readouterr().out
    assert validate_files([path], gold=False, run_files=False, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == {str(path): [note]}
    assert notes_on_looks(load_spec(path), seeds=3) == []


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("[a, b]", "[a]", False), ("[a, b]", "[b, a]", True), ("null", "[a]", False), ("null", "[a, b, c]", True)],
)
def test_searches_of_other_questions_are_never_compared(tmp_path: Path, one: str, other: str, alike: bool) -> None:
    rows = [{"q": f"What is {n} + {n}?", "a": str(2 * n)} for n in range(3)]
    for letter, row in zip("abc", rows, strict=True):
        one, other = (re.sub(rf"\b{letter}\b", question_id(row["q"]), said) for said in (one, other))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "toy.yaml").write_text(
        "name: toy\nmodel: builtin:wordmath-1m\nverifier: steps\n"
        "data: {use: jsonl, train: rows.jsonl, test: rows.jsonl, fields: {question: q, answer: a}}\n"
        "eval: {use: discovery, samples: 8, batch: 4}\n"
        f"conditions:\n  one: {{train_on: [], eval: {{questions: {one}}}}}\n"
        f"  other: {{train_on: [], eval: {{questions: {other}, by: multi_turn}}}}\n"
        "hypotheses: [other > one]\n"
    )
    if alike:
        assert len(build_plan(load_spec(tmp_path / "toy.yaml")).runs) == 2
    else:
        with pytest.raises(InputError, match="one and other are asked different questions"):
            build_plan(load_spec(tmp_path / "toy.yaml"))
