"""Reads `validation:`: what every training of a spec is watched by.

    validation = read_validation(item, reader, problems)

Whether the data have so many labeled questions with answers is found out when planning.
"""

from __future__ import annotations

from nsd.plugins.api import Protocol
from nsd.runner.spec.blocks import BlockReader
from nsd.runner.spec.check import describe, validate
from nsd.runner.spec.errors import Problems
from nsd.runner.spec.model import Validating, ValidationConfig, holds
from nsd.runner.spec.yaml import Item


def read_validation(item: Item | None, reader: BlockReader, problems: Problems) -> Validating | None:
    """The block, None where there is none or where it is wrong, which is reported."""
    if item is None or item.value is None:
        return None
    if not isinstance(item.value, dict):
        told = f"validation must be a mapping, is {describe(item)}"
        problems.add(item.position, told, "such as  validation: {questions: 50, every: 20}")
        return None
    fields = {name: inner for name, inner in item.mapping.items() if name != "protocol"}
    config = validate(ValidationConfig, item.with_value(fields), "validation", problems)
    written, protocol = item.mapping.get("protocol"), None
    if written is not None and written.value is not None:
        if not isinstance(written.value, dict):
            told = f"validation.protocol must be a protocol, is {describe(written)}"
            problems.add(written.position, told, "such as  protocol: accuracy")
            return None
        block = reader.plugin("protocol", "validation.protocol", written)
        if block is None:
            return None
        assert holds(block, Protocol)  # the registry gives no other for this kind
        protocol = block
    if config is None:
        return None
    place = f"{item.place.source.shown}:{item.place.line}"
    return Validating(config.questions, config.every, config.keep, protocol, place)
