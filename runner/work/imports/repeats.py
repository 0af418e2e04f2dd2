"""Several lines with one id: samples of one question, or answers of several models, filters, seeds in one file?

    check_repeats(table, ids, used={"id", "ok"})     # InputError naming the fields that tell the lines of an id apart

A field tells them apart, at any depth of objects in each other and also where some lines lack it,

- that is called as what an arm is known by (`model`, `filter`, `seed`, ...: `ARMS`), wherever it differs within an id;
- in which most of the repeated ids have the same values, each in the same number: `x` with a and b for every question;
- in which nearly every repeated id has other values at each line, and the ids share these values: some questions were
  answered by a and b, some by b and c.

Fields that differ as samples do (a completion, a length, why it ended) have other values at each question. A field that
numbers samples (`sample`, `epoch`, ...) is none of these, unless it gives one number twice within an id: then something
else is mixed. Where few ids repeat samples and arms look alike, and the lines are refused: mixing is the worse fault.

Limits: lists are not looked at, and `LOOKED_AT` repeated ids are. Arms under a name of no meaning whose lines are
neither as many for most ids nor one for each are taken for samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any

from nsd.plugins.errors import InputError
from nsd.runner.work.imports.files import LET_GO, MOST_DIGITS, LongText, Table, shortened
from nsd.runner.work.imports.rows import ABSENT, get_field, text_of

LOOKED_AT = 2000
NEARLY_ALL = 0.95  # of the repeated ids
NUMBERING = frozenset(
    ("sample", "sample_idx", "sample_index", "epoch", "attempt", "trial", "repeat", "repetition", "rollout_id")
) | frozenset(("completion_index", "completion_idx"))
NUMBERS_OF_SAMPLES = NUMBERING | frozenset(("sample_id", "draw", "rollout", "completion_id", "choice", "n", "k", "i"))
_NAMES = """
    model model_name model_id model_path model_args base_model llm engine system checkpoint ckpt adapter revision
    method variant arm condition agent solver experiment run run_id run_name eval_id task task_name task_id dataset
    subset split filter scorer metric judge grader seed training_seed prompt prompt_id prompt_template template
    system_prompt num_fewshot temperature lang language
"""
ARMS = frozenset(_NAMES.split())


def check_repeats(table: Table, ids: Sequence[str], used: Collection[str], value: str = "") -> None:
    """Raises InputError where lines of one id differ in a field that is not `used` and tells them apart.

    The fields beside `value` in its object, the answers of other models and other metrics, need a name of `ARMS`.
    """
    if len(set(ids)) == len(ids):
        return
    repeated: dict[str, list[dict[str, Hashable]]] = {}
    counts = Counter(ids)
    for question, (_, row) in zip(ids, table.rows, strict=True):
        if counts[question] > 1 and (question in repeated or len(repeated) < LOOKED_AT):
            repeated.setdefault(question, []).append(dict(_leaves(row)))
    groups = list(repeated.values())
    beside = value.rpartition(".")[0]
    apart: dict[str, Counter[str]] = {}
    for name in dict.fromkeys(name for rows in groups for row in rows for name in row):
        if any(name == one or name.startswith(f"{one}.") for one in used if one):
            continue
        last = name.rpartition(".")[2].lower().replace("-", "_")
        lines = [[row.get(name) for row in rows] for rows in groups]
        if last in NUMBERS_OF_SAMPLES:
            seen = _number_twice(lines) if last in NUMBERING else Counter()
        elif last in ARMS:
            seen = _ever_apart(lines)
        else:
            seen = Counter() if beside and name.startswith(f"{beside}.") else _told_apart(lines)
        if seen:
            apart[name] = seen
    if not apart:
        return
    # A long text is known by its hash alone, so that no --where takes it by what is shown.
    field, values = next((one for one in apart.items() if "a long text" not in one[1]), ("FIELD", ["VALUE"]))
    found = "; ".join(f"{name!r} ({', '.join(list(seen)[:6])})" for name, seen in apart.items())
    raise InputError(
        f"{table.path}: {len(repeated)} ids have several {table.unit}s, which differ in {found}. Take those of one: "
        f"--where {field}={next(iter(values))}. If they are the samples of each question, say how many (--samples "
        f"{max(counts.values())}) or which field numbers them (--sample FIELD)"
    )


def check_once(table: Table, fields: Sequence[str], why: str) -> None:
    """Raises InputError where two rows agree in these fields, of which a tool writes one row for each question."""
    seen: dict[tuple[str, ...], int] = {}
    for number, row in table.rows:
        key = tuple(text_of(row.get(name)) for name in fields)
        before = seen.setdefault(key, number)
        if before != number:
            raise InputError(
                f"{table.place(number)}: {fields[0]} {key[0]} stands here and on {table.unit} {before}, and no field "
                f"tells the two apart: {why}"
            )


def _leaves(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Hashable]]:
    """Dotted names and values, small enough to be held against each other."""
    for name, value in (shortened(dict(row)) if not before else row).items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")
        elif value is not LET_GO:
            yield f"{before}{name}", value


def _ever_apart(lines: Sequence[Sequence[Hashable]]) -> Counter[str]:
    """The values of a field that differ within any id."""
    seen: Counter[str] = Counter()
    for values in lines:
        if len(set(values)) > 1:
            seen.update(map(_shown, values))
    return seen


def _number_twice(lines: Sequence[Sequence[Hashable]]) -> Counter[str]:
    """The values of a field that numbers the lines of an id, and gives one number to two of them."""
    counts = [Counter(map(_shown, values)) for values in lines]
    twice = next((one for one in counts if 1 < len(one) < one.total()), Counter[str]())
    return twice


def _told_apart(lines: Sequence[Sequence[Hashable]]) -> Counter[str]:
    """The values of a field that tells the rows of an id apart; none where it does not."""
    seen = [Counter(values) for values in lines]
    patterns = Counter(frozenset(one.items()) for one in seen)
    ((pattern, times),) = patterns.most_common(1)
    if len(lines) == 1 and any(isinstance(one, LongText) or "." in _shown(one) for one in lines[0]):
        return Counter()  # a completion, a time
    # Two samples that end in one of two ways differ in half of the questions at most.
    if len(pattern) > 1 and 2 * times > len(lines):
        return Counter({_shown(value): count for value, count in sorted(pattern, key=lambda one: _shown(one[0]))})
    balanced = sum(len(one) > 1 and len(set(one.values())) == 1 for one in seen)
    whole = sum(seen, Counter[Hashable]())
    if len(lines) > 1 and balanced >= NEARLY_ALL * len(lines) and 2 * len(whole) <= whole.total():
        return Counter({_shown(value): count for value, count in whole.items()})
    return Counter()


def _shown(value: Any) -> str:
    return "null" if value is None else str(value) if isinstance(value, LongText) else text_of(value)


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
