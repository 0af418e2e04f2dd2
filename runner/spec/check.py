"""Validates located YAML values with pydantic and says what is wrong in plain words, at the right place.

    config = validate(Consensus.Config, item, "labeler (consensus)", problems)

Validation is strict in the JSON sense: text is never read as a number nor `true` as 1, a whole number may
stand for a float, a list for a tuple. Several errors at one place (the branches of a union) become one.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from nsd.plugins.words import did_you_mean, nearest
from nsd.runner.spec.errors import Position, Problems, suggest
from nsd.runner.spec.yaml import Item

ModelType = TypeVar("ModelType", bound=BaseModel)
Location = tuple[int | str, ...]

# What an error type of pydantic expected, in words.
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "dataclass_type": "a mapping (key: value)",
    "none_required": "nothing (null)",
}
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_HINT = re.compile(r"[;,.]? ?\(?(did you mean [^?]+\?)\)?( \(there are: [^)]*\))?$")


def validate(model: type[ModelType], item: Item, where: str, problems: Problems) -> ModelType | None:
    """An instance of `model` from a mapping, or None with every error in `problems`."""
    try:
        return model.model_validate_json(json.dumps(item.plain()), strict=True)
    except ValidationError as error:
        groups: dict[Location, list[Any]] = {}
        everything: list[Any] = list(error.errors(include_url=False))
        for detail in everything:
            groups.setdefault(_resolved(item, detail["loc"]), []).append(detail)
        for location, details in groups.items():
            _explain(model, item, location, details, everything, where, problems)
        return None


def describe(item: Item) -> str:
    """A value as a person would name it."""
    value = item.value
    if value is None:
        return "nothing" if item.raw == "" else f"{item.raw} (nothing)"
    if isinstance(value, bool):
        plain = item.raw.lower() in ("true", "false")
        return item.raw if plain else f"{item.raw}, which YAML reads as {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {item.raw or value}"
    if isinstance(value, str):
        short = value if len(value) <= 60 else value[:57] + "..."
        return f"the text {short!r}"
    return "a list" if isinstance(value, list) else "a mapping"


def how_to_fix(expected: str, item: Item) -> str | None:
    """What to write instead, where that is plain."""
    value, raw = item.value, item.raw
    if "text" in expected and isinstance(value, (bool, int, float)):
        return f'to mean the text, quote it: "{raw}"'
    if "number" in expected and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        if value.lstrip("+-").startswith("0") and value.lstrip("+-0").isdigit():
            return f"write {int(value)}: a leading zero means octal to some readers"
        return f"write it without quotes: {value}" if number == number and "inf" not in value.lower() else None
    if expected == "a whole number" and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if expected == "a list" and value is not None and not isinstance(value, (dict, list)):
        return f"write [{raw}]"
    if expected == "true or false" and isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
        return f"write it without quotes: {value}"
    return None


def field_names(model: type[BaseModel]) -> list[str]:
    """The keys a mapping of this model may have."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _resolved(item: Item, location: Sequence[int | str]) -> Location:
    """The part of a pydantic location that exists in the YAML (union branches and validators do not)."""
    path: list[int | str] = []
    here = item
    for step in location:
        if isinstance(step, str) and step in here.mapping:
            here = here.mapping[step]
        elif isinstance(step, int) and step < len(here.items):
            here = here.items[step]
        else:
            continue
        path.append(step)
    return tuple(path)


def _explain(
    model: type[BaseModel],
    top: Item,
    location: Location,
    details: list[Any],
    all_details: list[Any],
    where: str,
    problems: Problems,
) -> None:
    item = top
    for step in location:
        item = item.mapping[step] if isinstance(step, str) else item.items[step]
    name = _dotted(location)
    extra = [detail for detail in details if detail["type"] == "extra_forbidden"]
    unknown = [str(detail["loc"][-1]) for detail in all_details if detail["type"] == "extra_forbidden"]
    missing = [detail for detail in details if detail["type"] == "missing"]
    others = [detail for detail in details if detail["type"] not in ("extra_forbidden", "missing")]
    # A union of a scalar and a model reports the model's inside too: what the person wrote decides.
    if extra and isinstance(location[-1] if location else None, str):
        owner = _model_at(model, location[:-1])
        inside = _inside(where, location[:-1])
        suggestion = suggest(str(location[-1]), field_names(owner)) if owner else None
        problems.add(item.place, f"unknown key {str(location[-1])!r} in {inside}", suggestion)
        return
    for detail in missing:
        key = detail["loc"][-1]
        if any(nearest(word, [str(key)]) for word in unknown):
            continue
        inside = _inside(where, location)
        owner = _model_at(model, location)
        described = owner.model_fields[key].description if owner and key in owner.model_fields else None
        problems.add(item.place, f"{inside} needs the key {str(key)!r}", described)
    if others and not (missing and isinstance(item.value, dict)):
        _explain_value(item, name, others, where, problems)


def _explain_value(item: Item, name: str, details: list[Any], where: str, problems: Problems) -> None:
    subject = f"{where}: {name}" if name and where else name or where
    choices: list[str] = []
    expected: list[str] = []
    for detail in details:
        kind, context = detail["type"], detail.get("ctx", {})
        if kind in ("literal_error", "enum"):
            choices += [choice.strip("'") for choice in str(context["expected"]).replace(" or ", ", ").split(", ")]
        elif kind in _EXPECTED:
            expected.append(_EXPECTED[kind])
        elif kind in _BOUNDS:
            bound, words = _BOUNDS[kind]
            problems.add(item.position, f"{subject} must be {words} {context[bound]:g}, is {item.raw}")
            return
        elif kind in ("value_error", "assertion_error"):
            _own_words(item, subject, str(context.get("error", detail["msg"])), problems)
            return
        elif kind in ("too_short", "too_long", "string_too_short", "string_too_long"):
            least, of_text = kind.endswith("short"), kind.startswith("string")
            limit = context["min_length" if least else "max_length"]
            unit = ("character" if of_text else "element") + ("s" if limit != 1 else "")
            has = "" if of_text else f", has {context['actual_length']}"
            problems.add(item.position, f"{subject} must have {'at least' if least else 'at most'} {limit} {unit}{has}")
            return
        elif detail["msg"].startswith("Input should be "):
            expected.append(detail["msg"].removeprefix("Input should be "))
        else:
            _own_words(item, subject, detail["msg"], problems)
            return
    wanted = " or ".join(dict.fromkeys(expected))
    suggestion = None
    if choices:
        one_of = f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
        wanted = " or ".join(filter(None, [one_of, wanted]))
        if isinstance(item.value, str):
            suggestion = did_you_mean(item.value, choices) or None
        elif isinstance(item.value, bool) and item.raw.lower() in choices:
            suggestion = f'quote it: "{item.raw}"'
    suggestion = suggestion or how_to_fix(wanted, item)
    problems.add(item.position, f"{subject} must be {wanted}, is {describe(item)}", suggestion)


def _inside(where: str, location: Location) -> str:
    """How a mapping is named: `model.lora`, `data.split (gsm8k)`, or the spec itself."""
    name = _dotted(location)
    if not name or not where:
        return name or where or "the spec"
    block, space, use = where.partition(" ")
    return f"{block}.{name}{space}{use}"


def _own_words(item: Item, subject: str, text: str, problems: Problems) -> None:
    """What a plugin's own validator says; a "did you mean" at its end becomes the suggestion."""
    hint = _HINT.search(text)
    message = text[: hint.start()] if hint else text
    problems.add(_mentioned(item, text), f"{subject}: {message}", hint.group(1) if hint else None)


def _mentioned(item: Item, text: str) -> Position:
    """The place of the key that a validator's message quotes, else of the last one that it names, else of the entry.

    A key is named as `key: value`, as `key.field`, or by a name that is no word (`stop_vote`). Of keys that do not go
    together one is often inherited: what overrides it stands in another file or further down.
    """
    quoted = [entry for key, entry in item.mapping.items() if f"'{key}'" in text or f'"{key}"' in text]
    if quoted:
        return quoted[0].place
    named = [entry.place for key, entry in item.mapping.items() if re.search(rf"(?<![\w.]){_named(key)}", text)]
    beside = [place for place in named if place.source != item.place.source] or named
    return max(beside, key=lambda place: (place.line, place.column), default=item.place)


def _named(key: str) -> str:
    return rf"{re.escape(key)}\b" if "_" in key else rf"{re.escape(key)}(: |\.\w)"


def _dotted(location: Location) -> str:
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The pydantic model that the mapping at `location` is validated by, where there is one."""
    found: list[type[BaseModel]] = [model]
    for step in location:
        annotations: list[Any] = []
        for owner in found:
            if isinstance(step, str) and step in owner.model_fields:
                annotations.append(owner.model_fields[step].annotation)
        if isinstance(step, str):
            found = [inner for annotation in annotations for inner in _models_in(annotation)]
    return found[0] if found else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
