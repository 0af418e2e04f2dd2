"""Which processes belong to a ROOT folder, and how every one of them ends.

A process belongs to ROOT when it carries the variable `MARK` with that folder, runs as the node's own user, is the
sshd of its configuration (sshd writes its title over its environment, and so over the mark), or descends from or
shares a session with one of these. That also finds what daemonised itself away from its parent: Slurm's step
daemons, SkyPilot's server workers and its job controllers.

The caller of `end_all` is never among them, nor are its ancestors, although they may carry the mark.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "NSD_ONE_MACHINE"


@dataclass(frozen=True)
class Process:
    """One row of /proc."""

    pid: int
    parent: int
    session: int
    user: int
    marked_root: str


def _read(pid: int) -> Process | None:
    folder = Path("/proc") / str(pid)
    try:
        # The command's name, in parentheses, may itself hold spaces and parentheses: split after the last one.
        state, parent, _group, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        user = folder.stat().st_uid
    except (OSError, ValueError):
        return None
    if state == "Z":
        return None
    mark = ""
    with contextlib.suppress(OSError):
        title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        configured = re.search(r"^sshd: .* -f (/.*)/sshd_config ", title)
        if configured and user == 0:
            return Process(pid, int(parent), int(session), user, configured[1])
    with contextlib.suppress(OSError):
        for item in (folder / "environ").read_bytes().split(b"\0"):
            if item.startswith(MARK.encode() + b"="):
                mark = item.partition(b"=")[2].decode(errors="replace")
    return Process(pid, int(parent), int(session), user, mark)


def all_processes() -> dict[int, Process]:
    """Every live process that can be read, by its id."""
    found = (_read(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {process.pid: process for process in found if process is not None}


def belonging_to(root: Path, user: int | None) -> list[int]:
    """Ids of the live processes of `root`, except the caller and its ancestors; `user` is the node user's id."""
    table = all_processes()
    spared = {0, 1}
    pid = os.getpid()
    while pid in table and pid not in spared:
        spared.add(pid)
        pid = table[pid].parent
    spared_sessions = {table[pid].session for pid in spared if pid in table} | {0}
    ours = {
        pid
        for pid, process in table.items()
        if pid not in spared and (process.marked_root == str(root) or (user is not None and process.user == user))
    }
    while True:
        sessions = {table[pid].session for pid in ours} - spared_sessions
        more = {
            pid
            for pid, process in table.items()
            if pid not in spared and pid not in ours and (process.parent in ours or process.session in sessions)
        }
        if not more:
            return sorted(ours)
        ours |= more


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end_all(root: Path, user: int | None, patience: float = 5.0) -> None:
    """End every process of `root`: SIGTERM, then SIGKILL after `patience` seconds. Returns once none is left.

    Raises RuntimeError when some process survives two minutes of SIGKILL.
    """
    _send(belonging_to(root, user), signal.SIGTERM)
    gentle_until, give_up_at = time.monotonic() + patience, time.monotonic() + patience + 120
    while left := belonging_to(root, user):
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"processes of {root} that do not end: {left}")
        if time.monotonic() > gentle_until:
            _send(left, signal.SIGKILL)
        time.sleep(0.1)


def start_watch(root: Path, owner: int) -> None:
    """Start the process that takes `root` down once the process `owner` is gone, however it went.

    It is a session of its own and carries no mark, so neither a Ctrl-C in the owner's terminal nor `end_all` stops
    it before its work is done.
    """
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "__main__.py"), "watch", str(root), str(owner)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for_end_of(owner: int, root: Path) -> None:
    """Return when process `owner` has ended, or when `root` has been taken down by somebody else."""
    try:
        handle = os.pidfd_open(owner)
    except ProcessLookupError:
        return
    import select

    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while not poll.poll(1000) and (root / "ports.json").exists():
        pass
    os.close(handle)
