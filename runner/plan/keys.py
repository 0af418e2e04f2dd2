"""What plugin blocks contribute to stage digests, and what a worker needs to make the plugin again."""

from __future__ import annotations

from typing import Any

from nsd.plugins.api import Plugin
from nsd.plugins.registry import code
from nsd.runner.spec.model import Block, digest_config, put


def block_key(block: Block[Plugin]) -> dict[str, Any]:
    """The part of a digest: name, version, the config fields that shape output, and the plugin's own extra.

    Paths stand as they were written. Of a third party's plugin its code counts too, also of one inside the block.
    """
    made = block.make()
    config = digest_config(block.config)
    for steps, text in block.texts.items():
        put(config, steps, text)
    inside: dict[str, Any] = {}
    for steps, nested in block.nested.items():
        if _third_party(nested):
            key = block_key(nested)
            put(config, steps, {"use": key["use"], **key["config"]})
            inside["".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")] = key
    key = plugin_key(made, config, block.kind, block.place)
    return {**key, "inside": inside} if inside else key


def plugin_key(made: Plugin, config: dict[str, Any], kind: str, place: str) -> dict[str, Any]:
    """The same for a plugin by itself; `place` is its name, or `/folder/file.py:Class`."""
    key: dict[str, Any] = {"use": made.name, "version": made.version, "config": config}
    if extra := made.digest_extra():
        key["extra"] = extra
    its_code = code(kind, place)
    return key if its_code is None else {**key, "code": its_code.to_json()}


def block_job(block: Block[Plugin]) -> dict[str, Any]:
    """The part of a job; a plugin in a file goes by the file's absolute path.

    `code` lists what third parties' code was planned with, so that a worker does not run another.
    """
    config = block.config.model_dump(mode="json")
    job = {"kind": block.kind, "use": block.place, "config": config}
    codes = _codes(block)
    return {**job, "code": codes} if codes else job


def _codes(block: Block[Plugin]) -> list[dict[str, Any]]:
    its_code = code(block.kind, block.place)
    mine = [] if its_code is None else [{"kind": block.kind, "use": block.place, "code": its_code.to_json()}]
    return mine + [one for nested in block.nested.values() for one in _codes(nested)]


def _third_party(block: Block[Plugin]) -> bool:
    return bool(_codes(block))
