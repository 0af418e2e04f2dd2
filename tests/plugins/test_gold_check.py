"""The gold check: each way in which a gold row can fail, in words."""

from __future__ import annotations

import pytest

from nsd.plugins.api import Question
from nsd.plugins.verifiers.gold import check_gold
from nsd.plugins.verifiers.numeric import Numeric


@pytest.mark.parametrize(
    ("answer", "solution", "reason"),
    [
        (None, "#### 5", "the question has no gold answer"),
        ("five", "#### 5", "the verifier cannot read the gold answer 'five'"),
        ("3/4", "#### 4", "the verifier cannot read the gold answer '3/4'"),
        ("-5", "#### 5", "the gold solution gives '5', the gold answer is '-5'"),
        ("5", "it is five", "no answer found in the gold solution, which should give '5'"),
        ("5", "#### 6", "the gold solution gives '6', the gold answer is '5'"),
    ],
)
def test_reasons(answer: str | None, solution: str, reason: str) -> None:
    question = Question(id="q", text="q", answer=answer, solution=solution)
    assert [failure.reason for failure in check_gold([question], Numeric())] == [reason]


def test_good_gold_and_answers_without_a_solution_pass() -> None:
    rows = [Question(id="a", text="a", answer="5.0", solution="#### 5"), Question(id="b", text="b", answer="5")]
    assert check_gold(rows, Numeric()) == []


def test_a_verifier_that_needs_no_answer_misses_none() -> None:
    class Judging(Numeric):
        needs_answer = False

    assert check_gold([Question(id="q", text="q", meta={"tests": []})], Judging()) == []
