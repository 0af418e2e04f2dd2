"""Votes that stop early: exactly where they are decided, or by a stated chance."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import betainc

from nsd.plugins.api import Completion, PseudoLabel, Question, StopReason, Verifier, question_id
from nsd.plugins.labelers.consensus import Consensus
from nsd.plugins.labelers.stopping import (
    PUBLISHED_HISTOGRAM,
    PUBLISHED_K,
    Ballot,
    adaptive,
    exact,
    leads,
    windows,
)
from nsd.plugins.verifiers.choice import Choice
from nsd.plugins.verifiers.numeric import Numeric

QUESTION = Question(id=question_id("How many?"), text="How many?")
# Around 1 a chain in which neighbours are the same within the tolerance and the ends are not.
CHAIN = ("#### 1", "#### 1.0000006", "#### 1.0000012", "#### 7", "none")
LETTERS = ("A", "B", "C", None)


def drawn(texts: tuple[str, ...]) -> list[Completion]:
    return [Completion(QUESTION.id, n, f"{n} {text}", 1, StopReason.STOP) for n, text in enumerate(texts)]


def voted(texts: tuple[str, ...], verifier: Verifier, **config: object) -> PseudoLabel:
    labeler = Consensus(Consensus.Config(k=len(texts), **config))
    return labeler.label([QUESTION], {QUESTION.id: drawn(texts)}, verifier, 0)[0]


def outcome(label: PseudoLabel) -> tuple[object, ...]:
    """What training gets of it."""
    return (label.kept, label.label, label.target) if label.kept else (False,)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_the_exact_vote_keeps_the_labels_and_texts_of_the_full_one_whatever_comes(k: int) -> None:
    tagged = [f"<answer>{letter}</answer>" for letter in "ABC"] + ["none"]
    for texts in itertools.product(tagged, repeat=k):
        for need in range(k + 1):
            full = voted(texts, Choice(), threshold=need / k)
            early = voted(texts, Choice(), threshold=need / k, stop_vote="exact")
            assert outcome(early) == outcome(full), (texts, need)
            assert early.low <= full.votes / k <= early.high or not early.kept


@pytest.mark.slow
@pytest.mark.parametrize("need", range(6))
def test_the_exact_vote_is_exact_under_a_tolerance_that_is_not_transitive(need: int) -> None:
    verifier = Remembered()
    for k in range(1, 6):
        for texts in itertools.product(CHAIN, repeat=k):
            full = voted(texts, verifier, threshold=min(1, need / k))
            early = voted(texts, verifier, threshold=min(1, need / k), stop_vote="exact")
            assert outcome(early) == outcome(full), (texts, need)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(CHAIN), min_size=1, max_size=16).map(tuple), st.integers(0, 16))
def test_the_exact_vote_is_exact_for_larger_k_too(texts: tuple[str, ...], need: int) -> None:
    threshold = min(1.0, need / len(texts))
    full = voted(texts, Numeric(), threshold=threshold)
    assert outcome(voted(texts, Numeric(), threshold=threshold, stop_vote="exact")) == outcome(full)


class Remembered(Numeric):
    """The same verdicts, each asked once."""

    def __init__(self) -> None:
        super().__init__()
        self._said = cache(super().same)
        self._read = cache(super().extract)

    def same(self, a: str, b: str) -> bool:
        return self._said(a, b)

    def extract(self, completion: str) -> str | None:
        return self._read(completion)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_exact_vote_stops_at_the_first_moment_at_which_nothing_can_change(k: int) -> None:
    """Letters that were not seen stand for every other answer: there are as many as samples to come."""
    letters = "ABCDEFG"[: k + 1]

    def comes_to(answers: tuple[str | None, ...], need: int) -> tuple[object, ...]:
        texts = tuple(f"<answer>{one}</answer>" if one else "none" for one in answers)
        return outcome(voted(texts, Choice(), threshold=need / k))

    for need, seen in itertools.product(range(1, k + 1), range(k + 1)):
        for answers in itertools.product([*letters[:3], None], repeat=seen):
            coming = itertools.product([*letters, None], repeat=k - seen)
            settled = len({comes_to((*answers, *more), need) for more in coming}) == 1
            assert (exact(answers, Ballot(k, need), Choice()) == 0) == settled, (answers, need)


@given(st.lists(st.sampled_from(LETTERS), max_size=12), st.integers(1, 12), st.integers(1, 12))
def test_no_vote_is_decided_before_as_many_more_as_it_asks_for(answers: list[str | None], k: int, need: int) -> None:
    ballot = Ballot(k, min(need, k))
    more = exact(answers, ballot, Choice())
    for further in range(1, more):
        for kind in ("A", "B", "C", None):
            assert exact([*answers, *[kind] * further], ballot, Choice()) > 0
        assert exact([*answers, *map(str, range(further))], ballot, Choice()) > 0


def test_three_of_eight_without_an_answer_reject_and_six_alike_keep() -> None:
    ballot = Ballot.of(8, 0.75)
    assert exact([], ballot, Choice()) == 3
    assert exact([None] * 3, ballot, Choice()) == 0
    assert exact(["A"] * 5, ballot, Choice()) == 1
    assert exact(["A"] * 6, ballot, Choice()) == 0


def test_a_label_that_stopped_early_says_between_what_its_share_lies() -> None:
    label = voted(("#### 5",) * 6 + ("#### 1", "#### 5"), Numeric(), threshold=0.75, stop_vote="exact")
    assert (label.drawn, label.votes, label.confidence, label.low, label.high) == (6, 6, 0.75, 0.75, 1.0)
    full = voted(("#### 5",) * 6 + ("#### 1", "#### 5"), Numeric(), threshold=0.75)
    assert (full.drawn, full.low, full.high) == (None, 0.875, 0.875)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (4, 0), (6, 2), (20, 11)])
def test_the_chance_of_leading_is_the_beta_integral(first: int, second: int) -> None:
    assert leads(first, second) == pytest.approx(betainc(second + 1, first + 1, 0.5), abs=1e-12)


def test_the_adaptive_vote_stops_after_four_alike() -> None:
    ballot = Ballot.of(32, 0.75)  # 1 - 2**-5 = 0.97 after four, 0.94 after three
    assert adaptive([], ballot, Choice(), 0.95) == 4
    assert adaptive(["A"] * 3, ballot, Choice(), 0.95) == 1
    assert adaptive(["A"] * 4, ballot, Choice(), 0.95) == 0
    assert adaptive(["A"] * 4 + ["B"] * 2, ballot, Choice(), 0.95) > 0


def test_the_windowed_vote_stops_after_a_unanimous_window_alone() -> None:
    ballot = Ballot.of(16, 0.0)
    assert windows(["A", "B"], ballot, Choice(), 4) == 2
    assert windows(["A", "B", "B", "B"], ballot, Choice(), 4) == 4
    assert windows(["A", "B", "B", "B", "C", "C", "C", "C"], ballot, Choice(), 4) == 0
    assert windows([None] * 4, ballot, Choice(), 4) == 4
    assert windows(["A"] * 14, Ballot.of(14, 0.0), Choice(), 4) == 0


def test_an_approximate_vote_counts_the_share_of_what_it_has_seen() -> None:
    label = voted(("#### 5",) * 4 + ("#### 1",) * 12, Numeric(), threshold=0.75, stop_vote="adaptive")
    assert (label.kept, label.confidence, label.drawn, label.low, label.high) == (True, 1.0, 4, 0.25, 1.0)


def test_a_labeler_that_stops_does_not_look_at_what_others_have_drawn() -> None:
    texts = ("#### 5",) * 6 + ("#### 1", "#### 1")
    labeler = Consensus(Consensus.Config(k=8, threshold=0.75, stop_vote="exact"))
    more, fewer = (
        labeler.label([QUESTION], {QUESTION.id: drawn(given)}, Numeric(), 0)[0] for given in (texts, texts[:6])
    )
    assert more == fewer


def test_a_failed_sample_has_no_vote_and_stays_among_the_k() -> None:
    labeler = Consensus(Consensus.Config(k=4, threshold=1.0, stop_vote="exact"))
    failed = replace(drawn(("#### 5",))[0], stop_reason=StopReason.ERROR)
    assert labeler.more(QUESTION, [failed], Numeric()) == 0


def test_the_exact_vote_refuses_a_target_that_all_samples_choose() -> None:
    with pytest.raises(ValidationError, match="take target: first, or leave stop_vote out"):
        Consensus.Config(stop_vote="exact", target="shortest")


@pytest.mark.parametrize("stop", ["exact", ["exact"]])
def test_a_rule_of_the_vote_in_the_field_of_stop_texts_is_told_where_it_belongs(stop: object) -> None:
    with pytest.raises(ValidationError, match="the vote's end is stop_vote: exact"):
        Consensus.Config.model_validate({"stop": stop})


@pytest.mark.parametrize(("k", "threshold", "share"), [(8, 0.75, 0.67), (32, 0.75, 0.56), (32, 1.0, 0.18)])
def test_the_published_histogram_needs_the_published_share_of_samples(k: int, threshold: float, share: float) -> None:
    labeler = Consensus(Consensus.Config(k=k, threshold=threshold, stop_vote="exact"))
    assert labeler.expected_share() == pytest.approx(share, abs=0.02)


def test_the_published_histogram_has_four_thousand_problems() -> None:
    assert sum(PUBLISHED_HISTOGRAM.values()) == 4000 and list(PUBLISHED_HISTOGRAM) == list(range(1, PUBLISHED_K + 1))


@pytest.mark.parametrize(("histogram", "share"), [({4: 10}, 6 / 8), ({0: 10}, 4 / 8), ({4: 1, 0: 0}, 6 / 8)])
def test_questions_that_always_or_never_agree_need_a_share_that_is_known(
    histogram: dict[int, int], share: float
) -> None:
    # Six of eight keep; four that all differ leave four, and five votes are too few.
    labeler = Consensus(Consensus.Config(k=8, threshold=0.75, stop_vote="exact"))
    assert labeler.expected_share(histogram, 4) == share


def test_a_vote_that_does_not_stop_is_expected_to_draw_all() -> None:
    assert Consensus().expected_share() == 1.0


def test_a_ballot_with_more_answers_than_it_has_votes_asks_for_none() -> None:
    assert windows(["A", "B", "A", "B", "C"], Ballot(4, 3), Choice(), 3) == 0
