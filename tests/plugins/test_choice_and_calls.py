"""Letters and tool calls: what verifies, what nearly does, and what is said of it; over the real rows too."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from nsd.plugins.api import Question, SplitConfig
from nsd.plugins.datasets.sciknoweval import STEPS, SYSTEM, SciKnowEval
from nsd.plugins.datasets.split import split
from nsd.plugins.datasets.tooluse import ToolUse
from nsd.plugins.errors import InputError
from nsd.plugins.verifiers.choice import Choice
from nsd.plugins.verifiers.tool_calls import ToolCalls
from support import PATIENCE, shared_data

SUBJECTS = {"biology": (450, 50), "chemistry": (1890, 210), "material": (841, 94), "physics": (720, 80)}

# --------------------------------------------------------------------------- letters


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("<reasoning>\nA or B\n</reasoning>\n<answer>\nB\n</answer>", "B"),
        ("<answer>A</answer> no, <answer> C </answer>", "C"),  # the last one
        ("<answer>A</answer> or <answer>B", "A"),
        ("The answer is B.", None),
        ("<answer>B: 2249.700</answer>", None),
        ("<answer>b</answer>", None),
        ("<answer></answer>", None),
        ("B</answer>", None),
        ("</answer><answer>B", None),
        ("", None),
    ],
)
def test_the_letter_stands_between_the_last_tags(completion: str, letter: str | None) -> None:
    assert Choice().extract(completion) == letter
    question = Question("q", "?", answer="B")
    assert Choice().score(completion, question).correct is (letter == "B")


def test_every_real_row_verifies_on_its_letter_and_on_no_other() -> None:
    verifier, count = Choice(), 0
    for subject, sizes in SUBJECTS.items():
        folder = shared_data(f"sdpo/sciknoweval/{subject}")
        pools = SciKnowEval(SciKnowEval.Config(path=str(folder))).pools()
        assert (len(pools.train), len(pools.test or [])) == sizes
        for question in [*pools.train, *(pools.test or [])]:
            count += 1
            other = "B" if question.answer == "A" else "A"
            assert verifier.score(f"<answer>\n{question.answer}\n</answer>", question).correct
            assert not verifier.score(f"<answer>\n{other}\n</answer>", question).correct
            assert not verifier.score(f"It is {question.answer}.", question).correct
    assert count == 4335


def test_the_real_question_that_stands_in_both_splits_is_named_and_not_trained_on() -> None:
    folder = shared_data("sdpo/sciknoweval/material")
    pools = SciKnowEval(SciKnowEval.Config(path=str(folder))).pools()
    splits, report = split(pools, SplitConfig(labeled=840))
    assert len(report.leaked) == 1 and any("also in the test rows" in note for note in report.notes())
    assert not {one.id for one in splits.labeled} & {one.id for one in splits.test}
    with pytest.raises(InputError):
        split(pools, SplitConfig(labeled=841))


def test_the_default_prompt_is_the_real_rows_system_text() -> None:
    row = json.loads((shared_data("sdpo/sciknoweval/physics") / "train.json").read_text().splitlines()[0])
    assert row["system"] == SYSTEM and row["prompt"].endswith(STEPS)


def test_published_rows_are_put_into_the_same_words(tmp_path: Any) -> None:
    published = {
        "question": "Which is larger?",
        "choices": {"label": ["A", "B"], "text": ["one", "two"]},
        "answerKey": "B",
        "answer": "",
        "prompt": {"default": "Choose."},
        "details": {"level": "L3"},
    }
    rows = [published, {**published, "details": {"level": "L1"}}, {**published, "answerKey": ""}]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pools = SciKnowEval(SciKnowEval.Config(path=str(tmp_path))).pools()
    assert [(one.text, one.answer) for one in pools.train] == [
        ("Which is larger?\n\nA: one\nB: two\nPlease reason step by step.", "B")
    ]
    assert pools.test is None


@pytest.mark.parametrize("choices", [None, {"label": ["A"], "text": ["one", "two"]}, {"label": "A", "text": "B"}])
def test_published_rows_with_torn_options_are_named(tmp_path: Any, choices: Any) -> None:
    row = {"question": "Which?", "choices": choices, "answerKey": "A", "details": {"level": "L3"}}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=r"test\.jsonl:1: choices should have"):
        SciKnowEval(SciKnowEval.Config(path=str(tmp_path))).pools()


def test_of_the_hub_a_subject_must_be_named() -> None:
    with pytest.raises(InputError, match="subject: name one of"):
        SciKnowEval().pools()


# --------------------------------------------------------------------------- calls

GOLD = json.dumps(
    [
        {"Action": "convert", "Action_Input": '{"from": "EUR", "amount": 5}'},
        {"Action": "alert", "Action_Input": {"pair": "EUR/GBP"}},
    ]
)
QUESTION = Question("q", "?", answer=GOLD)


def said(*calls: tuple[str, str]) -> str:
    return "".join(f"Thought: now\nAction: {name}\nAction Input: {given}\n" for name, given in calls)


CONVERT, ALERT = ("convert", '{"amount": 5.0, "from": "EUR"}'), ("alert", '{"pair": "EUR/GBP"}')


@pytest.mark.parametrize(
    ("completion", "each", "merged", "feedback"),
    [
        (said(CONVERT, ALERT), True, True, None),
        (said(ALERT, CONVERT), True, True, None),
        (said(CONVERT, ALERT).replace("{", "\n  {").replace("\n", "\r\n"), True, True, None),
        (said(CONVERT), False, False, "The action alert is missing."),
        (said(CONVERT, ALERT, ALERT), False, False, "The action alert is not asked for."),
        (said(CONVERT, ("alert", '{"pair": "GBP/EUR"}')), False, False, 'is {"pair": "GBP/EUR"}, expected'),
        (said(CONVERT, ("alert", "EUR/GBP")), False, False, "The input of alert is no JSON object."),
        (said(CONVERT, ("alert", '{"pair": NaN}')), False, False, "The input of alert is no JSON object."),
        (said(("convert", ALERT[1]), ("alert", CONVERT[1])), False, True, "The input of alert is"),
        ("convert 5 EUR", False, False, "There is no line with `Action:`."),
        ("", False, False, "There is no line with `Action:`."),
    ],
)
def test_calls_are_the_same_by_name_and_input(completion: str, each: bool, merged: bool, feedback: str | None) -> None:
    score = ToolCalls().score(completion, QUESTION)
    assert score.correct is each and (
        (feedback is None and score.feedback is None) or feedback in (score.feedback or "")
    )
    assert ToolCalls(ToolCalls.Config(inputs="merged")).score(completion, QUESTION).correct is merged


def test_everything_that_differs_is_told_and_what_agrees_is_not() -> None:
    gold = json.dumps([{"Action": name, "Action_Input": given} for name, given in (("a", {"x": 1}), ("a", {"x": 3}))])
    made = said(("a", '{"x": 1}'), ("b", "none"), ("a", '{"x": 2}'))
    assert ToolCalls().score(made, Question("q", "?", answer=gold)).feedback == (
        "The input of b is no JSON object.\n"
        "The action b is not asked for.\n"
        'The input of a is {"x": 2}, expected {"x": 3}.'
    )


@pytest.mark.parametrize("given", [' {"a": 1}', {"a": 1.0}])
@pytest.mark.parametrize("inputs", ["each", "merged"])
def test_a_gold_input_is_an_object_or_its_text(given: Any, inputs: str) -> None:
    verifier = ToolCalls(ToolCalls.Config.model_validate({"inputs": inputs}))
    gold = json.dumps([{"Action": "add", "Action_Input": given}])
    assert verifier.normalise(gold) == verifier.extract('Action: add\nAction Input: {"a": 1}') is not None


@pytest.mark.parametrize("given", [[1], 5, None, "[1]", "five"])
def test_a_gold_input_that_is_none_is_no_answer(given: Any) -> None:
    gold = json.dumps([{"Action": "add", "Action_Input": given}])
    for inputs in ("each", "merged"):
        assert ToolCalls(ToolCalls.Config.model_validate({"inputs": inputs})).normalise(gold) is None


def test_merged_inputs_keep_the_last_value_of_a_name() -> None:
    gold = json.dumps([{"Action": "find", "Action_Input": {"colour": one}} for one in ("wild", "albino")])
    swapped = said(("find", '{"colour": "albino"}'), ("find", '{"colour": "wild"}'))
    question = Question("q", "?", answer=gold)
    assert ToolCalls().score(swapped, question).correct
    assert not ToolCalls(ToolCalls.Config(inputs="merged")).score(swapped, question).correct


def test_every_real_row_verifies_on_its_calls_and_not_with_one_more_or_one_less() -> None:
    pools = ToolUse(ToolUse.Config(path=str(shared_data("sdpo/tooluse")))).pools()
    assert len(pools.train) == 68 and pools.test is None
    verifiers = [ToolCalls(), ToolCalls(ToolCalls.Config(inputs="merged"))]
    swaps = 0
    for question in pools.train:
        calls = [(one["Action"], one["Action_Input"]) for one in json.loads(question.answer or "")]
        for verifier in verifiers:
            assert verifier.score(said(*calls), question).correct
            assert not verifier.score(said(*calls, ("extra", "{}")), question).correct
            assert not verifier.score(said(*calls[1:]), question).correct
        if len({name for name, _ in calls}) > 1 and len({given for _, given in calls}) > 1:
            (first, one), (second, other), *rest = calls
            if one != other and first != second:
                swaps += 1
                assert not verifiers[0].score(said((first, other), (second, one), *rest), question).correct
    assert swaps > 5


@pytest.mark.parametrize(
    "text",
    [
        "Action: x\nAction Input: " + "[" * 100_000,
        "Action: " * 50_000,
        "Action:" + " " * 200_000 + "y",
        "Action Input: {" * 50_000,
        "Action: x\nAction Input: {" + '"a":{' * 50_000,
        "Action: x\nAction Input: {" + '"a":{' * 600 + "}" * 601,
        'Action: x\nAction Input: {"n": ' + "9" * 10_000 + "}",
    ],
)
def test_no_text_raises_or_takes_long(text: str) -> None:
    began = time.monotonic()
    assert not ToolCalls().score(text, QUESTION).correct
    assert ToolCalls().score("x", Question("q", "?", answer=text)).score == 0
    assert time.monotonic() - began < PATIENCE
