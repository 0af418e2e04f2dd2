"""Questions that are too many to hold: the same as a list of them, and a few bytes of memory each."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import Pools, Question, SplitConfig, question_id, without_truth
from nsd.plugins.datasets.split import data_hash, split
from nsd.plugins.errors import InputError
from nsd.plugins.large import HELD, Changed, Parts, Picked, Spool, changed, collected, keys_of, picked, where, without
from nsd.runner.plan.questions import Digests
from nsd.runner.store.workspace import digest_of


def made(number: int, size: int = 0) -> Question:
    text = f"question {number}" + "x" * size
    answer = None if number % 3 else str(number)
    return Question(question_id(text), text, answer, meta={"level": number, "side": (1, 2)}, place=f"x:{number}")


def coming(count: int, size: int = 0) -> Iterator[Question]:
    return (made(number, size) for number in range(count))


QUESTIONS = list(coming(20))


@pytest.mark.parametrize(
    "large",
    [
        Spool(QUESTIONS),
        Picked(Spool(reversed(QUESTIONS)), np.arange(19, -1, -1)),
        Changed(Spool(QUESTIONS), lambda one: one),
        Parts(QUESTIONS[:7], Spool(QUESTIONS[7:15]), [], QUESTIONS[15:]),
    ],
    ids=["spool", "picked", "changed", "parts"],
)
def test_it_is_what_the_list_is(large: Sequence[Question]) -> None:
    assert len(large) == 20
    for _ in range(2):
        assert list(large) == QUESTIONS
    assert [one.place for one in large] == [one.place for one in QUESTIONS]
    assert [large[number] for number in (0, 7, 19, -1, -20)] == [QUESTIONS[n] for n in (0, 7, 19, -1, -20)]
    assert list(large[3:17:2]) == QUESTIONS[3:17:2] and list(large[:-18]) == QUESTIONS[:2]
    assert keys_of(large).tolist() == keys_of(QUESTIONS).tolist()
    assert data_hash(large) == data_hash(QUESTIONS)
    for beyond in (20, -21):
        with pytest.raises(IndexError):
            large[beyond]


def test_few_are_a_list_and_many_are_kept_in_a_file() -> None:
    assert collected(coming(5), held=5) == QUESTIONS[:5]
    many = collected(coming(6), held=5)
    assert isinstance(many, Spool) and list(many) == QUESTIONS[:6]


def test_choosing_among_many_is_choosing_in_a_list() -> None:
    spool = Spool(QUESTIONS)
    places = np.array([4, 1, 4])
    taken = keys_of(QUESTIONS[5:9])
    for of in (QUESTIONS, spool):
        assert list(picked(of, places)) == [QUESTIONS[4], QUESTIONS[1], QUESTIONS[4]]
        assert [one.answer for one in changed(of, without_truth)] == [None] * 20
        assert list(where(of, lambda one: one.answer is not None)) == QUESTIONS[::3]
        assert list(without(of, taken)) == [*QUESTIONS[:5], *QUESTIONS[9:]]


numbers = st.lists(st.integers(0, 12), max_size=25)


@given(numbers, st.none() | numbers, st.none() | numbers, st.tuples(*[st.integers(0, 4)] * 3))
def test_pools_in_files_are_split_as_lists_are(
    train: list[int], test: list[int] | None, unlabeled: list[int] | None, wanted: tuple[int, int, int]
) -> None:
    """By the rule in the words of split.py, row by row, whatever repeats and leaks there are."""
    config = SplitConfig(labeled=wanted[0], unlabeled=wanted[1], test=wanted[2], seed=3)
    lists = [None if rows is None else [made(number) for number in rows] for rows in (train, test, unlabeled)]
    spools = [None if rows is None else Spool(rows) for rows in lists]

    def found(pools: list[Sequence[Question] | None]) -> object:
        assert pools[0] is not None
        try:
            splits, report = split(Pools(pools[0], pools[1], pools[2]), config)
        except InputError as error:
            return str(error)
        return [list(part) for part in (splits.labeled, splits.unlabeled, splits.test)], report.notes(), report.sizes

    assert found([*spools]) == found([*lists])


@given(numbers, st.integers(0, 3), st.integers(0, 3))
def test_rows_are_taken_by_the_rule(rows: list[int], labeled: int, unlabeled: int) -> None:
    """Against the rule row by row: the first of equals in shuffled order, without what is in the test rows."""
    train, test = [made(number) for number in rows], [made(0), made(1)]
    order = [train[place] for place in np.random.default_rng(3).permutation(len(train))]

    def take(some: list[Question], taken: set[str], limit: int) -> tuple[list[Question], int]:
        kept: list[Question] = []
        for position, one in enumerate(some):
            if len(kept) == limit:
                return kept, position
            if one.id not in taken:
                taken.add(one.id)
                kept.append(one)
        return kept, len(some)

    taken = {one.id for one in test}
    first, used = take(order, taken, labeled)
    left = order[used:]
    rest, _ = take([left[place] for place in np.random.default_rng(3).permutation(len(left))], taken, len(left))
    config = SplitConfig(labeled=labeled, unlabeled=unlabeled, test=2, seed=3)
    try:
        splits, _ = split(Pools(train, test), config)
    except InputError:
        assert len(first) + len(rest) < labeled + unlabeled
        return
    assert (splits.labeled, splits.unlabeled) == (first, rest[:unlabeled])


def test_digests_in_one_pass_are_those_of_the_whole() -> None:
    found = Digests.of(Spool(QUESTIONS))
    texts = digest_of([[one.id, one.text] for one in QUESTIONS])
    assert (found.content, found.texts, found.answered) == (data_hash(QUESTIONS), texts, 7)
    assert Digests.of([]).texts == digest_of([])


@pytest.mark.slow
def test_no_question_is_held() -> None:
    """Twice the questions take some numbers more each, where a question takes over a thousand bytes."""

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            pools = Pools(train=[], test=[made(-1)], unlabeled=collected(coming(count, size=1000)))
            splits, _ = split(pools, SplitConfig(labeled=0, unlabeled=count - 1, test=1))
            Digests.of(changed(splits.unlabeled, without_truth))
            assert len(splits.unlabeled) == count - 1
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    first = HELD + 1000  # questions are held until there are too many
    assert peak(2 * first) - peak(first) < 200 * first
