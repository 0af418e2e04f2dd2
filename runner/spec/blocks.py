"""Reads the blocks of a spec: plugin blocks with their typed configs, `model` and `prompt`.

    reader = BlockReader(problems, run_files=True)
    block = reader.block(Labeler, "labeler", item)

Only the plugin that a block names is imported. Equal blocks are validated once. Errors go to `problems`; a method
then returns None.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from nsd.plugins import api, files, registry
from nsd.plugins.api import Plugin, Prompt
from nsd.plugins.errors import InputError
from nsd.plugins.places import absolute
from nsd.runner.spec.check import describe, how_to_fix, validate
from nsd.runner.spec.errors import Problems, suggest
from nsd.runner.spec.merge import BLOCKS
from nsd.runner.spec.model import Block, Made, ModelSpec, UncheckedConfig, holds
from nsd.runner.spec.nested import NestedReader
from nsd.runner.spec.yaml import Item

BUILT_IN_MODELS = ("wordmath-1m", "codepuzzles-1m")

_LOCAL = re.compile(r"\.{1,2}/|/|~")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass
class BlockReader:
    """Reads blocks, remembering what was read (`used` holds the ids of their values)."""

    problems: Problems
    run_files: bool
    blocks: dict[tuple[str, str, tuple[Path, ...]], Block[Plugin]] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    fields: dict[int, dict[str, Item]] = field(default_factory=dict)  # by id of the block that was made of them

    def block(self, base: type[Made], key: str, item: Item) -> Block[Made] | None:
        """The block's plugin, of this base class, and typed config, or None with the errors in `problems`."""
        self.used.add(id(item.value))
        if not isinstance(item.value, dict):
            return None  # reported when the short forms were written out
        block = self.plugin(BLOCKS[key], key, item)
        if block is None or holds(block, base):
            return block
        self.problems.add(item.place, f"{key}: {block.use!r} is no {base.__name__}", f"derive it from {base.__name__}")
        return None

    def plugin(self, kind: str, key: str, item: Item) -> Block[Plugin] | None:
        """A block of any kind, at any depth; `key` is how messages name it."""
        use = item.mapping.get("use")
        if use is None or use.value is None:
            suggestion = f"add use: with one of {', '.join(registry.names(kind))}"
            self.problems.add(item.place, f"{key} names no plugin", suggestion)
            return None
        if not isinstance(use.value, str):
            fix = how_to_fix("text", use)
            self.problems.add(use.position, f"{key}: use must be a plugin's name, is {describe(use)}", fix)
            return None
        cache = (kind, json.dumps(item.plain()), tuple(_folders(item)))
        if cache not in self.blocks:
            block = self.fresh_block(kind, key, item, use)
            if block is None:
                return None
            self.blocks[cache] = block
        return self.blocks[cache]

    def fresh_block(self, kind: str, key: str, item: Item, use: Item) -> Block[Plugin] | None:
        name, folder = str(use.value), _folder(use)
        fields = item.with_value({field: inner for field, inner in item.mapping.items() if field != "use"})
        try:
            place = files.located(name, folder) if registry.is_path(name) else name
        except InputError as error:
            self.problems.add(use.position, f"{kind}: {error}")
            return None
        if registry.is_path(name) and not self.run_files:
            if not Path(file := place.rpartition(":")[0]).is_file():
                self.problems.add(use.position, f"{kind} {name!r}: there is no file {file}")
                return None
            written = fields.plain()
            block = Block(kind, name, place, api.BASES[kind], UncheckedConfig(**written), written)
            self.fields[id(block)] = fields.mapping
            return block
        cls = self.find(kind, name, use, folder)
        if cls is None:
            return None
        where = f"{key} ({name})"
        try:
            before = len(self.problems)
            inside = NestedReader(self, key, name).read(cls.Config, fields)
            config = validate(cls.Config, inside.item, where, self.problems)
        except Exception as error:  # a third party's validator may raise anything
            message = f"{where}: checking it failed: {type(error).__name__}: {error}"
            self.problems.add(item.place, message, "this is a fault of the plugin")
            return None
        if config is None or len(self.problems) > before:
            return None
        block = Block(kind, name, place, cls, config, fields.plain(), inside.texts, inside.nested)
        self.fields[id(block)] = inside.item.mapping
        return block

    def fields_of(self, block: Block[Plugin]) -> dict[str, Item]:
        """The fields that a block was made of, with absolute paths."""
        return self.fields[id(block)]

    def find(self, kind: str, name: str, use: Item, folder: Path) -> type[Plugin] | None:
        try:
            return registry.find(kind, name, folder)
        except registry.UnknownPluginError:
            known = registry.names(kind)
            self.problems.add(use.position, f"there is no {kind} {name!r}", suggest(name, known))
        except InputError as error:
            self.problems.add(use.position, str(error))
        except Exception as error:
            self.problems.add(use.position, f"the {kind} {name!r} cannot be loaded: {type(error).__name__}: {error}")
        return None

    def model(self, item: Item) -> ModelSpec | None:
        """The model, its name checked as far as that goes without a network."""
        self.used.add(id(item.value))
        if not isinstance(item.value, dict):
            return None
        model = validate(ModelSpec, item, "model", self.problems)
        if model is None:
            return None
        path = item.mapping["path"]
        scheme, _, name = model.path.partition(":")
        if scheme == "builtin" and name not in BUILT_IN_MODELS:
            near = [f"builtin:{known}" for known in BUILT_IN_MODELS]
            self.problems.add(path.position, f"there is no built-in model {name!r}", suggest(model.path, near))
        elif scheme != "builtin" and not _LOCAL.match(model.path) and not _HUB_ID.fullmatch(model.path):
            self.problems.add(
                path.position,
                f"the model {model.path[:80]!r} is neither a hub id (owner/name) nor a local folder",
                "a local folder starts with ./ or /",
            )
        return model

    def weights(self, item: Item | None, model: ModelSpec) -> str:
        """The model's path; that of a local folder is absolute."""
        if item is None or "path" not in item.mapping or model.path.startswith("builtin:"):
            return model.path
        try:
            there = absolute(model.path, _folder(item.mapping["path"]))
        except InputError as error:
            self.problems.add(item.mapping["path"].position, f"model: {error}")
            return model.path
        is_local = _LOCAL.match(model.path) or model.path in (".", "..") or (there / "config.json").is_file()
        return str(there) if is_local else model.path

    def prompt(
        self, item: Item | None, default: Prompt, model: ModelSpec | None, default_known: bool = True
    ) -> Prompt | None:
        """The dataset's prompt with the fields that are written; its default may be in a file that was not run."""
        prompt = default
        if item is not None:
            self.used.add(id(item.value))
            if not isinstance(item.value, dict):
                return None
            written = validate(Prompt, item, "prompt", self.problems)
            if written is None:
                return None
            prompt = default.model_copy(update={name: getattr(written, name) for name in written.model_fields_set})
        if model is not None and model.chat is not None:
            prompt = prompt.model_copy(update={"chat": model.chat})
        if item is not None and "{question}" not in prompt.template and "template" in item.mapping:
            self.problems.add(item.mapping["template"].position, "the prompt's template has no {question} in it")
        if item is not None and prompt.system is not None and not prompt.chat and default_known:
            place = item.mapping["system"].place if "system" in item.mapping else item.place
            self.problems.add(place, "a system message needs chat: true", "add  chat: true  to the prompt")
        if item is not None and prompt.chat_template_kwargs is not None and not prompt.chat and default_known:
            place = item.mapping["chat_template_kwargs"].place if "chat_template_kwargs" in item.mapping else item.place
            told = "the prompt is no chat, so chat_template_kwargs has no effect"
            self.problems.add(place, told, "add  chat: true  to the prompt, or remove chat_template_kwargs")
        return prompt

    def check_alone(self, key: str, item: Item) -> None:
        """Check a block that no condition uses as it is; what is missing may come from the conditions."""
        alone = Problems()
        reader = BlockReader(alone, self.run_files)
        if key in BLOCKS and "use" in item.mapping:
            reader.block(api.BASES[BLOCKS[key]], key, item)
        elif key == "prompt":
            validate(Prompt, item, "prompt", alone)
        elif key == "model":
            validate(ModelSpec, item, "model", alone)
        for found, error in alone.found.items():
            if " needs the key " not in error.message:
                self.problems.found.setdefault(found, error)


def _folder(item: Item) -> Path:
    """The folder of the file in which a value is written."""
    return item.position.source.path.parent.absolute()


def _folders(item: Item) -> list[Path]:
    """The folders of the files in which a value and what is inside it are written."""
    return sorted({path.parent.absolute() for path in _files(item)})


def _files(item: Item) -> set[Path]:
    inside = [*item.mapping.values(), *item.items]
    return {item.position.source.path}.union(*map(_files, inside))


def with_use(item: Item, use: str) -> Item:
    if "use" in item.mapping:
        return item
    return item.with_value({"use": Item(use, item.position, raw=use), **item.mapping})


def use_or(item: Item | None, use: str, default_place: Item) -> Item:
    """The block with `use` filled in where it is not written; a whole default stands at `default_place`."""
    return with_use(item if item is not None else Item({}, default_place.position, key=default_place.key), use)
