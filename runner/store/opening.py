"""Opens the index's file: waits for its holder, and sets aside a file that is no database any more.

    connection = open_index(path, read_only=False)      # a broken file is set aside first
    with hold(path) as held: ...                        # nobody else can open it meanwhile

DuckDB says in words alone why it cannot open a file, and the words "lock" and "block" come in reasons of every kind.
The lock itself, a POSIX lock on the file, tells a held file from a broken one: a lock that can be taken has no holder.
Then a copy of the file is tried, which no other process can hold. If the copy does not open either, the file is broken.

Limits: as for every lock of a workspace, the file system must have them. A POSIX lock ends with the first descriptor of
the file that its process closes: nothing may open the index by other means while it is held here.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.errors import NsdError

if TYPE_CHECKING:
    import duckdb

TURN_SECONDS = 120.0
MAGIC = b"DUCK"  # at byte 8
# Another program's file must not be opened by an extension that DuckDB fetches for it.
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class IndexLocked(NsdError):
    """Other processes held the index for longer than a turn may take."""


def open_index(path: Path, read_only: bool) -> duckdb.DuckDBPyConnection | None:
    """A connection; None where a reader finds no file, which is also so after a broken one was set aside.

    Raises IndexLocked after TURN_SECONDS, and OSError where the file cannot be touched at all.
    """
    import duckdb

    deadline = time.monotonic() + TURN_SECONDS
    while True:
        if read_only and not os.path.lexists(path):
            return None
        try:
            return duckdb.connect(str(path), read_only=read_only, config=CONFIG)
        except duckdb.ConnectionException:  # this very process has it open in the other way: a fault of the caller
            raise
        except duckdb.Error as error:
            if path.is_dir() or (path.is_symlink() and not path.exists()):
                set_aside(path, "it is no file")
                continue
            if not path.exists():
                if read_only:
                    return None
                raise NsdError(f"cannot make the index {path}: {error}") from error
            with hold(path) as held:
                if held is not None and (reason := fault_of(path, held)) is not None:
                    set_aside(path, reason)
                    continue
            wait_a_little(path, deadline)


def wait_a_little(path: Path, deadline: float) -> None:
    """Between two attempts. Raises IndexLocked after the deadline, a time.monotonic()."""
    if time.monotonic() > deadline:
        raise IndexLocked(f"the index {path} stayed locked for {TURN_SECONDS:.0f} s")
    time.sleep(random.uniform(0.02, 0.2))  # the wait shapes no result, so its chance needs no seed


def fault_of(path: Path, held: int, thorough: bool = False) -> str | None:
    """Why an index cannot be opened, with `thorough` or be read to its last row; None where it can.

    `held` is the descriptor that `hold` gave.
    """
    import duckdb

    if os.pread(held, 12, 0)[8:] != MAGIC:
        return "it is no DuckDB database"
    with tempfile.TemporaryDirectory(prefix="nsd-index-") as folder:
        copy = Path(folder) / path.name
        with copy.open("wb") as target:
            place = 0
            while block := os.pread(held, 8 << 20, place):
                target.write(block)
                place += len(block)
        if (log := _log_of(path)).is_file():
            shutil.copyfile(log, _log_of(copy))
        try:
            with duckdb.connect(str(copy)) as connection:
                for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                    if thorough:
                        connection.execute(f'SELECT sum(hash(t)) FROM "{name}" t').fetchall()
        except duckdb.Error as error:
            return str(error).splitlines()[0].replace(str(copy), str(path))
    return None


@contextlib.contextmanager
def hold(path: Path) -> Iterator[int | None]:
    """Hold the lock that DuckDB takes, and yield the file's descriptor; None where another process has the lock.

    Also None for a file that is gone or was replaced just now. This process may have no connection to it.
    """
    import fcntl

    try:
        try:
            descriptor, kind = os.open(path, os.O_RDWR), fcntl.LOCK_EX
        except PermissionError:
            descriptor, kind = os.open(path, os.O_RDONLY), fcntl.LOCK_SH
    except FileNotFoundError:
        yield None
        return
    try:
        held: int | None = None
        with contextlib.suppress(BlockingIOError, PermissionError, FileNotFoundError):
            fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                held = descriptor
        yield held
    finally:
        os.close(descriptor)


def set_aside(path: Path, reason: str) -> None:
    """Put a broken index away as `NAME.broken`, in place of an earlier one, drop its log, and say so."""
    target = path.with_name(f"{path.name}.broken")
    _remove(_log_of(path))
    _remove(target)
    path.rename(target)
    if target.is_symlink() or target.is_dir() or target.stat().st_size:
        print(f"nsd: the index {path} cannot be read ({reason}): made again; the old one is {target}", file=sys.stderr)


def replace(path: Path, new: Path) -> None:
    """Put a closed database in the place of the index. Call under `hold`."""
    _remove(_log_of(path))
    new.replace(path)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
