"""What plugin blocks contribute to stage digests, and what a worker needs to make the plugin again."""

from __future__ import annotations

import inspect
from typing import Any

from plugins.registry import is_path
from runner.spec import Block, digest_config


def block_key(block: Block) -> dict[str, Any]:
    """The part of a digest: name, version, the config fields that shape output, and the plugin's own extra."""
    key: dict[str, Any] = {
        "use": block.cls.name,
        "version": block.cls.version,
        "config": digest_config(block.config),
    }
    extra = block.make().digest_extra()
    return {**key, "extra": extra} if extra else key


def block_job(block: Block) -> dict[str, Any]:
    """The part of a job; a plugin in a file goes by the file's absolute path."""
    use = f"{inspect.getfile(block.cls)}:{block.cls.__name__}" if is_path(block.use) else block.use
    return {"kind": block.kind, "use": use, "config": block.config.model_dump(mode="json")}
