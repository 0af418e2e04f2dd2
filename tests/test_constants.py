"""Every constant, default and bound of the code is on record: none changes by a slip, for each may change a result.

After a wanted change write the record anew:

    NSD_UPDATE_GOLDEN=1 python -m pytest tests/test_constants.py
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

import numpy as np
from annotated_types import BaseMetadata
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import nsd
from support import REPOSITORY

GOLDEN = Path(__file__).with_name("constants.json")
CONSTANT = re.compile("_?[A-Z]")
OF_THIS_PROCESS = {"PUSH_SECONDS", "_BELOW", "_TOKEN"}
# Scripts that other processes run.
LEFT_OUT = re.compile(r"__main__$|_code_harness$")
ROOMS = re.compile(r"nsd\.(plugins|runner\.(plan|spec|store|work|launch)|reports\.(judge|stats))\.")
NOTHING = f"a {type(PydanticUndefined).__name__}"
LONGEST = 200  # characters of a text that stands there as it is


def modules() -> Iterator[ModuleType]:
    for found in sorted(pkgutil.walk_packages(nsd.__path__, "nsd."), key=lambda one: one.name):
        if ROOMS.match(found.name) and not LEFT_OUT.search(found.name):
            yield importlib.import_module(found.name)


def plain(value: object) -> Any:
    """What JSON can hold of a value; of one without a text of its own, its type."""
    if value is None or (isinstance(value, bool | int) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, str) and not isinstance(value, Enum):
        value = value.replace(sys.executable, "python").replace(str(REPOSITORY), "here")
        return value if len(value) <= LONGEST else f"sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]}"
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, bytes | Fraction | Decimal | range):
        return repr(value)
    if value is os.environ:
        return "os.environ"
    if isinstance(value, re.Pattern):
        return {"pattern": plain(value.pattern), "flags": value.flags}
    if isinstance(value, Mapping):
        return [[plain(key), plain(one)] for key, one in value.items()]
    if isinstance(value, set | frozenset):
        return sorted((plain(one) for one in value), key=repr)
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, TypeVar):
        return repr((value.__name__, value.__bound__))
    if isinstance(value, Path):
        return value.relative_to(REPOSITORY).as_posix() if value.is_relative_to(REPOSITORY) else value.name
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    return f"a {type(value).__name__}"


def assigned(module: ModuleType) -> dict[str, Any]:
    """The constants of a module: names that it assigns itself."""
    tree = ast.parse(inspect.getsource(module))
    targets = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    names = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    return {name: plain(getattr(module, name)) for name in sorted(names - OF_THIS_PROCESS) if CONSTANT.match(name)}


def of_function(function: FunctionType) -> dict[str, Any]:
    """The defaults of a function's arguments."""
    given = inspect.signature(function).parameters.values()
    return {one.name: plain(one.default) for one in given if one.default is not inspect.Parameter.empty}


def of_field(info: Any) -> Any:
    """The default of a field, or what makes it, and what bounds it."""
    factory = info.default_factory
    made = plain(info.default if factory is None or factory is MISSING else factory())
    bounds = [repr(one) for one in getattr(info, "metadata", ()) if isinstance(one, BaseMetadata)]
    return [made, *bounds] if bounds else made


def of_class(cls: type) -> dict[str, Any]:
    """The defaults of a class's fields and methods, its constants, the members of an enumeration."""
    if issubclass(cls, Enum):
        return {one.name: plain(one.value) for one in cls}
    own = dict(vars(cls))
    found: dict[str, Any] = {}
    if issubclass(cls, BaseModel):
        every: Mapping[str, Any] = cls.model_fields
    else:
        every = {one.name: one for one in fields(cls)} if is_dataclass(cls) else {}
    for name in own.get("__annotations__", {}):
        if name in every and (kept := of_field(every[name])) not in (NOTHING, plain(MISSING)):
            found[name] = kept
    for name, value in own.items():
        inner = getattr(value, "__func__", value)
        if isinstance(inner, FunctionType) and inner.__module__ == cls.__module__ and not name.startswith("__"):
            found |= {f"{name}()": given} if (given := of_function(inner)) else {}
        elif isinstance(inner, FunctionType) and name == "__init__" and not is_dataclass(cls):
            found |= {"__init__()": given} if (given := of_function(inner)) else {}
        elif isinstance(value, type) and value.__qualname__ == f"{cls.__qualname__}.{name}":
            found |= {name: given} if (given := of_class(value)) else {}
        elif isinstance(value, bool | int | float | str | tuple | frozenset) and name not in every and name[:1] != "_":
            found[name] = plain(value)
    return found


def on_record() -> dict[str, dict[str, Any]]:
    record: dict[str, dict[str, Any]] = {}
    for module in modules():
        found = assigned(module)
        for name, one in vars(module).items():
            if getattr(one, "__module__", None) != module.__name__ or name != getattr(one, "__name__", None):
                continue
            given: dict[str, Any] = {}
            if isinstance(one, type):
                given = of_class(one)
            elif isinstance(one, FunctionType):
                given = of_function(one)
            found |= {f"{name}()" if isinstance(one, FunctionType) else name: given} if given else {}
        if found:
            record[module.__name__] = found
    return record


def written(record: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with a line for each name."""
    parts = (
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f" {json.dumps(one)}: {json.dumps(values[one])}" for one in sorted(values))
        for name, values in sorted(record.items())
    )
    return "{\n" + "\n},\n".join(parts) + "\n}\n}\n"


def test_constants_and_defaults_are_those_on_record() -> None:
    found = json.loads(json.dumps(on_record()))
    if os.environ.get("NSD_UPDATE_GOLDEN"):
        GOLDEN.write_text(written(found), encoding="ascii")
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert sorted(found) == sorted(recorded)
    for name, values in found.items():
        assert values == recorded[name], f"{name}: see the head of {Path(__file__).name}"
