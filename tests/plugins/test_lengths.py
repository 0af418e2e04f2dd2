"""Tokens counted in the dataset's own columns are those counted one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nsd.plugins.trainers import _lengths
from nsd.plugins.trainers._lengths import tokens_of, trained_of

ROWS = st.lists(st.lists(st.sampled_from([-100, 0, 7]), max_size=5), min_size=1, max_size=12)


@settings(deadline=None, max_examples=30)
@given(ROWS, st.integers(1, 5), st.booleans())
def test_tokens_and_what_is_trained_are_counted(rows: list[list[int]], batch: int, turned: bool) -> None:
    from datasets import Dataset

    made = Dataset.from_list([{"input_ids": row, "labels": row, "other": 1} for row in rows])
    if turned:  # a dataset whose rows are picked from another's
        made, rows = made.select(list(reversed(range(len(rows))))), rows[::-1]
    before, _lengths.BATCH = _lengths.BATCH, batch
    try:
        assert tokens_of(made) == [len(row) for row in rows]
        assert trained_of(made) == [sum(one != -100 for one in row) for row in rows]
    finally:
        _lengths.BATCH = before
