"""Splitting: the study's rows, disjointness, duplicates, leaks, impossible counts."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.api import Pools, Question, SplitConfig, question_id
from nsd.plugins.datasets.gsm8k import Gsm8k
from nsd.plugins.datasets.split import data_hash, shuffled, split
from nsd.plugins.errors import InputError
from support import shared_data


def rows(*texts: str) -> list[Question]:
    return [Question(id=question_id(text), text=text, answer=text) for text in texts]


def numbered(prefix: str, n: int) -> list[Question]:
    return rows(*(f"{prefix} {i}" for i in range(n)))


def texts(questions: list[Question]) -> list[str]:
    return [question.text for question in questions]


def test_gsm8k_split_is_row_for_row_the_studys() -> None:
    datasets = pytest.importorskip("datasets")
    folder = shared_data("gsm8k")
    pools = Gsm8k(Gsm8k.Config(path=str(folder))).pools()
    splits, report = split(pools, SplitConfig(labeled=1000, unlabeled=4000, test=500, seed=42))

    train = datasets.Dataset.from_dict({"row": list(range(7473))}).shuffle(seed=42)
    labeled = train.select(range(1000))["row"]
    unlabeled = train.select(range(1000, 7473)).shuffle(seed=42).select(range(4000))["row"]
    test = datasets.Dataset.from_dict({"row": list(range(1319))}).shuffle(seed=42).select(range(500))["row"]
    assert pools.test is not None
    assert splits.labeled == [pools.train[row] for row in labeled]
    assert splits.unlabeled == [pools.train[row] for row in unlabeled]
    assert splits.test == [pools.test[row] for row in test]
    assert report.notes() == []


NAMES = st.lists(st.integers(0, 12).map(lambda i: f"question {i}"), max_size=15)


@given(
    NAMES,
    st.none() | NAMES,
    st.none() | NAMES,
    st.integers(0, 8),
    st.integers(0, 8),
    st.none() | st.integers(0, 8),
    st.integers(0, 99),
)
def test_splits_are_disjoint_distinct_and_of_the_wanted_size_or_refused(
    train: list[str],
    test: list[str] | None,
    unlabeled: list[str] | None,
    n_labeled: int,
    n_unlabeled: int,
    n_test: int | None,
    seed: int,
) -> None:
    pools = Pools(rows(*train), None if test is None else rows(*test), None if unlabeled is None else rows(*unlabeled))
    config = SplitConfig(labeled=n_labeled, unlabeled=n_unlabeled, test=n_test, seed=seed)
    try:
        splits, report = split(pools, config)
    except InputError:
        held_out = set(test or [])
        usable = len(set(train) - held_out)
        enough = n_labeled + (n_unlabeled if unlabeled is None else 0) <= usable
        if test is None:
            enough = (
                n_test is not None
                and enough
                and n_labeled + n_test + (n_unlabeled if unlabeled is None else 0) <= usable
            )
        elif n_test is not None:
            enough = enough and n_test <= len(set(test))
        # An unlabeled pool of its own may run short of questions that are not labeled or test already.
        assert not enough or unlabeled is not None
        return
    everything = texts(splits.labeled) + texts(splits.unlabeled) + texts(splits.test)
    assert len(everything) == len(set(everything))
    assert (len(splits.labeled), len(splits.unlabeled)) == (n_labeled, n_unlabeled)
    assert n_test is None or len(splits.test) == n_test
    if test is not None:
        assert not (set(texts(splits.labeled)) | set(texts(splits.unlabeled))) & set(test)
        assert n_test is not None or set(texts(splits.test)) == set(test)
    assert report.sizes == {"labeled": n_labeled, "unlabeled": n_unlabeled, "test": len(splits.test)}


def test_every_repeat_and_every_leak_is_counted() -> None:
    train = [*numbered("train", 20), *numbered("train", 3), *numbered("test", 2)]
    splits, report = split(Pools(train, numbered("test", 5)), SplitConfig(labeled=5, unlabeled=10, test=1))
    assert len(report.duplicates) == 3
    assert sorted(texts(report.leaked)) == ["test 0", "test 1"]
    assert len(splits.labeled) + len(splits.unlabeled) == 15
    assert any("2 rows whose question is also in the test rows" in note for note in report.notes())
    assert any("3 rows that repeat a question" in note for note in report.notes())


def test_a_repeated_row_moves_hardly_any_other() -> None:
    train = numbered("train", 1000)
    config = SplitConfig(labeled=100, unlabeled=500, test=0)
    plain, _ = split(Pools(train, []), config)
    order = shuffled(train, 42)
    repeated = [
        dataclasses.replace(order[900]) if row is order[700] else row for row in train
    ]  # both far from the first 100
    changed, report = split(Pools(repeated, []), config)
    assert len(report.duplicates) == 1
    assert changed.labeled == plain.labeled
    assert len(set(texts(plain.unlabeled)) - set(texts(changed.unlabeled))) <= 1


def test_white_space_and_unicode_form_do_not_hide_a_leak() -> None:
    train = rows("Caf\u00e9 for two?", "other")
    test = rows("Cafe\u0301  for\ntwo? ")
    splits, report = split(Pools(train, test), SplitConfig(labeled=1, test=1))
    assert texts(splits.labeled) == ["other"]
    assert len(report.leaked) == 1


def test_test_cut_from_train_does_not_move_with_the_labeled_count() -> None:
    pools = Pools(numbered("train", 50), None)
    few, _ = split(pools, SplitConfig(labeled=5, unlabeled=5, test=10))
    many, _ = split(pools, SplitConfig(labeled=30, unlabeled=10, test=10))
    assert few.test == many.test
    assert few.labeled == many.labeled[:5]


def test_unlabeled_pool_of_its_own() -> None:
    pools = Pools(
        numbered("train", 10),
        numbered("test", 5),
        [*numbered("other", 6), *numbered("test", 2), *numbered("train", 10)],
    )
    splits, report = split(pools, SplitConfig(labeled=10, unlabeled=6, test=5))
    assert sorted(texts(splits.unlabeled)) == [f"other {i}" for i in range(6)]
    assert (len(report.leaked), len(report.duplicates)) == (2, 10)


@pytest.mark.parametrize(
    ("pools", "config", "message"),
    [
        (
            Pools(numbered("a", 10), numbered("b", 5)),
            {"labeled": 8, "unlabeled": 3},
            "labeled 8 + unlabeled 3 questions wanted, there are 10",
        ),
        (Pools(numbered("a", 10), numbered("b", 5)), {"test": 6}, "split.test: 6 wanted, there are 5"),
        (Pools(numbered("a", 10), None), {"labeled": 5}, "say how many to cut from train"),
        (Pools(numbered("a", 10), None), {"labeled": 5, "test": 11}, "there are 10 distinct questions in all"),
        (Pools(numbered("a", 10), None), {"labeled": 5, "test": 6}, "there are 4 distinct ones to train on"),
        (
            Pools(numbered("a", 3), numbered("b", 5), numbered("c", 2)),
            {"labeled": 1, "unlabeled": 3},
            "split.unlabeled: 3 wanted, there are 2",
        ),
        (
            Pools(numbered("a", 3), numbered("b", 5), numbered("c", 2)),
            {"labeled": 4, "unlabeled": 1},
            "labeled 4 questions wanted, there are 3",
        ),
    ],
)
def test_impossible_counts_say_what_there_is(pools: Pools, config: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("+", r"\+")):
        split(pools, SplitConfig(**config))


def test_another_seed_gives_other_questions() -> None:
    pools = Pools(numbered("train", 100), numbered("test", 100))
    one, _ = split(pools, SplitConfig(labeled=20, test=20, seed=1))
    other, _ = split(pools, SplitConfig(labeled=20, test=20, seed=2))
    assert one.labeled != other.labeled and one.test != other.test


@given(st.lists(st.text(), min_size=2, max_size=5, unique=True))
def test_data_hash_knows_content_and_order(contents: list[str]) -> None:
    questions = [Question(id="i", text=text) for text in contents]
    assert data_hash(questions) == data_hash([dataclasses.replace(question) for question in questions])
    assert data_hash(questions) != data_hash(questions[::-1])
    assert data_hash(questions) != data_hash(questions[1:])
    for changed in ({"answer": "x"}, {"solution": "x"}, {"context": "x"}, {"id": "j"}, {"meta": {"level": 1}}):
        assert data_hash([dataclasses.replace(questions[0], **changed), *questions[1:]]) != data_hash(questions)


def test_a_question_with_tests_lacks_no_answer() -> None:
    bare, tested = (
        Question("a", "a"),
        Question("b", "b", meta={"tests": [{"kind": "stdin", "input": "", "output": ""}]}),
    )
    _, report = split(Pools(train=[bare, tested], test=None), SplitConfig(test=2))
    assert report.notes() == ["1 of 2 test questions have no gold answer: they count as wrong"]
