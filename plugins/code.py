"""The part of a third-party plugin's code that enters stage digests: an edit is another stage, a comment is not.

    code_of_file(Path("last_word.py"), "LastWord")                      # a class in a file, with what lies beside it
    code_of_module("their.module", "LastWord", ("their",), "their-distribution", "1.2")

The hash is that of the normalised syntax tree: of the class, and of everything at the top of a module that the class
uses by name, directly or through others. Imports are followed within the file's folder or the distribution. Comments,
layout, docstrings, paths and file names are not in the hash. The distribution's name and version count too.

Some code takes part though nothing names it: statements at the top of a module that are no definitions (loops, calls,
assignments into something); functions, classes and assigned calls that enter themselves into something that is used (a
registry, `singledispatch`), in whichever module; heirs of a class that learns of its heirs. A module that imports or
evaluates at run time (exec, eval, importlib, globals) enters whole, because its uses cannot be seen. The modules that
its texts name enter with it.

Limits: a docstring that is read at run time is left out all the same; files that the plugin reads belong into its
`digest_extra`; compiled modules are known by the distribution's version alone.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nsd.plugins.code_modules import Definition, Module, Name, is_aside, on_demand, read
from nsd.plugins.places import Folder, Packages, Places, Source, module_name

_DYNAMIC_NAMES = {"exec", "eval", "globals", "locals", "vars", "__import__", "import_module", "__loader__"}
_DYNAMIC_ATTRIBUTES = {"import_module", "spec_from_file_location", "module_from_spec", "__subclasses__", "modules"}
_IMPORTING = {"import_module", "__import__", "spec_from_file_location"}
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


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
    return Code(_Tree(Folder(path.parent)).hash(Source(module_name(path), path, False), class_name))


def code_of_module(module: str, attribute: str, packages: Sequence[str], distribution: str, version: str) -> Code:
    """The code of a class in an installed module and of what it uses in these top-level packages."""
    places = Packages(tuple(packages))
    source = places.source(module)
    tree = _Tree(places).hash(source, attribute.partition(".")[0]) if source is not None else ""
    return Code(tree, distribution, version)


def files_reached(path: Path) -> list[Path]:
    """The file and all files beside it that its imports reach, whether or not a class uses them."""
    tree = _Tree(Folder(path.parent))
    tree.whole(tree.module(Source(module_name(path), path, False)))
    tree.settle()
    return sorted(module.source.file for module in tree.modules.values() if module.source.file is not None)


# --------------------------------------------------------------------------- what is used


class _Tree:
    """Collects what a class uses, over all modules that belong to it."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.modules: dict[tuple[str, Path | None], Module] = {}
        self.waiting: list[tuple[Module, int]] = []
        self.asks_for_heirs = False

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

    def module(self, source: Source) -> Module:
        """The module; what happens at its import, and at that of its packages, is taken."""
        key = (source.name, source.file)
        if key not in self.modules:
            module = self.modules[key] = read(source)
            parent, dot, _ = source.name.rpartition(".")
            if dot and (above := self.places.source(parent)) is not None:
                self.module(above)
            for index, statement in enumerate(module.statements):
                if not on_demand(statement) and not is_aside(statement):
                    self.take(module, index)
                for node in [statement] if isinstance(statement, ast.Import | ast.ImportFrom) else []:
                    self.imports(module, node, used=False)
        return self.modules[key]

    def take(self, module: Module, index: int) -> None:
        if index not in module.taken:
            module.taken.add(index)
            self.waiting.append((module, index))

    def whole(self, module: Module) -> None:
        """Take every statement of a module."""
        for index, statement in enumerate(module.statements):
            if not is_aside(statement):
                self.take(module, index)

    def need(self, module: Module, name: str) -> None:
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

    def follow(self, module: Module, index: int) -> None:
        """Need everything that a taken statement names."""
        for node in ast.walk(module.statements[index]):
            if isinstance(node, ast.Name):
                if node.id in _DYNAMIC_NAMES and node.id not in module.bindings:
                    self.unseen(module, node.id in _IMPORTING)
                elif node.id in module.bindings or "*" in module.bindings:
                    self.need(module, node.id)
            elif isinstance(node, ast.Attribute):
                self.asks_for_heirs |= node.attr == "__subclasses__"
                if node.attr in _DYNAMIC_ATTRIBUTES:
                    self.unseen(module, node.attr in _IMPORTING)
                elif (inner := self.module_meant(module, node)) is not None:
                    self.whole(self.module(inner))
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.imports(module, node, used=True)
                if any(alias.name in _IMPORTING for alias in node.names):
                    self.unseen(module, True)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) <= 500:
                # A type written as text, or a name for getattr.
                words = _IDENTIFIER.findall(node.value) if _is_typelike(node.value) else []
                for word in words:
                    if word in module.bindings:
                        self.need(module, word)
                if module.imports_by_name:
                    self.named(module, node.value)

    def unseen(self, module: Module, by_name: bool) -> None:
        """Take a module that does at run time what cannot be seen here; `by_name` where it imports."""
        self.whole(module)
        if by_name and not module.imports_by_name:
            module.imports_by_name = True
            self.waiting += [(module, index) for index in module.taken]  # their texts mean more now

    def named(self, module: Module, text: str) -> None:
        """Take the modules that a text may name: by a full or relative name, or by the beginning of one ("lib.")."""
        name = text.strip(".")
        places = [name] if not text.startswith(".") else []
        places += [".".join(filter(None, [module.package, name]))] if module.package else []
        for place in places:
            if (found := self.places.source(place)) is not None:
                self.whole(self.module(found))
                if text.endswith(".") and found.is_package:
                    for inner in self.places.inside(place):
                        self.whole(self.module(inner))

    def module_meant(self, module: Module, node: ast.expr) -> Source | None:
        """The module that a name or a chain of attributes (`lib.deep`) stands for, None for anything else."""
        if isinstance(node, ast.Attribute):
            above = self.module_meant(module, node.value)
            return self.places.source(f"{above.name}.{node.attr}") if above is not None and above.is_package else None
        if not isinstance(node, ast.Name):
            return None
        for index in module.bindings.get(node.id, []):
            statement = module.statements[index]
            if isinstance(statement, ast.Import):
                (alias,) = statement.names
                return self.places.source(alias.name if alias.asname else node.id)
            if isinstance(statement, ast.ImportFrom):
                (alias,) = statement.names
                above_name = _absolute(module.source, statement)
                if above_name or statement.level:
                    return self.places.source(".".join(filter(None, [above_name, alias.name])))
        return None

    def imports(self, module: Module, node: ast.stmt, used: bool) -> None:
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

    def take_registered(self, module: Module) -> bool:
        """Take what enters itself into something that is used; whether there was any."""
        found = False
        for index, statement in enumerate(module.statements):
            if index in module.taken:
                continue
            if index not in module.entered:
                module.entered[index] = frozenset(self.entered(module, statement))
            heir = isinstance(statement, ast.ClassDef) and self.is_watched(module, statement)
            if heir or any(self.is_store(name) for name in module.entered[index]):
                self.take(module, index)
                found = True
        return found

    def entered(self, module: Module, statement: ast.stmt) -> set[Name]:
        """What a definition's decorators, or an assigned call, mention, and what definitions among that mention."""
        waiting: list[tuple[Module, ast.AST]] = []
        if isinstance(statement, Definition):
            waiting = [(module, one) for one in statement.decorator_list]
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            calls = [node for node in ast.walk(statement.value) if isinstance(node, ast.Call)]
            waiting = [(module, call.func) for call in calls]
        found: set[Name] = set()
        seen: set[tuple[str, Path | None, str]] = set()
        while waiting:
            place, tree = waiting.pop()
            for node in ast.walk(tree):
                if not isinstance(node, ast.Name | ast.Attribute):
                    continue
                whole = node.value if isinstance(node, ast.Attribute) else node
                for owner, name in self.meant(place, whole) + (self.meant(place, node) if whole is not node else []):
                    key = (owner.source.name, owner.source.file, name)
                    found.add(Name(*key, within=isinstance(node, ast.Attribute)))
                    if key not in seen:
                        seen.add(key)
                        bound = [owner.statements[one] for one in owner.bindings[name]]
                        waiting += [(owner, one) for one in bound if isinstance(one, Definition)]
        return found

    def meant(self, module: Module, node: ast.expr) -> list[tuple[Module, str]]:
        """The modules and names that a name, or an attribute of a module, stands for, imports followed."""
        if isinstance(node, ast.Name):
            place, name = module, node.id
        elif isinstance(node, ast.Attribute) and (source := self.module_meant(module, node.value)) is not None:
            place, name = self.module(source), node.attr
        else:
            return []
        found: list[tuple[Module, str]] = []
        seen: set[tuple[str, str]] = set()
        waiting = [(place, name)]
        while waiting:
            place, name = waiting.pop()
            if name not in place.bindings or (place.source.name, name) in seen:
                continue
            seen.add((place.source.name, name))
            found.append((place, name))
            for index in place.bindings[name]:
                statement = place.statements[index]
                if isinstance(statement, ast.ImportFrom):
                    above = _absolute(place.source, statement)
                    source = self.places.source(above) if above else None
                    if source is not None:
                        waiting.append((self.module(source), statement.names[0].name))
        return found

    def is_store(self, name: Name) -> bool:
        """Whether a name is used and may be a collection that others enter themselves into."""
        module = self.modules[name.module, name.file]
        for index in module.bindings[name.name]:
            statement = module.statements[index]
            if index not in module.taken:
                continue
            if isinstance(statement, ast.Assign | ast.AnnAssign) and not isinstance(statement.value, ast.Constant):
                return True
            if name.within and isinstance(statement, Definition):  # `@judge.register`
                return True
        return False

    def is_watched(self, module: Module, statement: ast.ClassDef) -> bool:
        """Whether a used class, or its metaclass, learns of this heir."""
        waiting = [(module, statement)]
        seen: set[int] = set()
        while waiting:
            place, heir = waiting.pop()
            metaclasses = [keyword.value for keyword in heir.keywords if keyword.arg == "metaclass"]
            for base in (*heir.bases, *metaclasses):
                for owner, name in self.meant(place, base):
                    for index in owner.bindings[name]:
                        above = owner.statements[index]
                        if not isinstance(above, ast.ClassDef) or id(above) in seen:
                            continue
                        seen.add(id(above))
                        methods = {inner.name for inner in above.body if isinstance(inner, Definition)}
                        learns = base in metaclasses or "__init_subclass__" in methods or self.asks_for_heirs
                        if learns and index in owner.taken:
                            return True
                        waiting.append((owner, above))
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
