"""Groups of questions by a field of their `meta`, or by their length: what `--by` and a claim's `by` name.

    grouped({one.id: one for one in questions}, "level")       # question id -> group

The groups of `length` are thirds of the questions by the characters of their texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsd.plugins.api import Question
from nsd.plugins.errors import InputError
from nsd.plugins.words import hint

LENGTH = "length"
NONE = "(none)"  # of questions without the field
MOST = 20  # groups of a field
LEAST = 10  # questions of a group that the test of an interaction takes (reports/stats/heterogeneity.py)


def grouped(questions: Mapping[str, Question | None], field: str) -> dict[str, str]:
    """The group of each question by its id; None stands for a question of which nothing is known.

    Raises InputError for a field that none has, which names those there are, and for one with more than MOST values.
    """
    if field == LENGTH:
        return _thirds({one: question.text for one, question in questions.items() if question}, list(questions))
    found = {one: _value(question, field) for one, question in questions.items()}
    values = set(found.values()) - {NONE}
    if not values:
        there = sorted({name for one in questions.values() if one for name in set(one.meta) - set(one.side_files)})
        have = f"there is {', '.join([*there, LENGTH])}"
        raise InputError(f"no question has a field {field!r} in its meta, {have}{hint(field, there)}")
    if len(values) > MOST:
        raise InputError(
            f"{field!r} has {len(values)} values in {len(found)} questions, and at most {MOST} make groups: name a "
            f"field with fewer, such as a level or a subject, or {LENGTH}"
        )
    return found


def in_order(names: Sequence[str]) -> list[str]:
    """Numbers by size, then texts; thirds from short to long; what has no value last."""

    def place(name: str) -> tuple[int, float, str]:
        if name == NONE:
            return 2, 0.0, ""
        try:
            return 0, float(name), name
        except ValueError:
            return 1, 0.0 if name.startswith("up to ") else 2.0 if name.startswith("over ") else 1.0, name

    return sorted(names, key=place)


def _value(question: Question | None, field: str) -> str:
    if question is None or field in question.side_files or question.meta.get(field) is None:
        return NONE
    return str(question.meta[field])


def _thirds(texts: Mapping[str, str], asked: Sequence[str]) -> dict[str, str]:
    """Thirds of the questions by the characters of their texts; equal lengths stay together."""
    import numpy as np

    lengths = {one: len(text) for one, text in texts.items()}
    low, high = (int(cut) for cut in np.quantile(list(lengths.values()), [1 / 3, 2 / 3], method="inverted_cdf"))

    def third(length: int | None) -> str:
        if length is None:
            return NONE
        return f"up to {low}" if length <= low else f"{low + 1} to {high}" if length <= high else f"over {high}"

    return {one: third(lengths.get(one)) for one in asked}
