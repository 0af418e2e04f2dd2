"""Lines of recorded results and the fields in them, for reading.py, which says what a field may be."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from typing import Any

from nsd.plugins.api import question_id
from nsd.plugins.errors import InputError
from nsd.plugins.words import hint
from nsd.runner.work.imports.files import Number, Table

ABSENT = object()  # what `get_field` gives where there is no such field


def get_field(row: Any, name: str) -> Any:
    """The value of a dotted field, taking the longest key that leads to one; `ABSENT` where there is none."""
    if not isinstance(row, dict):
        return ABSENT
    if name in row:
        return row[name]
    for end in range(len(name) - 1, 0, -1):
        if name[end] == "." and name[:end] in row:
            found = get_field(row[name[:end]], name[end + 1 :])
            if found is not ABSENT:
                return found
    return ABSENT


def was_asked(row: dict[str, Any], name: str) -> bool:
    """False where a field is absent from an object inside the line that has other keys."""
    heads = (name[:end] for end in range(len(name) - 1, 0, -1) if name[end] == ".")
    return not any(isinstance(row.get(head), dict) and row[head] for head in heads)


def expand(table: Table, name: str) -> list[tuple[str, str | None]]:
    """(field, key) for each run: the field itself with key None, or every key its `*` part fits, in order seen."""
    if "*" not in name:
        if all(get_field(row, name) is ABSENT for _, row in table.rows):
            raise InputError(f"{table.path}: no line has a field {name!r}{fields_there(table.head, name)}")
        return [(name, None)]
    dots = [end for end in range(name.find("*") - 1, 0, -1) if name[end] == "."]
    # Keys may hold dots, so each dot before the star may be the one that ends the parent: the longest first.
    for parent, pattern in [*((name[:end], name[end + 1 :]) for end in dots), ("", name)]:
        literal = pattern.replace("[", "[[]")
        keys: dict[str, None] = {}
        for _, row in table.rows:
            container = get_field(row, parent) if parent else row
            if isinstance(container, dict):
                keys.update((key, None) for key in container if fnmatch.fnmatchcase(key, literal))
        if keys:
            return [(f"{parent}.{key}" if parent else key, key) for key in keys]
    raise InputError(f"{table.path}: no line has a field like {name!r}{fields_there(table.head)}")


def fields_there(row: dict[str, Any], wanted: str = "") -> str:
    """The nearest field of a line, else its fields, for an error message."""
    inside = [f"{key}.{inner}" for key, value in row.items() if isinstance(value, dict) for inner in value]
    return hint(wanted, [*row, *inside], f"; the first has {', '.join(map(repr, list(row)[:12]))}" if row else "")


_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")
_WHOLE = re.compile(r"(-?\d+)\.0+")


def line_ids(table: Table, id_field: str, is_text: bool) -> list[str]:
    """The question's id of each row, without the blanks around it.

    Raises InputError where there is none; where several lines have a word for nothing (`NaN`, `None`) in its place, or
    a number that a spreadsheet has rounded; and where two ids of one file may be one, written in two ways: 1 and "1", 1
    and 1.0, with and without a blank.
    """
    spellings: dict[str, tuple[str, bool, int]] = {}
    found = []
    for number, row in table.rows:
        value = row.get(id_field)
        if value is None:
            value = get_field(row, id_field)
        if value is ABSENT or value is None:
            raise InputError(
                f"{table.place(number)}: no id: there is no field {id_field!r}{fields_there(row, id_field)}"
            )
        if isinstance(value, (dict, list, float)):
            what = f"{value} (no number)" if isinstance(value, float) else f"a {type(value).__name__}"
            raise InputError(f"{table.place(number)}: the id field {id_field!r} holds {what}, not a text or number")
        text = text_of(value)
        if not text.strip():
            raise InputError(f"{table.place(number)}: the id field {id_field!r} is empty")
        is_number = isinstance(value, Number)
        whole = _WHOLE.fullmatch(text.strip())
        plain = unicodedata.normalize("NFC", whole[1] if whole else text.strip())
        before, was_number, line = spellings.setdefault(text if is_text else plain, (text, is_number, number))
        if (before, was_number) != (text, is_number):
            raise InputError(
                f"{table.place(number)}: the id is {_spelt(text, is_number)} here and {_spelt(before, was_number)} on "
                f"{table.unit} {line}: one question, or two?"
            )
        if line != number and not is_number and _ROUNDED.fullmatch(text.strip()):
            raise InputError(
                f"{table.place(number)}: the id is {text!r} here and on {table.unit} {line}: a spreadsheet has rounded "
                "long numbers, and several ids may have become one. Write the file anew with ids as text"
            )
        if line != number and is_nothing(text):
            raise InputError(
                f"{table.place(number)}: the id field {id_field!r} says {text!r} here and on {table.unit} {line}: "
                "these lines have no id"
            )
        found.append(question_id(text) if is_text else text.strip())
    return found


def _spelt(text: str, is_number: bool) -> str:
    return f"the number {text}" if is_number else f"the text {text if text == text.strip() else repr(text)}"


def is_nothing(value: Any) -> bool:
    """Whether a field is absent, null, or says that there is nothing: the rule of data that is read."""
    from nsd.plugins.datasets.sources import known

    return value is ABSENT or value is None or (not isinstance(value, (dict, list)) and known(text_of(value)) is None)


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
