"""What benchmarks measure with: two clocks, a process alone, and the median ratio of rounds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.frame import REPOSITORY

T = TypeVar("T")
MIB = 2**20


@dataclass(frozen=True)
class Spent:
    """Seconds by the wall and of the process's processors."""

    wall: float
    processor: float

    def cost(self, device: str) -> float:
        """Processor time where processors do the work, for other work hardly moves it; else the wall's."""
        return self.processor if device == "cpu" else self.wall


@dataclass(frozen=True)
class Ran:
    """A finished process: wall and processor seconds, peak resident memory in MiB, standard output."""

    seconds: float
    processor: float
    peak_mib: float
    out: str


def clocked(way: Callable[[], T]) -> tuple[T, Spent]:
    """What a call gives, and what it took."""
    wall, processor = time.perf_counter(), time.process_time()
    found = way()
    return found, Spent(time.perf_counter() - wall, time.process_time() - processor)


def median_ratio(own: Sequence[float], other: Sequence[float]) -> float:
    """The median over rounds of one side's value over the other's in the same round."""
    return statistics.median(a / b for a, b in zip(own, other, strict=True))


def run(command: Sequence[str], *, threads: int = 1, settings: Mapping[str, str] | None = None) -> Ran:
    """Run a process alone in the repository and measure it. Exits with its standard error where it fails."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, **limits, **offline, **(settings or {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # whoever uses nsd has its byte code at hand
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, cwd=REPOSITORY)
        _, status, usage = os.wait4(process.pid, 0)  # the usage of this child alone
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{err.read().decode()[-3000:]}")
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MIB
        return Ran(seconds, usage.ru_utime + usage.ru_stime, peak, out.read().decode())


def module(name: str, *arguments: str) -> list[str]:
    """The command of a benchmark's own part in another process."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


def of_environment(name: str) -> str:
    """A command that was installed beside this Python."""
    return str(Path(sys.executable).with_name(name))
