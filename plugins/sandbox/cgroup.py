"""A control group for one sandbox, where this process may make one: it bounds all processes of a program together.

    group = Group()          # this process, and whatever it begins from now on, is in it
    group.limit(memory_bytes=1 << 30, processes=64)
    group.kill()             # everything in it but this process
    group.close()

This process itself moves, once: to move each program takes the kernel longer than the program.

Both versions are served: in version 2 the nearest group above this process in which a child has the controllers, in
version 1 each controller's own tree. What cannot be made is left out: `controllers` says what there is.

Limits: nothing that was there before is changed. A version 2 group that holds processes gives its children no
controllers, so that in most containers and login sessions there is none.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "nsd-sandbox-"
_WANTED = ("memory", "pids")
_LIMITS = {
    (1, "memory"): "memory.limit_in_bytes",
    (1, "pids"): "pids.max",
    (2, "memory"): "memory.max",
    (2, "pids"): "pids.max",
}


class Group:
    """The groups of one sandbox: one folder in version 2, one for each controller in version 1."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.version = 0
        self._memory_bytes = 0
        for version, controllers, parent in _places():
            wanted = [one for one in controllers if one not in self.folders]
            if not wanted or (self.version and version != self.version):
                continue
            _sweep(parent)
            folder = parent / f"{PREFIX}{os.getpid()}"
            try:
                folder.mkdir()
                for one in wanted:
                    (folder / _LIMITS[version, one]).read_text()
                (folder / "cgroup.procs").write_text("0")
            except OSError:
                with contextlib.suppress(OSError):
                    folder.rmdir()
                continue
            self.version = version
            self.folders.update(dict.fromkeys(wanted, folder))

    @property
    def controllers(self) -> set[str]:
        """Which of memory and pids bound the programs."""
        return set(self.folders)

    def limit(self, memory_bytes: int, processes: int) -> None:
        """Bound the memory and the number of processes (threads count)."""
        if (folder := self.folders.get("memory")) is not None and memory_bytes != self._memory_bytes:
            self._memory_bytes = memory_bytes
            if self.version == 2:
                _write(folder / "memory.swap.max", 0)
                _write(folder / "memory.max", memory_bytes)
            else:  # memory with swap is never less than memory alone, whichever was set before
                names = [folder / "memory.limit_in_bytes", folder / "memory.memsw.limit_in_bytes"]
                for name in (*names, *names[:1]):
                    _write(name, memory_bytes)
        if (folder := self.folders.get("pids")) is not None:
            _write(folder / "pids.max", processes)

    def out_of_memory(self) -> int:
        """How many processes the kernel killed here for want of memory."""
        if (folder := self.folders.get("memory")) is None:
            return 0
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        with contextlib.suppress(OSError):
            if found := re.search(r"^oom_kill (\d+)", (folder / name).read_text(), re.MULTILINE):
                return int(found[1])
        return 0

    def kill(self) -> None:
        """Kill every process here but this one; none can be made from now on, until a limit is set again."""
        if (folder := self.folders.get("pids")) is not None:
            _write(folder / "pids.max", 0)
        for folder in set(self.folders.values()):
            for process in _members(folder):
                if process == os.getpid():
                    continue
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left, leave, and take the groups away."""
        for folder in set(self.folders.values()):
            with contextlib.suppress(OSError):
                (folder.parent / "cgroup.procs").write_text("0")
        until = time.monotonic() + 2
        while self.folders and time.monotonic() < until:
            self.kill()
            for name, folder in list(self.folders.items()):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                if not folder.exists():
                    del self.folders[name]
            time.sleep(0.005 if self.folders else 0)


def _members(folder: Path) -> list[int]:
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except (OSError, ValueError):
        return []


def _places() -> Iterator[tuple[int, tuple[str, ...], Path]]:
    """Folders in which a group may be made: version, controllers, parent; the nearest first."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        own = {names: path for _, names, path in lines}
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = before.split(" ")[3:5]
        if kind == "cgroup2":
            here = _within(Path(point), root, own.get("", "/"))
            while True:
                if set(_WANTED) <= set(_read(here / "cgroup.subtree_control").split()):
                    yield 2, _WANTED, here
                if here == Path(point):
                    break
                here = here.parent
        elif kind == "cgroup":
            for one in set(options.split(" ")[-1].split(",")) & set(_WANTED):
                path = next((path for names, path in own.items() if one in names.split(",")), "/")
                yield 1, (one,), _within(Path(point), root, path)


def _within(point: Path, root: str, path: str) -> Path:
    """Where a group lies under a mount that shows the tree from `root` on; the mount itself where it is not there."""
    inner = os.path.relpath(path, root)
    place = point / inner
    return point if inner.startswith("..") or not place.is_dir() else place


def _sweep(parent: Path) -> None:
    """Take away the groups of processes that are gone without having done so."""
    with contextlib.suppress(OSError):
        for folder in parent.glob(f"{PREFIX}*"):
            owner = folder.name.removeprefix(PREFIX)
            if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, value: int) -> None:
    with contextlib.suppress(OSError):
        path.write_text(str(value))
