"""The numeric verifier: its four stages, its normal form, and real recorded answers."""

from __future__ import annotations

import json
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import Question, question_id
from nsd.plugins.verifiers.numeric import Numeric
from support import shared_data

VERIFIER = Numeric()


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        # 1: the first number after ####
        ("2+3=5\n#### 5\n#### 7", "5"),
        ("so 99 in all\n####18 and 4", "18"),
        ("#### $1,800.50", "1800.5"),
        ("#### **18**", "18"),
        ("####. ####. then #### 12", "12"),
        ("#### no number here. The answer is 4", "4"),
        # 2: the first box that holds a number
        (r"\boxed{x+1} then \boxed{42} of 50, \boxed{43}", "42"),
        (r"\boxed{18\text{ dollars}} for 3 days", "18"),
        (r"\boxed{65\%} of 3", "65"),
        # 3: the first "answer is"
        ("The Answer is: 12. Not 13.", "12"),
        ("the answer is $12 a day for 3 days", "12"),
        # 4: the last number anywhere
        ("first 3, then 4.5 apples", "4.5"),
        ("from 10-5 apples", "5"),
        ("x = -5", "-5"),
        ("x = \u22125", "-5"),
        ("half of it, .5", "0.5"),
        ("a loss of -$10,000", "10000"),
        # none
        ("", None),
        ("no number at all", None),
        ("So, apples, total", None),
        ("####", None),
        (r"\boxed{}", None),
        # digits of other scripts are not numbers
        ("\u0661\u0662", None),
        ("\uff11\uff18", None),
    ],
)
def test_stages(completion: str, answer: str | None) -> None:
    assert VERIFIER.extract(completion) == answer


@pytest.mark.parametrize("written", ["18", "18.", "18.0", "$18", "# 18", "#### 18", "018", "18.000", "$18.00", " 18 "])
def test_one_number_has_one_normal_form(written: str) -> None:
    assert VERIFIER.normalise(written) == "18"


@pytest.mark.parametrize(
    ("written", "normal"),
    [("1,800", "1800"), ("-1,800.50", "-1800.5"), ("-0", "0"), ("-0.00", "0"), ("0.10", "0.1"), ("000", "0")],
)
def test_normal_form(written: str, normal: str) -> None:
    assert VERIFIER.normalise(written) == normal


MORE_THAN_ONE = ["3/4", "5 1/2", "1, 2", "12,5", "1,00", "1000,000", "1,2345", "1 and 2", "2:00", "1.2.3"]
NOT_WHOLLY = ["5 hours", "x = 5", "(5)", "--5", "-$-5", "0x10", "1_000", "5e", "1e99999", "\uff15", "\u00bd"]
NONE_AT_ALL = ["", " ", ",", "-", "$", "NaN", "inf"]


@pytest.mark.parametrize("written", [*MORE_THAN_ONE, *NOT_WHOLLY, *NONE_AT_ALL])
def test_a_bare_answer_that_is_not_wholly_one_number_is_none(written: str) -> None:
    assert VERIFIER.normalise(written) is None


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("$10,000", "10000"),
        ("-$10,000", "-10000"),
        ("$-5", "-5"),
        ("\\$5.", "5"),
        ("350$", "350"),
        ("18%", "18"),
        ("18 \\%", "18"),
        ("+5", "5"),
        (r"\boxed{-5}", "-5"),
        ("#### **$18$**", "18"),
        (r"10{,}000", "10000"),
        (r"10,\!000", "10000"),
        ("1e-05", "0.00001"),
        ("1E+22", "1" + "0" * 22),
        ("-2.50e1", "-25"),
        (".5", "0.5"),
        ("5.", "5"),
    ],
)
def test_what_may_stand_around_a_bare_number(written: str, normal: str) -> None:
    assert VERIFIER.normalise(written) == normal


MINUS = ["-", "\u2212"]


@pytest.mark.parametrize("minus", MINUS)
@pytest.mark.parametrize(
    "written",
    [
        "{}5",
        "#### {}5",
        r"\boxed{{{}5}}",
        "The answer is {}5.",
        "x = {}5",
        "#### {}$5",
        r"\boxed{{{}\$5}}",
        "answer is **{}$5**",
    ],
)
def test_minus_five_is_not_five_in_a_completion(written: str, minus: str) -> None:
    completion = written.format(minus)
    for gold, right in (("-5", True), (f"{minus}5", True), (f"{minus}$5", True), ("5", False)):
        score = VERIFIER.score(completion, Question(id="q", text="q", answer=gold))
        assert (score.answer, score.correct) == ("-5", right), gold


def test_a_lone_comma_is_no_number() -> None:
    assert VERIFIER.extract("So, 5 apples, total") == "5"
    assert VERIFIER.extract(",") is None
    assert VERIFIER.extract("#### , and so on, 7") == "7"


def test_equality_is_within_a_millionth() -> None:
    assert VERIFIER.same("1", "1.0000009")
    assert not VERIFIER.same("1", "1.000001")
    # Floats cannot tell these two apart; here they are different answers.
    assert not VERIFIER.same("10000000000000000", "10000000000000001")


@pytest.mark.slow
def test_huge_and_hostile_texts_are_read_in_linear_time() -> None:
    million = 1_000_000
    texts = [
        "9" * million,
        "#### " + "9" * million,
        "-" * million,
        "," * million,
        "1," * (million // 2),
        "#" * million,
        "####" + " " * million,
        "#### \n" * (million // 6),
        "\\boxed{5" + " " * million,
        "\\boxed{5\\text{" * (million // 14),
        "\\boxed{" * (million // 7),
        "answer is " * (million // 10),
        "answer is" + ":" * million,
        "." * million,
        "1." * (million // 2),
    ]
    started = time.process_time()
    assert VERIFIER.normalise("1" + ",000" * (million // 4)) == "1" + "000" * (million // 4)
    for text in [*texts, "$" * million, "-$" * million, "*" * million, "{,}" * million, "1e" * million]:
        VERIFIER.normalise(text)
    answers = [VERIFIER.extract(text) for text in texts]
    assert answers[0] == answers[1] == "9" * million
    assert VERIFIER.same(answers[0] or "", "9" * million)
    assert not VERIFIER.same(answers[0] or "", "8" * million)
    assert time.process_time() - started < 10


@given(st.text())
def test_extraction_never_raises_and_its_answer_is_a_number(text: str) -> None:
    answer = VERIFIER.extract(text)
    assert answer is None or Decimal(answer).is_finite()


PIECES = st.sampled_from(
    [
        "####",
        "\\boxed{",
        "}",
        "answer is",
        "$",
        "-",
        "\u2212",
        ",",
        ".",
        "0",
        "18",
        " ",
        "\n",
        "*",
        "\\",
        "%",
        "\\text{",
        "x",
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_normalise_is_idempotent_and_canonical(text: str) -> None:
    answer = VERIFIER.normalise(text)
    if answer is not None:
        assert VERIFIER.normalise(answer) == answer
        assert VERIFIER.extract(f"so it is\n#### {answer}") == answer
        assert VERIFIER.extract(f"\\boxed{{{answer}}}") == answer


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_every_way_of_writing_a_number_gives_the_same_answer(number: Decimal) -> None:
    ways = {VERIFIER.normalise(form) for form in (f"{number:f}", f"{number:,f}", f"#### {number:f}.", f"{number:f}00")}
    assert len(ways) == 1
    assert Decimal(str(ways.pop())) == number


@given(st.text(), st.text())
def test_same_never_raises_and_is_symmetric(a: str, b: str) -> None:
    assert VERIFIER.same(a, b) == VERIFIER.same(b, a)


def test_what_is_no_number_is_the_same_as_its_own_text_alone() -> None:
    assert VERIFIER.same("five ", " five")
    assert not VERIFIER.same("five", "six")
    assert not VERIFIER.same("five", "5")


def test_a_question_without_gold_scores_zero() -> None:
    question = Question(id=question_id("q"), text="q")
    assert VERIFIER.score("#### 5", question).score == 0


@given(st.text())
def test_a_bare_answer_is_a_number_or_none(text: str) -> None:
    answer = VERIFIER.normalise(text)
    assert answer is None or Decimal(answer).is_finite()


def test_recorded_answers_of_two_models_score_as_published() -> None:
    lines = shared_data("samples/zeroeval/gsm_answers.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]

    def correct(model: str) -> list[bool]:
        verdicts = []
        for row in rows:
            question = Question(id=str(row["id"]), text="", answer=row["gold"])
            answer = row["answers"][model]
            verdicts.append(answer is not None and VERIFIER.score(answer, question).correct)
        return verdicts

    qwen, llama = correct("Qwen2-7B-Instruct"), correct("Meta-Llama-3-8B-Instruct")
    assert len(qwen) == len(llama) == 1319
    assert round(sum(qwen) / 1319, 4) == 0.7998
    assert round(sum(llama) / 1319, 4) == 0.7847
    assert sum(a and not b for a, b in zip(qwen, llama, strict=True)) == 164
    assert sum(b and not a for a, b in zip(qwen, llama, strict=True)) == 144
