"""Watches a program that runs: what it says, how long it takes, and what it holds of memory and files."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nsd.plugins.sandbox import _tree

STDOUT_BYTES = 8 << 20  # a program that says more is ended
STDERR_BYTES = 64 << 10  # the last ones are kept
SCRATCH_BYTES = 64 << 20
SCRATCH_FILES = 10_000
TICK_SECONDS = 0.05  # between looks at memory and files
_SHARED_BYTES = 16 << 20  # what a Python shares with its children, and is counted for each
_linux = sys.platform == "linux"


@dataclass(frozen=True)
class Bounds:
    """What nobody else bounds: bytes of memory of all processes (None: a control group does), and a folder on disk."""

    memory: int | None
    scratch: Path | None


class Watch:
    """Reads what a program says and looks at its limits, until it ends or is to be ended."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float, bounds: Bounds) -> None:
        self.process, self.bounds, self.deserted = process, bounds, False
        self.until = time.monotonic() + seconds
        self.stdout, self.stderr = bytearray(), bytearray()
        assert process.stdout is not None and process.stderr is not None
        self.pipes = {process.stdout.fileno(): self.stdout, process.stderr.fileno(): self.stderr}
        self.selector = selectors.DefaultSelector()
        for pipe in self.pipes:
            os.set_blocking(pipe, False)
            self.selector.register(pipe, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.ended: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self.ended = os.pidfd_open(process.pid)
                self.selector.register(self.ended, selectors.EVENT_READ)

    def until_end(self) -> str | None:
        """Which limit it met, None where it ended by itself."""
        look_at = time.monotonic() + TICK_SECONDS
        while True:
            now = time.monotonic()
            if now >= self.until:
                return "time"
            wait = min(self.until, look_at if self.ended is not None else now + 0.002) - now
            for key, _ in self.selector.select(max(0.0, wait)):
                if key.fd in self.pipes:
                    self._read(key.fd)
                elif key.fd == self.ended:
                    return self._said_too_much()
                else:
                    self.deserted = True
                    return None
            if self.ended is None and self.process.poll() is not None:
                return self._said_too_much()
            if over := self._said_too_much():
                return over
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + TICK_SECONDS
                if over := self._over():
                    return over

    def _said_too_much(self) -> str | None:
        return "output" if len(self.stdout) > STDOUT_BYTES else None

    def _read(self, pipe: int) -> bool:
        """Take what a pipe has; whether there may be more."""
        try:
            part = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return False
        if not part:
            with contextlib.suppress(KeyError):
                self.selector.unregister(pipe)
            return False
        taken = self.pipes[pipe]
        taken += part
        if taken is self.stderr:
            del taken[:-STDERR_BYTES]
        return True

    def drain(self) -> None:
        """Take what stands in the pipes, once nobody writes any more."""
        for pipe in self.pipes:
            while len(self.stdout) <= STDOUT_BYTES and self._read(pipe):
                pass
        del self.stdout[STDOUT_BYTES:]
        self.selector.close()
        if self.ended is not None:
            os.close(self.ended)
        for one in (self.process.stdout, self.process.stderr):
            assert one is not None
            one.close()

    def _over(self) -> str | None:
        """Whether it holds too much memory, or too many files."""
        if not _linux:
            return None
        memory, scratch = self.bounds.memory, self.bounds.scratch
        processes = [] if memory is None else _tree.descendants(os.getpid())
        if memory is not None and _tree.memory_of(processes) > memory + _SHARED_BYTES * len(processes):
            return "memory"
        if scratch is not None:
            try:
                return "files" if _too_much_in(scratch) else None
            except RecursionError:  # Python 3.11 walks by calling itself, and its folders are nested deeper
                return "files"
        for process in _tree.descendants(self.process.pid):
            with contextlib.suppress(OSError):
                place = f"/proc/{process}/root/tmp"
                if os.stat(place).st_dev != os.stat("/tmp").st_dev:  # noqa: PTH116 (else it is not yet in its own)
                    held = os.statvfs(place)
                    return "files" if held.f_files - held.f_ffree > SCRATCH_FILES else None
        return None


def _too_much_in(folder: Path) -> bool:
    """Whether a scratch folder on disk holds too many files or bytes."""
    files = size = 0
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            files += 1
            with contextlib.suppress(OSError):
                size += os.lstat(f"{place}/{name}").st_blocks * 512
        if files > SCRATCH_FILES or size > SCRATCH_BYTES:
            return True
    return False
