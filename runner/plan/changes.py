"""Why a stage is not finished yet: which of its settings differ from the nearest finished stage's.

Nearest(workspace.manifests("train")).changed(stage.settings)   # ["trainer.config.learning_rate: 2e-05 -> 0.0001"]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nsd.plugins.registry import is_path
from nsd.runner.plan.keys import SCHEME
from nsd.runner.store.shapes import Manifest


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested key as dotted leaves."""
    if isinstance(value, dict):
        return {
            k: v
            for name, item in value.items()
            for k, v in flatten(item, f"{prefix}.{name}" if prefix else name).items()
        }
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in flatten(item, f"{prefix}[{i}]").items()} or {
            prefix: []
        }
    return {prefix: value}


class Nearest:
    """Finished stages of a kind, each read once for all the stages that are held against them."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self._theirs = [flatten(manifest.made_of) for manifest in manifests]

    def changed(self, settings: dict[str, Any]) -> list[str] | None:
        """Which fields differ from the nearest of them, None where there is none.

        Each entry reads `trainer.config.learning_rate: 2e-05 -> 0.0001`.
        """
        mine = flatten(settings)
        nearest: dict[str, Any] | None = None
        least = None
        for theirs in self._theirs:
            both = mine.keys() & theirs.keys()
            alike = sum(mine[name] == theirs[name] for name in both)
            differing = len(mine) + len(theirs) - len(both) - alike
            if least is None or differing < least:
                least, nearest = differing, theirs
        return None if nearest is None else _differing(mine, nearest)


def _differing(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    absent = object()
    names = [*mine, *(name for name in theirs if name not in mine)]
    return [
        f"{name}: {theirs.get(name, '(absent)')} -> {mine.get(name, '(absent)')}"
        for name in names
        if mine.get(name, absent) != theirs.get(name, absent)
    ]


def of_this_scheme(manifest: Manifest) -> bool:
    """Whether a stage's digest is of today's form."""
    return manifest.key.scheme == SCHEME


def made_under_another_scheme(owed: Iterable[tuple[str, Sequence[str]]], manifests: Iterable[Manifest]) -> str | None:
    """One sentence where stages are owed because digests had another form when they were made.

    `owed` are (kind, runs that need it) of unfinished stages, `manifests` finished ones. None where there is none.
    """
    runs: dict[str, set[str]] = {}
    for kind, used_by in owed:
        for name in ("eval", kind) if kind in ("sample", "score") else (kind,):
            runs.setdefault(name, set()).update(used_by)
    made = sum(
        not of_this_scheme(manifest) and not runs.get(manifest.kind, set()).isdisjoint(manifest.used_by)
        for manifest in manifests
    )
    if not made:
        return None
    return (
        f"{made} finished stage{'s' if made > 1 else ''} of these runs had digests of an earlier form, which held "
        "defaults too and let one stage draw and score: they are kept and can be reported, and today's stages are owed"
    )


def made_before_code(
    owed: Iterable[tuple[str, dict[str, Any]]], manifests: Mapping[str, Sequence[Manifest]]
) -> str | None:
    """One sentence where stages are owed because results of third-party plugins do not say from which code they came.

    `owed` are (kind, key) of unfinished stages, `manifests` the finished ones by kind. None where there is none.
    """
    names: dict[str, None] = {}
    for kind, key in owed:
        for role, block in key.items():
            if not (isinstance(block, dict) and ("code" in block or "inside" in block)):
                continue
            for manifest in manifests.get(kind, ()):
                theirs = manifest.key.to_json().get(role)
                if not isinstance(theirs, dict) or "code" in theirs or "inside" in theirs:
                    continue
                if theirs.get("use") == block["use"] or is_path(str(theirs.get("use"))):
                    names[block["use"]] = None
    if not names:
        return None
    return (
        f"finished stages that use {', '.join(names)} were made before the code of such plugins was part of a digest: "
        "nobody can tell which code made them, so they are kept and can be reported, and the stages are owed again"
    )
