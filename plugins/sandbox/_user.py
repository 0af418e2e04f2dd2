"""As root: a user for the programs that owns nothing, and reaches the interpreter wherever that lies.

Whoever is root outside stays root to much of the kernel in every name space. So a helper that runs as root gives each
program another user; where the interpreter lies in a folder of root's alone (a pyenv of its), the helper first takes a
view of the file system of its own, in which that folder holds the interpreter and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

# Numbers that no account has: systemd takes its passing users from these (systemd.io/UIDS-GIDS).
PASSING_USERS = range(61184, 65520)
_NEW_MOUNTS, _BIND, _RECURSIVE, _PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def passing_user(reached: Sequence[str]) -> int | None:
    """The number of the user that programs of this process are to have; None where they keep its own.

    `reached` are the files and folders that they need. Call it once, before anything else is begun.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    closed = _closed(reached)
    if closed and not _opened(closed, reached):
        return None
    return PASSING_USERS[os.getpid() % len(PASSING_USERS)]


def _closed(reached: Sequence[str]) -> set[Path]:
    """The folders nearest to the root through which others cannot pass to what they need."""
    found = set()
    for path in map(Path, reached):
        for place in reversed([path, *path.parents]):
            if not place.stat().st_mode & (0o001 if place.is_dir() else 0o004):
                found.add(place)
                break
    return found


def _opened(closed: set[Path], reached: Sequence[str]) -> bool:
    """Put an empty folder in the place of each closed one, with what is needed in it; whether that was possible.

    Only this process and its children see it.
    """
    needed = [path for path in map(Path, reached) if any(path.is_relative_to(folder) for folder in closed)]
    if any(not folder.is_dir() or folder in (Path("/"), *needed) for folder in closed):
        return False
    if _libc.unshare(_NEW_MOUNTS) != 0:
        return False
    held = {path: os.open(path, os.O_PATH) for path in needed}
    try:
        _mount("none", "/", "", _RECURSIVE | _PRIVATE)
        for folder in closed:
            _mount("nsd", str(folder), "tmpfs", 0, "mode=755,size=1m")
        for path, descriptor in held.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 (of what the descriptor is of)
                path.mkdir(exist_ok=True)
            else:
                path.touch()
            _mount(f"/proc/self/fd/{descriptor}", str(path), "", _BIND)
    except OSError:
        for folder in closed:
            _libc.umount2(str(folder).encode(), _DETACH)
        return False
    finally:
        for descriptor in held.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
    return True


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    given = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if _libc.mount(*given) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
