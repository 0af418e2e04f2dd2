"""One module of a third party's code: its statements, the names that they bind, and their normal form.

For `plugins/code.py`, which says what of it enters a digest.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsd.plugins.places import Source

_UNSEEN_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Name:
    """What a module calls something; `within` where an attribute of it is meant."""

    module: str
    file: Path | None
    name: str
    within: bool = False


@dataclass
class Module:
    """A module's statements, one import per name, and which of them are taken."""

    source: Source
    statements: list[ast.stmt] = field(default_factory=list)
    bindings: dict[str, list[int]] = field(default_factory=dict)
    unreadable: bytes = b""
    taken: set[int] = field(default_factory=set)
    imports_by_name: bool = False
    entered: dict[int, frozenset[Name]] = field(default_factory=dict)  # what a statement may enter itself into

    @property
    def package(self) -> str:
        """The dotted name of the package that it is in, or is."""
        return self.source.name if self.source.is_package else self.source.name.rpartition(".")[0]

    def text(self) -> str:
        """The taken statements, normalised, in order."""
        return self.unreadable.hex() + "\n".join(_normal(self.statements[index]) for index in sorted(self.taken))


def read(source: Source) -> Module:
    module = Module(source)
    if source.file is None:
        return module
    content = source.file.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        module.unreadable = content  # it cannot be imported either; any edit may change that
        return module
    for statement in tree.body:
        for one in _split(statement):
            for name in _bound(one):
                module.bindings.setdefault(name, []).append(len(module.statements))
            module.statements.append(one)
    return module


def _split(statement: ast.stmt) -> list[ast.stmt]:
    if isinstance(statement, ast.Import):
        return [ast.Import(names=[alias]) for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names]
    return [statement]


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement at the top of a module gives a value."""
    if isinstance(statement, Definition):
        return {statement.name}
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(node.id)
        elif isinstance(node, Definition):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return found


def on_demand(statement: ast.stmt) -> bool:
    """Whether a statement matters only to what uses the names it binds."""
    if isinstance(statement, Definition | ast.Import):
        return True
    if isinstance(statement, ast.ImportFrom):
        return statement.module != "__future__"
    if isinstance(statement, ast.If) and not statement.orelse:  # imports for annotations
        test = statement.test
        return getattr(test, "id", None) == "TYPE_CHECKING" or getattr(test, "attr", None) == "TYPE_CHECKING"
    targets: list[Any] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) or type(statement).__name__ == "TypeAlias":
        # A TypeAlias is known to Python 3.12 and later alone.
        targets = [statement.target if isinstance(statement, ast.AnnAssign) else getattr(statement, "name", None)]
    plain = (ast.Name, ast.Tuple, ast.List, ast.Starred)
    return bool(targets) and all(isinstance(node, plain) for one in targets for node in _target_nodes(one))


def _target_nodes(target: ast.expr) -> Iterator[ast.expr]:
    yield target
    if isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _target_nodes(element)
    elif isinstance(target, ast.Starred):
        yield from _target_nodes(target.value)


def is_aside(statement: ast.stmt) -> bool:
    """A docstring or a block for `python file.py`: neither happens at import."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.If) and isinstance(statement.test, ast.Compare) and not statement.orelse:
        test = statement.test
        sides = {ast.unparse(side) for side in (test.left, *test.comparators)}
        return sides == {"__name__", "'__main__'"} and isinstance(test.ops[0], ast.Eq)
    return isinstance(statement, ast.Pass)


# --------------------------------------------------------------------------- normal form


def _normal(node: ast.AST) -> str:
    """A syntax tree as text: the same on every Python, without places, docstrings, `pass` or empty fields."""
    # Without recursion: a long sum is a tree as deep as it is long.
    done: list[str] = []
    waiting: list[tuple[bool, Any]] = [(False, node)]
    while waiting:
        is_text, item = waiting.pop()
        if is_text:
            done.append(item)
        elif isinstance(item, ast.AST):
            parts: list[tuple[bool, Any]] = [(True, f"{type(item).__name__}(")]
            for name in item._fields:
                value = getattr(item, name, None)
                if isinstance(value, list):
                    value = [one for one in value if not _does_nothing(one)]
                if name not in _UNSEEN_FIELDS and value is not None and value != []:
                    parts += [(True, f"{',' if len(parts) > 1 else ''}{name}="), (False, value)]
            waiting += reversed([*parts, (True, ")")])
        elif isinstance(item, list):
            inner = [part for one in item for part in ((True, ","), (False, one))]
            waiting += reversed([(True, "["), *inner[1:], (True, "]")])
        else:
            done.append(repr(item))
    return "".join(done)


def _does_nothing(statement: Any) -> bool:
    """A docstring, a bare constant, `pass`."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )
