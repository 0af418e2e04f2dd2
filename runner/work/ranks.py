"""Several processes that share a stage: how they are asked to stop, and which of them failed, and why.

`accelerate launch` starts them and ends all others where one ends badly, so what the first one says last may be that a
neighbour is gone. Each leaves its reason in the stage's folder (`failed-rank1.json`) beside its log (`log-rank1.txt`);
of one that was killed the launcher's own output tells, which is kept as `launcher.log`. One that hangs says nothing.
The others wait for it until torch's timeout (trainer.ddp_timeout) ends them: it is the one that never complained.

Limits: NCCL's timeout ends a process without an exception, so its line in the log is looked for ("Watchdog caught
collective operation timeout", of torch's ProcessGroupNCCL); this was read, not seen. A process that gives up more than
half a minute after the first is killed by the launcher before it can say so, and counts as one that hangs. One that
hangs before its first line in the log, after an attempt in which it waited, is not named.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsd.runner.store.workspace import now

LAUNCHER_LOG = "launcher.log"
_ROOT = re.compile(r"Root Cause.*?^\s*rank\s*:\s*(\d+).*?^\s*exitcode\s*:\s*(-?\d+)", re.DOTALL | re.MULTILINE)
# What gloo raises, and what NCCL's watchdog prints before it ends the process.
_WAITED = re.compile(
    r"Timed out waiting (?P<ms>\d+)ms for|Timed out waiting|Watchdog caught collective operation timeout"
)
# What `heading` makes. Others print lines of dashes too, as Python's logging does of its own errors.
_HEADING = re.compile(r"^--- \d{4}-\d\d-\d\dT\S+ \S+ \S+ for ", re.MULTILINE)


@dataclass(frozen=True)
class RankFailure:
    """Which process failed, why, and where its log is."""

    rank: int
    reason: str
    log: Path
    hung: bool = False

    def sentence(self, processes: int) -> str:
        """The reason, with the process where it is not the one that leads, or the one that was waited for."""
        if self.hung:
            return f"process {self.rank + 1} of {processes} {self.reason}"
        return self.reason if self.rank == 0 else f"process {self.rank + 1} of {processes}: {self.reason}"


def log_name(rank: int) -> str:
    """The file in a stage's folder that a process writes to."""
    return "log.txt" if rank == 0 else f"log-rank{rank}.txt"


def heading(kind: str, digest: str, used_by: Sequence[str]) -> str:
    """The line that begins what an attempt says in a log; attempts follow each other in one file."""
    return f"--- {now()} {kind} {digest} for {', '.join(used_by)}"


def death(code: int) -> str:
    """What is said of a process that ended with an exit code and nothing else (-9: by signal 9)."""
    if code == -signal.SIGKILL:
        return "the worker was killed (SIGKILL): most often the machine ran out of memory"
    if code < 0:
        return f"the worker died of {signal.Signals(-code).name}"
    return f"the worker ended with exit code {code} before it could say why"


def leave_reason(partial: Path, rank: int, reason: str) -> None:
    """Write down why this process failed."""
    path = partial / f"failed-rank{rank}.json"
    path.write_text(json.dumps({"reason": reason, "at": time.time()}), encoding="utf-8")


def forget_reasons(partial: Path) -> None:
    """Remove what an earlier attempt left."""
    for path in (*partial.glob("failed-rank*.json"), partial / LAUNCHER_LOG):
        path.unlink(missing_ok=True)


def first_failure(partial: Path, processes: int) -> RankFailure | None:
    """Of so many processes here the one that failed first, after all have ended; None where nothing tells.

    Where the first one only waited in vain, it is the one that did not come.
    """
    reasons: dict[int, tuple[float, str]] = {}
    for path in partial.glob("failed-rank*.json"):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            reasons[int(path.stem.removeprefix("failed-rank"))] = (float(found["at"]), str(found["reason"]))
        except (OSError, ValueError, KeyError, TypeError):  # torn by a kill
            continue
    root = _ROOT.search(_text(partial / LAUNCHER_LOG))
    rank, code = (int(root[1]), int(root[2])) if root is not None else (-1, 0)
    killed = rank not in reasons and code < 0
    if not killed and not reasons:
        return None
    first = rank if killed or rank in reasons else min(reasons, key=lambda one: reasons[one][0])
    waited = _WAITED.search(_said(partial / log_name(first)) if killed else reasons[first][1])
    if waited is not None and (absent := _absent(partial, reasons, processes)) is not None:
        seconds = f" for {int(waited['ms']) / 1000:g} s" if waited["ms"] else ""
        reason = f"did not come: others waited for it{seconds} (trainer.ddp_timeout); its log ends with where it stood"
        return RankFailure(absent, reason, partial / log_name(absent), hung=True)
    if killed:  # it could say nothing; what others say comes of that
        return RankFailure(rank, death(code), partial / log_name(rank))
    return RankFailure(first, reasons[first][1], partial / log_name(first))


def _absent(partial: Path, reasons: Mapping[int, tuple[float, str]], processes: int) -> int | None:
    """The process that others waited for: one that says nothing, else the last to complain of something else."""
    for rank in range(processes):
        if rank not in reasons and not _WAITED.search(_said(partial / log_name(rank))):
            return rank
    late = {rank: at for rank, (at, reason) in reasons.items() if not _WAITED.search(reason)}
    return max(late, key=lambda rank: late[rank], default=None)


def _said(log: Path) -> str:
    """What the last attempt says in a log."""
    text = _text(log)
    begun = [found.start() for found in _HEADING.finditer(text)]
    return text[begun[-1] :] if begun else text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def ask_to_stop(launcher: subprocess.Popen[str]) -> None:
    """Ask every process to save and stop. Asked itself, the launcher would kill them half a minute later."""
    asked = False
    for pid in _children(launcher.pid):
        try:
            os.kill(pid, signal.SIGTERM)
            asked = True
        except ProcessLookupError:
            continue
    if not asked:  # it has started none yet, or nobody can see them
        launcher.terminate()


def _children(pid: int) -> list[int]:
    """The workers that a launcher started, as Linux tells; [] elsewhere."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            words = (folder / "cmdline").read_bytes()
        except (OSError, IndexError):  # it ended just then
            continue
        if parent == str(pid) and b"nsd.runner.work.worker" in words:
            found.append(int(folder.name))
    return found
