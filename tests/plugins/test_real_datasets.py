"""GSM8K and MATH from their real files: answers, known bad rows, and every gold solution under its verifier."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nsd.plugins.api import SplitConfig
from nsd.plugins.datasets.gsm8k import Gsm8k
from nsd.plugins.datasets.math import MathProblems
from nsd.plugins.datasets.split import split
from nsd.plugins.errors import InputError
from nsd.plugins.verifiers.gold import check_gold
from nsd.plugins.verifiers.math import Math
from nsd.plugins.verifiers.numeric import Numeric
from support import shared_data


def gsm8k() -> Gsm8k:
    return Gsm8k(Gsm8k.Config(path=str(shared_data("gsm8k"))))


def math(**config: object) -> MathProblems:
    return MathProblems(MathProblems.Config(path=str(shared_data("math")), **config))


def test_gsm8k_rows() -> None:
    pools = gsm8k().pools()
    assert pools.test is not None
    assert (len(pools.train), len(pools.test), pools.notes) == (7473, 1319, ())
    first = pools.train[0]
    assert first.answer == "72"
    assert first.solution == first.context and str(first.solution).endswith("#### 72")
    assert sum("," in str(question.answer) for question in pools.train) == 79
    assert sum("," in str(question.answer) for question in pools.test) == 14


def test_gsm8k_default_prompt_is_the_studys() -> None:
    prompt = Gsm8k.default_prompt
    assert (prompt.chat, prompt.system, prompt.separator) == (False, None, " ")
    assert prompt.template == (
        "Solve this math problem step by step. End with #### followed by the numerical answer.\n\n"
        "Problem: {question}\n\nSolution:"
    )


def test_every_gsm8k_gold_verifies() -> None:
    pools = gsm8k().pools()
    assert check_gold([*pools.train, *(pools.test or [])], Numeric()) == []


@pytest.mark.slow
def test_math_golds_that_do_not_verify_are_the_two_empty_boxes() -> None:
    pools = math().pools()
    train = check_gold(pools.train, Math())
    assert [(pools.train.index(failure.question), failure.reason) for failure in train] == [
        (5341, "the question has no gold answer"),
        (5343, "the question has no gold answer"),
    ]
    assert all("\\boxed{}" in str(failure.question.solution) for failure in train)
    assert check_gold(pools.test or [], Math()) == []
    assert [note for note in pools.notes if note.startswith("2 rows without a gold answer")]


def test_math_rows_without_an_answer_can_be_left_out() -> None:
    pools = math(missing_answer="drop").pools()
    assert len(pools.train) == 7498
    assert "left out" in pools.notes[0]


def test_math_train_row_that_is_also_in_test_is_never_trained_on() -> None:
    pools = math().pools()
    splits, report = split(pools, SplitConfig(labeled=3000, unlabeled=4498))
    assert [pools.train.index(question) for question in report.leaked] == [2948]
    assert len(report.duplicates) == 1
    assert len(splits.test) == 5000
    with pytest.raises(InputError, match="7,498 distinct ones to train on"):
        split(pools, SplitConfig(labeled=3000, unlabeled=4499))


@pytest.mark.slow
def test_math500_as_test() -> None:
    pools = math(test="math500").pools()
    assert pools.test is not None
    assert len(pools.test) == 500
    whole = {question.id: question for question in math().pools().test or []}
    assert all(question.answer == whole[question.id].answer for question in pools.test)
    assert all(question.meta == whole[question.id].meta for question in pools.test)


def test_math_levels_and_types() -> None:
    pools = math(levels=[1, 2], types=["Algebra"]).pools()
    assert pools.test is not None
    assert {(q.meta["level"], q.meta["type"]) for q in [*pools.train, *pools.test]} == {(1, "Algebra"), (2, "Algebra")}


def test_math_unknown_type_says_which_there_are() -> None:
    with pytest.raises(InputError, match="Counting & Probability"):
        math(types=["Topology"]).pools()
    with pytest.raises(ValidationError):
        math(levels=[])


def test_braceless_boxes_of_math_are_read() -> None:
    questions = [q for q in math().pools().train if "\\boxed{" not in str(q.solution)]
    assert sorted(str(question.answer) for question in questions) == ["2", "9"]
