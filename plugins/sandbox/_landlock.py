"""Landlock for the calling process: it reads the interpreter and what the system has, and writes its scratch alone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

READ_AND_WRITE = ("/dev/null", "/dev/zero", "/dev/full")


def supported() -> bool:
    """Whether the kernel has Landlock with a limit on files. Raises ImportError without the package."""
    import landlockpy

    return landlockpy.supported()


def restrict(readable: Sequence[str], scratch: Path) -> None:
    """Restrict the calling process and what it begins, for good. Raises landlockpy.LandlockError or OSError."""
    from landlockpy import AccessFS, Ruleset, Scope

    reading = AccessFS.READ_FILE | AccessFS.READ_DIR | AccessFS.EXECUTE
    writing = AccessFS.READ_FILE | AccessFS.WRITE_FILE
    made = AccessFS.MAKE_DIR | AccessFS.MAKE_REG | AccessFS.MAKE_SYM | AccessFS.MAKE_FIFO
    taken = AccessFS.REMOVE_DIR | AccessFS.REMOVE_FILE | AccessFS.TRUNCATE | AccessFS.REFER
    with Ruleset(scoped=Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL) as rules:
        for path in readable:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                one_file = AccessFS.READ_FILE | AccessFS.EXECUTE
                rules.allow_path(path, reading if Path(path).is_dir() else one_file)
        for path in READ_AND_WRITE:
            with contextlib.suppress(FileNotFoundError):
                rules.allow_path(path, writing)
        rules.allow_path(scratch, reading | writing | made | taken)
        rules.restrict()
