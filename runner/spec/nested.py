"""The fields of a plugin's config that are more than data: paths from the spec's folder, and further plugin blocks.

    inside = NestedReader(reader, "data", "jsonl").read(Jsonl.Config, fields)
    inside.item       # the fields with absolute paths and with every inner block completed
    inside.texts      # {("train",): "train.jsonl"}: the paths as they were written
    inside.nested     # {("unlabeled_from",): Block(...)}

Their types tell these fields: `pathlib.Path`, `SpecPath`, `NestedPlugin` (plugins/api.py), at any depth of models and
lists.
"""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from nsd.plugins.api import NestedPlugin, Plugin, SpecPath
from nsd.plugins.errors import InputError
from nsd.plugins.places import absolute
from nsd.runner.spec.errors import Problems
from nsd.runner.spec.model import Block, Steps
from nsd.runner.spec.yaml import Item


class Reader(Protocol):
    """The reader of a block inside a block: the BlockReader of runner/spec/blocks.py, which reads the outer one too."""

    problems: Problems

    def plugin(self, kind: str, key: str, item: Item) -> Block[Plugin] | None: ...
    def fields_of(self, block: Block[Plugin]) -> dict[str, Item]: ...


@dataclass
class Inside:
    """A block's fields as its plugin gets them, and what they were."""

    item: Item
    texts: dict[Steps, str] = field(default_factory=dict)
    nested: dict[Steps, Block[Plugin]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)  # fields with a block that has errors of its own


@dataclass(frozen=True)
class NestedReader:
    """Reads the inside of one block; `key` and `name` are how messages name it."""

    reader: Reader
    key: str
    name: str

    def read(self, config: type[BaseModel], fields: Item) -> Inside:
        """Errors of inner blocks go to the reader's problems; a field with such a block is left out of the result."""
        inside = Inside(fields)
        read = self.model(config, fields, (), inside)
        inside.item = read.with_value({key: one for key, one in read.mapping.items() if key not in inside.failed})
        return inside

    def model(self, config: type[BaseModel], item: Item, steps: Steps, inside: Inside) -> Item:
        if not isinstance(item.value, dict):
            return item
        by_key = {info.alias or name: (name, info) for name, info in config.model_fields.items()}
        entries: dict[str, Item] = {}
        for key, inner in item.mapping.items():
            entries[key] = inner
            if key in by_key:
                name, info = by_key[key]
                entries[key] = self.value([*info.metadata, info.annotation], inner, (*steps, name), inside, item)
        return item.with_value(entries)

    def value(self, marks: list[Any], item: Item, steps: Steps, inside: Inside, beside: Item) -> Item:
        """`marks` are what a field's type may be: annotations, and the marks that stand with them."""
        if isinstance(item.value, list):
            inner = [mark for mark in marks if isinstance(mark, SpecPath | NestedPlugin)] + _elements(marks)
            return item.with_value(
                [self.value(inner, one, (*steps, number), inside, beside) for number, one in enumerate(item.items)]
            )
        flat = _alternatives(marks)
        for mark in flat:
            if isinstance(mark, NestedPlugin):
                return self.nested(mark.kind, item, steps, inside)
            if isinstance(mark, SpecPath) or mark is Path:
                return self.path(mark if isinstance(mark, SpecPath) else SpecPath(), item, steps, inside, beside)
        for mark in flat:
            if isinstance(mark, type) and issubclass(mark, BaseModel) and isinstance(item.value, dict):
                return self.model(mark, item, steps, inside)
        if isinstance(item.value, dict) and (inner := _values(flat)):
            return item.with_value(
                {name: self.value(inner, one, (*steps, name), inside, item) for name, one in item.mapping.items()}
            )
        return item

    def path(self, mark: SpecPath, item: Item, steps: Steps, inside: Inside, beside: Item) -> Item:
        other = beside.mapping.get(mark.unless or "")
        if not isinstance(item.value, str) or not item.value or (other is not None and other.value is not None):
            return item
        try:
            there = absolute(item.value, item.position.source.path.parent.absolute())
        except InputError as error:
            self.reader.problems.add(item.position, f"{self.key} ({self.name}): {error}")
            inside.failed.add(str(steps[0]))
            return item
        if mark.hub and not (item.value.startswith((".", "/", "~")) or _has_suffix(item.value) or there.exists()):
            return item
        inside.texts[steps] = item.value
        return item.with_value(str(there))

    def nested(self, kind: str, item: Item, steps: Steps, inside: Inside) -> Item:
        if isinstance(item.value, str):
            item = item.with_value({"use": item})
        if not isinstance(item.value, dict) or not isinstance(getattr(item.mapping.get("use"), "value", None), str):
            return item  # the config's own check says what is wrong
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
        block = self.reader.plugin(kind, f"{self.key}{place}", item)
        if block is None:
            inside.failed.add(str(steps[0]))
            return item
        inside.nested[steps] = block
        inside.texts.update({(*steps, *inner): text for inner, text in block.texts.items()})
        return item.with_value({"use": item.mapping["use"].with_value(block.place), **self.reader.fields_of(block)})


def _alternatives(marks: list[Any]) -> list[Any]:
    """Annotations with unions and `Annotated` taken apart."""
    found: list[Any] = []
    for mark in marks:
        origin = typing.get_origin(mark)
        if origin is typing.Annotated:
            inner, *more = typing.get_args(mark)
            found += [*more, *_alternatives([inner])]
        elif origin in (typing.Union, types.UnionType):
            found += _alternatives(list(typing.get_args(mark)))
        else:
            found.append(mark)
    return found


def _elements(marks: list[Any]) -> list[Any]:
    """What the elements of a list may be."""
    found = _alternatives(marks)
    lists = [one for one in found if typing.get_origin(one) in (list, tuple, set, frozenset) or _is_sequence(one)]
    return [argument for one in lists for argument in typing.get_args(one) if argument is not Ellipsis]


def _is_sequence(annotation: Any) -> bool:
    import collections.abc

    return typing.get_origin(annotation) in (collections.abc.Sequence, collections.abc.Iterable)


def _values(marks: list[Any]) -> list[Any]:
    """What the values of a mapping may be."""
    import collections.abc

    mappings = [one for one in marks if typing.get_origin(one) in (dict, collections.abc.Mapping)]
    return [typing.get_args(one)[1] for one in mappings if len(typing.get_args(one)) == 2]


def _has_suffix(text: str) -> bool:
    return Path(text).suffix in (".jsonl", ".json", ".csv", ".parquet")
