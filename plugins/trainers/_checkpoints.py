"""Training checkpoints: which are whole, which one to resume from, and when to write the next.

transformers writes `checkpoint-N` in place, so a killed run can leave half of one. Here a checkpoint counts only
once `nsd.json` is in it, written last, after every file has reached the disk. Limits: the optimizer's and random
states inside are PyTorch files, trusted because the same stage wrote them; weights are safetensors.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nsd.plugins.durable import flush, write_atomically

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


def whole(folder: Path) -> list[tuple[Path, Marker]]:
    """The checkpoints in `folder` that were written to their end, oldest first."""
    found: list[tuple[Path, Marker]] = []
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append((path, Marker(**json.loads((path / MARKER).read_text(encoding="utf-8")))))
    return sorted(found, key=lambda entry: entry[1].step)


def finish(path: Path, marker: Marker) -> None:
    """Flush a checkpoint's files to the disk, then mark it whole."""
    for file in path.rglob("*"):
        if file.is_file():
            flush(file)
    write_atomically(path / MARKER, json.dumps(asdict(marker)))


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
