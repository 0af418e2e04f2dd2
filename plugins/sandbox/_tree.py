"""Processes under this one, by /proc: who they are, how much memory they hold, and how all of them are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

_PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(of: int) -> list[int]:
    """The processes below one, parents first. Threads are none."""
    children: dict[int, list[int]] = {}
    for process, parent in _parents():
        children.setdefault(parent, []).append(process)
    found, owed = [], [of]
    while owed:
        owed = [child for one in owed for child in children.get(one, ())]
        found += owed
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):  # noqa: PTH208 (a Path for each process takes longer than the rest)
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])


def memory_of(processes: list[int]) -> int:
    """Bytes that processes hold in memory together. What several share is counted for each."""
    pages = 0
    for process in processes:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/statm", "rb") as file:  # noqa: PTH123
            pages += int(file.read().split()[1])
    return pages * _PAGE


def seconds_of(processes: list[int]) -> float:
    """Seconds that processes, and those of their children that have ended, spent on processors."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123
            ticks += sum(map(int, file.read().rpartition(b")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def tasks_of(user: int) -> int:
    """How many processes and threads a user has."""
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == user:  # noqa: PTH116
                count += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
    return count


def end_all(seconds: float = 5.0) -> bool:
    """Kill and reap every process below this one, which adopts orphans; whether none is left."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not _reap():
            return True
        found = descendants(os.getpid())
        for stopped in (signal.SIGSTOP, signal.SIGKILL):  # what is stopped makes no new ones
            for process in found:
                with contextlib.suppress(OSError):
                    os.kill(process, stopped)
        time.sleep(0.001)
    return not _reap()


def _reap() -> bool:
    """Take the exit codes of children that have ended; whether there are others."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False
