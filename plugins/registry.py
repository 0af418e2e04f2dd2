"""Finds a plugin by kind and name without importing the others.

Built-in plugins are listed by module, third-party ones by entry point, and `./file.py:Name` by path.
Only the plugin asked for is imported.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from plugins.api import KINDS, Plugin, PluginType
from plugins.errors import InputError

ENTRY_POINT_GROUP = "nsd.plugins"

BUILT_IN: dict[str, dict[str, str]] = {
    "dataset": {
        "wordmath": "plugins.datasets.wordmath",
        "gsm8k": "plugins.datasets.gsm8k",
        "math": "plugins.datasets.math",
        "numinamath": "plugins.datasets.numinamath",
        "jsonl": "plugins.datasets.jsonl",
    },
    "verifier": {"numeric": "plugins.verifiers.numeric", "math": "plugins.verifiers.math"},
    "engine": {"hf": "plugins.engines.hf", "replay": "plugins.engines.replay"},
    "labeler": {
        "consensus": "plugins.labelers.consensus",
        "noisy_oracle": "plugins.labelers.noisy_oracle",
    },
    "trainer": {"sft": "plugins.trainers.sft", "grpo": "plugins.trainers.grpo"},
    "protocol": {
        "accuracy": "plugins.protocols.accuracy",
        "avg_at_k": "plugins.protocols.avg_at_k",
        "pass_at_k": "plugins.protocols.pass_at_k",
        "maj_at_k": "plugins.protocols.maj_at_k",
    },
    "reward": {
        "correct": "plugins.rewards.correct",
        "one_answer": "plugins.rewards.one_answer",
        "finished": "plugins.rewards.finished",
    },
}

_registered: dict[tuple[str, str], type[Plugin]] = {}


def plugin(kind: str, name: str, version: int = 1) -> Callable[[PluginType], PluginType]:
    """Class decorator that registers a plugin under `kind` and `name`."""
    if kind not in KINDS:
        raise InputError(f"unknown plugin kind {kind!r}: one of {', '.join(KINDS)}")

    def register(cls: PluginType) -> PluginType:
        cls.kind, cls.name, cls.version = kind, name, version
        _registered[kind, name] = cls
        return cls

    return register


def names(kind: str) -> list[str]:
    """Every name a spec may use for this kind, built in, registered or from an entry point."""
    registered = [name for registered_kind, name in _registered if registered_kind == kind]
    return sorted({*BUILT_IN[kind], *registered, *_entry_points(kind)})


def find(kind: str, name: str, base_dir: Path | None = None) -> type[Plugin]:
    """Import and return the plugin class. Raises InputError with the nearest right name.

    `name` may be `./file.py:Class`, relative to `base_dir`: that file is run.
    """
    if is_path(name):
        return _from_file(kind, name, base_dir or Path.cwd())
    if (kind, name) not in _registered:
        if name in BUILT_IN[kind]:
            importlib.import_module(BUILT_IN[kind][name])
        elif name in (points := _entry_points(kind)):
            loaded = points[name].load()
            _registered.setdefault((kind, name), loaded)
        else:
            near = difflib.get_close_matches(name, names(kind), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"unknown {kind} {name!r}{hint} (there are: {', '.join(names(kind))})")
    return _registered[kind, name]


def is_path(name: str) -> bool:
    """Whether a `use:` value names a class in a file rather than a registered plugin."""
    return ".py:" in name


def all_plugins() -> Iterator[tuple[str, str, type[Plugin]]]:
    """Every plugin that can be named, imported: (kind, name, class)."""
    for kind in KINDS:
        for name in names(kind):
            yield kind, name, find(kind, name)


def _entry_points(kind: str) -> dict[str, Any]:
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINT_GROUP)
    return {point.name.split(".", 1)[1]: point for point in found if point.name.startswith(kind + ".")}


def _from_file(kind: str, name: str, base_dir: Path) -> type[Plugin]:
    file_name, _, class_name = name.rpartition(":")
    path = (base_dir / file_name).resolve()
    if not path.is_file():
        raise InputError(f"{kind} {name!r}: there is no file {path}")
    source = path.read_bytes()
    module_name = "nsd_file_plugin_" + hashlib.sha256(str(path).encode() + source).hexdigest()[:12]
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise InputError(f"{kind} {name!r}: running {path} failed: {type(error).__name__}: {error}") from error
    cls = getattr(sys.modules[module_name], class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Plugin)):
        raise InputError(f"{kind} {name!r}: {path} has no plugin class {class_name!r}")
    if getattr(cls, "kind", None) != kind:
        raise InputError(f"{kind} {name!r}: {class_name} is a {getattr(cls, 'kind', 'plugin of no kind')}")
    if "name" not in cls.__dict__:
        cls.name = name
    # A file's content is part of what it computes, so it stands in for the version.
    cls.version = int(hashlib.sha256(source).hexdigest()[:8], 16)
    return cls
