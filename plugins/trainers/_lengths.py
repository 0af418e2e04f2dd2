"""Tokens of a dataset's rows, counted where they lie: a list of Python numbers takes ten times the memory."""

from __future__ import annotations

from typing import Any

BATCH = 10_000  # rows looked at together


def tokens_of(rows: Any) -> list[int]:
    """How many `input_ids` each row has."""
    import pyarrow.compute

    parts = rows.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=BATCH)
    return [length for part in parts for length in pyarrow.compute.list_value_length(part["input_ids"]).to_pylist()]


def trained_of(rows: Any, ignored: int = -100) -> list[int]:
    """How many of each row's `labels` are in the loss: those that are not `ignored`."""
    import numpy
    import pyarrow.compute

    found: list[int] = []
    for part in rows.select_columns(["labels"]).with_format("arrow").iter(batch_size=BATCH):
        lists = part["labels"].combine_chunks()
        counts = pyarrow.compute.not_equal(lists.flatten(), ignored).to_numpy(zero_copy_only=False)
        rows_of = pyarrow.compute.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        found += numpy.bincount(rows_of[counts], minlength=len(lists)).tolist()
    return found
