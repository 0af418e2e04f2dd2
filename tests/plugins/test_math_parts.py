"""Answers of several parts and amounts with units, read and compared by themselves: parts are one where texts are."""

from __future__ import annotations

import pytest

from nsd.plugins.verifiers import math_amounts
from nsd.plugins.verifiers.math_lists import Kind, Several, equal, read


def same(a: str, b: str) -> bool:
    return a == b


@pytest.mark.parametrize(
    ("answer", "kind", "parts"),
    [
        (r"1, 2 \pm 3", Kind.SET, ("1", "2 + 3", "2 - 3")),
        (r"x = 1 \pm 2, y = 7", Kind.SET, ("1 + 2", "1 - 2", "7")),
        ("{1, 2}", Kind.SET, ("1", "2")),
        (r"\{(1,2)\}", Kind.SET, ("(1,2)",)),
    ],
)
def test_a_set_is_read_with_its_parts(answer: str, kind: Kind, parts: tuple[str, ...]) -> None:
    assert read(answer) == Several(kind, parts)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (r"\{(1,2)\}", "(1,2)", True),
        ("(1,2)", r"\{(1,2)\}", True),
        (r"\{(1,2)\}", "(2,1)", False),
        (r"\{7\}", "(1,2)", False),
        ("1, 1", "1, 2", False),
        ("2, 1", "1, 2", True),
    ],
)
def test_a_set_of_one_is_its_part_and_each_of_a_list_has_one_to_itself(a: str, b: str, expected: bool) -> None:
    one, other = read(a), read(b)
    assert one is not None and other is not None
    assert equal(one, other, same) is expected


def test_two_that_want_the_same_partner_are_no_pairs() -> None:
    # Both of the left can be nothing but the first of the right, whose second the third takes.
    pairs = {("a", "p"), ("b", "p"), ("c", "p"), ("c", "q"), ("c", "r")}
    left, right = Several(Kind.LIST, ("a", "b", "c")), Several(Kind.LIST, ("p", "q", "r"))
    assert not equal(left, right, lambda one, other: (one, other) in pairs)
    assert equal(left, right, lambda one, other: (one, other) in pairs | {("b", "q")})


@pytest.mark.parametrize("bare", ["90", "1.5"])
def test_hours_and_minutes_are_no_bare_number(bare: str) -> None:
    assert math_amounts.equal("1 hour 30 minutes", bare, same) is False
    assert math_amounts.equal(bare, "1 hour 30 minutes", same) is False


def test_amounts_that_are_no_plain_numbers_are_compared_with_the_ratio_of_their_units() -> None:
    asked: list[tuple[str, str]] = []

    def comparing(a: str, b: str) -> bool:
        asked.append((a, b))
        return True

    metres, centimetres = r"\sqrt{2}\text{ m}", r"100\sqrt{2}\text{ cm}"
    assert math_amounts.equal(metres, centimetres, comparing) and math_amounts.equal(centimetres, metres, comparing)
    assert asked == [(r"\frac{100}{1}\cdot(\sqrt{2})", r"100\sqrt{2}")] * 2


@pytest.mark.parametrize("cents", [500, 501])
def test_dollars_of_the_us_are_dollars(cents: int) -> None:
    assert math_amounts.equal("5 US dollars", f"{cents} cents", same) is (cents == 500)
