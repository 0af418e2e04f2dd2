"""Plugins in files: a spec's `use: ./my_verifier.py:LastWord`. Naming a file here runs it.

A plugin file may import what lies beside it, as a script may: `import helper`, `from lib.tables import RULES`, or
relatively, `from .helper import words`. The folder does not go on `sys.path`, where it would be in front of everybody's
imports. A module from beside the file belongs to the plugin alone, under a name of its own. Python's own modules and
nsd's are never taken from there.

Limits: `importlib.import_module("helper")` knows nothing of this; write an import statement.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.api import Plugin
from nsd.plugins.errors import InputError
from nsd.plugins.installed import fault, quietly
from nsd.plugins.places import Folder, absolute, module_name

if TYPE_CHECKING:
    from nsd.plugins.code import Code

PREFIX = "nsd_file_plugin_"


def is_path(name: str) -> bool:
    """Whether a `use:` value names a class in a file."""
    return ".py:" in name


def is_file_module(name: str) -> bool:
    """Whether a module's name is that of a plugin file, or of a file beside one."""
    return name.startswith(PREFIX)


def located(name: str, base_dir: Path | None = None) -> str:
    """`./file.py:Class` with the file's absolute path. Raises InputError for text that no path can be."""
    file_name, _, class_name = name.rpartition(":")
    if not class_name.isidentifier():
        raise InputError(f"{class_name!r} is no name of a class: write {file_name}:NameOfTheClass")
    return f"{absolute(file_name, base_dir or Path.cwd())}:{class_name}"


def load(kind: str, name: str, base_dir: Path | None = None) -> type[Plugin]:
    """Run the file and return its class. Raises InputError, naming the place."""
    path, class_name = _file(kind, name, base_dir)
    package = _package(path)
    name_among = f"{package}.{module_name(path)}"
    try:
        with quietly():
            module = sys.modules.get(name_among) or _run(name_among, path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file may well end in sys.exit()
        told = f"{type(error).__name__}: {error}"
        raise InputError(f"{kind} {name!r}: running {path} failed: {told}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise InputError(f"{kind} {name!r}: {path} has no plugin class {class_name!r}")
    if reason := fault(found, kind):
        raise InputError(f"{kind} {name!r}: {reason}")
    if "name" not in found.__dict__:
        found.name = class_name
    return found


def code(kind: str, name: str, base_dir: Path | None = None) -> Code:
    """The part of the file's code that enters digests."""
    path, class_name = _file(kind, name, base_dir)
    return _code(path, class_name, _package(path))


@functools.lru_cache(maxsize=256)
def _code(path: Path, class_name: str, package: str) -> Code:
    from nsd.plugins.code import code_of_file

    # The package's name holds the content of every file that is read.
    return code_of_file(path, class_name)


def _file(kind: str, name: str, base_dir: Path | None) -> tuple[Path, str]:
    file_name, _, class_name = located(name, base_dir).rpartition(":")
    path = Path(file_name)
    if not path.is_file():
        raise InputError(f"{kind} {name!r}: there is no file {path}")
    return path, class_name


# --------------------------------------------------------------------------- modules of their own


_stamps: dict[Path, tuple[list[tuple[Path, int, int]], str]] = {}


def _package(path: Path) -> str:
    """The package that a plugin file and what it imports from beside it live in, other once a file is edited."""
    from nsd.plugins.code import files_reached

    known, name = _stamps.get(path, ([], ""))
    if not known or known != _stamp([file for file, _, _ in known]):
        files = files_reached(path)
        digest = hashlib.sha256(str(path).encode())
        for file in files:
            digest.update(str(file).encode() + b"\0" + file.read_bytes() + b"\0")
        name = PREFIX + digest.hexdigest()[:12]
        _stamps[path] = (_stamp(files), name)
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(path.parent)]
        sys.modules[name] = package
    return name


def _stamp(files: Sequence[Path]) -> list[tuple[Path, int, int]]:
    """Sizes and times, [] where a file is gone."""
    try:
        return [(file, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]]
    except OSError:
        return []


def _run(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the source as it is, and lets its `import` statements find what lies beside the plugin."""

    def get_code(self, fullname: str) -> Any:
        # Cached bytecode goes by size and whole seconds, too coarse for a file that is being edited.
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: types.ModuleType) -> None:
        package = module.__name__.partition(".")[0]
        folder = Folder(Path(sys.modules[package].__path__[0]))
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(package, folder)}
        super().exec_module(module)


def _importer(package: str, folder: Folder) -> Any:
    def import_beside(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        top = name.partition(".")[0]
        if level or not folder.holds(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = importlib.import_module(f"{package}.{name}")
        if not fromlist:
            return sys.modules[f"{package}.{top}"]
        for wanted in fromlist:
            if wanted != "*" and not hasattr(module, wanted) and folder.is_module(f"{name}.{wanted}"):
                importlib.import_module(f"{package}.{name}.{wanted}")
        return module

    return import_beside


class _Finder:
    """Finds what lies beside a plugin file, for names in such a package only."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, _ = fullname.partition(".")
        if not is_file_module(fullname) or package not in sys.modules:
            return None
        return importlib.machinery.FileFinder(
            (path or [""])[0], (_Loader, importlib.machinery.SOURCE_SUFFIXES)
        ).find_spec(fullname)


sys.meta_path.insert(0, _Finder())
