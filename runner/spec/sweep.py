"""Sweeps: a grid over fields of conditions, written out as one condition a point.

    swept = expand_sweeps(conditions, tree.mapping.get("sweep"), problems)

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
import re
from dataclasses import dataclass, field, replace

from nsd.runner.spec.check import describe, how_to_fix
from nsd.runner.spec.errors import Position, Problems, suggest
from nsd.runner.spec.merge import CONDITION_KEYS, NAME, OVERRIDABLE, merge_condition, normalise_condition
from nsd.runner.spec.yaml import Item

MAX_CONDITIONS = 1000


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
            problems.add(item.place, f"unknown key {key!r} in sweep", suggest(key, ("conditions", "grid")))
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
                problems.add(item.position, f"there is no condition {item.value!r}", suggest(item.value, conditions))
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
    if path[0] not in CONDITION_KEYS or "" in path or (len(path) > 1 and path[0] not in (*OVERRIDABLE, "evals")):
        problems.add(
            item.place,
            f"{key!r} is not a field of a condition",
            suggest(path[0], CONDITION_KEYS) if path[0] not in CONDITION_KEYS else None,
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
