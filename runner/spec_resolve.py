"""From YAML files to one located tree: short forms, `extends`, deep overrides and `sweep`.

`read_family` follows `extends` and merges parent and child; `expand_sweeps` turns a grid into conditions.
Everything works on Items, so an error found later still points at the file and line that wrote the value.

How an override is merged (`merge_spec`, `merge_condition`, `merge_block`):

- mappings key by key, deeply; lists and scalars are replaced whole;
- a block whose override names another plugin (`use:`) starts afresh: the old plugin's fields are dropped;
- a model whose override names another `path` drops the `revision` and keeps `dtype`, `lora` and `chat`,
  so `model: Qwen/Qwen3-0.6B` in a condition swaps the weights only;
- `null` for a whole condition, block, `label_with`, `sweep`, `hypotheses` or `match` takes away what was
  inherited; for a field inside a block it is a value like any other.

Short forms: `eval: accuracy` is `{use: accuracy}`, `model: X` is `{path: X}`, `prompt: TEXT` is
`{template: TEXT}`, `match: steps` is `{by: steps}`, `seed: 1` is `seeds: [1]`, `track: wandb` is `[wandb]`,
`hypotheses: [a > b]` is `{claims: [a > b]}`.

A sweep makes one condition for every point of a grid:

    sweep:
      conditions: noisy_student            # one name, a list, or left out: all conditions
      grid:
        labeler.accuracy: [0.5, 0.7, 0.9]  # any field of a condition, dotted
        model: {small: Qwen/Qwen3-0.6B}    # a mapping gives the values names of your own

The swept condition is a template: its points take its place. A point is named after its values,
`noisy_student-accuracy0.5`, `noisy_student-accuracy0.5-small`: numbers with their field, text alone, a named
value by its name; only letters, digits, `.`, `_` and `-`, so that it can stand in a shell, a path and a claim.
Where swept conditions refer to each other (`label_with`), each point refers to its own counterpart. A claim
that names a swept condition stands for one claim a point. `sweep` may be a list of such mappings; a condition
is swept once.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.spec_errors import Position, Problems, did_you_mean, nearest
from runner.spec_validate import describe, how_to_fix
from runner.spec_yaml import Item, read_yaml

# The key of a block in a spec, and the plugin kind it names.
BLOCKS = {
    "data": "dataset",
    "verifier": "verifier",
    "engine": "engine",
    "labeler": "labeler",
    "trainer": "trainer",
    "eval": "protocol",
}
OVERRIDABLE = (*BLOCKS, "model", "prompt")
CONDITION_KEYS = ("train_on", "label_with", "rounds", "init", *OVERRIDABLE)
TOP_KEYS = (
    *("extends", "name", "question", "model", "data", "prompt", "verifier", "engine", "labeler", "trainer", "eval"),
    *("seeds", "seed", "conditions", "sweep", "hypotheses", "resources", "match", "track"),
)
NOT_INHERITED = ("extends", "name", "question")
SHORT_FORMS = {**dict.fromkeys(BLOCKS, "use"), "model": "path", "prompt": "template", "match": "by"}
NAME = re.compile(r"[A-Za-z0-9._-]+")
MAX_FAMILY = 20
MAX_CONDITIONS = 1000


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
        elif key:
            entries[key] = item
    return condition.with_value(entries)


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
    problems.add(item.place, f"unknown key {key!r} in {where}", did_you_mean(key, known))
    near = nearest(key, known)
    return near if near is not None and near not in owner.mapping else ""


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


def merge_condition(base: Item, over: Item) -> Item:
    """A condition (or the blocks at the top of a spec) over another."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    entries = dict(base.value)
    for key, item in over.value.items():
        if key in OVERRIDABLE and key in entries:
            entries[key] = merge_block(key, entries[key], item)
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
        elif key in ("hypotheses", "resources", "match"):
            entries[key] = merge(entries[key], item)
        else:
            entries[key] = item
    return over.with_value(entries)


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


# --------------------------------------------------------------------------- sweeps


@dataclass
class Swept:
    """Conditions after sweeping, and for each template the point names in grid order."""

    conditions: dict[str, Item]
    points: dict[str, list[str]] = field(default_factory=dict)
    sweep_of: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Axis:
    path: tuple[str, ...]
    key: Position
    values: list[tuple[str, Item]]


def expand_sweeps(conditions: dict[str, Item], sweeps: Item | None, problems: Problems) -> Swept:
    """Replace every swept condition by the points of its grid."""
    swept = Swept(dict(conditions))
    if sweeps is None or sweeps.value is None:
        return swept
    if not isinstance(sweeps.value, list):
        problems.add(sweeps.position, f"sweep must be a mapping with a grid, is {describe(sweeps)}")
        return swept
    for number, sweep in enumerate(sweeps.items):
        templates, axes = _read_sweep(sweep, conditions, swept, problems)
        if templates and axes:
            _expand(number, templates, axes, swept, sweep, problems)
    return swept


def _read_sweep(
    sweep: Item, conditions: dict[str, Item], swept: Swept, problems: Problems
) -> tuple[list[str], list[_Axis]]:
    before = len(problems)
    if not isinstance(sweep.value, dict):
        problems.add(sweep.position, f"a sweep must be a mapping with a grid, is {describe(sweep)}")
        return [], []
    for key, item in sweep.mapping.items():
        if key not in ("conditions", "grid"):
            problems.add(item.place, f"unknown key {key!r} in sweep", did_you_mean(key, ("conditions", "grid")))
    chosen = sweep.mapping.get("conditions")
    templates: list[str] = []
    if chosen is None:
        templates = [name for name in conditions if name not in swept.points]
    else:
        for item in chosen.items if isinstance(chosen.value, list) else [chosen]:
            if not isinstance(item.value, str):
                problems.add(
                    item.position,
                    f"sweep.conditions must be a condition's name or a list of names, is {describe(item)}",
                    how_to_fix("text", item),
                )
            elif item.value not in conditions:
                problems.add(
                    item.position, f"there is no condition {item.value!r}", did_you_mean(item.value, conditions)
                )
            elif item.value in swept.points or item.value in templates:
                problems.add(
                    item.position, f"the condition {item.value!r} is swept twice", "put the fields into one grid"
                )
            else:
                templates.append(item.value)
    grid = sweep.mapping.get("grid")
    if grid is None or not isinstance(grid.value, dict) or not grid.value:
        place = sweep.place if grid is None else grid.position
        problems.add(
            place, "a sweep needs a grid of fields and their values", "such as  grid: {labeler.threshold: [0.5, 0.75]}"
        )
        return [], []
    axes = [axis for key, item in grid.mapping.items() if (axis := _axis(key, item, problems))]
    return (templates, axes) if len(problems) == before else ([], [])


def _axis(key: str, item: Item, problems: Problems) -> _Axis | None:
    path = tuple(key.split("."))
    if path[0] in ("seed", "seeds"):
        problems.add(item.place, "seeds are not swept: every condition runs with each of `seeds` anyway")
        return None
    if path[0] not in CONDITION_KEYS or "" in path or (len(path) > 1 and path[0] not in OVERRIDABLE):
        problems.add(
            item.place,
            f"{key!r} is not a field of a condition",
            did_you_mean(path[0], CONDITION_KEYS) if path[0] not in CONDITION_KEYS else None,
        )
        return None
    values: list[tuple[str, Item]] = []
    if isinstance(item.value, dict):
        values = list(item.mapping.items())
    elif isinstance(item.value, list):
        for value in item.items:
            if isinstance(value.value, dict) or any(isinstance(inner.value, (dict, list)) for inner in value.items):
                problems.add(
                    value.position,
                    f"a mapping among the values of {key!r} needs a name of its own",
                    f"such as  {key}: {{small: {{...}}, large: {{...}}}}",
                )
                return None
            values.append((_value_name(path[-1], value), value))
    else:
        problems.add(
            item.position, f"the values of {key!r} must be a list, is {describe(item)}", how_to_fix("a list", item)
        )
        return None
    if not values:
        problems.add(item.position, f"{key!r} has no values to sweep")
        return None
    for name, value in values:
        if not NAME.fullmatch(name):
            problems.add(value.place, f"the name {name!r} may hold only letters, digits, dots, - and _")
            return None
    seen: dict[str, Item] = {}
    for name, value in values:
        if name in seen:
            problems.add(value.position, f"{key!r} has the value {name!r} twice")
            return None
        seen[name] = value
    return _Axis(path, item.place, values)


def _value_name(field_name: str, item: Item) -> str:
    """How a swept value appears in a condition's name."""
    if isinstance(item.value, list):
        return "_".join(_slug(str(inner.raw)) for inner in item.items) or f"{field_name}-none"
    if isinstance(item.value, str):
        return _slug(item.value.rstrip("/").rsplit("/", 1)[-1])
    if item.value is None:
        return f"{field_name}-none"
    if isinstance(item.value, bool):
        return f"{field_name}-{str(item.value).lower()}"
    return _slug(f"{field_name}{item.raw}")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:40] or "empty"


def _expand(
    number: int, templates: list[str], axes: list[_Axis], swept: Swept, sweep: Item, problems: Problems
) -> None:
    total = len(templates)
    for axis in axes:
        total *= len(axis.values)
    if total + len(swept.conditions) > MAX_CONDITIONS:
        problems.add(sweep.place, f"this sweep makes {total:,} conditions; {MAX_CONDITIONS:,} is the limit of a spec")
        return
    points = list(itertools.product(*(axis.values for axis in axes)))
    suffixes = ["".join(f"-{name}" for name, _ in point) for point in points]
    expanded: dict[str, Item] = {}
    for name, condition in swept.conditions.items():
        if name not in templates:
            expanded[name] = condition
            continue
        swept.points[name] = [name + suffix for suffix in suffixes]
        swept.sweep_of[name] = number
        for suffix, point in zip(suffixes, points, strict=True):
            made = condition
            for axis, (_, value) in zip(axes, point, strict=True):
                made = _set(made, axis, value, problems)
            made = _rewire(made, suffix, templates)
            if name + suffix in expanded or name + suffix in swept.conditions:
                problems.add(sweep.place, f"the sweep makes a second condition named {name + suffix!r}")
            expanded[name + suffix] = made
    swept.conditions = expanded


def _set(condition: Item, axis: _Axis, value: Item, problems: Problems) -> Item:
    """The condition with one field set, merged like any other override."""
    override = replace(value, key=axis.key)
    for step in reversed(axis.path):
        override = Item({step: override}, value.position, key=axis.key)
    return merge_condition(condition, normalise_condition(override, "sweep.grid", problems))


def _rewire(condition: Item, suffix: str, templates: list[str]) -> Item:
    """Point `label_with` at the same point of a condition that is swept along."""
    teacher = condition.mapping.get("label_with")
    if teacher is None or teacher.value not in templates:
        return condition
    return condition.with_value({**condition.mapping, "label_with": teacher.with_value(f"{teacher.value}{suffix}")})
