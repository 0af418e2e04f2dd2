"""Training checkpoints: which are whole, which one to resume from, and when to write the next.

transformers writes `checkpoint-N` in place, so a killed run can leave half of one. Here a checkpoint counts only
once `nsd.json` is in it, written last, after every file has reached the disk, and only while every file that it names
is there: a cluster may remove a home while a run that was told to stop still saves into it, and transformers would
resume without an optimizer's state and not say so. Limits: the optimizer's and random states inside are PyTorch files,
trusted because the same stage wrote them; weights are safetensors.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

MARKER = "nsd.json"
PREFIX = "checkpoint-"
KEEP = 2
FIRST_SAVE_SECONDS = 10.0
MAX_SAVING_SHARE = 0.05


@dataclass(frozen=True)
class Marker:
    """What a checkpoint needs beyond transformers' own files."""

    step: int
    tokens: int
    world_size: int
    micro_batch_size: int
    files: dict[str, int] = field(default_factory=dict)  # of the checkpoint, with their sizes; `finish` fills it in


def whole(folder: Path) -> list[tuple[Path, Marker]]:
    """The checkpoints in `folder` that were written to their end and have all their files, oldest first."""
    found: list[tuple[Path, Marker]] = []
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            marker = Marker(**json.loads((path / MARKER).read_text(encoding="utf-8")))
            if all((path / name).stat().st_size == size for name, size in marker.files.items()):
                found.append((path, marker))
    return sorted(found, key=lambda entry: entry[1].step)


def finish(path: Path, marker: Marker, needed: Sequence[str] = ()) -> None:
    """Flush a checkpoint's files to the disk, then mark it whole.

    Raises FileNotFoundError where no file matches one of the patterns in `needed`: it went as soon as it was written.
    """
    files = {}
    for file in path.rglob("*"):
        if file.is_file():
            _flush(file)
            files[file.relative_to(path).as_posix()] = file.stat().st_size
    if lost := [pattern for pattern in needed if not fnmatch.filter(files, pattern)]:
        raise FileNotFoundError(f"{path} has lost {', '.join(lost)}: something removes the files of this run")
    temporary = path / f"{MARKER}.tmp"
    temporary.write_text(json.dumps(asdict(replace(marker, files=files))), encoding="utf-8")
    _flush(temporary)
    temporary.replace(path / MARKER)
    _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clean(folder: Path, keep: int = KEEP) -> None:
    """Delete half-written checkpoints and all but the newest `keep` whole ones."""
    good = [path for path, _ in whole(folder)]
    kept = set(good[-keep:])
    for path in folder.glob(f"{PREFIX}*"):
        if path not in kept:
            # The marker goes first: a kill during the deletion must not leave a marked half.
            (path / MARKER).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


class Cadence:
    """When to save: every `every` steps, or by the clock so that saving takes at most 5 % of the time.

    By the clock the first checkpoint comes after 10 s of training and the next after the larger of 10 s and
    20 times what the last one took to write. Resuming is exact, so the moment changes nothing in the result.
    """

    def __init__(self, every: int | None) -> None:
        self._every = every
        self._interval = FIRST_SAVE_SECONDS
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a checkpoint should follow this step."""
        if self._every is not None:
            return step % self._every == 0
        return time.monotonic() - self._last >= self._interval

    def saved(self, seconds: float) -> None:
        """Note that a checkpoint was written and how long it took."""
        self._interval = max(FIRST_SAVE_SECONDS, seconds / MAX_SAVING_SHARE)
        self._last = time.monotonic()
