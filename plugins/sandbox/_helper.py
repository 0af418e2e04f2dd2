"""One place in the pool: a small process that runs programs in sandboxes, one after another. `pool` starts it.

It reads a line of JSON with its settings, then one for each program, and answers with a line each. It ends with its
input. It is a process of its own because it forks (a training process with a model forks slowly), adopts what programs
leave behind, and has neither environment nor memory worth reading.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.sandbox import _seccomp, _tree, _user
from nsd.plugins.sandbox._watch import Bounds, Watch
from nsd.plugins.sandbox.cgroup import PREFIX, Group

FILE_BYTES = 16 << 20  # of one file
OPEN_FILES = 256
PROCESSES = 64  # threads count
OWN_BYTES = 32 << 20  # what this process and bubblewrap hold themselves
OWN_PROCESSES = 4

_PDEATHSIG, _DUMPABLE, _NO_NEW_PRIVS, _SUBREAPER = 1, 4, 38, 36
_linux = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _linux:
        _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)


class Helper:
    """Runs programs by settings: kind, command (what stands before the Python that runs in the sandbox), and so on."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.kind: str = settings["kind"]
        self.command: list[str] = settings["command"]
        self.environment: dict[str, str] = settings["environment"]
        self.raised: bool = settings["raised"]  # a bwrap that becomes root by its mode bit: a filter would forbid it
        self.readable: list[str] = settings["readable"]
        if self.kind == "landlock":  # loaded whole, while all of it can still be reached
            import landlockpy  # noqa: F401

            from nsd.plugins.sandbox import _landlock

            self._restrict = _landlock.restrict
        with contextlib.suppress(OSError):
            _seccomp.library()
        self.user = _user.passing_user(settings["reached"]) if _linux else None
        if self.kind == "process" and self.user is None and hasattr(os, "geteuid") and os.geteuid() == 0:
            raise InputError(
                "as root, with an interpreter that other users cannot reach, a program without walls could end every "
                "process of the machine: install bubblewrap, or run as another user"
            )
        if _linux and self.kind != "bubblewrap":
            _sweep()
        self.group = Group()
        self.memory = 1 << 30
        self.scratch: Path | None = None
        self.prepared: _Prepared | None = None

    # ------------------------------------------------------------------ before a program is there

    def prepare(self) -> None:
        """Start the Python of the next program: it waits for its source, so that nobody waits for it."""
        if self.kind != "bubblewrap":
            self.scratch = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            if self.user is not None:
                os.chown(self.scratch, self.user, self.user)
        self.group.limit(self.memory + OWN_BYTES, PROCESSES + OWN_PROCESSES)
        source, stdin = _Given(), _Given()
        go, gone = os.pipe()
        began, begun = os.pipe()
        try:
            process = subprocess.Popen(
                [*self.command, str(source.reader), str(go), str(begun)],
                stdin=stdin.reader,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(source.reader, go, begun),
                env=self.environment,
                cwd=self.scratch or "/",
                start_new_session=True,
                preexec_fn=self._enter,
            )
        finally:
            for one in (source.reader, stdin.reader, go, begun):
                os.close(one)
        self.prepared = _Prepared(process, source, stdin, gone, began)

    # ------------------------------------------------------------------ one program

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one program. The answer has `failed` where the sandbox itself did not work."""
        try:
            if self.prepared is None:
                self.prepare()
        except (OSError, subprocess.SubprocessError) as error:
            return {"failed": f"it could not be started: {error}"}
        assert self.prepared is not None
        ready, self.prepared = self.prepared, None
        self.memory = int(job["memory_mb"]) << 20
        self.group.limit(self.memory + OWN_BYTES, PROCESSES + OWN_PROCESSES)
        killed_before = self.group.out_of_memory()
        limits = " ".join(
            f"{name}={value}" for name, value in self._limits(float(job["cpu_seconds"] or job["seconds"])).items()
        )
        try:
            ready.stdin.write(job["stdin"].encode("utf-8", "surrogatepass"))
            ready.source.write(f"{limits}\n".encode() + job["source"].encode("utf-8", "surrogatepass"))
        except OSError as error:  # the disk is full, or no file may be so large
            self._end(ready.process)
            ready.close()
            return {"failed": f"the program could not be written down: {error}"}
        with contextlib.suppress(BrokenPipeError):
            os.write(ready.gone, b"1")
        os.close(ready.gone)
        watch = Watch(ready.process, float(job["seconds"]), self._bounds())
        stopped = watch.until_end()
        if watch.deserted:  # the pool is gone, and nobody waits for this program
            self.close(ready.process)
            os._exit(0)
        used = _tree.seconds_of(_tree.descendants(os.getpid())) if stopped == "time" and _linux else None
        self._end(ready.process)
        watch.drain()
        code = ready.process.returncode if ready.process.returncode >= 0 else 128 - ready.process.returncode
        if stopped is None and self.group.out_of_memory() > killed_before:
            stopped = "memory"
        if stopped is None and code == 128 + signal.SIGXCPU:
            stopped = "time"
        try:
            ran = os.read(ready.began, 1) == b"1"  # every writer is gone
        finally:
            os.close(ready.began)
        if stopped == "output":  # nobody judges it, and many of them would fill the memory
            watch.stdout.clear()
        stdout, stderr = (bytes(one).decode("utf-8", "replace") for one in (watch.stdout, watch.stderr))
        if not ran and stopped is None:
            return {"failed": stderr.strip() or f"it ended with {code} before the program began"}
        return {"stdout": stdout, "stderr": stderr, "exit_code": code, "stopped": stopped, "cpu_seconds": used}

    def _bounds(self) -> Bounds:
        return Bounds(None if "memory" in self.group.controllers else self.memory, self.scratch)

    def _limits(self, seconds: float) -> dict[str, int]:
        processes = PROCESSES
        own_count = self.user is not None if self.kind != "bubblewrap" else _counts_apart()
        if (
            _linux and not own_count and os.getuid() != 0
        ):  # root is not counted  # the kernel counts all processes of the user
            processes += _tree.tasks_of(os.getuid() if self.user is None else self.user)
        return {
            "AS": self.memory,
            "CPU": math.ceil(seconds) + 1,
            "FSIZE": FILE_BYTES,
            "NOFILE": OPEN_FILES,
            "NPROC": processes,
            "CORE": 1,  # 0 would still start the system's collector of core dumps
        }

    def _enter(self) -> None:
        """In the new process, before it becomes the program: what is given up."""
        with contextlib.suppress(OSError):  # where memory runs out, the program is ended and not this helper
            Path("/proc/self/oom_score_adj").write_text("1000")
        os.umask(0o077)
        if self.user is not None:
            os.setgroups([])
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)
        _prctl(_PDEATHSIG, signal.SIGKILL)
        if self.kind != "bubblewrap":
            if _linux:
                _no_capabilities()
                _prctl(_NO_NEW_PRIVS, 1)
            if self.kind == "landlock":
                assert self.scratch is not None
                self._restrict(self.readable, self.scratch)
        if _linux and not self.raised:
            with contextlib.suppress(OSError):  # what then does not hold is found out by the probes
                _seccomp.deny(self.kind)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End the program and everything that it began."""
        if process.poll() is None:
            process.kill()
        self.group.kill()
        process.wait()
        if _linux:
            _tree.end_all()
        else:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)

    def close(self, running: subprocess.Popen[bytes] | None = None) -> None:
        """End what runs or waits, and leave nothing behind."""
        for process in (running, self.prepared.process if self.prepared is not None else None):
            if process is not None:
                self._end(process)
        self.clean_up()
        self.group.close()

    def clean_up(self) -> None:
        """Take away the scratch folder."""
        if self.scratch is not None:
            self.group.limit(self.memory + OWN_BYTES, PROCESSES + OWN_PROCESSES)  # else nothing can be started
            _delete(self.scratch)
            self.scratch = None


def _delete(folder: Path) -> None:
    """Delete a folder that a program made: without permissions, or deeper than Python goes, or both."""
    if folder.is_symlink():  # a program without walls put it there
        folder.unlink()
        return
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            with contextlib.suppress(OSError):  # what stays is swept away later
                subprocess.run(
                    [*command, "--", folder], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
                )


def _sweep() -> None:
    """Delete the scratch folders of helpers that are gone without having done so."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            mine = folder.lstat().st_uid in (os.geteuid(), *_user.PASSING_USERS)
            if mine and owner.isdecimal() and not Path(f"/proc/{owner}").exists() and not folder.is_symlink():
                _delete(folder)


class _Given:
    """A file without a name, written here and read there."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile(prefix="nsd-sandbox-", delete=False) as file:
            self.reader = os.open(file.name, os.O_RDONLY)
            self._writer = os.open(file.name, os.O_WRONLY)
            Path(file.name).unlink()

    def write(self, content: bytes) -> None:
        """Write all of it."""
        writer, self._writer = self._writer, -1
        with os.fdopen(writer, "wb") as file:
            file.write(content)

    def close(self) -> None:
        """Give it up where nothing was written."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


@dataclass
class _Prepared:
    """A Python that waits for its program."""

    process: subprocess.Popen[bytes]
    source: _Given
    stdin: _Given
    gone: int  # writing here lets it go
    began: int  # here it says that it did

    def close(self) -> None:
        """Give up what leads to it, once it has ended without having been let go."""
        self.source.close()
        self.stdin.close()
        os.close(self.gone)
        os.close(self.began)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def _counts_apart() -> bool:
    """Whether the kernel counts the processes of a user name space apart (Linux 5.14)."""
    release = [int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdecimal()]
    return release >= [5, 14]


def _no_capabilities() -> None:
    """Give up every capability; with "no new privileges" none comes back, not even for root."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(_SUBREAPER, 1)
    _prctl(_DUMPABLE, 0)  # no program of the same user reads its memory or environment
    requests, answers = _lines(), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        helper = Helper(json.loads(next(requests)))
    except InputError as error:
        answers.write(json.dumps({"failed": str(error)}) + "\n")
        return
    try:
        said: dict[str, Any] = {"controllers": sorted(helper.group.controllers)}
        while True:
            answers.write(json.dumps(said) + "\n")
            answers.flush()
            helper.clean_up()
            with contextlib.suppress(OSError, subprocess.SubprocessError):  # the next program meets it again
                helper.prepare()
            if (line := next(requests, None)) is None:
                break
            said = helper.run(json.loads(line))
    except BrokenPipeError:
        pass
    finally:
        helper.close()


def _lines() -> Any:
    """Lines of the standard input, of which nothing is read ahead: its end is watched while a program runs."""
    held = bytearray()
    while part := os.read(0, 1 << 20):
        held += part
        while (end := held.find(b"\n")) >= 0:
            line = bytes(held[:end])
            del held[: end + 1]
            yield line


if __name__ == "__main__":
    main()
