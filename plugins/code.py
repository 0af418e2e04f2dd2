"""What of a third-party plugin's code enters stage digests, so that an edit is another stage and a comment is not.

    code_of_file(Path("last_word.py"), "LastWord")                      # a class in a file, with what lies beside it
    code_of_module("their.module", "LastWord", ("their",), "their-distribution", "1.2")

The normalised syntax tree is hashed: of the class, and of everything at the top of a module that it uses by name,
directly or through others, imports followed within the file's folder or the distribution. Comments, layout and
docstrings are not in it, nor any path or file name. Beside that the distribution's name and version count.

What takes part though nothing names it: statements at the top of a module that are no definitions (loops, calls,
assignments into something), functions and classes whose decorator reaches something that is used, subclasses of a used
class with `__init_subclass__`. A module that imports or evaluates at run time (exec, eval, importlib, globals) enters
whole, since what it uses cannot be seen.

Limits: a docstring that is read at run time is left out all the same; files that the plugin reads are for its
`digest_extra`; compiled modules are known by the distribution's version alone.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugins.places import Folder, Packages, Places, Source

_DYNAMIC_NAMES = {"exec", "eval", "globals", "locals", "vars", "__import__", "import_module", "__loader__"}
_DYNAMIC_ATTRIBUTES = {"import_module", "spec_from_file_location", "module_from_spec", "__subclasses__", "modules"}
_UNSEEN_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Code:
    """The hash of the syntax tree, and the distribution it came with (None for a file)."""

    tree: str
    distribution: str | None = None
    version: str | None = None

    def to_json(self) -> dict[str, str]:
        """As it stands in digests and manifests."""
        found = {"tree": self.tree, "distribution": self.distribution, "distribution_version": self.version}
        return {name: value for name, value in found.items() if value is not None}


def code_of_file(path: Path, class_name: str) -> Code:
    """The code of a class in a file and of what it uses in the file's folder."""
    return Code(_Tree(Folder(path.parent)).hash(Source(path.stem, path, False), class_name))


def code_of_module(module: str, attribute: str, packages: Sequence[str], distribution: str, version: str) -> Code:
    """The code of a class in an installed module and of what it uses in these top-level packages."""
    places = Packages(tuple(packages))
    source = places.source(module)
    tree = _Tree(places).hash(source, attribute.partition(".")[0]) if source is not None else ""
    return Code(tree, distribution, version)


def files_reached(path: Path) -> list[Path]:
    """The file and all files beside it that its imports reach, whether or not a class uses them."""
    tree = _Tree(Folder(path.parent))
    tree.whole(tree.module(Source(path.stem, path, False)))
    tree.settle()
    return sorted(module.source.file for module in tree.modules.values() if module.source.file is not None)


# --------------------------------------------------------------------------- one module


@dataclass
class _Module:
    """A module's statements, one import per name, and which of them are taken."""

    source: Source
    statements: list[ast.stmt] = field(default_factory=list)
    bindings: dict[str, list[int]] = field(default_factory=dict)
    unreadable: bytes = b""
    taken: set[int] = field(default_factory=set)

    def text(self) -> str:
        """The taken statements, normalised, in order."""
        return self.unreadable.hex() + "\n".join(_normal(self.statements[index]) for index in sorted(self.taken))


def _read(source: Source) -> _Module:
    module = _Module(source)
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
    if isinstance(statement, _Definition):
        return {statement.name}
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(node.id)
        elif isinstance(node, _Definition):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return found


def _on_demand(statement: ast.stmt) -> bool:
    """Whether a statement matters only to what uses the names it binds."""
    if isinstance(statement, _Definition | ast.Import):
        return True
    if isinstance(statement, ast.ImportFrom):
        return statement.module != "__future__"
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) or type(statement).__name__ == "TypeAlias":
        targets = [statement.target if isinstance(statement, ast.AnnAssign) else statement.name]  # type: ignore[attr-defined]
    plain = (ast.Name, ast.Tuple, ast.List, ast.Starred)
    return bool(targets) and all(isinstance(node, plain) for one in targets for node in _target_nodes(one))


def _target_nodes(target: ast.expr) -> Iterator[ast.expr]:
    yield target
    if isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _target_nodes(element)
    elif isinstance(target, ast.Starred):
        yield from _target_nodes(target.value)


def _is_aside(statement: ast.stmt) -> bool:
    """A docstring or a block for `python file.py`: neither happens at import."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.If) and isinstance(statement.test, ast.Compare):
        left = statement.test.left
        return isinstance(left, ast.Name) and left.id == "__name__" and not statement.orelse
    return isinstance(statement, ast.Pass)


# --------------------------------------------------------------------------- what is used


class _Tree:
    """Collects what a class uses, over all modules that belong to it."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.modules: dict[tuple[str, Path | None], _Module] = {}
        self.waiting: list[tuple[_Module, int]] = []

    def hash(self, source: Source, name: str) -> str:
        """Of everything that `name` in the module uses."""
        module = self.module(source)
        if name in module.bindings:
            self.need(module, name)
        else:
            self.whole(module)
        self.settle()
        texts = sorted(text for one in self.modules.values() if (text := one.text()))
        return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def settle(self) -> None:
        """Follow until nothing new is used."""
        while True:
            while self.waiting:
                self.follow(*self.waiting.pop())
            found = [self.take_registered(module) for module in list(self.modules.values())]
            if not any(found):
                return

    def module(self, source: Source) -> _Module:
        """The module; what happens at its import, and at that of its packages, is taken."""
        key = (source.name, source.file)
        if key not in self.modules:
            module = self.modules[key] = _read(source)
            parent, dot, _ = source.name.rpartition(".")
            if dot and (above := self.places.source(parent)) is not None:
                self.module(above)
            for index, statement in enumerate(module.statements):
                if not _on_demand(statement) and not _is_aside(statement):
                    self.take(module, index)
                for node in [statement] if isinstance(statement, ast.Import | ast.ImportFrom) else []:
                    self.imports(module, node, used=False)
        return self.modules[key]

    def take(self, module: _Module, index: int) -> None:
        if index not in module.taken:
            module.taken.add(index)
            self.waiting.append((module, index))

    def whole(self, module: _Module) -> None:
        """Take every statement of a module."""
        for index, statement in enumerate(module.statements):
            if not _is_aside(statement):
                self.take(module, index)

    def need(self, module: _Module, name: str) -> None:
        """Take what gives a name its value."""
        if name in module.bindings:
            for index in module.bindings[name]:
                self.take(module, index)
            return
        inner = self.places.source(f"{module.source.name}.{name}") if module.source.is_package else None
        if inner is not None:
            self.whole(self.module(inner))
            return
        for index in module.bindings.get("*", []):
            self.take(module, index)
        if "__getattr__" in module.bindings:
            self.whole(module)

    def follow(self, module: _Module, index: int) -> None:
        """Need everything that a taken statement names."""
        statement = module.statements[index]
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                if node.id in _DYNAMIC_NAMES and node.id not in module.bindings:
                    self.whole(module)
                elif node.id in module.bindings or "*" in module.bindings:
                    self.need(module, node.id)
            elif isinstance(node, ast.Attribute) and node.attr in _DYNAMIC_ATTRIBUTES:
                self.whole(module)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.imports(module, node, used=True)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) <= 500:
                # A type written as text, or a name for getattr.
                words = set(_IDENTIFIER.findall(node.value)) if _is_typelike(node.value) else set()
                for word in words & set(module.bindings):
                    self.need(module, word)
                if self.is_dynamic(module) and (found := self.places.source(node.value)) is not None:
                    self.whole(self.module(found))

    def is_dynamic(self, module: _Module) -> bool:
        return any(
            (isinstance(node, ast.Name) and node.id in ("import_module", "__import__"))
            or (isinstance(node, ast.Attribute) and node.attr == "import_module")
            for index in module.taken
            for node in ast.walk(module.statements[index])
        )

    def imports(self, module: _Module, node: ast.stmt, used: bool) -> None:
        """Follow an import to a module that belongs here; where nothing uses it, only what it does at import."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                found = self.places.source(alias.name)
                if found is not None:
                    self.reach(found, None, used)
                    parts = alias.name.split(".")
                    for count in range(1, len(parts)):
                        if (above := self.places.source(".".join(parts[:count]))) is not None:
                            self.reach(above, None, used and alias.asname is None)
        elif isinstance(node, ast.ImportFrom):
            name = _absolute(module.source, node)
            found = self.places.source(name) if name else None
            for alias in node.names:
                if found is not None:
                    self.reach(found, alias.name, used)
                elif node.level and not name and (beside := self.places.source(alias.name)) is not None:
                    self.reach(beside, None, used)  # `from . import helper` beside a plugin file

    def reach(self, source: Source, name: str | None, used: bool) -> None:
        module = self.module(source)
        if not used:
            if name is not None and name not in module.bindings and source.is_package:
                inner = self.places.source(f"{source.name}.{name}")
                if inner is not None:
                    self.module(inner)
            return
        if name is None or name == "*":
            self.whole(module)
        else:
            self.need(module, name)

    def take_registered(self, module: _Module) -> bool:
        """Take definitions that register themselves with something that is used; whether there were any."""
        found = False
        for index, statement in enumerate(module.statements):
            if index in module.taken or not isinstance(statement, _Definition):
                continue
            into = self.reached_by(module, statement.decorator_list)
            heirs = isinstance(statement, ast.ClassDef) and self.base_watches(module, statement)
            if heirs or any(self.is_store(module, name) for name in into):
                self.take(module, index)
                found = True
        return found

    def reached_by(self, module: _Module, expressions: Sequence[ast.expr]) -> set[str]:
        """Names of this module that the expressions mention, and those that these mention in turn."""
        found: set[str] = set()
        nodes: list[ast.AST] = list(expressions)
        while nodes:
            for node in ast.walk(nodes.pop()):
                if isinstance(node, ast.Name) and node.id in module.bindings and node.id not in found:
                    found.add(node.id)
                    nodes += [
                        statement
                        for index in module.bindings[node.id]
                        if isinstance(statement := module.statements[index], _Definition)
                    ]
        return found

    def is_store(self, module: _Module, name: str) -> bool:
        """Whether a name is used and may be a collection that others enter themselves into."""
        for index in module.bindings[name]:
            statement = module.statements[index]
            if index not in module.taken:
                continue
            if isinstance(statement, ast.Assign | ast.AnnAssign) and not isinstance(statement.value, ast.Constant):
                return True
            if isinstance(statement, ast.ImportFrom):
                place = _absolute(module.source, statement)
                owner = self.places.source(place) if place else None
                if owner is not None and name in (theirs := self.module(owner)).bindings:
                    return any(isinstance(theirs.statements[i], ast.Assign) for i in theirs.bindings[name])
        return False

    def base_watches(self, module: _Module, statement: ast.ClassDef) -> bool:
        for base in statement.bases:
            name = base.id if isinstance(base, ast.Name) else ""
            for index in module.bindings.get(name, []):
                above = module.statements[index]
                if index in module.taken and isinstance(above, ast.ClassDef):
                    methods = {inner.name for inner in above.body if isinstance(inner, _Definition)}
                    if "__init_subclass__" in methods:
                        return True
        return False


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    """The dotted name that a `from` import means; "" for the folder of a plugin file itself."""
    if not node.level:
        return node.module or ""
    parts = source.name.split(".")
    kept = parts[: len(parts) - node.level + (1 if source.is_package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _is_typelike(text: str) -> bool:
    return bool(re.fullmatch(r"[\w\s\[\],.|]+", text)) and " " not in re.sub(r"\s*[|,]\s*", "", text.strip())


# --------------------------------------------------------------------------- normal form


def _normal(node: Any) -> str:
    """A syntax tree as text: the same on every Python, without places, docstrings or empty fields."""
    if isinstance(node, ast.AST):
        parts = []
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and isinstance(node, _Definition):
                value = _without_docstring(value or [])
            if name not in _UNSEEN_FIELDS and value is not None and value != []:
                parts.append(f"{name}={_normal(value)}")
        return f"{type(node).__name__}({','.join(parts)})"
    if isinstance(node, list):
        return f"[{','.join(map(_normal, node))}]"
    return repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    documents = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if documents else body
