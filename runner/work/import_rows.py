"""Lines of recorded results and the fields in them, for `runner/work/importing.py`, which says what a field may be."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nsd.plugins.api import question_id
from nsd.plugins.errors import InputError
from nsd.plugins.words import hint

ABSENT = object()  # what `get_field` gives where there is no such field


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects. Numbers stay the text they were (18.0 is not turned into 18), without an exponent."""
    from nsd.plugins.datasets.sources import number as whole
    from nsd.plugins.datasets.sources import plain

    def number_text(text: str) -> str:
        found = whole(text) if "e" in text.lower() else text
        return found if isinstance(found, str) else plain(found)

    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(
                    raw.decode("utf-8-sig" if number == 1 else "utf-8"), parse_float=number_text, parse_int=str
                )
            except UnicodeDecodeError as error:
                raise InputError(f"{path}:{number}: not UTF-8 text ({error.reason} at byte {error.start})") from error
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number}: not a JSON object ({error.msg} at column {error.colno})") from error
            except RecursionError:
                raise InputError(f"{path}:{number}: nested too deeply to read") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: a {type(row).__name__}, where a JSON object was expected")
            yield number, row


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


def expand(path: Path, lines: Sequence[tuple[int, dict[str, Any]]], name: str) -> list[tuple[str, str | None]]:
    """(field, key) for each run: the field itself with key None, or every key its `*` part fits, in order seen."""
    if "*" not in name:
        if all(get_field(row, name) is ABSENT for _, row in lines):
            raise InputError(f"{path}: no line has a field {name!r}{fields_there(lines[0][1], name)}")
        return [(name, None)]
    dots = [end for end in range(name.find("*") - 1, 0, -1) if name[end] == "."]
    # Keys may hold dots, so each dot before the star may be the one that ends the parent: the longest first.
    for parent, pattern in [*((name[:end], name[end + 1 :]) for end in dots), ("", name)]:
        literal = pattern.replace("[", "[[]")
        keys: dict[str, None] = {}
        for _, row in lines:
            container = get_field(row, parent) if parent else row
            if isinstance(container, dict):
                keys.update((key, None) for key in container if fnmatch.fnmatchcase(key, literal))
        if keys:
            return [(f"{parent}.{key}" if parent else key, key) for key in keys]
    raise InputError(f"{path}: no line has a field like {name!r}{fields_there(lines[0][1])}")


def fields_there(row: dict[str, Any], wanted: str = "") -> str:
    """The nearest field of a line, else its fields, for an error message."""
    inside = [f"{key}.{inner}" for key, value in row.items() if isinstance(value, dict) for inner in value]
    return hint(wanted, [*row, *inside], f"; the first has {', '.join(map(repr, list(row)[:12]))}" if row else "")


def line_id(path: Path, number: int, row: dict[str, Any], id_field: str, is_text: bool) -> str:
    value = get_field(row, id_field)
    if value is ABSENT or value is None:
        raise InputError(f"{path}:{number}: no id: there is no field {id_field!r}{fields_there(row)}")
    if isinstance(value, (dict, list)):
        raise InputError(
            f"{path}:{number}: the id field {id_field!r} holds a {type(value).__name__}, not a text or number"
        )
    text = text_of(value)
    if not text.strip():
        raise InputError(f"{path}:{number}: the id field {id_field!r} is empty")
    return question_id(text) if is_text else text


def is_nothing(value: Any) -> bool:
    """Whether a field is absent, null, or says that there is nothing: the rule of data that is read."""
    from nsd.plugins.datasets.sources import known

    return value is ABSENT or value is None or (not isinstance(value, (dict, list)) and known(text_of(value)) is None)


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
