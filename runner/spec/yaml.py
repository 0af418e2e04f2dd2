"""Reads YAML into values that remember where they were written.

    item = read_yaml(Path("specs/quickstart.yaml"))
    item.value["name"].value, item.value["name"].position.line

Safe by construction: PyYAML only parses, nothing of it constructs Python objects, and the only values are
null, true/false, whole numbers, finite numbers, text, lists and mappings with text keys. Differences from
plain PyYAML, all on purpose: `2e-5` is a number; a date, `1:30` and `010` are text; duplicate keys, custom
tags, `.nan`, `.inf` and recursive aliases are errors. `yes/no/on/off` are booleans as in YAML 1.1, and the
text as written is kept so that an error can say so. A key is always the text as written.

Limits: 1 MB a file, 100,000 values after aliases are expanded, 40 levels of nesting, one document. The
parser stops at the first syntax error, so a file that is not YAML gives one error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nsd.plugins.words import did_you_mean
from nsd.runner.spec.errors import Position, Problems, Source

if TYPE_CHECKING:
    from yaml.events import Event, ScalarEvent

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000
MAX_DEPTH = 40
MAX_DIGITS = 30

Scalar = None | bool | int | float | str

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = {"", "~", "null", "Null", "NULL"}
_TRUE = {form for word in ("true", "yes", "on") for form in (word, word.capitalize(), word.upper())}
_FALSE = {form for word in ("false", "no", "off") for form in (word, word.capitalize(), word.upper())}
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_BASED_INT = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Item:
    """A value and where it stands. `key` is the place of its key, `raw` a scalar's text as written.

    `size` counts the values inside, aliases expanded.
    """

    value: Scalar | dict[str, Item] | list[Item]
    position: Position
    key: Position | None = None
    raw: str = ""
    size: int = 1

    @property
    def mapping(self) -> dict[str, Item]:
        """The entries where this is a mapping, else none."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Item]:
        """The elements where this is a list, else none."""
        return self.value if isinstance(self.value, list) else []

    @property
    def place(self) -> Position:
        """Where an error about the whole entry points: its key, else its value."""
        return self.key or self.position

    def plain(self) -> Any:
        """The bare Python value."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def with_value(self, value: Scalar | dict[str, Item] | list[Item]) -> Item:
        """The same place with another value."""
        return replace(self, value=value)


def read_yaml(path: Path, shown: str, problems: Problems, asked_at: Position | None = None) -> Item | None:
    """Read one file. Errors go to `problems` and give None.

    `shown` is how messages name the file; `asked_at` is the `extends:` that wants it.
    """
    source = Source(path=path, shown=shown, text="")

    def refuse(message: str, suggestion: str | None = None) -> None:
        if asked_at is not None:
            problems.add(asked_at, message, suggestion)
        else:
            problems.add(Position(source, 1, 1, 0), message, suggestion)

    try:
        if path.is_dir():
            refuse(f"{shown} is a folder; name a YAML file in it")
            return None
        if not path.exists():
            near = _meant(path)
            refuse(f"there is no file {shown}", near)
            return None
        if not path.is_file():
            refuse(f"{shown} is not a regular file")
            return None
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        refuse(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}")
        return None
    if len(data) > MAX_BYTES:
        refuse(f"{shown} is larger than {MAX_BYTES:,} bytes, which no spec should be")
        return None
    return parse_yaml(data, path, shown, problems)


def parse_yaml(data: bytes, path: Path, shown: str, problems: Problems) -> Item | None:
    """Parse the bytes of a spec whose top is a mapping. Errors go to `problems` and give None."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        source = Source(path=path, shown=shown, text=data.decode("utf-8", "replace"))
        place = Position(source, before.count("\n") + 1, len(before) - before.rfind("\n"), 1)
        problems.add(place, f"the file is not UTF-8 text (byte 0x{data[error.start]:02x})", "save it as UTF-8")
        return None
    source = Source(path=path, shown=shown, text=text)
    if bad := _UNPRINTABLE.search(text):
        line = source.line_of(bad.start())
        problems.add(line, f"the character U+{ord(bad.group()):04X} cannot stand in a YAML file", None)
        return None
    builder = _Builder(source, problems)
    try:
        top = builder.document()
    except yaml.YAMLError as error:
        _syntax_error(error, source, problems)
        return None
    except (_Stop, RecursionError):
        return None
    except (ValueError, OverflowError) as error:  # an impossible escape such as "\UFFFFFFFF"
        problems.add(Position(source, 1, 1, 0), f"this is not YAML: {error}")
        return None
    if builder.failed:
        return None
    if top is None or top.value is None:
        problems.add(Position(source, 1, 1, 0), "the file is empty", "`nsd new` writes a spec to start from")
        return None
    if not isinstance(top.value, dict):
        kind = "a list" if isinstance(top.value, list) else "a single value"
        problems.add(top.position, f"a spec is a mapping of keys (name:, data:, conditions:, ...), this is {kind}")
        return None
    return top


class _Stop(Exception):
    """A problem was recorded and reading cannot go on."""


@dataclass
class _Builder:
    """Turns PyYAML's parse events into Items. A bad scalar or a duplicate key does not stop it."""

    source: Source
    problems: Problems
    failed: bool = False
    anchors: dict[str, Item | None] = field(default_factory=dict)
    values: int = 0
    events: Iterator[Event] = field(init=False)

    def document(self) -> Item | None:
        self.events = iter(yaml.parse(self.source.text, Loader=_PARSER))
        top: Item | None = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.stopped(self.place(event), "a second YAML document starts here: one file holds one spec")
            elif isinstance(event, yaml.NodeEvent):
                top = self.node(event, 1)
        return top

    def node(self, event: Event, depth: int) -> Item:
        if depth > MAX_DEPTH:
            raise self.stopped(self.place(event), f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            item = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            item = self.sequence(event, depth)
        else:
            item = self.map(event, depth)
        self.count(event, 1)
        if anchor is not None:
            self.anchors[anchor] = item
        return item

    def alias(self, event: Any) -> Item:
        place = self.place(event)
        if event.anchor not in self.anchors:
            raise self.stopped(place, f"the alias *{event.anchor} has no anchor &{event.anchor} before it")
        target = self.anchors[event.anchor]
        if target is None:
            raise self.stopped(place, f"the alias *{event.anchor} stands inside its own anchor")
        self.count(event, target.size)
        return replace(target, key=None)

    def count(self, event: Event, more: int) -> None:
        self.values += more
        if self.values > MAX_VALUES:
            raise self.stopped(
                self.place(event), f"the file holds more than {MAX_VALUES:,} values once aliases are expanded"
            )

    def sequence(self, event: Any, depth: int) -> Item:
        self.check_tag(event, "seq")
        place = self.place(event)
        elements = []
        while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
            elements.append(self.node(inner, depth + 1))
        return Item(elements, place, size=1 + sum(element.size for element in elements))

    def map(self, event: Any, depth: int) -> Item:
        self.check_tag(event, "map")
        place = self.place(event)
        entries: dict[str, Item] = {}
        merged: list[Item] = []
        while not isinstance(key_event := next(self.events), yaml.MappingEndEvent):
            key_place = self.place(key_event)
            if not isinstance(key_event, yaml.ScalarEvent):
                raise self.stopped(key_place, "a key must be plain text, not a list, a mapping or an alias")
            key = key_event.value
            if key_event.anchor is not None:
                self.anchors[key_event.anchor] = self.scalar(key_event)
            if _SURROGATE.search(key):
                self.fail(key_place, "the key holds half a surrogate pair, which is not text")
            value = self.node(next(self.events), depth + 1)
            if key == "<<" and not key_event.style:
                merged += self.merge_key(value, key_place)
            elif key in entries:
                first = entries[key].place
                self.fail(key_place, f"the key {key!r} stands here a second time (first on line {first.line})")
            else:
                entries[key] = replace(value, key=key_place)
        for item in merged:
            for key, value in item.mapping.items():
                entries.setdefault(key, value)
        return Item(entries, place, size=1 + sum(entry.size for entry in entries.values()))

    def merge_key(self, value: Item, place: Position) -> list[Item]:
        sources = value.items if isinstance(value.value, list) else [value]
        if not all(isinstance(source.value, dict) for source in sources):
            self.fail(place, "`<<` merges a mapping or a list of mappings, such as `<<: *anchor`")
            return []
        return sources

    def scalar(self, event: ScalarEvent) -> Item:
        place, text = self.place(event), event.value
        tag = event.tag if event.tag not in (None, "!") else None
        if _SURROGATE.search(text):
            self.fail(place, "half a surrogate pair is not text")
            return Item("", place)
        if tag == _TAG + "str" or event.tag == "!" or (tag is None and event.style):
            return Item(text, place, raw=text)
        if tag is not None:
            known = {_TAG + name: name for name in ("int", "float", "bool", "null")}
            if tag not in known:
                self.bad_tag(place, tag)
                return Item(text, place, raw=text)
            value = self.resolve(text, place)
            if tag == _TAG + "float" and type(value) is int:
                value = float(value)
            names = {int: "int", float: "float", bool: "bool", type(None): "null", str: "str"}
            if names[type(value)] != known[tag]:
                self.fail(place, f"{text!r} is not what its tag !!{known[tag]} says")
            return Item(value, place, raw=text)
        return Item(self.resolve(text, place), place, raw=text)

    def resolve(self, text: str, place: Position) -> Scalar:
        """The value of a plain scalar."""
        if text in _NULLS:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _NOT_FINITE.fullmatch(text):
            self.fail(place, f"{text} is not a finite number")
            return 0.0
        if text[0] not in "+-.0123456789":
            return text
        digits = text.replace("_", "")
        is_int = _INT.fullmatch(text) or _BASED_INT.fullmatch(text)
        if is_int or (_FLOAT.fullmatch(text) and not _LEADING_ZERO.fullmatch(text)):
            if len(digits) > MAX_DIGITS:
                self.fail(place, f"a number of {len(digits)} characters is not a number anyone meant")
                return 0
            if is_int:
                return int(digits, 0)
            number = float(digits)
            if number in (float("inf"), float("-inf")):
                self.fail(place, f"{text} is too large for a number")
                return 0.0
            return number
        return text

    def check_tag(self, event: Any, expected: str) -> None:
        if event.tag not in (None, "!", _TAG + expected):
            self.bad_tag(self.place(event), event.tag)

    def bad_tag(self, place: Position, tag: str) -> None:
        shown = "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
        self.fail(place, f"the tag {shown} is not allowed: a spec holds plain data only", "remove the tag")

    def place(self, event: Event) -> Position:
        return _position(self.source, event.start_mark, event.end_mark)

    def fail(self, place: Position, message: str, suggestion: str | None = None) -> None:
        self.failed = True
        self.problems.add(place, message, suggestion)

    def stopped(self, place: Position, message: str) -> _Stop:
        self.fail(place, message)
        return _Stop()


def _position(source: Source, start: Any, end: Any) -> Position:
    length = end.column - start.column if end is not None and end.line == start.line else 1
    return Position(source, start.line + 1, start.column + 1, max(length, 1))


def _syntax_error(error: yaml.YAMLError, source: Source, problems: Problems) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = _position(source, mark, None) if mark is not None else Position(source, 1, 1, 0)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    message = f"this is not YAML: {problem}" + (f" {context}" if context else "")
    suggestion = None
    line = source.line(place.line)
    if "\t" in line[: max(place.column, len(line) - len(line.lstrip()))]:
        message = "this is not YAML: a tab stands where only spaces may"
        suggestion = "indent with spaces"
    elif "mapping values are not allowed" in problem:
        suggestion = "text that holds a colon and a blank needs quotes; else look at the indentation"
    elif "could not find expected ':'" in problem:
        suggestion = "is a colon or the blank after it missing, here or on the line before?"
    elif "did not find expected" in problem or "expected" in problem:
        suggestion = "look for a missing bracket, brace, comma or quote, or another indentation, here or just above"
    problems.add(place, message, suggestion)


def _meant(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml")]
    except OSError:
        return None
    return did_you_mean(path.name, names, cutoff=0.75) or None  # they all end alike
