"""Several lines with one id: samples of one question, or answers of several models, filters, seeds in one file?

    check_repeats(table, ids, used={"id", "ok"})     # InputError naming the fields that tell the lines of an id apart

A field tells them apart where most of the repeated ids have the same values in it, each in the same number, more than
one of them: `model` with a and b for every question. Fields that differ as samples do (a completion, a length, why it
ended) have other values at each question. A field that numbers samples (`sample`, `epoch`, ...) is none of these.
Where few ids repeat the two look alike, and the lines are refused: mixing is the worse fault.

Limits: whole fields with short texts, whole numbers and booleans are looked at, on the first `LOOKED_AT` repeated ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nsd.plugins.errors import InputError
from nsd.runner.work.imports.files import LONGEST, MOST_DIGITS, Number, Table
from nsd.runner.work.imports.rows import ABSENT, get_field, text_of

LOOKED_AT = 2000
NUMBERS_OF_SAMPLES = frozenset(
    ("sample", "sample_id", "sample_idx", "sample_index", "epoch", "attempt", "trial", "repeat", "repetition", "draw")
) | frozenset(("rollout", "rollout_id", "completion_id", "completion_index", "completion_idx", "choice", "n", "k", "i"))


def check_repeats(table: Table, ids: Sequence[str], used: Collection[str]) -> None:
    """Raises InputError where lines of one id differ in a field that is not `used` and tells them apart."""
    if len(set(ids)) == len(ids):
        return
    repeated: dict[str, list[dict[str, Any]]] = {}
    counts = Counter(ids)
    for question, (_, row) in zip(ids, table.rows, strict=True):
        if counts[question] > 1 and (question in repeated or len(repeated) < LOOKED_AT):
            repeated.setdefault(question, []).append(row)
    names = dict.fromkeys(name for rows in repeated.values() for row in rows for name in row)
    heads = {name.partition(".")[0] for name in used}
    apart: dict[str, Counter[str]] = {}
    for name in names:
        if name not in heads and name not in used and name.lower() not in NUMBERS_OF_SAMPLES:
            seen = _told_apart(name, list(repeated.values()))
            if seen:
                apart[name] = seen
    if not apart:
        return
    field, values = next(iter(apart.items()))
    found = "; ".join(f"{name!r} ({', '.join(list(seen)[:6])})" for name, seen in apart.items())
    raise InputError(
        f"{table.path}: {len(repeated)} ids have several {table.unit}s, which differ in {found}. Take those of one: "
        f"--where {field}={next(iter(values))}. If they are the samples of each question, say how many (--samples "
        f"{max(counts.values())}) or which field numbers them (--sample FIELD)"
    )


def _told_apart(name: str, groups: Sequence[Sequence[Mapping[str, Any]]]) -> Counter[str]:
    """The values of a field that tells the rows of an id apart; none where it does not."""
    patterns: Counter[tuple[tuple[str, int], ...]] = Counter()
    for rows in groups:
        values = [row.get(name) for row in rows]
        if not all(_is_name(value) for value in values):
            return Counter()
        patterns[tuple(sorted(Counter(map(_shown, values)).items()))] += 1
    ((pattern, times),) = patterns.most_common(1)
    # Two samples that end in one of two ways differ in half of the questions at most.
    return Counter(dict(pattern)) if len(pattern) > 1 and 2 * times > len(groups) else Counter()


def _is_name(value: Any) -> bool:
    if isinstance(value, Number):
        return "." not in value
    return value is None or isinstance(value, bool) or (isinstance(value, str) and len(value) <= LONGEST)


def _shown(value: Any) -> str:
    return "null" if value is None else text_of(value)


def in_order(table: Table, ids: Sequence[str], field: str) -> tuple[Table, list[str]]:
    """The rows by the number of their sample. Raises InputError where a row has none, or a question one twice."""
    numbered = []
    seen: dict[tuple[str, int], int] = {}
    for question, (line, row) in zip(ids, table.rows, strict=True):
        value = get_field(row, field)
        text = "" if value is ABSENT or isinstance(value, (dict, list)) else _shown(value)
        if not text.isdecimal() or len(text) > MOST_DIGITS:
            shown = "is not there" if value is ABSENT else f"holds {text[:40] or type(value).__name__!r}"
            raise InputError(f"{table.place(line)}: the field {field!r} {shown}, where a sample's number was expected")
        before = seen.setdefault((question, int(text)), line)
        if before != line:
            raise InputError(
                f"{table.place(line)}: sample {text} of question {question!r} is here and on {table.unit} {before}"
            )
        numbered.append((int(text), line, row, question))
    numbered.sort(key=lambda one: one[0])
    return table.with_rows([(line, row) for _, line, row, _ in numbered]), [question for *_, question in numbered]
