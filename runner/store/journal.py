"""Append-only JSON lines under the workspace, for what people did: no artifact could tell it again.

    append(workspace.root / "notes.jsonl", [{"run": "quickstart", "text": "..."}])
    entries = read(workspace.root / "notes.jsonl")

One writer at a time (flock). A line is whole or it is no entry: a line that a crash tore off is passed over when
reading, and the next entry starts on a line of its own. Limits: as for the workspace's locks, the file system
needs flock.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Entries = list[dict[str, Any]]
_told: set[Path] = set()  # files whose being unreadable was said already


def append(
    path: Path, entries: Sequence[dict[str, Any]], unless: Callable[[Entries], Entries] | None = None
) -> Entries:
    """Add entries at the end and return those added. Raises OSError where the file cannot be written.

    `unless` is given what the file holds, under the lock, and returns what to add in place of `entries`.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held = path.read_bytes()
        added = list(entries) if unless is None else unless(parse(held))
        if added:
            text = "".join(json.dumps(entry, ensure_ascii=True, allow_nan=False) + "\n" for entry in added)
            left = (b"\n" if held and not held.endswith(b"\n") else b"") + text.encode()
            while left:  # a full disk or a signal may take a part
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        return added
    finally:
        os.close(descriptor)


def read(path: Path) -> Entries:
    """Every whole entry, oldest first; [] where there is no file, and where it cannot be read, which is said once."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        if path not in _told:
            _told.add(path)
            print(f"nsd: {path} cannot be read and is passed over: {error.strerror or error}", file=sys.stderr)
        return []


def parse(content: bytes) -> Entries:
    """The entries of a journal's text; lines that are no JSON object are passed over."""
    found = []
    for line in content.splitlines():
        try:
            entry = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):  # torn by a crash, or not text
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found
