"""A config as data for digests: without what changes no output, and without what equals its default."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from nsd.plugins.api import KnownAs, OutputNeutral


def digest_config(config: BaseModel, complete: bool = False, neutral: bool = False) -> dict[str, Any]:
    """A config as JSON-able data, at any depth: what digests hash.

    Without its output-neutral fields (unless `neutral`), and without every field whose value is its default (unless
    `complete`), so that a new field changes no digest that there is.
    """
    fields = {
        name: info
        for name, info in type(config).model_fields.items()
        if neutral or not any(isinstance(mark, OutputNeutral) or mark is OutputNeutral for mark in info.metadata)
    }
    defaults = {} if complete else _defaults(config)
    found: dict[str, Any] = {}
    for name, info in fields.items():
        value = getattr(config, name)
        for mark in info.metadata:
            if isinstance(mark, KnownAs) and not neutral:
                value = mark.by(value)
        every = _digest_value(value, None, neutral)
        if name in defaults and _same(every, _digest_value(defaults[name], None, neutral)):
            continue
        found[name] = every if complete else _digest_value(value, _only_model(info.annotation), neutral)
    extra = sorted((config.model_extra or {}).items())
    return found | {name: _digest_value(value, None, neutral) for name, value in extra}


def _defaults(config: BaseModel) -> dict[str, Any]:
    """The fields of a config that have a default, with what they are where nobody gives them."""
    cls = type(config)
    given = {name: getattr(config, name) for name, info in cls.model_fields.items() if info.is_required()}
    try:  # a default may be completed as it is validated
        made = cls.model_validate(given)
    except ValueError:
        made = cls.model_construct(**given)
    return {name: getattr(made, name) for name in cls.model_fields if name not in given}


def _only_model(annotation: Any) -> type[BaseModel] | None:
    """The one model class that an annotation allows; None where there is none, or where it could be several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = {one for part in get_args(annotation) if (one := _only_model(part)) is not None}
    return found.pop() if len(found) == 1 else None


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON-able values, in which `true` is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _digest_value(value: Any, shortened: type[BaseModel] | None, neutral: bool) -> Any:
    """A value as JSON-able data. Models in it lose their defaults where they are `shortened`: a field that may hold
    one class or another must tell them apart.
    """
    if isinstance(value, BaseModel):
        return digest_config(value, complete=type(value) is not shortened, neutral=neutral)
    if isinstance(value, enum.Enum):
        return _digest_value(value.value, shortened, neutral)
    if isinstance(value, Mapping):
        return {str(key): _digest_value(inner, shortened, neutral) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        found = [_digest_value(inner, shortened, neutral) for inner in value]
        return sorted(found, key=lambda inner: json.dumps(inner, sort_keys=True))
    if isinstance(value, (list, tuple)):
        return [_digest_value(inner, shortened, neutral) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
