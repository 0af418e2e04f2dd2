"""The JSON schema of a spec, for completion and checking in editors (`nsd schema > nsd.schema.json`).

    # yaml-language-server: $schema=../nsd.schema.json

Draft 2020-12, with every plugin's config in it: which fields a block may have depends on its `use`. The schema is
looser than `load_spec` on purpose: nothing is required, because any part of a spec may come from `extends`, from
the top of the spec or from a default, and what conditions say about each other is not in it. `load_spec` refuses
whatever the schema refuses. Limit: an editor that reads YAML 1.2 takes `chat: off` for text, so write `false` there.

Imports every plugin's module, so it takes longer than validating does.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from nsd.plugins import registry
from nsd.plugins.api import PluginConfig, Prompt
from nsd.runner.spec.controls import CONTROLS
from nsd.runner.spec.merge import BLOCKS, CONDITION_KEYS, NAME
from nsd.runner.spec.model import (
    ClaimConfig,
    ConditionConfig,
    HypothesesConfig,
    Match,
    ModelSpec,
    Resources,
    TopConfig,
    ValidationConfig,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ABOUT = {
    "data": "The dataset and its split into labeled, unlabeled and test questions.",
    "verifier": "What decides whether a completion is right; the dataset has a default.",
    "train_verifier": "What judges rollouts and votes on pseudo-labels; the verifier where it is left out.",
    "engine": "What generates completions; hf by default.",
    "labeler": "How unlabeled questions get pseudo-labels.",
    "trainer": "How a model is trained.",
    "eval": "How a model is measured; accuracy by default.",
}

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The whole schema, JSON-able. A third party's plugin that is broken is left out."""
    definitions: Schema = {}
    usable: dict[str, list[str]] = {kind: [] for kind in BLOCKS.values()}
    for kind, name, cls in registry.all_plugins():
        if kind in BLOCKS.values():
            usable[kind].append(name)
            definitions[f"{kind}.{name}"] = _plugin(kind, name, cls.Config, definitions)
    for key, kind in BLOCKS.items():
        definitions[f"block.{key}"] = _block(key, kind, usable[kind])
    for model in (ModelSpec, Prompt, Resources, Match, HypothesesConfig, ClaimConfig, TopConfig, ConditionConfig):
        definitions[model.__name__] = _model(model, model.__name__, definitions)
    top = definitions.pop("TopConfig")["properties"]
    condition = definitions.pop("ConditionConfig")["properties"]
    definitions["HypothesesConfig"]["properties"]["claims"]["items"] = _claim()
    definitions["ValidationConfig"] = _model(ValidationConfig, "ValidationConfig", definitions)
    definitions["ValidationConfig"]["properties"]["protocol"] = {
        **_or_null({"$ref": "#/$defs/block.eval"}),
        "description": "How a training is measured on them; the condition's eval where it is left out.",
    }
    overridable = {
        **{key: {"$ref": f"#/$defs/block.{key}", "description": ABOUT[key]} for key in BLOCKS},
        "model": _short("ModelSpec", "The weights to start from: a hub id, ./folder or builtin:wordmath-1m."),
        "prompt": _short("Prompt", "How a question becomes model input; the dataset has a default."),
    }
    overridable["evals"] = {
        "description": "Several measurements of every condition, by name, in the place of eval.",
        "type": "object",
        "propertyNames": {"pattern": f"^{NAME.pattern}$"},
        "additionalProperties": _or_null(_evaluation(definitions["block.eval"])),
    }
    fields = {**condition, **overridable}
    definitions["condition"] = {
        "type": ["object", "null"],
        "description": "What is trained on what, and overrides of any block; null takes away an inherited one.",
        "properties": {key: _or_null(fields[key]) for key in CONDITION_KEYS},
        "additionalProperties": False,
    }
    definitions["sweep"] = _sweep()
    definitions |= {f"control.{name}": _model(one, f"control.{name}", definitions) for name, one in CONTROLS.items()}
    return {
        "$schema": DIALECT,
        "title": "nsd experiment",
        "type": "object",
        "properties": {
            "extends": {"type": "string", "description": "Another spec, relative to this file, to build upon."},
            "name": {**top["name"], "pattern": f"^{NAME.pattern}$"},
            "question": top["question"],
            **{key: _or_null(value) for key, value in overridable.items()},
            "seeds": _or_null(top["seeds"]),
            "seed": {"type": "integer", "minimum": 0, "description": "Short for seeds with one element."},
            "conditions": {
                "type": "object",
                "description": "The arms of the experiment, by name.",
                "propertyNames": {"pattern": f"^{NAME.pattern}$"},
                "additionalProperties": {"$ref": "#/$defs/condition"},
            },
            "sweep": {
                "description": "Conditions made from a grid of values.",
                "anyOf": [
                    {"$ref": "#/$defs/sweep"},
                    {"type": "array", "items": {"$ref": "#/$defs/sweep"}},
                    {"type": "null"},
                ],
            },
            "hypotheses": {
                "description": "What is claimed before the run.",
                "anyOf": [
                    {"$ref": "#/$defs/HypothesesConfig"},
                    {"type": "array", "items": _claim()},
                    {"type": "null"},
                ],
            },
            "resources": {"$ref": "#/$defs/Resources", "description": "Where and with what the run happens."},
            "match": {
                "description": "Compute matching between conditions.",
                "anyOf": [
                    {"enum": definitions["Match"]["properties"]["by"]["enum"]},
                    {"$ref": "#/$defs/Match"},
                    {"type": "null"},
                ],
            },
            "validation": {
                "description": "Labeled questions that no arm trains on, and how every training is measured on them.",
                "anyOf": [{"$ref": "#/$defs/ValidationConfig"}, {"type": "null"}],
            },
            "controls": {
                "description": "Arms that claims should be held against; each is an ordinary condition, base_NAME.",
                "anyOf": [{"type": "array", "items": _control()}, {"type": "null"}],
            },
            "track": {
                "description": top["track"]["description"],
                "anyOf": [top["track"]["items"], top["track"], {"type": "null"}],
            },
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def _model(model: type[BaseModel], prefix: str, definitions: Schema) -> Schema:
    """A model's schema; what it defines goes into `definitions` under `prefix`, and nothing is required."""
    schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for name, inner in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = _without_required(inner)
    kept: Schema = _without_required(schema)
    return kept


def _plugin(kind: str, name: str, config: type[PluginConfig], definitions: Schema) -> Schema:
    schema = _model(config, f"{kind}.{name}", definitions)
    schema["properties"] = {"use": {"const": name}, **schema.get("properties", {})}
    schema["title"] = f"{kind} {name}"
    return schema


def _without_required(schema: Any) -> Any:
    """The schema with no key required and no titles: an editor shows the key itself."""
    if isinstance(schema, list):
        return [_without_required(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    # Below `properties` the keys are names of fields, and a field may well be called `title`.
    return {
        key: {name: _without_required(field) for name, field in inner.items()}
        if key == "properties"
        else _without_required(inner)
        for key, inner in schema.items()
        if key == "properties" or not (key == "required" or (key == "title" and isinstance(inner, str)))
    }


def _block(key: str, kind: str, names: list[str]) -> Schema:
    """A plugin's name, or a mapping whose fields depend on `use`; without `use`, those of any plugin of the kind."""
    by_name = [
        {
            "if": {"properties": {"use": {"const": name}}, "required": ["use"]},
            "then": {"$ref": f"#/$defs/{kind}.{name}"},
        }
        for name in names
    ]
    partial = {
        "if": {"not": {"required": ["use"]}},
        "then": {"anyOf": [{"$ref": f"#/$defs/{kind}.{name}"} for name in names]},
    }
    use = {
        "description": f"The {kind}: a name, or ./file.py:Class, which runs that file.",
        "anyOf": [{"enum": names}, {"type": "string", "pattern": r"\.py:"}],
    }
    return {
        "description": ABOUT[key],
        "anyOf": [
            use,
            {"type": "object", "properties": {"use": use}, "allOf": [*by_name, partial]},
        ],
    }


def _evaluation(block: Schema) -> Schema:
    """A protocol's block that may also have parts of its own, of which the protocol's config knows nothing."""
    use, fields = block["anyOf"]
    parts = {
        "data": {"$ref": "#/$defs/block.data"},
        "verifier": {"$ref": "#/$defs/block.verifier"},
        "prompt": _short("Prompt", "How a question becomes model input."),
    }
    # The fields of each protocol refuse others, so that only their use is checked here.
    properties = {**fields["properties"], **{name: _or_null(part) for name, part in parts.items()}}
    return {"anyOf": [use, {"type": "object", "properties": properties}]}


def _short(model: str, about: str) -> Schema:
    return {"description": about, "anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{model}"}]}


def _or_null(schema: Schema) -> Schema:
    described = {"description": schema["description"]} if "description" in schema else {}
    return {**described, "anyOf": [schema, {"type": "null"}]}


def _claim() -> Schema:
    return {
        "anyOf": [
            {"type": "string", "pattern": "[<>]", "description": "a > b"},
            {"$ref": "#/$defs/ClaimConfig"},
        ]
    }


def _control() -> Schema:
    fields = {name: _or_null({"$ref": f"#/$defs/control.{name}"}) for name in CONTROLS}
    one = {"type": "object", "properties": fields, "additionalProperties": False, "minProperties": 1}
    return {"anyOf": [{"enum": list(CONTROLS)}, {**one, "maxProperties": 1}]}


def _sweep() -> Schema:
    values = {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}]}
    return {
        "type": "object",
        "properties": {
            "conditions": {
                "description": "The conditions to sweep; all where it is left out.",
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            },
            "grid": {
                "type": "object",
                "description": "Dotted fields of a condition; values as a list, or as a mapping that names them.",
                "minProperties": 1,
                "propertyNames": {"pattern": f"^({'|'.join(CONDITION_KEYS)})(\\..+)?$"},
                "additionalProperties": values,
            },
        },
        "required": ["grid"],
        "additionalProperties": False,
    }
