"""Digests leave out defaults, so a default must not change unnoticed: it changes what a digest means. Nor may the
bounds of a field: a wider one lets a run begin that fails later. Nor what a stored file is taken to say that lacks a
field: older ones do.

Every default is on record with its plugin's version, those of the spec's own models with the scheme of digests, and so
is the digest of every shipped spec. After a wanted change raise the version, then write the records anew:

    python tests/runner/plan/test_defaults.py
"""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from nsd.plugins.api import LoraConfig, PluginConfig, Prompt, Sampling, SplitConfig
from nsd.plugins.registry import BUILT_IN, find
from nsd.runner.plan.build import spec_digest
from nsd.runner.plan.keys import SCHEME, values_of
from nsd.runner.spec.digest import digest_config
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import ConditionConfig, Match, ModelSpec
from nsd.runner.store import shapes
from support import REPOSITORY

GOLDEN = Path(__file__).parents[1] / "golden"


def defaults(cls: type[BaseModel]) -> dict[str, Any]:
    """Every field that has a default, with what it is."""
    made = cls.model_construct()
    found = {name: getattr(made, name) for name, info in cls.model_fields.items() if not info.is_required()}
    return dict(json.loads(json.dumps(found, default=lambda one: digest_config(one, complete=True, neutral=True))))


def bounds(cls: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Every field that has bounds, with them."""
    found = {}
    for name, info in cls.model_fields.items():
        of_field = [one for one in info.metadata if isinstance(one, Ge | Gt | Le | Lt | MaxLen | MinLen)]
        if of_field:
            found[name] = {what: value for one in of_field for what, value in asdict(one).items()}
    return found


def is_stored(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, shapes.Shape) and found.__module__ == shapes.__name__


def on_record() -> dict[str, Any]:
    plugins = {
        f"{kind} {name} version {find(kind, name).version}": defaults(find(kind, name).Config)
        for kind, names in BUILT_IN.items()
        for name in names
    }
    models = (Prompt, ModelSpec, LoraConfig, SplitConfig, ConditionConfig, Match)
    spec = {f"{cls.__name__} scheme {SCHEME}": defaults(cls) for cls in models}
    bounded = {f"{kind} {name}": bounds(find(kind, name).Config) for kind, names in BUILT_IN.items() for name in names}
    bounded |= {cls.__name__: bounds(cls) for cls in models}
    stored = {cls.__name__: defaults(cls) for cls in vars(shapes).values() if is_stored(cls)}
    optional = {one.name for one in fields(Sampling) if one.default is not MISSING}
    drawn = {name: value for name, value in Sampling(1, 1.0, 1).to_json().items() if name in optional}
    specs = {
        path.relative_to(REPOSITORY).as_posix(): spec_digest(load_spec(path))
        for path in sorted((REPOSITORY / "specs").rglob("*.yaml"))
    }
    return {
        "plugins": plugins,
        "spec": {**spec, f"Sampling scheme {SCHEME}": drawn},
        "stored": stored,
        "bounds": {name: found for name, found in bounded.items() if found},
        "digests": specs,
    }


def test_defaults_and_digests_are_those_on_record() -> None:
    recorded = json.loads((GOLDEN / "defaults.json").read_text(encoding="utf-8"))
    found = on_record()
    for part in ("plugins", "spec", "digests"):
        assert found[part] == recorded[part], "a changed default raises the plugin's version, or the scheme"
    assert found["bounds"] == recorded["bounds"]
    assert found["stored"] == recorded["stored"]


class Before(PluginConfig):
    rate: float = 0.1


class After(PluginConfig):
    rate: float = 0.1
    decay: float = 0.0
    inner: Before = Before()


def test_a_new_field_with_its_default_changes_no_digest_and_with_another_value_does() -> None:
    assert digest_config(Before(rate=0.5)) == digest_config(After(rate=0.5)) == {"rate": 0.5}
    assert digest_config(After(decay=0.5)) == {"decay": 0.5}
    assert digest_config(After(inner=Before(rate=0.2))) == {"inner": {"rate": 0.2}}


def test_a_default_that_is_written_is_left_out_and_on_record_beside() -> None:
    values = values_of(After(decay=0.0, rate=0.1))
    assert values.told == {} and values.every == {"rate": 0.1, "decay": 0.0, "inner": {"rate": 0.1}}


def write() -> None:
    text = json.dumps(on_record(), indent=1, ensure_ascii=False)
    (GOLDEN / "defaults.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
