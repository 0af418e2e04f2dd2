"""Votes over a verifier's classes: what may join, and what may depend on the order of the samples."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import Confidence, Verifier
from nsd.plugins.verifiers.numeric import Numeric
from nsd.plugins.verifiers.voting import WeightedVote, majority, weight, weighted

LETTERS = "abcdefg"
ANSWERS = st.lists(st.sampled_from([*LETTERS, None]), max_size=14)
PAIRS = st.frozensets(st.tuples(st.sampled_from(LETTERS), st.sampled_from(LETTERS)), max_size=30)


class Related(Verifier):
    """Calls equal what is in a set of ordered pairs: neither symmetric nor transitive."""

    name = "related"

    def __init__(self, pairs: frozenset[tuple[str, str]]) -> None:
        super().__init__()
        self.pairs = pairs
        self.asked = 0

    def same(self, a: str, b: str) -> bool:
        self.asked += 1
        return a == b or (a, b) in self.pairs


def symmetric(pairs: frozenset[tuple[str, str]]) -> Related:
    return Related(pairs | {(b, a) for a, b in pairs})


RELATIONS = st.builds(lambda pairs, both: symmetric(pairs) if both else Related(pairs), PAIRS, st.booleans())


def classes(verifier: Verifier, answers: Sequence[str | None]) -> set[frozenset[str]]:
    found = verifier.group(answers)
    return {
        frozenset(str(text) for text, c in zip(answers, found, strict=True) if c == one)
        for one in set(found)
        if one is not None
    }


def shuffled(answers: Sequence[str | None], seed: int) -> list[str | None]:
    changed = list(answers)
    random.Random(seed).shuffle(changed)
    return changed


@given(ANSWERS, RELATIONS)
def test_no_class_holds_two_answers_that_are_unequal_in_either_direction(
    answers: list[str | None], verifier: Related
) -> None:
    for one in classes(verifier, answers):
        assert all(verifier.same(a, b) for a in one for b in one)


@given(ANSWERS, RELATIONS, st.integers(0, 1000))
def test_classes_do_not_depend_on_the_order_of_the_samples(
    answers: list[str | None], verifier: Related, seed: int
) -> None:
    assert classes(verifier, answers) == classes(verifier, shuffled(answers, seed))


@given(ANSWERS, RELATIONS, st.integers(0, 1000))
def test_a_vote_depends_on_order_where_classes_tie_and_nowhere_else(
    answers: list[str | None], verifier: Related, seed: int
) -> None:
    one, other = (majority(texts, verifier) for texts in (answers, shuffled(answers, seed)))
    assert dict(one.tally) == dict(other.tally)
    assert (one.votes, one.winner is None) == (other.votes, other.winner is None)
    if list(one.tally.values()).count(one.votes) < 2:
        assert one.winner == other.winner


@given(ANSWERS, RELATIONS)
def test_every_agreeing_answer_is_the_same_as_the_winner(answers: list[str | None], verifier: Related) -> None:
    vote = majority(answers, verifier)
    agreeing = [answers[index] for index in vote.agreeing]
    assert all(text is not None and verifier.same(text, str(vote.winner)) for text in agreeing)
    assert vote.agreeing == sorted(vote.agreeing)
    assert sum(vote.tally.values()) == sum(answer is not None for answer in answers)
    assert vote.winner is None or vote.tally[vote.winner] == len(agreeing) == max(vote.tally.values())


@given(ANSWERS)
def test_an_equivalence_gives_its_own_classes(answers: list[str | None]) -> None:
    vowels = symmetric(frozenset((a, b) for a in "aceg" for b in "aceg"))
    given_texts = {answer for answer in answers if answer is not None}
    expected = {frozenset(given_texts & set("aceg")), *(frozenset(text) for text in given_texts - set("aceg"))}
    assert classes(vowels, answers) == expected - {frozenset()}


@given(ANSWERS, RELATIONS)
def test_a_class_is_named_by_its_first_answer(answers: list[str | None], verifier: Related) -> None:
    found = verifier.group(answers)
    for index, one in enumerate(found):
        assert (one is None) == (answers[index] is None)
        assert one is None or (one <= index and found[one] == one)


def test_the_answer_given_most_often_gathers_what_is_the_same_as_it() -> None:
    # b is the same as a and as c, which differ; alone, text order would put b with a.
    verifier = symmetric(frozenset([("a", "b"), ("b", "c")]))
    assert classes(verifier, ["a", "b", "c"]) == {frozenset("ab"), frozenset("c")}
    assert classes(verifier, ["a", "b", "c", "c"]) == {frozenset("a"), frozenset("bc")}
    vote = majority(["b", "a", "c", "c"], verifier)
    assert (vote.winner, vote.agreeing, vote.tally) == ("c", [0, 2, 3], {"c": 3, "a": 1})


def test_numbers_within_the_tolerance_of_a_third_stay_apart_where_they_differ() -> None:
    chain = ["0.0000006", "0", "0.0000012"]
    assert Numeric().same(chain[0], chain[2]) and not Numeric().same(chain[1], chain[2])
    for order in (chain, chain[::-1], [chain[1], chain[2], chain[0]]):
        assert classes(Numeric(), order) == {frozenset(["0", "0.0000006"]), frozenset(["0.0000012"])}


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


# --------------------------------------------------------------------------- who may count by hash


class Plain(Verifier):
    """Leaves `same` as it is."""

    name = "plain"


class Stated(Related):
    """Says that its `same` is equality."""

    same_is_equality = True


class Again(Stated):
    """Replaces the `same` that the statement above was about."""

    def same(self, a: str, b: str) -> bool:
        self.asked += 1
        return True


@pytest.mark.parametrize(
    ("verifier", "by_hash"),
    [(Plain(), True), (Stated(frozenset()), True), (Related(frozenset()), False), (Again(frozenset()), False)],
)
def test_only_a_verifier_whose_same_is_equality_is_not_asked(verifier: Verifier, by_hash: bool) -> None:
    answers = list(LETTERS)
    found = verifier.group(answers)
    assert (getattr(verifier, "asked", 0) == 0) == by_hash
    assert found == ([0] * len(answers) if isinstance(verifier, Again) else list(range(len(answers))))


def test_thousands_of_different_answers_are_counted_by_hash() -> None:
    answers = [str(number % 5000) for number in range(20_000)]
    assert Counter(Plain().group(answers)) == dict.fromkeys(range(5000), 4)


def test_a_weighted_vote_by_hand() -> None:
    # 5 and 5.0000001 are one class: .5 + .75 of 3; 6 has 1 and the sample without an answer .75.
    answers, weights = ["6", "5", None, "5.0000001", "5"], [1.0, 0.5, 0.75, 0.5, 0.25]
    assert weighted(answers, weights, Numeric()) == WeightedVote("5", 1.25 / 3, 3)


def test_of_a_weighted_vote_the_surest_samples_may_vote_alone() -> None:
    answers, weights = ["6", "5", None, "5", "7"], [1.0, 0.5, 0.75, 0.5, 0.5]
    # Three of five: 6, the first 5, and one without an answer.
    assert weighted(answers, weights, Numeric(), top=0.6) == WeightedVote("6", 1.0 / 2.25, 1)
    assert weighted(answers, weights, Numeric(), top=0.01) == WeightedVote("6", 1.0, 1)


def test_a_weighted_tie_goes_to_the_first_seen_and_nobody_answering_has_no_winner() -> None:
    assert weighted(["6", "5"], [0.5, 0.5], Numeric()) == WeightedVote("6", 0.5, 1)
    assert weighted([None, None], [0.5, 0.5], Numeric()) == WeightedVote(None, 0.0, 0)


@pytest.mark.parametrize(
    ("by", "expected"),
    [("logprob", math.exp(-0.5)), ("logprob_lowest", math.exp(-2.0)), ("mean", 3.0), ("bottom", 5.0), ("lowest", 6.0)],
)
def test_a_weight_is_positive(by: str, expected: float) -> None:
    confidence = Confidence(logprob=-0.5, logprob_lowest=-2.0, mean=3.0, tail=4.0, bottom=5.0, lowest=6.0)
    assert weight(confidence, by) == pytest.approx(expected)
