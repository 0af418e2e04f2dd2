"""What goes into a sandbox and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nsd.plugins.errors import NsdError

Kind = Literal["auto", "bubblewrap", "landlock", "process"]
KINDS: tuple[Kind, ...] = ("bubblewrap", "landlock", "process")

# What a sandbox may guarantee, in the order in which it is told.
GUARANTEES = {
    "network": "no socket reaches another program, on this machine or elsewhere",
    "files": "no file of the home folder, the workspace or other programs is read or changed",
    "environment": "no environment variable of another process is read",
    "processes": "none is left over, their number is bounded, and no process outside is read or killed",
    "memory": "what all its processes hold together is bounded",
    "time": "it ends with its time, whatever it does",
}


class SandboxFailed(NsdError, RuntimeError):
    """The sandbox itself did not work: that is no verdict on the program."""


@dataclass(frozen=True, slots=True)
class Program:
    """A Python program with its input and limits.

    `seconds` are of the clock on the wall, `cpu_seconds` of a processor for each of its processes (None: as many),
    `memory_mb` MiB of all its processes together.
    """

    source: str
    stdin: str = ""
    seconds: float = 6.0
    memory_mb: int = 1024
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended.

    `stdout` and `stderr` are UTF-8 with U+FFFD for what is none, and no longer than the sandbox takes; `stdout` is
    empty where it was too much. `exit_code` is 128 + N after signal N. `guarantees` is the part of GUARANTEES that
    held. `stopped` says which limit the sandbox ended it at, None where it ended by itself. `cpu_seconds` are those
    that its processes had used when its time was up; None where it was not.
    """

    stdout: str
    stderr: str
    exit_code: int
    timed_out: bool
    guarantees: frozenset[str]
    stopped: Literal["time", "memory", "output", "files"] | None = None
    cpu_seconds: float | None = None
