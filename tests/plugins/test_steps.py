"""Feedback by steps: what is said of each kind of mistake, and over generated questions."""

from __future__ import annotations

import re

import pytest

from nsd.plugins.api import Question
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.verifiers.numeric import Numeric
from nsd.plugins.verifiers.steps import Steps

PIES = Question("q", "How many more?", answer="53", solution="Needed: 9 * 10 = 90\nMissing: 90 - 37 = 53\n#### 53")


@pytest.mark.parametrize(
    ("completion", "feedback"),
    [
        ("Needed: 9 * 10 = 90\nMissing: 90 - 37 = 53\n#### 53", None),
        ("Needed: 10 * 9 = 90\nMissing: 90-37=53\n#### 53", None),
        ("#### 53", None),  # right is right
        ("Needed: 9 * 10 = 90\nMissing: 90 - 37 = 52\n#### 52", "Step 2 is wrong: 90 - 37 is 53, not 52."),
        ("Needed: 9 * 10 = 80\nMissing: 80 - 37 = 42\n#### 42", "Step 1 is wrong: 9 * 10 is 90, not 80."),
        ("Needed: 9 + 10 = 19\n#### 19", "Step 1 is wrong: 9 + 10 does not belong to this question."),
        ("Missing: 37 - 90 = -53\n#### 5", "Step 1 is wrong: 37 - 90 does not belong to this question."),
        ("Each: 9 / 2 = 4\n#### 4", "Step 1 is wrong: 9 / 2 is no whole number (4 and a rest of 1), not 4."),
        ("Each: 9 / 0 = 0\n#### 0", "Step 1 is wrong: 9 / 0 is no number, not 0."),
        ("Needed: 9 * 10 = 90\n#### 90", "A step is missing."),
        (
            "Missing: 90 - 37 = 53\nNeeded: 9 * 10 = 90\n#### 35",
            "The answer 35 is not the result of the last step, 90.",
        ),
        ("#### 54", "There is no step: write each as `19 - 4 = 15`."),
        (
            "9 * 10 = 90.5, x1 * 2 = 3, 1.9 * 10 = 1, 9 * 10 = 1234567890123\n#### 54",
            "There is no step: write each as `19 - 4 = 15`.",
        ),
        ("who knows", "There is no answer: end with #### and the number."),
        ("", "There is no answer: end with #### and the number."),
    ],
)
def test_the_first_mistake_is_named(completion: str, feedback: str | None) -> None:
    score = Steps().score(completion, PIES)
    assert score.feedback == feedback and score.correct is (feedback is None)


def test_without_a_solution_sums_alone_are_looked_at() -> None:
    blind = Question("q", "?", answer="53")
    assert Steps().score("9 + 10 = 19\n#### 19", blind).feedback == "The answer is wrong."
    assert Steps().score("9 + 10 = 18\n#### 18", blind).feedback == "Step 1 is wrong: 9 + 10 is 19, not 18."


def test_the_verdict_is_that_of_numeric() -> None:
    for text in ("#### 53", "the answer is 53.0", "#### 5", "none", "a 53 b"):
        mine, other = Steps().score(text, PIES), Numeric().score(text, PIES)
        assert (mine.score, mine.correct, mine.answer) == (other.score, other.correct, other.answer)


def test_of_every_generated_question_the_step_that_was_spoilt_is_named() -> None:
    pools = Wordmath(Wordmath.Config(train=300, test=0)).pools()
    spoilt = 0
    for question in pools.train:
        solution = question.solution or ""
        assert Steps().score(solution, question).feedback is None
        lines = solution.splitlines()
        for number in range(len(lines) - 1):
            result = int(lines[number].rpartition("= ")[2])
            wrong = [*lines[:number], lines[number].rpartition("= ")[0] + f"= {result + 1}", *lines[number + 1 :]]
            text = re.sub(r"#### .*", "#### 12345", "\n".join(wrong))
            assert (Steps().score(text, question).feedback or "").startswith(f"Step {number + 1} is wrong: ")
            spoilt += 1
    assert spoilt > 500
