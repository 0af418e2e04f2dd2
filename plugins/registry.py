"""Finds a plugin by kind and name without importing the others.

Built-in plugins are listed by module, third-party ones by entry point (plugins/installed.py), and `./file.py:Name`
by path (plugins/files.py). Only the plugin asked for is imported. A built-in name means the built-in plugin, whatever
else is installed or registered under it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins import files, installed
from nsd.plugins.api import KINDS, Plugin, PluginType
from nsd.plugins.errors import InputError
from nsd.plugins.words import hint

if TYPE_CHECKING:
    from nsd.plugins.code import Code

BUILT_IN: dict[str, dict[str, str]] = {
    "dataset": {
        "wordmath": "nsd.plugins.datasets.wordmath",
        "gsm8k": "nsd.plugins.datasets.gsm8k",
        "math": "nsd.plugins.datasets.math",
        "numinamath": "nsd.plugins.datasets.numinamath",
        "sciknoweval": "nsd.plugins.datasets.sciknoweval",
        "tooluse": "nsd.plugins.datasets.tooluse",
        "livecodebench": "nsd.plugins.datasets.livecodebench",
        "code_puzzles": "nsd.plugins.datasets.code_puzzles",
        "jsonl": "nsd.plugins.datasets.jsonl",
    },
    "verifier": {
        "numeric": "nsd.plugins.verifiers.numeric",
        "math": "nsd.plugins.verifiers.math",
        "final_answer": "nsd.plugins.verifiers.final_answer",
        "steps": "nsd.plugins.verifiers.steps",
        "choice": "nsd.plugins.verifiers.choice",
        "tool_calls": "nsd.plugins.verifiers.tool_calls",
        "code": "nsd.plugins.verifiers.code",
    },
    "engine": {
        "hf": "nsd.plugins.engines.hf",
        "vllm": "nsd.plugins.engines.vllm",
        "openai": "nsd.plugins.engines.openai",
        "replay": "nsd.plugins.engines.replay",
    },
    "labeler": {
        "consensus": "nsd.plugins.labelers.consensus",
        "noisy_oracle": "nsd.plugins.labelers.noisy_oracle",
        "unfiltered": "nsd.plugins.labelers.unfiltered",
    },
    "trainer": {
        "sft": "nsd.plugins.trainers.sft",
        "grpo": "nsd.plugins.trainers.grpo",
        "rloo": "nsd.plugins.trainers.rloo",
        "ppo": "nsd.plugins.trainers.ppo",
        "ttrl": "nsd.plugins.trainers.ttrl",
        "sdpo": "nsd.plugins.trainers.sdpo",
        "pcsd": "nsd.plugins.trainers.pcsd",
    },
    "protocol": {
        "accuracy": "nsd.plugins.protocols.accuracy",
        "avg_at_k": "nsd.plugins.protocols.avg_at_k",
        "pass_at_k": "nsd.plugins.protocols.pass_at_k",
        "maj_at_k": "nsd.plugins.protocols.maj_at_k",
        "discovery": "nsd.plugins.protocols.discovery",
        "best_within": "nsd.plugins.protocols.best_within",
    },
    "reward": {
        "correct": "nsd.plugins.rewards.correct",
        "one_answer": "nsd.plugins.rewards.one_answer",
        "finished": "nsd.plugins.rewards.finished",
        "format": "nsd.plugins.rewards.format",
        "random": "nsd.plugins.rewards.random",
        "cluster_share": "nsd.plugins.rewards.cluster_share",
        "self_certainty": "nsd.plugins.rewards.self_certainty",
    },
}

_registered: dict[tuple[str, str], type[Plugin]] = {}


class UnknownPluginError(InputError):
    """Nothing has this name."""


def plugin(kind: str, name: str, version: int | None = None) -> Callable[[PluginType], PluginType]:
    """Class decorator that registers a plugin under `kind` and `name`; `version` None leaves it to the class.

    A class in a file that a spec names goes by the file alone, and a built-in name stays with the built-in class.
    """
    if kind not in KINDS:
        raise InputError(f"unknown plugin kind {kind!r}: one of {', '.join(KINDS)}")

    def register(cls: PluginType) -> PluginType:
        cls.kind, cls.name = kind, name
        if version is not None:
            cls.version = version
        module = cls.__module__
        if not files.is_file_module(module) and BUILT_IN[kind].get(name, module) == module:
            _registered[kind, name] = cls
        return cls

    return register


def names(kind: str) -> list[str]:
    """Every name a spec may use for this kind, built in, registered or from an entry point. Imports nothing."""
    registered = [name for registered_kind, name in _registered if registered_kind == kind]
    from_others = [name for other_kind, name in _installed().found if other_kind == kind]
    return sorted({*BUILT_IN[kind], *registered, *from_others})


def find(kind: str, name: str, base_dir: Path | None = None) -> type[Plugin]:
    """Import and return the plugin class.

    `name` may be `./file.py:Class`, relative to `base_dir`: that file is run. Raises UnknownPluginError with the
    nearest right name, InputError where the plugin is there and cannot be used.
    """
    if is_path(name):
        return files.load(kind, name, base_dir)
    if name in BUILT_IN[kind]:
        importlib.import_module(BUILT_IN[kind][name])
        return _registered[kind, name]
    others = _installed()
    if (kind, name) in others.found:
        return installed.load(others.found[kind, name])
    if broken := [one for one in others.left_out if one.name == f"{kind}.{name}"]:
        reasons = "; ".join(f"{one.distribution}: {one.reason}" for one in broken)
        raise InputError(f"the {kind} {name!r} cannot be used: {reasons}")
    if (kind, name) in _registered:
        return _registered[kind, name]
    known = names(kind)
    raise UnknownPluginError(f"unknown {kind} {name!r}{hint(name, known)} (there are: {', '.join(known)})")


def is_path(name: str) -> bool:
    """Whether a `use:` value names a class in a file rather than a registered plugin."""
    return files.is_path(name)


def code(kind: str, name: str, base_dir: Path | None = None) -> Code | None:
    """What of a third-party plugin's code enters digests, None for a built-in one. See plugins/code.py.

    Raises InputError as `find` does.
    """
    if is_path(name):
        return files.code(kind, name, base_dir)
    if name in BUILT_IN[kind]:
        return None
    one = _installed().found.get((kind, name))
    return None if one is None else installed.code(one)


def all_plugins() -> Iterator[tuple[str, str, type[Plugin]]]:
    """Every plugin that can be used, imported: (kind, name, class). The broken ones are in `left_out`."""
    for kind in KINDS:
        for name in names(kind):
            try:
                yield kind, name, find(kind, name)
            except InputError:
                if name in BUILT_IN[kind]:
                    raise


def left_out() -> list[installed.LeftOut]:
    """Entry points that cannot be used, each with the reason. Imports every one of them."""
    others = _installed()
    broken = list(others.left_out)
    for one in others.found.values():
        try:
            installed.load(one)
        except installed.BrokenPluginError as error:
            broken.append(installed.LeftOut(f"{one.kind}.{one.name}", one.title, error.reason))
    return broken


def _installed() -> installed.Scan:
    import sys

    return _scan(tuple(sys.path))


@functools.lru_cache(maxsize=4)
def _scan(path: tuple[str, ...]) -> installed.Scan:
    # `path` is what the finding depends on.
    return installed.scan(BUILT_IN)
