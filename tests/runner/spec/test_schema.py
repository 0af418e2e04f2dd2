"""The JSON schema: valid itself, takes every right spec, and knows the plugins' fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.registry import all_plugins
from nsd.runner.spec.errors import Problems
from nsd.runner.spec.merge import BLOCKS
from nsd.runner.spec.schema import json_schema
from nsd.runner.spec.yaml import read_yaml
from support import REPOSITORY

SPECS = [
    *sorted((REPOSITORY / "specs").rglob("*.yaml")),
    Path(__file__).parent / "broken_specs" / "family" / "base.yaml",
]
RIGHT = {
    "extends": "other.yaml",
    "name": "x",
    "eval": "accuracy",
    "labeler": {"use": "./mine.py:Mine", "anything": 1},
    "model": {"lora": {"alpha": 8}},
    "engine": None,
    "train_verifier": "numeric",
    "conditions": {
        "a": {"labeler": {"threshold": 0.5}, "model": "Qwen/X"},
        "b": None,
        "c": {"train_on": ["questions"], "train_verifier": {"use": "math", "cpu_seconds": 3}},
    },
    "sweep": [{"conditions": ["a"], "grid": {"labeler.k": [1, 2], "model": {"small": "a/b"}}}],
    "hypotheses": ["a > b", {"compare": ["a", "b"], "not_worse_by": 0.1}],
    "match": "steps",
    "controls": ["maj_at_k", {"maj_at_k": {"generated_tokens": 9, "temperature": 1.0}}],
    "validation": {"questions": 50, "every": 20, "keep": "last", "protocol": "avg_at_k"},
    "track": "wandb",
}


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="checks the schema with an independent implementation")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_a_shipped_spec_fits(path: Path, validator: Any) -> None:
    item = read_yaml(path, path.name, Problems())
    assert item is not None
    assert [error.message for error in validator.iter_errors(item.plain())] == []


def test_every_short_form_fits(validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(RIGHT)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"labeler": {"use": "consensus", "treshold": 0.5}},
        {"labeler": {"use": "consensus", "threshold": 1.5}},
        {"labeler": {"use": "concensus"}},
        {"labeler": {"treshold": 0.5}},
        {"trainer": {"use": "sft", "trl": {"no_such_field": 1}}},
        {"data": {"use": "wordmath", "split": {"labeled": -1}}},
        {"conditions": {"a": {"trainon": []}}},
        {"conditions": {"a b": {}}},
        {"conditions": {"a": {"train_on": ["answers"]}}},
        {"train_verifier": {"use": "math", "cpu_second": 3}},
        {"labeller": {}},
        {"model": {"dtype": "bf16"}},
        {"seeds": []},
        {"match": {"by": "generated_token"}},
        {"match": {"by": "seconds", "amount": 0}},
        {"validation": {"questions": 0, "every": 20}},
        {"validation": {"protocol": "acuracy"}},
        {"validation": {"keep": "first"}},
        {"controls": ["maj_at_9"]},
        {"controls": [{"maj_at_k": {"tokens": 9}}]},
        {"sweep": {"grid": {"seeds": [1]}}},
    ],
    ids=str,
)
def test_what_is_wrong_in_one_place_does_not_fit(change: dict[str, Any], validator: Any) -> None:
    assert not validator.is_valid({**RIGHT, **change})


def test_every_plugins_fields_are_in_it_with_defaults_and_descriptions() -> None:
    definitions = json_schema()["$defs"]
    for kind, name, cls in all_plugins():
        if kind not in BLOCKS.values():
            continue
        properties = definitions[f"{kind}.{name}"]["properties"]
        assert set(properties) == {"use", *cls.Config.model_fields}
        for key, info in cls.Config.model_fields.items():
            if info.description:
                assert properties[key]["description"] == info.description
            if not info.is_required() and not callable(info.default_factory):
                assert "default" in properties[key], (kind, name, key)


def test_no_reference_points_nowhere() -> None:
    schema = json_schema()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    names = {reference.removeprefix("#/$defs/") for reference in references(schema)}
    assert names <= set(schema["$defs"])
