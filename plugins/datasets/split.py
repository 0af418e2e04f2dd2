"""Cuts a dataset's pools into labeled, unlabeled and test questions, and counts repeats, leaks and lacking answers.

    splits, report = split(dataset.pools(), config.split)
    print(report.notes())

The shuffles are numpy's `default_rng(seed).permutation(n)`, which is what `datasets.Dataset.shuffle(seed)` does;
on data without repeated questions the three sets are exactly those of the noisy-student study:

- `train` is shuffled, its first rows are labeled;
- the rows after them are shuffled again with the same seed, the first of those are unlabeled;
- `test` is shuffled with the same seed, its first rows are the test split.

Repeated questions (same `question_id`) keep their first row; a train row that is in the test pool, whether or not
it was drawn for the test split, is never used. Rows are left out after shuffling, so one repeated row does not
move all the others. Where the dataset has no test pool, the test split is cut from the end of the shuffled train
rows, so that its questions do not depend on how many are labeled. An `unlabeled` pool replaces the rest of train.

Limit: sameness is that of the text up to white space and Unicode form; a reworded leak is not seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nsd.plugins.api import Pools, Question, SplitConfig, Splits
from nsd.plugins.errors import InputError
from nsd.plugins.large import Parts, keys_of, picked
from nsd.plugins.side_files import as_text

if TYPE_CHECKING:
    from nsd.plugins.large import Keys, Places

SHOWN = 3


@dataclass
class SplitReport:
    """Repeats, leaks and lacking answers. Questions are counted over the whole pools, used or not.

    `leaked` are train or unlabeled rows left out because their question is in the test rows; `duplicates` are
    repeats left out (from an unlabeled pool of its own also what is already labeled);
    `without_answer` counts labeled and test questions that nobody can score.
    """

    train_rows: int
    test_rows: int | None
    unlabeled_rows: int | None
    duplicates: Parts = field(default_factory=Parts)
    leaked: Parts = field(default_factory=Parts)
    sizes: dict[str, int] = field(default_factory=dict)
    without_answer: dict[str, int] = field(default_factory=dict)
    from_dataset: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Sentences for a person; [] where all was as it should be."""
        found = list(self.from_dataset)
        if self.leaked:
            found.append(f"left out {_rows(self.leaked)} whose question is also in the test rows: {_show(self.leaked)}")
        if self.duplicates:
            found.append(f"left out {_rows(self.duplicates)} that repeat a question: {_show(self.duplicates)}")
        for name, count in self.without_answer.items():
            if count:
                found.append(f"{count} of {self.sizes[name]} {name} questions have no gold answer: they count as wrong")
        return found


def split(pools: Pools, config: SplitConfig) -> tuple[Splits, SplitReport]:
    """Cut the pools. Raises InputError where there are fewer questions than wanted, saying how many there are."""
    report = SplitReport(
        train_rows=len(pools.train),
        test_rows=None if pools.test is None else len(pools.test),
        unlabeled_rows=None if pools.unlabeled is None else len(pools.unlabeled),
        from_dataset=pools.notes,
    )
    train = _Rows(pools.train).shuffled(config.seed)
    if pools.test is None:
        train, test = _cut_test(train, config, report)
        reserved = test.keys
    else:
        test, _ = _take(_Rows(pools.test).shuffled(config.seed), None, None, report)
        reserved = test.keys
        if config.test is not None:
            if config.test > len(test):
                raise InputError(f"split.test: {config.test:,} wanted, there are {len(test):,} distinct test questions")
            test = test.among(slice(config.test))

    labeled, position = _take(train, None, reserved, report, limit=config.labeled)
    left, taken = train.among(slice(position, None)), labeled.keys
    if pools.unlabeled is None:
        rest, _ = _take(left.shuffled(config.seed), taken, reserved, report)
        _check_counts(config, len(labeled) + len(rest), len(test), report)
    else:
        unused, _ = _take(left, taken, reserved, report)
        _check_counts(config, len(labeled) + len(unused), len(test), report)
        rest, _ = _take(_Rows(pools.unlabeled).shuffled(config.seed), taken, reserved, report)
        if config.unlabeled > len(rest):
            raise InputError(
                f"split.unlabeled: {config.unlabeled:,} wanted, there are {len(rest):,} distinct unlabeled questions "
                "that are neither labeled nor in the test rows"
            )

    splits = Splits(
        labeled=labeled.questions(),
        unlabeled=rest.among(slice(config.unlabeled)).questions(),
        test=test.questions(),
    )
    for name, questions in (("labeled", splits.labeled), ("unlabeled", splits.unlabeled), ("test", splits.test)):
        report.sizes[name] = len(questions)
        if name != "unlabeled":  # these have no answer for anybody
            # A program is judged by its tests, not by an answer.
            report.without_answer[name] = sum(one.answer is None and "tests" not in one.meta for one in questions)
    return splits, report


class _Rows:
    """Some rows of a pool in some order, by their places in it; of each the key of its question's id."""

    def __init__(self, pool: Sequence[Question], places: Places | None = None, keys: Keys | None = None) -> None:
        import numpy as np

        self.pool = pool
        self.places = np.arange(len(pool)) if places is None else places
        self.keys = keys_of(pool) if keys is None else keys

    def __len__(self) -> int:
        return len(self.places)

    def among(self, chosen: slice | Places) -> _Rows:
        """Those at some of the positions."""
        return _Rows(self.pool, self.places[chosen], self.keys[chosen])

    def shuffled(self, seed: int) -> _Rows:
        """All of them in another order."""
        return self.among(_order(len(self), seed))

    def questions(self) -> Sequence[Question]:
        """What stands in them."""
        return picked(self.pool, self.places)


def _take(
    rows: _Rows, taken: Keys | None, reserved: Keys | None, report: SplitReport, limit: int | None = None
) -> tuple[_Rows, int]:
    """The first `limit` questions neither `taken` nor `reserved`, once each, and how many rows that used up."""
    import numpy as np

    first = np.zeros(len(rows), bool)
    first[np.unique(rows.keys, return_index=True)[1]] = True
    leaks = np.isin(rows.keys, [] if reserved is None else reserved)
    new = first & ~leaks & ~np.isin(rows.keys, [] if taken is None else taken)
    kept = np.flatnonzero(new)
    used = len(rows)
    if limit is not None and limit <= len(kept):
        kept = kept[:limit]
        used = int(kept[-1]) + 1 if limit else 0
    report.leaked.add(rows.among(np.flatnonzero(leaks[:used])).questions())
    report.duplicates.add(rows.among(np.flatnonzero(~new[:used] & ~leaks[:used])).questions())
    return rows.among(kept), used


def _cut_test(train: _Rows, config: SplitConfig, report: SplitReport) -> tuple[_Rows, _Rows]:
    """Train without its last `config.test` questions, and those."""
    if config.test is None:
        raise InputError("split.test: the data has no test rows of its own, so say how many to cut from train")
    distinct, _ = _take(train, None, None, report)
    if config.test > len(distinct):
        raise InputError(f"split.test: {config.test:,} wanted, there are {len(distinct):,} distinct questions in all")
    cut = len(distinct) - config.test
    return distinct.among(slice(cut)), distinct.among(slice(cut, None))


def _check_counts(config: SplitConfig, usable: int, test: int, report: SplitReport) -> None:
    from_train = {"labeled": config.labeled}
    if report.unlabeled_rows is None:
        from_train["unlabeled"] = config.unlabeled
    if sum(from_train.values()) > usable:
        wanted = " + ".join(f"{name} {count:,}" for name, count in from_train.items())
        where = "cut from the same rows for test" if report.test_rows is None else "left out because they are in test"
        lost = test if report.test_rows is None else len(report.leaked)
        raise InputError(
            f"split: {wanted} questions wanted, there are {usable:,} distinct ones to train on "
            f"({report.train_rows:,} rows, {lost:,} {where}, {len(report.duplicates):,} repeated)"
        )


def shuffled(questions: Sequence[Question], seed: int) -> Sequence[Question]:
    """The rows in the order that `datasets.Dataset.shuffle(seed=seed)` gives them."""
    return picked(questions, _order(len(questions), seed))


def _order(n: int, seed: int) -> Places:
    import numpy as np

    return np.random.default_rng(seed).permutation(n)


_AS_JSON = json.JSONEncoder(sort_keys=True, default=as_text).encode


def data_hash(questions: Iterable[Question]) -> str:
    """Content hash of questions in order: sha256 over everything in them that could change an output."""
    digest = hashlib.sha256()
    for question in questions:
        side = question.side_files
        row = [
            question.id,
            question.text,
            question.answer,
            question.solution,
            question.context,
            {key: value for key, value in question.meta.items() if key not in side},
            *([{key: [one.sha256, one.size] for key, one in side.items()}] if side else []),
        ]
        digest.update(_AS_JSON(row).encode() + b"\n")
    return digest.hexdigest()


def _rows(questions: Sequence[Question]) -> str:
    return "1 row" if len(questions) == 1 else f"{len(questions):,} rows"


def _show(questions: Sequence[Question]) -> str:
    texts = [" ".join(question.text.split()) for question in questions[:SHOWN]]
    shown = "; ".join(repr(text if len(text) <= 60 else text[:57] + "...") for text in texts)
    return shown + ("; ..." if len(questions) > SHOWN else "")
