"""Third-party plugins: what installed distributions register under the entry-point group `nsd.plugins`, checked.

    [project.entry-points."nsd.plugins"]
    "verifier.last_word" = "their_package.last_word:LastWord"

`scan` reads metadata alone and imports nothing; `load` imports one plugin and checks the class. One broken package
does not take the others down: it is named and left out. Broken are: a bad name; a name that a built-in plugin has; a
name that two distributions claim (the machine would decide between them); metadata or a module that cannot be read; a
class that is none, is of another kind, lacks the decorator, or has a config without a schema.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from nsd.plugins.api import BASES, KINDS, Plugin, PluginConfig, old_reward
from nsd.plugins.errors import InputError

if TYPE_CHECKING:
    from nsd.plugins.code import Code

GROUP = "nsd.plugins"


@dataclass(frozen=True)
class Installed:
    """An entry point whose name is in order; its module has not been imported."""

    kind: str
    name: str
    target: str  # module:attribute
    distribution: str
    version: str
    packages: tuple[str, ...]  # top-level names that belong to the distribution

    @property
    def title(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class LeftOut:
    """An entry point that cannot be used: `name` is KIND.NAME as registered."""

    name: str
    distribution: str
    reason: str


@dataclass
class Scan:
    """The entry points in the metadata of all installed distributions."""

    found: dict[tuple[str, str], Installed] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


class BrokenPluginError(InputError):
    """The plugin is installed and cannot be used; `reason` says why, without its name."""

    def __init__(self, one: Installed, reason: str) -> None:
        super().__init__(f"the {one.kind} {one.name!r} of {one.title} cannot be used: {reason}")
        self.reason = reason


def scan(built_in: Mapping[str, Mapping[str, str]]) -> Scan:
    """Every registered entry point, sorted into usable by its name and not."""
    scanned = Scan()
    claimed: dict[tuple[str, str], list[Installed]] = {}
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt")
        except Exception as error:
            scanned.left_out.append(LeftOut("?", _name(distribution), f"its metadata cannot be read: {_told(error)}"))
            continue
        if not text or GROUP not in text:
            continue
        name = _name(distribution)
        if (normal := re.sub(r"[-_.]+", "-", name).lower()) in seen:
            continue  # an older installation of the same distribution further back on the path
        seen.add(normal)
        try:
            points = [point for point in distribution.entry_points if point.group == GROUP]
            version = _version(distribution)
            packages = _packages(distribution)
        except Exception as error:
            scanned.left_out.append(LeftOut("?", name, f"its metadata cannot be read: {_told(error)}"))
            continue
        for point in points:
            kind, _, plugin_name = point.name.partition(".")
            if reason := _misnamed(kind, plugin_name, built_in):
                scanned.left_out.append(LeftOut(point.name, f"{name} {version}".strip(), reason))
                continue
            top = point.value.partition(":")[0].strip().partition(".")[0]
            one = Installed(kind, plugin_name, point.value, name, version, tuple(sorted({*packages, top})))
            claimed.setdefault((kind, plugin_name), []).append(one)
    for key, several in claimed.items():
        if len(several) == 1:
            scanned.found[key] = several[0]
            continue
        for one in several:
            others = ", ".join(other.title for other in several if other is not one)
            reason = f"{others} registers the same name: uninstall one of them"
            scanned.left_out.append(LeftOut(".".join(key), one.title, reason))
    scanned.left_out = list(dict.fromkeys(scanned.left_out))  # a folder may be on the path twice
    return scanned


def _misnamed(kind: str, name: str, built_in: Mapping[str, Mapping[str, str]]) -> str | None:
    if kind not in KINDS:
        return f"its name should be KIND.NAME, with a kind of {', '.join(KINDS)}"
    if not name or name != name.strip() or ".py:" in name:
        return "its name should be KIND.NAME, and there is no usable NAME"
    if name in built_in[kind]:
        return f"nsd has a {kind} of this name itself, which is the one that specs get"
    return None


def _name(distribution: metadata.Distribution) -> str:
    try:
        name = distribution.metadata["Name"]
    except Exception:
        name = None
    # Without a readable METADATA file the folder's name is what is left.
    folder = getattr(distribution, "_path", None)
    return name or (
        str(folder.name).removesuffix(".dist-info") if folder is not None else "a distribution without name"
    )


def _version(distribution: metadata.Distribution) -> str:
    version = distribution.metadata["Version"]
    if not version:
        raise ValueError("it says no version")
    return str(version)


def _packages(distribution: metadata.Distribution) -> set[str]:
    """Names at the top of what the distribution installs; an editable installation lists none."""
    named = set((distribution.read_text("top_level.txt") or "").split())
    for file in distribution.files or ():
        first = file.parts[0]
        if file.suffix == ".py" and not first.endswith((".dist-info", ".egg-info")) and first != "..":
            named.add(first.removesuffix(".py"))
    return {name for name in named if name.isidentifier()}


# --------------------------------------------------------------------------- loading

_loaded: dict[Installed, type[Plugin] | str] = {}


def load(one: Installed) -> type[Plugin]:
    """Import the plugin and check it. Raises BrokenPluginError, the second time without importing again."""
    if one not in _loaded:
        _loaded[one] = _load(one)
    found = _loaded[one]
    if isinstance(found, str):
        raise BrokenPluginError(one, found)
    return found


def _load(one: Installed) -> type[Plugin] | str:
    try:
        with quietly():
            found = metadata.EntryPoint(one.name, one.target, GROUP).load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit at import included
        return f"importing {one.target} failed: {_told(error)}"
    try:
        return _fault_of_installed(found, one) or found
    except Exception as error:  # a metaclass may do anything
        return f"looking at {one.target} failed: {_told(error)}"


def _fault_of_installed(found: Any, one: Installed) -> str | None:
    if reason := fault(found, one.kind):
        return reason
    own = vars(found)
    if "kind" not in own or "name" not in own:
        return f"the class {found.__name__} is not decorated with @plugin({one.kind!r}, {one.name!r})"
    if found.name != one.name:
        return f"the class calls itself {found.name!r}, its entry point {one.name!r}"
    try:
        json.dumps(found.Config.model_json_schema(), allow_nan=False)
    except Exception as error:
        return f"its Config has no schema: {_told(error)}"
    return None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Send to standard error what a stranger's module prints at its import: the command's answer may be JSON."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def fault(found: object, kind: str) -> str | None:
    """Why this is no plugin of the kind, None where it is one."""
    base = BASES[kind]
    if not isinstance(found, type):
        return f"it is a {type(found).__name__}, not a class"
    if not issubclass(found, Plugin):
        return f"the class {found.__name__} does not derive from {base.__name__}"
    its_kind = getattr(found, "kind", None)
    if its_kind != kind:
        return f"{found.__name__} is a {its_kind or 'plugin of no kind'}, not a {kind}"
    if not issubclass(found, base):
        return f"the class {found.__name__} says that it is a {kind} and does not derive from {base.__name__}"
    if not (isinstance(found.Config, type) and issubclass(found.Config, PluginConfig)):
        return f"the Config of {found.__name__} does not derive from PluginConfig"
    for what, cls in ((found.__name__, found), (f"the Config of {found.__name__}", found.Config)):
        if inspect.isabstract(cls):
            return f"{what} is abstract: it lacks {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}"
    return old_reward(found)


@functools.cache
def code(one: Installed) -> Code:
    """The part of the plugin's code that enters digests."""
    from nsd.plugins.code import code_of_module

    module, _, attribute = one.target.partition(":")
    attribute = attribute.partition("[")[0].strip()
    return code_of_module(module.strip(), attribute, one.packages, one.distribution, one.version)


def _told(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
