"""The modules that belong to a third party's plugin: those beside its file, or those of its distribution."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nsd.plugins.errors import InputError

OURS = ("nsd", "plugins", "runner", "reports")


def absolute(text: str, folder: Path) -> Path:
    """A path as written, counted from a folder. Raises InputError for text that no path can be."""
    try:
        place = (folder / Path(text).expanduser()).resolve()
        place.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{text[:80]!r} is not a usable path ({error})") from None
    return place


@dataclass(frozen=True)
class Source:
    """A module: its dotted name and its file (None for a folder without `__init__.py`)."""

    name: str
    file: Path | None
    is_package: bool


class Places(Protocol):
    def source(self, name: str) -> Source | None:
        """The module of this dotted name, None where it does not belong here."""
        ...

    def inside(self, name: str) -> list[Source]:
        """The modules right inside a package."""
        ...


def module_name(path: Path) -> str:
    """A plugin file's name among modules: one part, whatever dots the file's name has."""
    return path.stem.replace(".", " ")


def _inside(places: Places, name: str, folders: Iterable[Path]) -> list[Source]:
    stems = sorted({path.stem for folder in folders for path in folder.glob("*") if path.suffix in ("", ".py")})
    found = [places.source(f"{name}.{stem}") for stem in stems if stem.isidentifier() and stem != "__init__"]
    return [source for source in found if source is not None]


def _in(folder: Path, name: str, full_name: str) -> Source | None:
    package, module = folder / name / "__init__.py", folder / f"{name}.py"
    if package.is_file():
        return Source(full_name, package, True)
    if module.is_file():
        return Source(full_name, module, False)
    if (folder / name).is_dir() and any((folder / name).glob("*.py")):
        return Source(full_name, None, True)
    return None


@dataclass(frozen=True)
class Folder:
    """Modules beside a plugin file."""

    folder: Path

    def holds(self, top: str) -> bool:
        """Whether a top-level name means something in this folder: never one of Python's own or of nsd's."""
        return top not in sys.stdlib_module_names and top not in OURS and _in(self.folder, top, top) is not None

    def is_module(self, name: str) -> bool:
        """Whether there is a module of this dotted name."""
        return self.source(name) is not None

    def source(self, name: str) -> Source | None:
        """See Places."""
        *parents, last = name.split(".")
        if not all(part.isidentifier() for part in (*parents, last)) or not self.holds(name.partition(".")[0]):
            return None
        return _in(self.folder.joinpath(*parents), last, name)

    def inside(self, name: str) -> list[Source]:
        """See Places."""
        return _inside(self, name, [self.folder.joinpath(*name.split("."))])


@dataclass(frozen=True)
class Packages:
    """Modules of the top-level packages of a distribution."""

    tops: tuple[str, ...]

    def source(self, name: str) -> Source | None:
        """See Places."""
        top, *rest = name.split(".")
        if top not in self.tops or top in OURS or not all(part.isidentifier() for part in rest):
            return None
        file, folders = _found(top)
        if not rest:
            return Source(name, file, bool(folders)) if file is not None or folders else None
        *parents, last = rest
        for folder in folders:
            if (found := _in(folder.joinpath(*parents), last, name)) is not None:
                return found
        return None

    def inside(self, name: str) -> list[Source]:
        """See Places."""
        top, *rest = name.split(".")
        return _inside(self, name, [folder.joinpath(*rest) for folder in _found(top)[1]])


def _found(top: str) -> tuple[Path | None, list[Path]]:
    """The file of an installed top-level module, and its folders where it is a package. Imports nothing."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None, []
    if spec is None:
        return None, []
    file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    return file, [Path(place) for place in spec.submodule_search_locations or ()]
