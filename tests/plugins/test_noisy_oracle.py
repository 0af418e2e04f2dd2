"""The noisy oracle: exact, nested noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import PseudoLabel, Question, question_id
from nsd.plugins.errors import InputError
from nsd.plugins.labelers.noisy_oracle import NoisyOracle
from nsd.plugins.verifiers.math import Math
from nsd.plugins.verifiers.numeric import Numeric


def questions(n: int) -> list[Question]:
    return [
        Question(
            id=question_id(f"question {i}"), text=f"question {i}", answer=f"{i:,}", solution=f"{i:,} it is.\n#### {i:,}"
        )
        for i in range(n)
    ]


def labels(rows: list[Question], accuracy: float, seed: int = 0) -> list[PseudoLabel]:
    return NoisyOracle(NoisyOracle.Config(accuracy=accuracy)).label(rows, {}, Numeric(), seed)


def right(found: list[PseudoLabel], rows: list[Question]) -> list[bool]:
    return [label.label == Numeric().normalise(str(row.answer)) for label, row in zip(found, rows, strict=True)]


@given(st.integers(2, 60), st.floats(0, 1), st.integers(0, 100))
def test_exactly_the_wanted_number_is_wrong(n: int, accuracy: float, seed: int) -> None:
    rows = questions(n)
    assert right(labels(rows, accuracy, seed), rows).count(False) == round((1 - accuracy) * n)


def test_noise_is_nested_and_the_wrong_labels_stay() -> None:
    rows = questions(200)
    some, more = labels(rows, 0.9), labels(rows, 0.6)
    for row, a, b in zip(rows, some, more, strict=True):
        if a.label != Numeric().normalise(str(row.answer)):
            assert (b.label, b.target) == (a.label, a.target)


def test_another_seed_corrupts_others() -> None:
    rows = questions(200)
    assert right(labels(rows, 0.5, 1), rows) != right(labels(rows, 0.5, 2), rows)


def test_target_is_the_gold_solution_with_the_label_as_its_final_answer() -> None:
    rows = questions(2000)
    for row, label in zip(rows, labels(rows, 0.5), strict=True):
        assert label.target is not None and label.kept
        assert Numeric().extract(label.target) == label.label
        assert label.target.split("####")[0] == str(row.solution).split("####")[0]


def test_boxed_answers_are_replaced_in_the_last_box_only() -> None:
    rows = [
        Question(
            id=str(i),
            text=str(i),
            answer=rf"\frac{{{i}}}{{7}}",
            solution=rf"\frac{{{i}}}{{7}}: \boxed{{\frac{{{i}}}{{7}}}}. Done {i}.",
        )
        for i in range(1, 5)
    ]
    for row, label in zip(rows, NoisyOracle(NoisyOracle.Config(accuracy=0)).label(rows, {}, Math(), 0), strict=True):
        assert label.label != row.answer
        assert label.target == str(row.solution).replace(rf"\boxed{{{row.answer}}}", rf"\boxed{{{label.label}}}")


def test_a_frequent_answer_is_never_its_own_wrong_label() -> None:
    rows = [
        Question(id=str(i), text=str(i), answer="5" if i else "6", solution=f"#### {'5' if i else '6'}")
        for i in range(500)
    ]
    assert not any(right(labels(rows, 0.0), rows))


def test_unknown_truth_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no true answer"):
        labels([*questions(3), Question(id="x", text="unknown")], 0.5)


def test_one_answer_for_all_is_an_input_error() -> None:
    rows = [Question(id=str(i), text=str(i), answer="5", solution="#### 5") for i in range(3)]
    with pytest.raises(InputError, match="every question has the answer"):
        labels(rows, 0.5)


def test_no_solution_means_no_target() -> None:
    rows = [Question(id=str(i), text=str(i), answer=str(i)) for i in range(4)]
    assert all(label.target is None and label.label is not None for label in labels(rows, 0.5))


def test_needs_no_model_and_no_samples() -> None:
    assert NoisyOracle.needs_model is False
    assert NoisyOracle().sampling() is None


def test_an_answer_that_is_named_again_behind_the_final_one_stays_there() -> None:
    rows = [Question(str(n), str(n), str(n), f"{n} it is.\n#### {n}\n(not $ {n})") for n in (31, 32, 33)]
    for row, label in zip(rows, labels(rows, 0.0), strict=True):
        assert label.label != row.answer
        assert label.target == f"{row.answer} it is.\n#### {label.label}\n(not $ {row.answer})"
