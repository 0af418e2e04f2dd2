"""Lines of recorded results and the fields in them, for reading.py, which says what a field may be."""

from __future__ import annotations

import fnmatch
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


def line_ids(table: Table, id_field: str, is_text: bool) -> list[str]:
    """The question's id of each row. Raises InputError where there is none, and for the ids 1 and "1" in one file."""
    kinds: dict[str, tuple[bool, int]] = {}
    found = []
    for number, row in table.rows:
        value = row.get(id_field)
        if value is None:
            value = get_field(row, id_field)
        if value is ABSENT or value is None:
            raise InputError(
                f"{table.place(number)}: no id: there is no field {id_field!r}{fields_there(row, id_field)}"
            )
        if isinstance(value, (dict, list)):
            raise InputError(
                f"{table.place(number)}: the id field {id_field!r} holds a {type(value).__name__}, not a text or number"
            )
        text = text_of(value)
        if not text.strip():
            raise InputError(f"{table.place(number)}: the id field {id_field!r} is empty")
        is_number = isinstance(value, Number)
        was_number, line = kinds.setdefault(text, (is_number, number))
        if was_number is not is_number:
            here, there = ("the number", "the text") if is_number else ("the text", "the number")
            raise InputError(
                f"{table.place(number)}: the id is {here} {text} here and {there} {text} on {table.unit} {line}: one "
                "question, or two?"
            )
        found.append(question_id(text) if is_text else text)
    return found


def is_nothing(value: Any) -> bool:
    """Whether a field is absent, null, or says that there is nothing: the rule of data that is read."""
    from nsd.plugins.datasets.sources import known

    return value is ABSENT or value is None or (not isinstance(value, (dict, list)) and known(text_of(value)) is None)


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
