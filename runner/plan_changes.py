"""Why a stage is not finished yet: which fields of its key differ from the nearest finished stage's.

changed_fields(stage.key, workspace.manifests("train"))   # ["trainer.config.learning_rate: 2e-05 -> 0.0001"]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


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


def changed_fields(key: dict[str, Any], manifests: Iterable[dict[str, Any]]) -> list[str] | None:
    """Which fields differ from the nearest finished stage of the same kind, None where there is none.

    Each entry reads `trainer.config.learning_rate: 2e-05 -> 0.0001`.
    """
    mine = flatten(key)
    nearest: list[str] | None = None
    for manifest in manifests:
        theirs = flatten(manifest.get("key", {}))
        names = [*mine, *(name for name in theirs if name not in mine)]
        absent = object()
        differing = [
            f"{name}: {theirs.get(name, '(absent)')} -> {mine.get(name, '(absent)')}"
            for name in names
            if mine.get(name, absent) != theirs.get(name, absent)
        ]
        if nearest is None or len(differing) < len(nearest):
            nearest = differing
    return nearest
