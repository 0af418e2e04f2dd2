"""From YAML files to one located tree: short forms, `extends` and deep overrides.

    tree = read_family(Path("specs/gsm8k/v1_5_filtered.yaml"), "specs/gsm8k/v1_5_filtered.yaml", problems)

`read_family` follows `extends` and merges parent and child. Everything works on Items, so
an error found later still points at the file and line that wrote the value. Sweeps are in runner/spec/sweep.py.

How an override is merged (`merge_spec`, `merge_condition`, `merge_block`):

- mappings key by key, deeply; lists and scalars are replaced whole;
- a block whose override names another plugin (`use:`) starts afresh: the old plugin's fields are dropped;
- an evaluation of `evals` likewise: another `use` drops the old protocol's fields, and keeps its data, verifier and
  prompt, which are merged as blocks;
- a model whose override names another `path` drops the `revision` and keeps the other fields (`dtype`, `lora`, ...),
  so `model: Qwen/Qwen3-0.6B` in a condition swaps the weights only;
- `null` for a whole condition, block, evaluation, `label_with`, `sweep`, `hypotheses`, `match`, `validation`, `evals`
  or `controls` takes away what was inherited; for a field inside a block it is a value like any other.

Short forms: `eval: accuracy` is `{use: accuracy}`, `model: X` is `{path: X}`, `prompt: TEXT` is
`{template: TEXT}`, `match: steps` is `{by: steps}`, `seed: 1` is `seeds: [1]`, `track: wandb` is `[wandb]`,
`hypotheses: [a > b]` is `{claims: [a > b]}`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from nsd.plugins.words import nearest
from nsd.runner.spec.check import describe, how_to_fix
from nsd.runner.spec.errors import Position, Problems, suggest
from nsd.runner.spec.yaml import Item, read_yaml

# The key of a block in a spec, and the plugin kind it names.
BLOCKS = {
    "data": "dataset",
    "verifier": "verifier",
    "train_verifier": "verifier",
    "engine": "engine",
    "labeler": "labeler",
    "trainer": "trainer",
    "eval": "protocol",
}
OVERRIDABLE = (*BLOCKS, "model", "prompt")
PARTS = ("data", "verifier", "prompt")  # of an evaluation in `evals`, beside its protocol
CONDITION_KEYS = ("train_on", "label_with", "label_on", "rounds", "init", *OVERRIDABLE, "evals")
TOP_KEYS = (
    *("extends", "name", "question", "model", "data", "prompt", "verifier", "train_verifier", "engine"),
    *("labeler", "trainer", "eval", "evals"),
    *("seeds", "seed", "conditions", "sweep", "hypotheses", "resources", "match", "track", "validation", "controls"),
)
NOT_INHERITED = ("extends", "name", "question")
SHORT_FORMS = {**dict.fromkeys(BLOCKS, "use"), "model": "path", "prompt": "template", "match": "by"}
NAME = re.compile(r"[A-Za-z0-9._-]+")
MAX_FAMILY = 20
EVALS_FORM = "such as  evals: {main: accuracy, retention: {data: ..., use: accuracy}}"


# --------------------------------------------------------------------------- extends


def read_family(path: Path, shown: str, problems: Problems) -> Item | None:
    """The spec at `path` merged over everything it extends, or None where a file cannot be read."""
    return _read_family(path, shown, problems, None, ())


def _read_family(
    path: Path, shown: str, problems: Problems, asked_at: Position | None, above: tuple[Path, ...]
) -> Item | None:
    raw = read_yaml(path, shown, problems, asked_at)
    if raw is None:
        return None
    spec = normalise(raw, problems)
    parent = raw.mapping.get("extends")
    if parent is None or parent.value is None:
        return spec
    if not isinstance(parent.value, str):
        fix = "only one spec can be extended; chain them instead" if isinstance(parent.value, list) else None
        problems.add(parent.position, f"extends must be the path of a spec, is {describe(parent)}", fix)
        return None
    try:
        parent_path = path.parent / parent.value
        family = (*above, path.resolve())
        resolved = parent_path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        problems.add(parent.position, f"extends: {parent.value!r} is not a usable path ({error})")
        return None
    if resolved in family:
        chain = " -> ".join(member.name for member in (*family, resolved))
        problems.add(parent.position, f"extends goes in a circle: {chain}")
        return None
    if len(family) >= MAX_FAMILY:
        problems.add(parent.position, f"extends goes through more than {MAX_FAMILY} files")
        return None
    parent_shown = os.path.normpath(os.path.join(os.path.dirname(shown), parent.value))  # noqa: PTH118, PTH120
    base = _read_family(parent_path, parent_shown, problems, parent.position, family)
    if base is None:
        return None
    kept = {key: value for key, value in base.mapping.items() if key not in NOT_INHERITED}
    return merge_spec(base.with_value(kept), spec)


# --------------------------------------------------------------------------- short forms


def normalise(spec: Item, problems: Problems) -> Item:
    """Short forms written out; unknown keys and wrongly typed blocks reported.

    A reported block stays as it is, so that it is not missed as well: what is no mapping has been reported.
    """
    entries: dict[str, Item] = {}
    for key, item in spec.mapping.items():
        key = _right_key(key, item, spec, "the spec", TOP_KEYS, problems)
        if key in SHORT_FORMS:
            entries[key] = _long_form(key, item, problems)
        elif key == "seed":
            if "seeds" in spec.mapping:
                problems.add(item.place, "seed and seeds both stand here", "keep one of them")
            entries["seeds"] = item.with_value([item])
        elif key == "track" and isinstance(item.value, str):
            entries[key] = item.with_value([item])
        elif key == "hypotheses" and isinstance(item.value, list):
            entries[key] = item.with_value({"claims": item})
        elif key == "sweep" and isinstance(item.value, dict):
            entries[key] = item.with_value([item])
        elif key == "conditions":
            entries[key] = _conditions(item, problems)
        elif key == "evals":
            entries[key] = _evals(item, problems)
        elif key == "validation" and isinstance((protocol := item.mapping.get("protocol", item)).value, str):
            entries[key] = item.with_value({**item.mapping, "protocol": protocol.with_value({"use": protocol})})
        elif key:
            entries[key] = item
    return spec.with_value(entries)


def _conditions(item: Item, problems: Problems) -> Item:
    if not isinstance(item.value, dict):
        problems.add(
            item.position,
            f"conditions must be a mapping from names to conditions, is {describe(item)}",
            "such as  conditions: {baseline: {train_on: [labeled]}}",
        )
        return item
    entries: dict[str, Item] = {}
    for name, condition in item.mapping.items():
        if not NAME.fullmatch(name) or name in (".", ".."):
            problems.add(condition.place, f"the condition name {name!r} may hold only letters, digits, dots, - and _")
        elif len(name) > 100:
            problems.add(condition.place, "a condition name may have at most 100 characters")
        if condition.value is None:
            entries[name] = condition
        elif not isinstance(condition.value, dict):
            entries[name] = condition
            problems.add(
                condition.position,
                f"the condition {name!r} must be a mapping, is {describe(condition)}",
                f"such as  {name}: {{train_on: [labeled]}}",
            )
        else:
            entries[name] = normalise_condition(condition, f"the condition {name!r}", problems)
    return item.with_value(entries)


def normalise_condition(condition: Item, where: str, problems: Problems) -> Item:
    """One condition with short forms written out."""
    entries: dict[str, Item] = {}
    for key, item in condition.mapping.items():
        if key in TOP_KEYS and key not in CONDITION_KEYS:
            problems.add(item.place, f"{key!r} holds for the whole spec, not for one condition", "move it to the top")
            continue
        key = _right_key(key, item, condition, where, CONDITION_KEYS, problems)
        if key in SHORT_FORMS:
            entries[key] = _long_form(key, item, problems)
        elif key == "evals":
            entries[key] = _evals(item, problems)
        elif key:
            entries[key] = item
    return condition.with_value(entries)


def _evals(item: Item, problems: Problems) -> Item:
    """Evaluations with short forms written out; what is none is reported and left out."""
    if item.value is None:
        return item
    if not isinstance(item.value, dict):
        told = f"evals must be a mapping from names to evaluations, is {describe(item)}"
        problems.add(item.position, told, EVALS_FORM)
        return item.with_value(None)
    entries: dict[str, Item] = {}
    for name, entry in item.mapping.items():
        if isinstance(entry.value, str):
            entries[name] = entry.with_value({"use": entry})
        elif entry.value is None:
            entries[name] = entry
        elif isinstance(entry.value, dict):
            inner = {key: _long_form(key, one, problems) if key in PARTS else one for key, one in entry.mapping.items()}
            entries[name] = entry.with_value(inner)
        else:
            told = f"the evaluation {name!r} must be a protocol's name or a mapping, is {describe(entry)}"
            problems.add(entry.position, told, EVALS_FORM)
    return item.with_value(entries)


def _long_form(key: str, item: Item, problems: Problems) -> Item:
    if isinstance(item.value, dict) or item.value is None:
        return item
    if isinstance(item.value, str):
        return item.with_value({SHORT_FORMS[key]: item})
    what = {"use": "a plugin's name", "path": "a model's name", "template": "a template", "by": "a unit"}
    expected = f"{what[SHORT_FORMS[key]]} or a mapping"
    problems.add(item.position, f"{key} must be {expected}, is {describe(item)}", how_to_fix("text", item))
    return item


def _right_key(key: str, item: Item, owner: Item, where: str, known: tuple[str, ...], problems: Problems) -> str:
    """The key, or where it is unknown the one that was surely meant, so that it is not missed as well; else ""."""
    if key in known:
        return key
    problems.add(item.place, f"unknown key {key!r} in {where}", suggest(key, known))
    return next((near for near in nearest(key, known) if near not in owner.mapping), "")


# --------------------------------------------------------------------------- merging


def merge(base: Item, over: Item) -> Item:
    """`over` on top of `base`, mappings deeply. Associative; a mapping keeps the place of `base`."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    entries = dict(base.value)
    for key, item in over.value.items():
        entries[key] = merge(entries[key], item) if key in entries else item
    return base.with_value(entries)


def merge_block(key: str, base: Item, over: Item) -> Item:
    """A block of a condition over the spec's own: another `use` or model `path` drops what belonged to the old."""
    if key in BLOCKS and _changes(base, over, "use"):
        return over
    if key == "model" and _changes(base, over, "path"):
        base = base.with_value({name: item for name, item in base.mapping.items() if name != "revision"})
    return merge(base, over)


def merge_evals(base: Item, over: Item) -> Item:
    """Evaluations over others, each as a block whose data, verifier and prompt are blocks too; null stays."""
    entries = dict(base.mapping)
    for name, item in over.mapping.items():
        entries[name] = _merge_evaluation(entries[name], item) if name in entries else item
    return base.with_value(entries)


def _merge_evaluation(base: Item, over: Item) -> Item:
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    changed = _changes(base, over, "use")
    entries = {key: item for key, item in base.mapping.items() if key in PARTS or not changed}
    for key, item in over.mapping.items():
        if key in PARTS and key in entries and isinstance(item.value, dict):
            entries[key] = merge_block(key, entries[key], item)
        else:
            entries[key] = merge(entries[key], item) if key in entries else item
    return base.with_value(entries)


def merge_condition(base: Item, over: Item) -> Item:
    """A condition (or the blocks at the top of a spec) over another."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    entries = dict(base.value)
    for key, item in over.value.items():
        if key in OVERRIDABLE and key in entries:
            entries[key] = merge_block(key, entries[key], item)
        elif key == "evals" and key in entries and item.value is not None:
            entries[key] = merge_evals(entries[key], item)
        else:
            entries[key] = item
    return base.with_value(entries)


def merge_spec(base: Item, over: Item) -> Item:
    """A spec over the one it extends; the result stands where `over` does."""
    entries = dict(base.mapping)
    for key, item in over.mapping.items():
        if key not in entries or item.value is None:
            entries[key] = item
        elif key in OVERRIDABLE:
            entries[key] = merge_block(key, entries[key], item)
        elif key == "conditions":
            entries[key] = _merge_conditions(entries[key], item)
        elif key == "evals":
            entries[key] = merge_evals(entries[key], item)
        elif key in ("hypotheses", "resources", "match"):
            entries[key] = merge(entries[key], item)
        elif key == "validation":
            entries[key] = _merge_validation(entries[key], item)
        else:
            entries[key] = item
    return over.with_value(entries)


def _merge_validation(base: Item, over: Item) -> Item:
    """Its protocol is a block: another `use` drops the fields of the old one."""
    merged, blocks = merge(base, over), [one.mapping.get("protocol") for one in (base, over)]
    if blocks[0] is not None and blocks[1] is not None:
        merged = merged.with_value({**merged.mapping, "protocol": merge_block("eval", blocks[0], blocks[1])})
    return merged


def _merge_conditions(base: Item, over: Item) -> Item:
    entries = dict(base.mapping)
    for name, item in over.mapping.items():
        if item.value is None and name in entries:
            del entries[name]
        else:
            entries[name] = merge_condition(entries[name], item) if name in entries else item
    return over.with_value(entries)


def _changes(base: Item, over: Item, name: str) -> bool:
    before, after = base.mapping.get(name), over.mapping.get(name)
    return before is not None and after is not None and before.value != after.value
