"""What a question carries that is large, such as the tests of a program: a file of its own, known by its content.

    Question(..., meta={"tests": SideFile.of(folder / "tests" / "17.json")})       # in a dataset
    cases = question.meta["tests"].json()                                          # in a verifier

Digests and files of questions hold the sha256 and the size, never the place. A run copies the file into its workspace,
and whoever reads it there gets the content that the digest was made of, or a BrokenSideFile.

The sha256 is taken once: $XDG_CACHE_HOME/nsd/side-files (else ~/.cache/...) keeps it by real path, size and time of
change, so that the next plan opens nothing. A file changed in the last two seconds is not kept: its next change could
have the same time.

Limits: it stands in `meta` under a key of its own, not inside a list or dictionary there. A file that was changed and
has its old size and time is found out when a run copies it, not by the plan.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsd.plugins.durable import write_atomically
from nsd.plugins.errors import InputError
from nsd.plugins.paths import inside

BLOCK = 8 << 20  # bytes read at a time
RECENT_NS = 2 * 10**9  # coarsest times of file systems in use
_SHA256 = re.compile("[0-9a-f]{64}")


class BrokenSideFile(InputError):
    """A side file that is not there, or holds something else. `path` is the file, `reason` what is wrong with it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; run the spec again")
        self.path, self.reason = path, reason


@dataclass(frozen=True, slots=True)
class SideFile:
    """A file by its content: `sha256` in 64 hex digits and `size` in bytes. `path` is where it lies now.

    Two with the same content are equal, wherever they lie.
    """

    sha256: str
    size: int
    path: Path = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256) or type(self.size) is not int or self.size < 0:
            raise ValueError(f"{self.sha256!r} with {self.size!r} bytes is no side file")

    @classmethod
    def of(cls, path: str | Path) -> SideFile:
        """The side file that lies at `path`; read only where its sha256 is not known. InputError where none does."""
        place = Path(path).expanduser().absolute()
        try:
            status = place.stat()
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{place} is {'a folder' if stat.S_ISDIR(status.st_mode) else 'no regular file'}")
            if (sha256 := _known(place, status)) is not None:
                return cls(sha256, status.st_size, place)
            return cls(*_taken(place), place)
        except FileNotFoundError:
            raise InputError(f"there is no file {place}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{place} cannot be read ({getattr(error, 'strerror', None) or error})") from None

    @classmethod
    def within(cls, folder: Path, name: str) -> SideFile:
        """The same for a name that comes from a data file: whatever it is, it leads to no file outside the folder."""
        return cls.of(inside(folder, name.removeprefix("./")))

    def blocks(self) -> Iterator[bytes]:
        """The content, piece by piece. Raises BrokenSideFile, at the latest after the last piece."""
        content = hashlib.sha256()
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != self.size:  # nobody waits at a pipe
                raise self._broken("it has another size")
            with self.path.open("rb") as file:
                while block := file.read(BLOCK):
                    content.update(block)
                    yield block
        except OSError as error:
            raise self._broken(error.strerror or str(error)) from error
        if content.hexdigest() != self.sha256:
            raise self._broken("its content is not the one that the digest was made of")

    def check(self) -> None:
        """Read all of it. Raises BrokenSideFile."""
        for _ in self.blocks():
            pass

    def read(self) -> bytes:
        """The content, compared with the sha256 each time. Raises BrokenSideFile."""
        return b"".join(self.blocks())

    def json(self) -> Any:
        """What the content says as JSON. Raises BrokenSideFile, and InputError where it is none."""
        content = self.read()
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: not JSON: {error}") from None

    def _broken(self, reason: str) -> BrokenSideFile:
        with contextlib.suppress(OSError, RuntimeError):  # so that the next plan looks at it anew
            _entry(self.path).unlink()
        return BrokenSideFile(self.path, reason)


def as_text(value: object) -> str:
    """For `json.dumps`: what JSON has no form for as text. Raises InputError for a side file, which has none there."""
    if isinstance(value, SideFile):
        raise InputError(
            f"{value.path}: a side file stands inside another value of a question's meta; give it a key of its own"
        )
    return str(value)


# --------------------------------------------------------------------------- sha256s that are known


def _entry(path: Path) -> Path:
    """The small file that keeps the sha256 of another."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nsd" / "side-files" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"


def _known(path: Path, status: os.stat_result) -> str | None:
    """The sha256 that was taken of a file as it is, None where none is kept."""
    try:
        found = json.loads(_entry(path).read_bytes())
        sha256 = found["sha256"]
        same = (found["size"], found["mtime_ns"]) == _state(status)
        return sha256 if same and _SHA256.fullmatch(sha256) else None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
        return None


def _taken(path: Path) -> tuple[str, int]:
    """The sha256 and size of a file's content, kept for the next time where that can be written."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if _state(before) != _state(os.fstat(file.fileno())):
            raise InputError(f"{path} changes while it is read: try again when it is whole")
    if abs(time.time_ns() - before.st_mtime_ns) > RECENT_NS:
        kept = {"size": before.st_size, "mtime_ns": before.st_mtime_ns, "sha256": sha256}
        with contextlib.suppress(OSError, RuntimeError):
            write_atomically(_entry(path), json.dumps(kept))
    return sha256, before.st_size


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
