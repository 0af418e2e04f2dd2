"""Errors of a spec: each knows its file, line and column and shows the lines around it.

    spec.yaml:12:3: unknown key 'treshold' in labeler (consensus)
       11 |   use: consensus
     > 12 |   treshold: 0.75
          |   ^^^^^^^^
       13 | trainer: sft
      did you mean 'threshold'?

`Problems` gathers all errors of a spec, so that one run shows every one of them. Limits: 200 errors are kept and
the rest counted; a line is cut to 100 characters around the caret; control characters are written out, so
that a hostile file cannot drive a terminal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.untrusted import one_line
from nsd.plugins.words import did_you_mean

CONTEXT_LINES = 2
MAX_LINE = 100
MAX_ERRORS = 200
# What YAML counts as a line break: the parser's line numbers must be ours.
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


@dataclass(frozen=True)
class Source:
    """A spec file: where it lies, how messages name it, and its text."""

    path: Path
    shown: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return _LINE_BREAK.split(self.text)

    def line(self, number: int) -> str:
        """Line `number`, counted from 1; empty past the end."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def line_of(self, index: int) -> Position:
        """The position of character `index`."""
        before = self.text[:index]
        breaks = list(_LINE_BREAK.finditer(before))
        start = breaks[-1].end() if breaks else 0
        return Position(self, len(breaks) + 1, index - start + 1, 1)


@dataclass(frozen=True, slots=True)
class Position:
    """Line and column count from 1; `length` characters are underlined, none where it is 0."""

    source: Source
    line: int
    column: int
    length: int = 1


@dataclass(frozen=True)
class SpecError:
    """One thing that is wrong in a spec, and where. `frame` is the code around it ("" for a missing file)."""

    file: str
    line: int
    column: int
    message: str
    suggestion: str | None
    frame: str

    def to_json(self) -> dict[str, Any]:
        """The fields that `nsd validate --json` prints."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "suggestion": self.suggestion,
        }

    def __str__(self) -> str:
        parts = [f"{self.file}:{self.line}:{self.column}: {self.message}"]
        if self.frame:
            parts.append(self.frame)
        if self.suggestion:
            parts.append(f"  {self.suggestion}")
        return "\n".join(parts)


class SpecErrors(InputError):
    """All errors of a spec. `str()` prints every one with its code frame."""

    def __init__(self, errors: list[SpecError], left_out: int = 0) -> None:
        self.errors = errors
        rest = [f"... and {left_out:,} more errors"] if left_out else []
        super().__init__("\n\n".join([*map(str, errors), *rest]))


@dataclass
class Problems:
    """Gathers errors while a spec is read; the same error at the same place counts once."""

    found: dict[tuple[str, int, int, str], SpecError] = field(default_factory=dict)
    left_out: int = 0

    def add(self, place: Position, message: str, suggestion: str | None = None) -> None:
        key = (place.source.shown, place.line, place.column, message)
        if key not in self.found and len(self.found) >= MAX_ERRORS:
            self.left_out += 1
        elif key not in self.found:
            self.found[key] = SpecError(
                file=one_line(place.source.shown),
                line=place.line,
                column=place.column,
                message=one_line(message),
                suggestion=one_line(suggestion) if suggestion else None,
                frame=code_frame(place),
            )

    def __len__(self) -> int:
        return len(self.found)

    def raise_if_any(self) -> None:
        """Raise SpecErrors with every error so far, in the order of files and lines."""
        if self.found:
            order = {name: index for index, name in enumerate(dict.fromkeys(key[0] for key in self.found))}
            keys = sorted(self.found, key=lambda key: (order[key[0]], key[1], key[2]))
            raise SpecErrors([self.found[key] for key in keys], self.left_out)


def code_frame(place: Position) -> str:
    """The lines around a position, with a caret under it. Empty where the file has no text."""
    source = place.source
    if not source.text.strip():
        return ""
    last = min(place.line + CONTEXT_LINES, len(source.lines))
    first = max(place.line - CONTEXT_LINES, 1)
    while last > place.line and not source.line(last).strip():
        last -= 1
    width = len(str(last))
    # A long line is cut so that the caret stays in sight.
    offset = max(0, place.column - 1 - MAX_LINE // 2) if len(source.line(place.line)) > MAX_LINE else 0
    rows = []
    for number in range(first, last + 1):
        shown = _cut(source.line(number), offset if number == place.line else 0)
        mark = ">" if number == place.line else " "
        rows.append(f" {mark} {number:>{width}} | {shown}".rstrip())
        if number == place.line and place.length:
            before = _cells(_shown(source.line(number)[offset : place.column - 1])) + (1 if offset else 0)
            under = source.line(number)[place.column - 1 : place.column - 1 + place.length]
            carets = "^" * min(max(_cells(_shown(under)), 1), MAX_LINE - min(before, MAX_LINE - 1))
            rows.append(f"   {'':>{width}} | {' ' * before}{carets}")
    return "\n".join(rows)


def suggest(word: str, choices: Iterable[str]) -> str:
    """A suggestion: the nearest right name, else all of them."""
    known = list(dict.fromkeys(choices))
    return did_you_mean(word, known) or f"there are: {', '.join(known)}"


def _shown(line: str) -> str:
    """A line of the file, its tabs as blanks: they are no error and would only be in the way."""
    return one_line(line.replace("\t", " "))


def _cut(line: str, offset: int) -> str:
    shown = _shown(line[offset : offset + MAX_LINE])
    return ("…" if offset and shown else "") + shown + ("…" if len(line) > offset + MAX_LINE else "")


def _cells(text: str) -> int:
    """Terminal cells that `text` takes: wide East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
