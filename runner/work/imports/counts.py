"""Reads a CSV of counts, for reading.py: the columns condition, correct, n, with any separator."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from nsd.plugins.errors import InputError
from nsd.runner.work.imports.files import MOST_DIGITS, csv_text, separator_of


def read_counts(path: Path) -> list[tuple[str, tuple[int, int], dict[str, str]]]:
    """(condition, (correct, n), other columns) of each line. Raises InputError with the line."""
    text = csv_text(path)
    reader = csv.DictReader(text.splitlines(), restkey="", delimiter=separator_of(path, text))
    columns = reader.fieldnames or []
    if lacking := [column for column in ("condition", "correct", "n") if column not in columns]:
        raise InputError(
            f"{path}: no column {', '.join(lacking)}; the first line has {', '.join(columns) or 'nothing'}"
        )
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise InputError(f"{path}:1: the header names {', '.join(map(repr, twice))} twice")
    found: dict[str, tuple[str, tuple[int, int], dict[str, str]]] = {}
    for row in reader:
        place = f"{path}:{reader.line_num}"
        condition = (row["condition"] or "").strip()
        try:
            right, n = int(row["correct"]), int(row["n"])
        except (TypeError, ValueError):
            raise InputError(
                f"{place}: correct {row['correct']!r} and n {row['n']!r} must both be whole numbers"
            ) from None
        if not condition:
            raise InputError(f"{place}: the condition has no name")
        if n >= 10**MOST_DIGITS:
            raise InputError(f"{place}: n is {n:.3g}, more questions than anybody asked")
        if n < 1 or not 0 <= right <= n:
            raise InputError(f"{place}: {right} correct of {n}: correct lies between 0 and n, and n is at least 1")
        if condition in found:
            raise InputError(f"{place}: the condition {condition!r} stands here twice")
        others = {key: value for key, value in row.items() if key not in ("condition", "correct", "n") and value}
        found[condition] = condition, (right, n), others
    if not found:
        raise InputError(f"{path} has no line below its header")
    return list(found.values())
