"""Files that are whole or not there, whenever the power goes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    write_blocks_atomically(path, [text.encode("utf-8")])


def write_blocks_atomically(path: Path, blocks: Iterable[bytes]) -> None:
    """The same of bytes that come in blocks; what raises while they come leaves the old file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        for block in blocks:
            file.write(block)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write, which takes its name at the end; what raises meanwhile leaves the old one.

    A kill leaves the hidden file: `.NAME.PID.tmp`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
