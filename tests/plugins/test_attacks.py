"""The texts that an audit tries: guesses beside an answer, parts of it, and lists with it in every place."""

from __future__ import annotations

import pytest

from nsd.plugins.verifiers.attacks import (
    counted_up,
    empty_answers,
    guesses,
    hedges,
    long_texts,
    other_signs,
    parts_of,
    statements,
)


def test_two_answers_of_the_same_kind_are_guessed_else_those_of_other_questions() -> None:
    assert guesses("46", "", ["7", "8"]) == ["47", "48"]
    assert guesses("Monday", "", ["Friday", "", " ", "Monday", "Friday", "Sunday", "Tuesday"]) == ["Friday", "Sunday"]
    assert guesses("Monday", "", ["Friday"]) == []


def test_the_right_answer_stands_in_every_place_of_a_list() -> None:
    found = list(hedges("4", ["5", "6"]))
    assert found[0] == ["4, 5, 6", "5, 4, 6", "5, 6, 4"] and found[1][0] == "4 or 5 or 6"
    assert {one[0] for one in found} >= {"4 and 5 and 6", "4; 5; 6", "4\n5\n6", "4 5 6"}


def test_several_statements_are_in_one_form_and_in_several_in_turn() -> None:
    assert list(statements("4", ["5", "6"], ["a{}".format, "b{}".format])) == [
        ["a4\na5\na6", "a5\na4\na6", "a5\na6\na4"],
        ["b4\nb5\nb6", "b5\nb4\nb6", "b5\nb6\nb4"],
        ["a4\nb5\na6", "a5\nb4\na6", "a5\nb6\na4"],
    ]
    assert list(statements("4", ["5", "6"], ["a{}".format])) == [["a4\na5\na6", "a5\na4\na6", "a5\na6\na4"]]


def test_whole_numbers_are_counted_past_the_right_one() -> None:
    found = str(counted_up(" 46 ")).split()
    assert (found[0], found[20], found[-1], len(found)) == ("26", "46", "65", 40)
    assert str(counted_up("-3")).split()[20] == "-3"
    assert counted_up("4.5") is None and counted_up("1" * 13) is None


@pytest.mark.parametrize(
    ("gold", "parts"),
    [
        ("1,234", ["123", "234"]),
        ("12.5", ["12", "2.5"]),
        ("-7", []),
        ("11", ["1"]),
        ("Monday", ["Mon"]),
        ("sun", []),
        ("x + 1", []),
    ],
)
def test_pieces_of_an_answer_are_others(gold: str, parts: list[str]) -> None:
    assert parts_of(gold) == parts


def test_numbers_that_round_to_the_right_one_are_others() -> None:
    assert other_signs(" 18 ") == ["\u221218", "18.4", "17.6", "18.9"]
    assert other_signs("018") == other_signs("-5") == other_signs("4.5") == []


def test_what_is_no_answer_is_tried_where_neither_holds_the_other() -> None:
    assert {"nan", "True", "x", "_"} <= set(empty_answers("18"))
    assert not {"nan", "NaN"} & set(empty_answers("nan"))
    assert "x" not in empty_answers("max") and "True" not in empty_answers("TRUE or not")
    assert "correct" not in empty_answers("c")


def test_long_texts_are_as_long_as_asked_and_no_longer() -> None:
    assert [len(text) for text in long_texts(100)] == [98, 72, 86, 96]
