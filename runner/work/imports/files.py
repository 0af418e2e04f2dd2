"""Rows of a file of recorded results: JSON lines, a JSON array, or CSV with any of the usual separators.

    table = read_table(Path("results.jsonl"))
    table.rows[0], table.place(12)          # (1, {"id": ...}), "results.jsonl:12"

Numbers of JSON stay the text they were (18.0 is not turned into 18), without an exponent, as `Number`, so that the id
1 can be told from the id "1". A mark of the byte order is no part of the first field's name. A line that cannot be read
ends the reading with its number.

With `keep`, lists of other fields are let go of line by line and long texts are known by a hash alone (`shortened`), so
that a file of long completions needs no more memory than what is asked of it.

Limits: a JSON array and a CSV are held in memory whole.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsd.plugins.datasets.sources import number as whole
from nsd.plugins.datasets.sources import plain
from nsd.plugins.errors import InputError

SEPARATORS = ",;\t|"
BOM = b"\xef\xbb\xbf"
MOST_DIGITS = 15  # of the number of a sample, an epoch or a count
LONGEST = 80  # characters of a text that is kept as it stands
DEEPEST = 4  # objects in each other whose fields are looked at
WIDEST = 40  # fields of one of them
LET_GO = object()  # in the place of a value that nobody asked for
SNIFFED = 50  # lines of a table that its separator is known by
MOST_CELL = 2**27  # characters of one cell: the csv module takes 131072 unless told

Rows = Sequence[tuple[int, dict[str, Any]]]


class Number(str):
    """A number of a JSON file, as it was written."""

    __slots__ = ()


class LongText(int):
    """A hash of a long text that nobody asked for: two of them are told apart, and no more."""

    def __str__(self) -> str:
        return "a long text"


def shortened(value: Any, depth: int = DEEPEST) -> Any:
    """A value that nobody asked for, with what it takes to tell it from others: long texts hashed, lists let go of."""
    if isinstance(value, str) and len(value) > LONGEST:
        return LongText(hash(value))
    if isinstance(value, dict) and 0 < len(value) <= WIDEST and depth:
        return {name: shortened(one, depth - 1) for name, one in value.items()}
    return LET_GO if isinstance(value, (dict, list)) else value


@dataclass(frozen=True)
class Table:
    """Numbered rows, and what a number counts: a `line`, an `item` of an array, a `sample` of a log."""

    path: Path
    rows: Rows
    unit: str = "line"

    def place(self, number: int) -> str:
        """Where a row stands, for an error message."""
        return f"{self.path}:{number}" if self.unit == "line" else f"{self.path}: {self.unit} {number}"

    @property
    def head(self) -> dict[str, Any]:
        """The first row, {} where there is none."""
        return self.rows[0][1] if self.rows else {}

    def with_rows(self, rows: Rows) -> Table:
        """The same file with other rows."""
        return replace(self, rows=rows)


def read_table(path: Path, keep: Collection[str] | None = None) -> Table:
    """All rows of a file, of the kind that its name and first character say. Raises InputError.

    `keep`: the fields that are asked for, where the others need not be whole.
    """
    start = first_bytes(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return Table(path, list(csv_rows(path)))
    if start.startswith(b"["):
        return Table(path, list(array_rows(path)), "item")
    return Table(path, list(json_lines(path, keep)))


def first_bytes(path: Path, size: int = 1 << 16) -> bytes:
    """How a file begins, without blanks and the mark of the byte order."""
    with path.open("rb") as file:
        return file.read(size).removeprefix(BOM).lstrip()


def first_line(path: Path) -> bytes:
    """The first line that is not blank, as far as it is no longer than any row should be."""
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(MOST_CELL), b""):
            if found := line.removeprefix(BOM).strip():
                return found
    return b""


def parse(text: str) -> Any:
    """JSON whose numbers stay text. Raises ValueError and RecursionError, as `json.loads` does."""
    return json.loads(text, parse_float=_float, parse_int=Number)


def _float(text: str) -> Number:
    if "e" not in text and "E" not in text:
        return Number(text)
    found = whole(text)
    return Number(found if isinstance(found, str) else plain(found))


def json_lines(path: Path, keep: Collection[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(BOM)
            if not raw.strip():
                continue
            try:
                found = parse(raw.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise unreadable(error, f"{path}:{number}", "a JSON object", not raw.endswith(b"\n")) from None
            if not isinstance(found, dict):
                raise InputError(f"{path}:{number}: a {_kind(found)}, where a JSON object was expected")
            if keep is not None:
                for name, value in found.items():
                    kind = type(value)
                    if (kind is dict or kind is list or (kind is str and len(value) > LONGEST)) and name not in keep:
                        found[name] = shortened(value)
            yield number, found


def array_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON array, counted from 1."""
    for number, found in enumerate(whole_json(path.read_bytes(), str(path)), 1):
        if not isinstance(found, dict):
            raise InputError(f"{path}: item {number}: a {_kind(found)}, where a JSON object was expected")
        yield number, found


def whole_json(content: bytes, place: str) -> Any:
    """What some bytes hold as one piece of JSON. Raises InputError."""
    try:
        return parse(content.removeprefix(BOM).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise unreadable(error, place, "JSON") from None


def unreadable(error: Exception, place: str, what: str, torn: bool = False) -> InputError:
    """Why some bytes are no JSON. `torn`: their line has no end, and may have been cut off."""
    if isinstance(error, UnicodeDecodeError):
        return InputError(f"{place}: not UTF-8 text ({error.reason} at byte {error.start})")
    if isinstance(error, json.JSONDecodeError):
        cut = "; the file ends within this line: it was cut off, or is still being written" if torn else ""
        return InputError(f"{place}: not {what} ({error.msg} at column {error.colno}){cut}")
    return InputError(f"{place}: nested too deeply to read")


def _kind(value: Any) -> str:
    return "number" if isinstance(value, Number) else type(value).__name__


# --------------------------------------------------------------------------- CSV


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line on which each row begins, and its cells by the names of the header. Raises InputError."""
    before = csv.field_size_limit(MOST_CELL)
    try:
        with io.StringIO(csv_text(path), newline="") as file:
            yield from _csv_rows(path, file)
    finally:
        csv.field_size_limit(before)


def csv_text(path: Path) -> str:
    """A file's text, without the mark of the byte order. Raises InputError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def separator_of(path: Path, text: str) -> str:
    """What parts the cells of a table: the one of the usual separators that cuts its first lines into most, all into
    as many. A tab in a .tsv. Raises InputError where two do so alike.
    """
    cells = {one: _widths(text, one) for one in SEPARATORS}
    if path.suffix.lower() == ".tsv" and cells["\t"][0] > 1:
        return "\t"
    even = {one: widths[0] for one, widths in cells.items() if widths[0] > 1 and len(set(widths)) == 1}
    among = even or {one: widths[0] for one, widths in cells.items()}
    best = [one for one, width in among.items() if width == max(among.values())]
    if even and len(best) > 1:
        raise InputError(
            f"{path}:1: the first lines can be cut at {' or at '.join(map(repr, best))}: put quotation marks around "
            "cells that hold what is no separator"
        )
    return best[0]


def _widths(text: str, separator: str) -> list[int]:
    """How many cells the first lines have."""
    widths = []
    with contextlib.suppress(csv.Error):  # what is read with it says where
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if any(cell.strip() for cell in cells):
                widths.append(len(cells))
            if len(widths) == SNIFFED:
                break
    return widths or [0]


def _csv_rows(path: Path, file: io.StringIO) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(file, delimiter=separator_of(path, file.getvalue()), strict=True)
    header: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            number, begins = begins, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                twice = [name for name, count in Counter(header).items() if count > 1]
                if twice:
                    raise InputError(f"{path}:{number}: the header names {', '.join(map(repr, twice))} twice")
                continue
            if len(cells) != len(header):
                raise InputError(f"{path}:{number}: {len(cells)} cells, where the header has {len(header)}")
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{begins}: not CSV ({error})") from error
