"""Which group each question is in: `--groups FILE|FIELD` of `nsd compare` and `nsd power`.

grouping("document", questions)           # question id -> group, by a field of their meta
grouping("groups.csv", questions)         # by a file with the columns question_id and group
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError

if TYPE_CHECKING:
    from nsd.plugins.api import Question

GROUP_FIELD = "group"  # of questions that say themselves that they come in groups


def grouping(wanted: str, questions: Iterable[Question]) -> dict[str, str]:
    """Question id -> group, from a CSV file or by a field of the questions' `meta`.

    Raises InputError where there is neither.
    """
    path = Path(wanted)
    if path.suffix.lower() == ".csv":
        return _from_file(path)
    found: dict[str, str] = {}
    fields: set[str] = set()
    for question in questions:
        fields |= set(question.meta) - set(question.side_files)
        if question.meta.get(wanted) is not None and wanted not in question.side_files:
            found[question.id] = str(question.meta[wanted])
    if not found:
        there = f"; there is {', '.join(sorted(fields))}" if fields else ""
        raise InputError(f"--groups: no question has a field {wanted!r} in its meta{there}; or name a CSV file")
    return found


def _from_file(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--groups: cannot read {path}: {error}") from error
    if not rows or not {"question_id", "group"} <= set(rows[0]):
        raise InputError(f"--groups: {path} needs a header line with question_id and group, and a row a question")
    return {row["question_id"]: row["group"] for row in rows}


def sizes_of(questions: Iterable[Question], groups: Mapping[str, str]) -> tuple[int, ...]:
    """How many questions each group has. Raises InputError for questions without one, as a comparison does."""
    ids = [one.id for one in questions]
    if absent := [one for one in ids if one not in groups]:
        raise InputError(f"{len(absent)} of {len(ids)} questions have no group, among them {absent[0]!r}")
    return tuple(Counter(groups[one] for one in ids).values())


def own_sizes(questions: Iterable[Question]) -> tuple[int, ...]:
    """The sizes of the groups of a field `group` where several questions share one; () else."""
    asked = list(questions)
    values = [str(one.meta[GROUP_FIELD]) for one in asked if one.meta.get(GROUP_FIELD) is not None]
    sizes = tuple(Counter(values).values())
    return sizes if len(values) == len(asked) > len(sizes) else ()
