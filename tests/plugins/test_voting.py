"""Majority votes over verifier classes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from plugins.api import Verifier
from plugins.verifiers.numeric import Numeric
from plugins.verifiers.voting import majority

ANSWERS = st.lists(st.sampled_from(["1", "2", "3", "3.0000004", "3.0000009", None]), max_size=12)


class Near(Verifier):
    """Equal if the whole numbers are at most one apart: symmetric, far from transitive."""

    name = "near"

    def same(self, a: str, b: str) -> bool:
        return abs(int(a) - int(b)) <= 1


@given(st.lists(st.integers(0, 30).map(str), max_size=12), st.integers(0, 1000))
def test_classes_are_those_of_the_transitive_closure_in_any_order(answers: list[str], seed: int) -> None:
    def partition(texts: list[str]) -> set[frozenset[str]]:
        classes = Near().group(texts)
        return {frozenset(text for text, c in zip(texts, classes, strict=True) if c == found) for found in set(classes)}

    ordered = sorted(set(map(int, answers)))
    chains: list[list[int]] = []
    for number in ordered:
        if chains and number - chains[-1][-1] <= 1:
            chains[-1].append(number)
        else:
            chains.append([number])
    expected = {frozenset(map(str, chain)) for chain in chains}
    shuffled = answers[:]
    random.Random(seed).shuffle(shuffled)
    assert partition(answers) == partition(shuffled) == expected


@given(ANSWERS)
def test_a_class_is_named_by_its_first_answer(answers: list[str | None]) -> None:
    for index, found in enumerate(Numeric().group(answers)):
        assert (found is None) == (answers[index] is None)
        assert found is None or found <= index


@given(ANSWERS, st.integers(0, 1000))
def test_votes_do_not_depend_on_order(answers: list[str | None], seed: int) -> None:
    shuffled = answers[:]
    random.Random(seed).shuffle(shuffled)
    one, other = majority(answers, Numeric()), majority(shuffled, Numeric())
    assert one.votes == other.votes
    assert sorted(one.tally.values()) == sorted(other.tally.values())
    if sorted(one.tally.values())[-2:].count(one.votes) < 2 and one.winner is not None:  # no tie
        assert Numeric().group([one.winner, other.winner, *answers])[1] == 0


def test_ties_go_to_the_first_seen() -> None:
    assert majority(["2", "1", "1", "2"], Numeric()).winner == "2"
    assert majority(["1", "2", "1", "2"], Numeric()).winner == "1"
    assert majority([None, "2", "1"], Numeric()).winner == "2"


def test_tally_is_in_order_of_first_sight() -> None:
    vote = majority(["3", None, "1", "3", "2", "1", "3"], Numeric())
    assert list(vote.tally.items()) == [("3", 3), ("1", 2), ("2", 1)]
    assert vote.agreeing == [0, 3, 6]


def test_nobody_answered() -> None:
    vote = majority([None, None], Numeric())
    assert (vote.winner, vote.votes, vote.tally) == (None, 0, {})
