"""What plugin blocks contribute to stage digests, and what a worker needs to make the plugin again.

A digest leaves out every value that equals its default, so that a new field changes none. What was left out is on
record beside it: while a key is put together, a config is a `Values`, which knows both forms.

    key = {"verifier": block_key(condition.verifier)}
    shortened(key)     # what the digest is made of
    completed(key)     # the same with every default written out
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from nsd.plugins.api import Plugin, Prompt
from nsd.plugins.registry import code
from nsd.runner.plan.jobs import PlannedCode, PluginJob
from nsd.runner.spec.digest import digest_config
from nsd.runner.spec.model import Block, put

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# The form of a key. It goes up where the same values come to stand there in another way; every digest changes then.
SCHEME = 2
# How a chat is rendered, ended and trained on (plugins/chat.py): it goes up where one comes to give other token ids or
# another end. Since 2 the target is not rendered by the template, and the end of the template's turn ends a completion.
CHAT_FORM = 2


@dataclass(frozen=True)
class Values:
    """Fields by name: `told` are those that differ from their default, `every` all of them."""

    told: dict[str, Any]
    every: dict[str, Any]

    def without(self, names: Collection[str]) -> Values:
        """These fields left out."""
        told, every = ({k: v for k, v in form.items() if k not in names} for form in (self.told, self.every))
        return Values(told, every)


def values_of(model: BaseModel, without: Collection[str] = ()) -> Values:
    """A config's fields, output-neutral ones and those named left out."""
    return Values(digest_config(model), digest_config(model, complete=True)).without(without)


def prompt_key(prompt: Prompt, without: Collection[str] = ()) -> dict[str, Any]:
    """The part of a key that says how questions become model input."""
    form = {"chat_form": CHAT_FORM} if prompt.chat else {}
    return {"prompt": values_of(prompt, without), **form}


def values_of_record(record: DataclassInstance) -> Values:
    """A dataclass's fields."""
    every = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(record).items()}
    defaults = {one.name: one.default for one in fields(record) if one.default is not MISSING}
    usual = [name for name, default in defaults.items() if getattr(record, name) == default]
    told = {name: value for name, value in every.items() if name not in usual}
    return Values(told, every)


def shortened(key: Any) -> Any:
    """A key as its digest has it: without what equals a default."""
    return _as(key, "told")


def completed(key: Any) -> Any:
    """A key with every default written out."""
    return _as(key, "every")


def _as(key: Any, form: str) -> Any:
    if isinstance(key, Values):
        return getattr(key, form)
    if isinstance(key, dict):
        return {name: _as(value, form) for name, value in key.items()}
    return [_as(value, form) for value in key] if isinstance(key, list) else key


def block_key(block: Block[Plugin]) -> dict[str, Any]:
    """The part of a key: name, version, the config fields that shape output, and the plugin's own extra.

    Paths stand as they were written. Of a third party's plugin its code counts too, also of one inside the block.
    """
    made = block.make()
    config = values_of(block.config)
    for steps, text in block.texts.items():
        put(config.told, steps, text)
        put(config.every, steps, text)
    inside: dict[str, Any] = {}
    for steps, nested in block.nested.items():
        key = block_key(nested)
        put(config.told, steps, {"use": key["use"], **key["config"].told})
        if _third_party(nested):
            put(config.every, steps, {"use": key["use"], **key["config"].every})
            inside["".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")] = key
    key = plugin_key(made, config, block.kind, block.place)
    return {**key, "inside": inside} if inside else key


def plugin_key(made: Plugin, config: Values | dict[str, Any], kind: str, place: str) -> dict[str, Any]:
    """The same for a plugin by itself; `place` is its name, or `/folder/file.py:Class`."""
    key: dict[str, Any] = {"use": made.name, "version": made.version, "config": config}
    if extra := made.digest_extra():
        key["extra"] = extra
    its_code = code(kind, place)
    return key if its_code is None else {**key, "code": its_code.to_json()}


def block_job(block: Block[Plugin]) -> PluginJob:
    """The part of a job; a plugin in a file goes by the file's absolute path."""
    return PluginJob(block.kind, block.place, block.config.model_dump(mode="json"), tuple(_codes(block)))


def _codes(block: Block[Plugin]) -> Iterator[PlannedCode]:
    if (its_code := code(block.kind, block.place)) is not None:
        yield PlannedCode(block.kind, block.place, its_code)
    for nested in block.nested.values():
        yield from _codes(nested)


def _third_party(block: Block[Plugin]) -> bool:
    return any(_codes(block))
