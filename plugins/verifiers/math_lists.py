"""Answers of several parts, for plugins/verifiers/math.py: read as what they are, and compared part by part.

    read("(1, 2)")                   # Several(Kind.TUPLE, ("1", "2"), "()"): in order
    read("x = 2 \\\\text{ or } x = 1")  # Several(Kind.LIST, ("2", "1")): in any order
    read("\\\\pm 2")                   # Several(Kind.SET, ("2", "-2"))

Two tuples (a point, a vector, an interval) are equal in order and between the same brackets. A set and a bare list say
what solves an equation, in any order; a list says also how often. A bare list beside a tuple is a tuple without its
brackets, as models write it, and so equal in its order alone; beside a half-open interval, or a pair in square
brackets, it is another thing, for brackets say which ends belong to it. A set is never a tuple. A list of names (words,
capital letters) may be an ordering, and is compared in order. Of `x = 1, y = 2` each value belongs to its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_PARTS = 24  # of more parts the texts alone are compared: each pair of them may cost the library's time

_TOKEN = re.compile(r"\\[{}]|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = {"(", "[", "{", "\\{", "\\lbrace", "\\langle", "\\lbrack"}
_CLOSING = {")", "]", "}", "\\}", "\\rbrace", "\\rangle", "\\rbrack"}
_SIZES = re.compile(r"\\[bB]igg?[lrm]?(?![A-Za-z])|\\(?:middle|displaystyle)(?![A-Za-z])")
_SPACES = re.compile(r"(?:\\(?:quad|qquad)(?![A-Za-z])|\\ |~)")
_JOINTS = re.compile(
    r"\\(?:text|textrm|mathrm|mbox)\s*\{\s*,?\s*(?:and|or|,)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;"
)
_WHOLE_TEXT = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_NAME = r"[A-Za-z](?:_\{?[A-Za-z0-9]+\}?)?|[A-Z]{2}|\\[a-z]+"
_NAMED = re.compile(rf"\s*({_NAME})\s*=\s*(?!=)(.+)", re.DOTALL)
_NAMED_TUPLE = re.compile(
    rf"\s*\(\s*((?:{_NAME})(?:\s*,\s*(?:{_NAME}))+)\s*\)\s*(?:=|\\in(?![A-Za-z]))\s*(.+)", re.DOTALL
)
_MEMBER = re.compile(rf"\s*(?:{_NAME})\s*\\in(?![A-Za-z])\s*(.+)", re.DOTALL)
_WORD = re.compile(r"[A-Z]+|[A-Za-z]{3,}(?:\s+[A-Za-z]+)*|\\(?:text|textrm|mathrm|mbox)\s*\{[^{}0-9]*\}")
_RELATION = re.compile(r"[<>]|\\(?:[lg]eq?|[lg]t)(?![A-Za-z])")
_BUILDER = re.compile(r"\\mid(?![A-Za-z])|[|:]")
_COORDINATES = ("x", "y", "z")


class Kind(StrEnum):
    """What several parts are together."""

    TUPLE = "tuple"
    SET = "set"
    LIST = "list"
    NAMED = "named"


@dataclass(frozen=True)
class Several:
    """An answer of several parts. `brackets` are a tuple's; `names` belong to the parts of a named one."""

    kind: Kind
    parts: tuple[str, ...]
    brackets: str = ""
    names: tuple[str, ...] = ()


def read(answer: str) -> Several | None:
    """The parts of an answer; None where it is one thing, or is written in a way that is not read here."""
    text = _SPACES.sub(" ", _SIZES.sub("", answer)).strip()
    if (inside := _WHOLE_TEXT.fullmatch(text)) is not None:
        text = inside[1].strip()
    if (named := _NAMED_TUPLE.fullmatch(text)) is not None:
        values = _read(named[2])
        names = tuple(name.strip() for name in named[1].split(","))
        if values is not None and values.kind is Kind.TUPLE and len(values.parts) == len(names):
            return Several(Kind.NAMED, values.parts, names=names)
        return values
    return _read(text)


def _read(text: str) -> Several | None:
    parts = _split(_JOINTS.sub(",", text), bare=True)
    if len(parts) > 1:
        return None if any(_RELATION.search(part) for part in parts) else _listed(parts)
    while (beginning := _MEMBER.fullmatch(text) or _NAMED.fullmatch(text)) is not None:
        text = beginning[beginning.re.groups].strip()
        if len(parts := _split(text, bare=True)) > 1:
            return _listed(parts)
    bracketed = _bracketed(text)
    if bracketed is not None and bracketed.kind is Kind.SET:
        spread = [_signs(part) for part in bracketed.parts]
        return Several(Kind.SET, tuple(part for one in spread for part in one)) if all(spread) else None
    signs = _signs(text)
    return Several(Kind.SET, signs) if len(signs) == 2 else bracketed


def equal(a: Several, b: Several, same: Callable[[str, str], bool]) -> bool:
    """Whether two answers of several parts are one; `same` compares two parts."""
    for one, other in ((a, b), (b, a)):
        if one.kind is Kind.SET and len(one.parts) == 1 and other.kind is not Kind.SET:
            return (inner := read(one.parts[0])) is not None and equal(inner, other, same)
    if max(len(a.parts), len(b.parts)) > MOST_PARTS:
        same = _same_text
    if a.kind is b.kind is Kind.SET:
        return _within(a.parts, b.parts, same) and _within(b.parts, a.parts, same)
    if len(a.parts) != len(b.parts):
        return False
    if a.kind is b.kind is Kind.NAMED and set(a.names) == set(b.names):
        values = dict(zip(b.names, b.parts, strict=True))
        return all(same(part, values[name]) for name, part in zip(a.names, a.parts, strict=True))
    if {a.kind, b.kind} <= {Kind.LIST, Kind.SET} and not (_names(a) and _names(b)):
        return _paired(a.parts, b.parts, same)
    if Kind.SET in (a.kind, b.kind):
        return False
    if not _may_be_one(a, b):
        return False
    return all(same(one, other) for one, other in zip(_in_order(a, b), _in_order(b, a), strict=True))


def differs(several: Several, other: str) -> bool:
    """Whether an answer of several parts is surely none of one part: a list is no interval that a relation states."""
    return several.kind is not Kind.TUPLE and len(several.parts) > 1 and _RELATION.search(other) is not None


def _listed(parts: list[str]) -> Several | None:
    """A bare list: of values, or of values with a name each."""
    signs = [_signs(part) for part in parts]
    if any(not one for one in signs):
        return None
    spread = tuple(part for one in signs for part in one)
    if len(spread) > len(parts):
        return Several(Kind.SET, tuple(_unnamed(part) for part in spread))
    named = [_NAMED.fullmatch(part) for part in parts]
    names = tuple(found[1] for found in named if found is not None)
    # x_1 and x_2 are two solutions, x and y two unknowns.
    if len(names) == len(parts) and len({name.partition("_")[0] for name in names}) > 1:
        return Several(Kind.NAMED, tuple(map(_unnamed, parts)), names=names)
    return Several(Kind.LIST, tuple(map(_unnamed, parts)))


def _unnamed(part: str) -> str:
    found = _NAMED.fullmatch(part)
    return part if found is None else found[2].strip()


def _bracketed(text: str) -> Several | None:
    """What stands between brackets from the first character to the last; None for one part in round or square ones."""
    tokens = [found[0] for found in _TOKEN.finditer(text)]
    if len(tokens) < 3 or tokens[0] not in _OPENING or tokens[-1] not in _CLOSING:
        return None
    depth = 0
    for place, token in enumerate(tokens):
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth == 0 and place < len(tokens) - 1:
            return None  # (1,2) \cup (3,4)
    inside = "".join(tokens[1:-1])
    parts = _split(inside, bare=False)
    first = tokens[0]
    if first in ("\\{", "\\lbrace"):
        return None if _BUILDER.search(inside) or not parts else Several(Kind.SET, tuple(parts))
    if len(parts) < 2:
        return None
    if first == "{":
        return Several(Kind.SET, tuple(parts))
    # ⟨1, 2⟩ and (1, 2) are one vector; three numbers in square brackets are no interval.
    opens = "(" if first == "\\langle" or (first in ("[", "\\lbrack") and len(parts) > 2) else first[-1:]
    closes = ")" if tokens[-1] == "\\rangle" or (tokens[-1] in ("]", "\\rbrack") and len(parts) > 2) else tokens[-1]
    return Several(Kind.TUPLE, tuple(parts), brackets=f"{opens}{closes}")


def _split(text: str, bare: bool) -> list[str]:
    """The parts between commas that stand in no brackets, without the commas of thousands.

    Between brackets `1,234` is two parts, unless blanks after other commas tell the two uses apart.
    """
    thousands = [found.span() for found in _THOUSANDS.finditer(text)] if bare or ", " in text else []
    parts, depth, begin = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPENING) - (token[0] in _CLOSING)
        if token[0] == "," and depth == 0 and not any(start < token.start() < end for start, end in thousands):
            parts.append(text[begin : token.start()])
            begin = token.end()
    parts.append(text[begin:])
    return [part.strip() for part in parts if part.strip()]


def _signs(text: str) -> tuple[str, ...]:
    """What a text with one `\\pm` stands for, both; a text without one alone; () where two of them may go together."""
    if "\\mp" in text or text.count("\\pm") > 1:
        return ()
    if "\\pm" not in text:
        return (text,)
    before, _, after = text.partition("\\pm")
    plus = f"{before}+{after}" if before.strip() else after
    return plus.strip(), f"{before}-{after}".strip()


def _names(several: Several) -> bool:
    return several.kind is Kind.LIST and all(_WORD.fullmatch(part) for part in several.parts)


def _may_be_one(a: Several, b: Several) -> bool:
    if a.kind is b.kind is Kind.TUPLE:
        return a.brackets == b.brackets
    return all(one.kind is not Kind.TUPLE or one.brackets == "()" for one in (a, b))


def _in_order(several: Several, beside: Several) -> Sequence[str]:
    """Parts in the order in which they stand; named coordinates beside a tuple in that of the axes."""
    if several.kind is Kind.NAMED and beside.kind is Kind.TUPLE and set(several.names) <= set(_COORDINATES):
        return [part for _, part in sorted(zip(several.names, several.parts, strict=True))]
    return several.parts


def _within(parts: Sequence[str], others: Sequence[str], same: Callable[[str, str], bool]) -> bool:
    return all(any(same(part, other) for other in others) for part in parts)


def _paired(parts: Sequence[str], others: Sequence[str], same: Callable[[str, str], bool]) -> bool:
    """Whether each part has one of the others to itself: a perfect matching, by augmenting paths (Kuhn 1955)."""
    partners: list[list[int]] = []
    for part in parts:
        partners.append([place for place, other in enumerate(others) if same(part, other)])
        if not partners[-1]:
            return False
    taken: dict[int, int] = {}

    def seat(part: int, tried: set[int]) -> bool:
        for place in partners[part]:
            if place not in tried:
                tried.add(place)
                if place not in taken or seat(taken[place], tried):
                    taken[place] = part
                    return True
        return False

    return all(seat(part, set()) for part in range(len(parts)))


def _same_text(a: str, b: str) -> bool:
    return a == b
