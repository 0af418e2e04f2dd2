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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nsd.plugins.durable import flush, write_atomically

MARKER = "nsd.json"
PREFIX = "checkpoint-"
KEEP = 2
FIRST_SAVE_SECONDS = 10.0
MAX_SAVING_SHARE = 0.05
PROBE_BYTES = 16 << 20
PACKING_BYTES_PER_SECOND = 1e9


@dataclass(frozen=True)
class Marker:
    """What a checkpoint needs beyond transformers' own files."""

    step: int
    tokens: int
    world_size: int
    micro_batch_size: int
    generated: int = 0  # tokens of rollouts
    seconds: float = 0.0  # spent in steps
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
            flush(file)
            files[file.relative_to(path).as_posix()] = file.stat().st_size
    if lost := [pattern for pattern in needed if not fnmatch.filter(files, pattern)]:
        raise FileNotFoundError(f"{path} has lost {', '.join(lost)}: something removes the files of this run")
    write_atomically(path / MARKER, json.dumps(asdict(replace(marker, files=files))))


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

    By the clock a checkpoint is due 10 s after the last one at the earliest, and once all that was spent on
    checkpoints, with the next one, is at most 5 % of the time since the beginning. The next one is taken to cost what
    the last one did. The first is estimated: its bytes (`size_of`) at the rate at which a probe of at most 16 MiB
    reaches the disk in the same folder, and at 1 GB/s for taking them from the device and packing them, which is slow
    for every device that was met. So a model of 8 billion weights in float32, whose checkpoint has 96 GB, is first
    saved after 64 minutes on a disk that takes 1 GB/s. Resuming is exact, so the moment changes nothing in the result.
    """

    def __init__(self, every: int | None) -> None:
        self._every = every
        self._began = self._last = time.monotonic()
        self._spent = 0.0
        self._next: float | None = None

    def due(self, step: int, estimate: Callable[[], float] = lambda: 0.0) -> bool:
        """Whether a checkpoint should follow this step; `estimate` gives the seconds of the first one."""
        if self._every is not None:
            return step % self._every == 0
        now = time.monotonic()
        if now - self._last < FIRST_SAVE_SECONDS:
            return False
        if self._next is None:
            self._next = estimate()
        return self._spent + self._next <= MAX_SAVING_SHARE * (now - self._began)

    def saved(self, seconds: float) -> None:
        """Note that a checkpoint was written and how long it took."""
        self._spent += seconds
        self._next = seconds
        self._last = time.monotonic()


def size_of(parameters: Iterable[Any], optimizer: Any, adapter: bool) -> int:
    """Bytes of a checkpoint's tensors: the weights (an adapter's alone where there is one) and the optimizer's state.

    A tensor that is spread over processes counts whole. To be asked after a step: before it the optimizer has no state.
    """
    weights = [parameter for parameter in parameters if parameter.requires_grad or not adapter]
    states = [value for state in optimizer.state.values() for value in state.values() if hasattr(value, "numel")]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*weights, *states])


def seconds_to_write(folder: Path, size: int) -> float:
    """About how long so many bytes take to be packed and to reach the disk, by a probe that is written and removed."""
    probe = folder / "probe.tmp"
    block = os.urandom(min(max(size // 64, 1 << 16), PROBE_BYTES))
    started = time.monotonic()
    try:
        probe.write_bytes(block)
        flush(probe)
        seconds = time.monotonic() - started
    finally:
        probe.unlink(missing_ok=True)
    return size * (seconds / len(block) + 1 / PACKING_BYTES_PER_SECOND)
